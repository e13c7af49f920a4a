package containerd

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"

	"github.com/google/go-cmp/cmp"
)

func TestConfigComplete(t *testing.T) {
	long := "/" + strings.Repeat("x", 100)
	tests := []struct {
		name string
		cfg  Config
		err  string
	}{
		{name: "fine", cfg: Config{Root: "/r", State: "/s"}},
		{name: "relative root", cfg: Config{Root: "r", State: "/s"}, err: `root "r" and state "/s" must be absolute`},
		{name: "no state", cfg: Config{Root: "/r"}, err: "must be absolute"},
		{name: "same", cfg: Config{Root: "/r", State: "/r/"}, err: "different"},
		{name: "socket path too long", cfg: Config{Root: "/r", State: long}, err: "16 bytes too long"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := test.cfg.complete()
			if test.err == "" && err != nil || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
				t.Errorf("got error %v, want %q", err, test.err)
			}
		})
	}
}

func TestShimSocketDir(t *testing.T) {
	if got := shimSocketDir("/run/proa/a/containerd"); got != "/run/proa/a/containerd/s" {
		t.Error(got)
	}
	long := "/run/" + strings.Repeat("x", 40)
	a, b := shimSocketDir(long+"a"), shimSocketDir(long+"b")
	if a == b || len(a) > maxShimSocketDir || a != shimSocketDir(long+"a/") {
		t.Errorf("%q and %q", a, b)
	}
}

func TestParseStat(t *testing.T) {
	tests := []struct {
		stat, state string
		parent      int
		ok          bool
	}{
		{"12 (sleep) S 7 12 12 0", "S", 7, true},
		{"12 (a) Z 1) R 9 1", "R", 9, true},
		{"12 (sleep", "", 0, false},
		{"12 (sleep) S", "", 0, false},
		{"12 (sleep) S x y", "S", 0, false},
		{"", "", 0, false},
	}
	for _, test := range tests {
		state, parent, ok := parseStat(test.stat)
		if state != test.state || parent != test.parent || ok != test.ok {
			t.Errorf("parseStat(%q) = %q, %d, %v", test.stat, state, parent, ok)
		}
	}
}

func TestFamily(t *testing.T) {
	const shim = "/data/bin/1/containerd-shim-runc-v2"
	all := []process{
		{1, 0, "/sbin/init"},
		{10, 1, shim},
		{11, 1, shim + " (deleted)"},
		{12, 10, "/pause"},
		{13, 12, "/bin/sh"},
		{14, 11, "/app"},
		{15, 1, "/other/bin/1/containerd-shim-runc-v2"},
		{16, 15, "/app"},
		{17, 10, shim}, // a shim that starts another
	}
	shims, beneath := family(all, "/data/bin")
	pids := func(list []process) (out []int) {
		for _, p := range list {
			out = append(out, p.pid)
		}
		return out
	}
	if diff := cmp.Diff([]int{10, 11, 17}, pids(shims)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]int{12, 14, 13}, pids(beneath)); diff != "" {
		t.Error(diff)
	}
}

// TestRedirectLogs keeps levels and fields, demotes what is normal, and survives a fatal record.
func TestRedirectLogs(t *testing.T) {
	var out bytes.Buffer
	var reason string
	log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{
		Level:       slog.LevelInfo,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr { return map[bool]slog.Attr{false: a}[a.Key == slog.TimeKey] },
	}))
	redirectLogs(log, func(r string) { reason = r })
	defer logrus.SetOutput(io.Discard)
	logrus.Info("a request")
	logrus.WithError(errors.New("no")).WithField("b", 1).Warn("careful")
	logrus.Warn("failed check for fsverity support")
	logrus.WithError(errors.New("broken pipe")).Error("failed sending message on channel")
	logrus.WithError(errors.New("failed to exec in container: gone")).Error(`ExecSync for "c" failed`)
	logrus.WithError(errors.New("other")).Error(`ExecSync for "d" failed`)
	ended := make(chan bool)
	go func() {
		defer close(ended)
		logrus.WithError(errors.New("gone")).Fatal("cannot go on")
	}()
	<-ended
	want := `level=WARN msg=careful b=1 err=no
level=ERROR msg="ExecSync for \"d\" failed" err=other
level=ERROR msg="cannot go on" err=gone
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
	if reason != "cannot go on: gone" {
		t.Errorf("reason %q", reason)
	}
}
