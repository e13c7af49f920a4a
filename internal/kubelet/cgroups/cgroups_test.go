package cgroups

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func pod(class corev1.PodQOSClass, cpu, memory string) *corev1.Pod {
	list := corev1.ResourceList{}
	if cpu != "" {
		list[corev1.ResourceCPU] = resource.MustParse(cpu)
	}
	if memory != "" {
		list[corev1.ResourceMemory] = resource.MustParse(memory)
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{UID: "0000"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{Requests: list, Limits: list}}}},
		Status:     corev1.PodStatus{QOSClass: class},
	}
}

func TestPodLimits(t *testing.T) {
	for name, test := range map[string]struct {
		pod  *corev1.Pod
		want string
	}{
		"nothing": {pod(corev1.PodQOSBestEffort, "", ""), "shares 2 quota -1 memory -1 pids 9"},
		"both":    {pod(corev1.PodQOSGuaranteed, "500m", "64Mi"), "shares 512 quota 50000 memory 67108864 pids 9"},
		"one of two": {func() *corev1.Pod {
			p := pod(corev1.PodQOSBurstable, "1", "64Mi")
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "d"})
			return p
		}(), "shares 1024 quota -1 memory -1 pids 9"},
		"as a whole": {func() *corev1.Pod {
			p := pod(corev1.PodQOSBurstable, "", "")
			p.Spec.Resources = &corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi")}}
			return p
		}(), "shares 2 quota -1 memory 1073741824 pids 9"},
	} {
		l := PodLimits(test.pod, 9)
		if got := fmt.Sprintf("shares %d quota %d memory %d pids %d", l.Shares, l.Quota, l.Memory, l.Pids); got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}

// TestV2 works on an ordinary directory with the files that a cgroup v2 would have.
func TestV2(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{"cgroup.controllers": "cpuset cpu io memory pids", "cgroup.subtree_control": ""} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s, err := detectV2(root)
	if err != nil || !s.V2 || len(s.Mounts) != 5 {
		t.Fatalf("found %v, %v", s, err)
	}
	dir := filepath.Join(root, "x/kubepods/burstable/pod0000")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"cpu.weight", "cpu.max", "memory.max", "pids.max"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	m := New(s, "/x", 100, slog.New(slog.DiscardHandler))
	if err := m.SetupPod(pod(corev1.PodQOSBurstable, "1", "1Gi")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"cpu.max": "100000 100000", "memory.max": "1073741824", "pids.max": "100"} {
		if got, _ := os.ReadFile(filepath.Join(dir, name)); string(got) != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if got, _ := os.ReadFile(filepath.Join(dir, "cpu.weight")); string(got) == "" || string(got) == "1024" {
		t.Errorf("cpu.weight is %q", got)
	}
	if uids := m.Pods(); len(uids) != 1 || uids[0] != "0000" {
		t.Errorf("pods are %v", uids)
	}
}

func TestDelegate(t *testing.T) {
	root := t.TempDir()
	s := &System{V2: true, Mounts: map[string]string{"cpu": root, "memory": root, "pids": root}, all: []string{root}}
	file := filepath.Join(root, "cgroup.subtree_control")
	if err := s.delegate(root); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an ordinary directory: %v", err)
	}
	for before, want := range map[string]string{"": "+cpu +memory +pids", "pids io cpu\n": "+memory", "cpu memory pids": "cpu memory pids"} {
		if err := os.WriteFile(file, []byte(before), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := s.delegate(root); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(file); !strings.HasPrefix(string(got), want) {
			t.Errorf("with %q enabled, %q was written, want %q", before, got, want)
		}
	}
}

// TestEvacuate delegates the controllers of a real cgroup that has a process, which keeps on running.
func TestEvacuate(t *testing.T) {
	s, err := Detect()
	if err != nil || !s.V2 || os.Geteuid() != 0 {
		t.Skip("needs root and cgroup v2")
	}
	log := slog.New(slog.DiscardHandler)
	top := s.all[0]
	if err := s.delegate(top); err != nil {
		t.Skip("controllers are not delegated here: ", err)
	}
	root := filepath.Join(top, fmt.Sprint("evacuate", os.Getpid()))
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if err := removeTree(root, log); err != nil {
			t.Error(err)
		}
	})
	pid := fmt.Sprint(cmd.Process.Pid)
	if err := os.WriteFile(filepath.Join(root, "cgroup.procs"), []byte(pid), 0); err != nil {
		t.Fatal(err)
	}
	inner := &System{V2: true, Mounts: s.Mounts, all: []string{root}}
	if err := inner.delegateTo("/x/kubepods", log); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(root, "init", "cgroup.procs")); err != nil || strings.TrimSpace(string(got)) != pid {
		t.Errorf("the process is not in its new cgroup: %q, %v", got, err)
	}
	if got, err := os.ReadFile(filepath.Join(root, "x/kubepods/cgroup.subtree_control")); err != nil || !strings.Contains(string(got), "memory") {
		t.Errorf("the controllers are %q, %v", got, err)
	}
}

func TestV1Hybrid(t *testing.T) {
	file := filepath.Join(t.TempDir(), "mountinfo")
	lines := []string{
		"30 20 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw",
		"31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup rw",
		"32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct",
		"33 30 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory",
		"34 30 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd",
		"nonsense",
	}
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := detectV1(file)
	if err != nil || s.V2 || s.Mounts["cpu"] != "/sys/fs/cgroup/cpu,cpuacct" || s.Mounts["memory"] == "" || len(s.Mounts) != 2 || len(s.all) != 4 {
		t.Errorf("found %+v, %v", s, err)
	}
}

// TestReal makes real cgroups and removes them.
func TestReal(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("cgroups need root")
	}
	s, err := Detect()
	if err != nil {
		t.Skip(err)
	}
	root := "/" + filepath.Base(t.TempDir()) + fmt.Sprint(os.Getpid())
	m := New(s, root, 50, slog.New(slog.DiscardHandler))
	t.Cleanup(func() {
		if err := s.remove(root, m.log); err != nil {
			t.Error(err)
		}
	})
	if err := m.Setup(corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2"), corev1.ResourceMemory: resource.MustParse("1Gi")}); err != nil {
		t.Skip("cgroups cannot be written here: ", err)
	}
	p := pod(corev1.PodQOSGuaranteed, "500m", "64Mi")
	if err := m.SetupPod(p); err != nil {
		t.Fatal(err)
	}
	file := "memory.limit_in_bytes"
	if s.V2 {
		file = "memory.max"
	}
	if mount, ok := s.Mounts["memory"]; ok {
		if got, err := os.ReadFile(filepath.Join(mount, root, "kubepods/pod0000", file)); err != nil || strings.TrimSpace(string(got)) != "67108864" {
			t.Errorf("the memory limit is %q, %v", got, err)
		}
	}
	if uids := m.Pods(); len(uids) != 1 {
		t.Errorf("pods are %v", uids)
	}
	if err := m.RemovePod(p); err != nil || len(m.Pods()) != 0 {
		t.Errorf("after removal: %v, %v", m.Pods(), err)
	}
}

func TestResizedLimits(t *testing.T) {
	from := Limits{Shares: 100, Quota: 5000, Period: 100000, Memory: 100, Pids: 7}
	to := Limits{Shares: 200, Quota: -1, Period: 100000, Memory: 50, Pids: 7}
	wide := from.Widest(to)
	if want := (Limits{Shares: 200, Quota: -1, Period: 100000, Memory: 100, Pids: 7}); !reflect.DeepEqual(wide, want) || !reflect.DeepEqual(to.Widest(from), want) {
		t.Errorf("widest: got %+v and %+v, want %+v", wide, to.Widest(from), want)
	}
	if got, want := wide.Since(from), (Limits{Shares: 200, Quota: -1, Period: 100000}); !reflect.DeepEqual(got, want) {
		t.Errorf("to widen: got %+v, want %+v", got, want)
	}
	if got, want := to.Since(wide), (Limits{Period: 100000, Memory: 50}); !reflect.DeepEqual(got, want) {
		t.Errorf("to narrow: got %+v, want %+v", got, want)
	}
	if from.Differ(from) || !from.Differ(to) || !to.Differ(wide) {
		t.Error("which bounds differ")
	}
}
