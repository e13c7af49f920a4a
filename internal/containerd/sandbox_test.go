package containerd_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/proa-k8s/proa/internal/containerd/containerdtest"
)

// pausePid returns the process of a sandbox.
func (n *node) pausePid(sandbox string) int {
	n.t.Helper()
	status, err := n.runtime.PodSandboxStatus(n.t.Context(), &criapi.PodSandboxStatusRequest{PodSandboxId: sandbox, Verbose: true})
	if err != nil {
		n.t.Fatal(err)
	}
	var info struct{ Pid int }
	if err := json.Unmarshal([]byte(status.Info["info"]), &info); err != nil || info.Pid == 0 {
		n.t.Fatalf("pid of the sandbox: %d, %v", info.Pid, err)
	}
	return info.Pid
}

// withoutRuntime says whether the shim has started a sandbox itself.
func (n *node) withoutRuntime(sandbox string) bool {
	n.t.Helper()
	_, err := os.Stat(filepath.Join(n.dir, "run/io.containerd.runtime.v2.task/k8s.io", sandbox, "sandbox-cgroup"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		n.t.Fatal(err)
	}
	return err == nil
}

func (n *node) waitForEnd(sandbox string, pid int) {
	n.t.Helper()
	waitFor(n.t, "the sandbox to be not ready", func() bool {
		status, err := n.runtime.PodSandboxStatus(n.t.Context(), &criapi.PodSandboxStatusRequest{PodSandboxId: sandbox})
		return err == nil && status.Status.State == criapi.PodSandboxState_SANDBOX_NOTREADY
	})
	waitFor(n.t, "the process of the sandbox to be gone", func() bool { return errors.Is(unix.Kill(pid, 0), unix.ESRCH) })
}

func (n *node) remove(sandbox string) {
	n.t.Helper()
	if _, err := n.runtime.StopPodSandbox(n.t.Context(), &criapi.StopPodSandboxRequest{PodSandboxId: sandbox}); err != nil {
		n.t.Error(err)
	}
	if _, err := n.runtime.RemovePodSandbox(n.t.Context(), &criapi.RemovePodSandboxRequest{PodSandboxId: sandbox}); err != nil {
		n.t.Error(err)
	}
	for _, pattern := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		if left, _ := filepath.Glob(filepath.Join(pattern, n.cgroup(), sandbox)); len(left) > 0 {
			n.t.Errorf("cgroups were left behind: %v", left)
		}
	}
}

func read(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestSandboxIsConfined looks at what the process of a sandbox can do, then ends it.
func TestSandboxIsConfined(t *testing.T) {
	n := newNode(t)
	sandbox, _ := n.sandbox("p")
	pid := n.pausePid(sandbox)
	if !n.withoutRuntime(sandbox) {
		t.Error("the sandbox was started by a runtime")
	}
	proc := fmt.Sprintf("/proc/%d/", pid)
	// It confines itself further when it has been started already.
	waitFor(t, "the filter", func() bool { return strings.Contains(read(t, proc+"status"), "\nSeccomp:\t2\n") })
	status := read(t, proc+"status")
	for _, want := range []string{"Uid:\t65535\t65535\t65535\t65535", "Gid:\t65535\t65535\t65535\t65535", "Groups:\t65535 ", "NoNewPrivs:\t1",
		"CapInh:\t0000000000000000", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000",
		"CapAmb:\t0000000000000000", fmt.Sprintf("NSpid:\t%d\t1", pid)} {
		if !strings.Contains(status, "\n"+want+"\n") {
			t.Errorf("%q is not in its status:\n%s", want, status)
		}
	}
	for line := range strings.Lines(strings.TrimSpace(read(t, proc+"cgroup"))) {
		// The unified hierarchy beside those of version 1 has no controllers.
		if !strings.HasPrefix(line, "0::/") && !strings.HasSuffix(strings.TrimSpace(line), n.cgroup()+"/"+sandbox) {
			t.Errorf("it is in cgroup %s", line)
		}
	}
	for namespace, own := range map[string]bool{"ipc": true, "mnt": true, "pid": true, "net": false, "user": false} {
		its, err := os.Readlink(proc + "ns/" + namespace)
		if err != nil {
			t.Fatal(err)
		}
		ours, err := os.Readlink("/proc/self/ns/" + namespace)
		if err != nil || (its != ours) != own {
			t.Errorf("its %s namespace is %s, ours %s, %v", namespace, its, ours, err)
		}
	}
	if files, err := filepath.Glob(proc + "root/*"); err != nil || len(files) != 1 || files[0] != proc+"root/pause" {
		t.Errorf("its root directory holds %v, %v", files, err)
	}
	if err := os.WriteFile(proc+"root/new", nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("writing to its root directory: %v, want EROFS", err)
	}
	if fds, err := os.ReadDir(proc + "fd"); err != nil || len(fds) != 3 {
		t.Errorf("it has the files %v, %v, want standard input and outputs", fds, err)
	}
	if mounts := read(t, "/proc/self/mounts"); strings.Contains(mounts, sandbox+"/rootfs") {
		t.Errorf("its root is mounted where others see it:\n%s", mounts)
	}

	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	n.waitForEnd(sandbox, pid)
	n.remove(sandbox)
}

// TestSandboxOutlivesContainerd stops a sandbox that another containerd has started.
func TestSandboxOutlivesContainerd(t *testing.T) {
	n := newNode(t)
	sandbox, _ := n.sandbox("p")
	pid := n.pausePid(sandbox)
	n.kill()
	n.start()
	if again := n.pausePid(sandbox); again != pid {
		t.Errorf("the process is %d after a restart, was %d", again, pid)
	}
	n.remove(sandbox)
	waitFor(t, "the process of the sandbox to be gone", func() bool { return errors.Is(unix.Kill(pid, 0), unix.ESRCH) })
}

// TestSandboxWithoutShim kills the shim of a pod: the sandbox does not stay behind.
func TestSandboxWithoutShim(t *testing.T) {
	n := newNode(t)
	sandbox, _ := n.sandbox("p")
	pid := n.pausePid(sandbox)
	var state rune
	var shim int
	_, stat, _ := strings.Cut(read(t, fmt.Sprintf("/proc/%d/stat", pid)), ") ")
	if _, err := fmt.Sscanf(stat, "%c %d", &state, &shim); err != nil {
		t.Fatalf("parent of the sandbox: %v in %q", err, stat)
	}
	if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", shim)); err != nil || filepath.Base(exe) != "containerd-shim-runc-v2" {
		t.Fatalf("the parent of the sandbox is %s, %v", exe, err)
	}
	if err := unix.Kill(shim, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	n.waitForEnd(sandbox, pid)
	n.remove(sandbox)
}

// TestSandboxByRuntime asks for what the shim does not do itself.
func TestSandboxByRuntime(t *testing.T) {
	n := withNetwork(t)
	config := n.sandboxConfig("unusual")
	config.Hostname = "unusual"
	config.Linux.Sysctls = map[string]string{"kernel.domainname": "example.com"}
	response, err := n.runtime.RunPodSandbox(t.Context(), &criapi.RunPodSandboxRequest{Config: config})
	if err != nil {
		t.Fatal(err)
	}
	if n.withoutRuntime(response.PodSandboxId) {
		t.Error("the sandbox was not started by the runtime")
	}
	n.remove(response.PodSandboxId)
}

// TestSandboxNamespaces has a container look at the namespaces that the sandbox holds for it.
func TestSandboxNamespaces(t *testing.T) {
	n := withNetwork(t)
	containerdtest.Load(t, n.endpoint, "busybox")
	config := n.sandboxConfig("usual")
	config.Hostname = "usual"
	config.Linux.Sysctls = map[string]string{"net.ipv4.ip_unprivileged_port_start": "321", "kernel.shm_rmid_forced": "1"}
	response, err := n.runtime.RunPodSandbox(t.Context(), &criapi.RunPodSandboxRequest{Config: config})
	if err != nil {
		t.Fatal(err)
	}
	sandbox := response.PodSandboxId
	if !n.withoutRuntime(sandbox) {
		t.Error("the sandbox was started by a runtime")
	}
	container := n.run(sandbox, config, "c", "busybox:1.36", "sleep", "1000")
	out, err := n.runtime.ExecSync(t.Context(), &criapi.ExecSyncRequest{ContainerId: container, Timeout: 10, Cmd: []string{"sh", "-c",
		"hostname; cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced"}})
	if err != nil || string(out.GetStdout()) != "usual\n321\n1\n" {
		t.Errorf("the container sees %s%s, %v", out.GetStdout(), out.GetStderr(), err)
	}
	for _, path := range []string{"sys/kernel/shm_rmid_forced", "sys/kernel/hostname"} {
		if got := strings.TrimSpace(read(t, "/proc/"+path)); got == "usual" || got == "1" {
			t.Errorf("%s of the machine is %s", path, got)
		}
	}
	n.remove(sandbox)
}
