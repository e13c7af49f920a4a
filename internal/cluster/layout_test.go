package cluster

import (
	"os"
	"strings"
	"testing"
)

func TestNewLayout(t *testing.T) {
	for _, tc := range []struct{ name, dataDir, wantErr string }{
		{"", "", ""},
		{"ci-1", "/srv/x", ""},
		{"Upper", "", `name "Upper"`},
		{"-x", "", `name "-x"`},
		{strings.Repeat("a", 33), "", "must be 1 to 32"},
		{"x", "/", "must not be /"},
	} {
		l, err := NewLayout(tc.name, tc.dataDir)
		if tc.wantErr != "" {
			if err == nil || !strings.Contains(err.Error(), tc.wantErr) {
				t.Errorf("NewLayout(%q, %q): got error %v, want one with %q", tc.name, tc.dataDir, err, tc.wantErr)
			}
			continue
		}
		if err != nil {
			t.Errorf("NewLayout(%q, %q): %v", tc.name, tc.dataDir, err)
		}
		if tc.dataDir != "" && l.DataDir != tc.dataDir {
			t.Errorf("NewLayout(%q, %q): data directory %q", tc.name, tc.dataDir, l.DataDir)
		}
	}
}

// Two clusters must share nothing that is global on a host, and link names have a limit.
func TestLayoutsAreApart(t *testing.T) {
	names := []string{DefaultName, "a", "b", "proa-a", strings.Repeat("a", 31), strings.Repeat("a", 30) + "b"}
	seen := map[string]string{}
	for _, name := range names {
		l, err := NewLayout(name, "")
		if err != nil {
			t.Fatal(err)
		}
		if n := len(l.Bridge()); n > 15 {
			t.Errorf("bridge %q has %d bytes", l.Bridge(), n)
		}
		for _, global := range []string{"link " + l.Bridge(), "table " + l.NftTable(), "cgroup " + l.CgroupRoot(), l.DataDir, l.ContainerdSocket(), l.LockFile()} {
			if other, ok := seen[global]; ok {
				t.Errorf("clusters %q and %q share %s", name, other, global)
			}
			seen[global] = name
		}
	}
}

func TestChooseSlot(t *testing.T) {
	full := map[Slot]string{}
	for s := Slot(0); s < maxSlots; s++ {
		full[s] = "other"
	}
	for _, tc := range []struct {
		name    string
		cluster string
		had     Slot
		taken   map[Slot]string
		want    Slot
		wantErr bool
	}{
		{"default", DefaultName, -1, nil, 0, false},
		{"default beside others", DefaultName, -1, map[Slot]string{1: "x"}, 0, false},
		{"another never takes slot 0", "x", -1, nil, 1, false},
		{"first free", "x", -1, map[Slot]string{0: DefaultName, 1: "y", 3: "z"}, 2, false},
		{"the one it had", "x", 5, map[Slot]string{1: "y"}, 5, false},
		{"the one it had is taken", "x", 5, map[Slot]string{5: "y"}, 0, true},
		{"none left", "x", -1, full, 0, true},
	} {
		got, err := chooseSlot(tc.cluster, tc.had, tc.taken)
		if (err != nil) != tc.wantErr || got != tc.want {
			t.Errorf("%s: got %d, %v, want %d, error %v", tc.name, got, err, tc.want, tc.wantErr)
		}
	}
	if s := Slot(0); s.ClusterCIDR() != "10.244.0.0/16" || s.ServiceCIDR() != "10.96.0.0/16" || s.APIPort() != 6443 || s.KubeletPort() != 10250 {
		t.Errorf("slot 0 is %s %s %d %d", s.ClusterCIDR(), s.ServiceCIDR(), s.APIPort(), s.KubeletPort())
	}
}

// Only one process runs a cluster, and anybody can tell which.
func TestClaim(t *testing.T) {
	dir := t.TempDir()
	l := Layout{Name: "x", DataDir: dir + "/data", RunDir: dir + "/run"}
	if pid := Running(l); pid != 0 {
		t.Errorf("before: process %d", pid)
	}
	lock, err := claim(l)
	if err != nil {
		t.Fatal(err)
	}
	if pid := Running(l); pid != os.Getpid() {
		t.Errorf("process %d, want %d", pid, os.Getpid())
	}
	if _, err := claim(l); err == nil || !strings.Contains(err.Error(), "is running already") {
		t.Errorf("a second claim: %v", err)
	}
	lock.Close()
	if pid := Running(l); pid != 0 {
		t.Errorf("after: process %d", pid)
	}
}
