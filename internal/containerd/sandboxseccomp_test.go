package containerd_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/proa-k8s/proa/internal/containerd/containerdtest"
)

// TestSandboxSeccompProfile runs a pod whose containers share the process namespace of a filtered sandbox: pause has to reap what
// the container leaves behind.
func TestSandboxSeccompProfile(t *testing.T) {
	n := containerdtest.Start(t)
	containerdtest.Load(t, n.Endpoint(), "busybox")
	namespaces := &criapi.NamespaceOption{Network: criapi.NamespaceMode_NODE, Pid: criapi.NamespaceMode_POD}
	config := &criapi.PodSandboxConfig{
		Metadata:     &criapi.PodSandboxMetadata{Name: "filtered", Namespace: "default", Uid: "filtered"},
		LogDirectory: filepath.Join(n.Dir, "logs"),
		Linux: &criapi.LinuxPodSandboxConfig{
			CgroupParent: n.Cgroup,
			SecurityContext: &criapi.LinuxSandboxSecurityContext{
				NamespaceOptions: namespaces,
				Seccomp:          &criapi.SecurityProfile{ProfileType: criapi.SecurityProfile_Localhost, LocalhostRef: n.SandboxSeccompProfile()},
			},
		},
	}
	sandbox, err := n.Runtime.RunPodSandbox(t.Context(), &criapi.RunPodSandboxRequest{Config: config})
	if err != nil {
		t.Fatal(err)
	}
	status, err := n.Runtime.PodSandboxStatus(t.Context(), &criapi.PodSandboxStatusRequest{PodSandboxId: sandbox.PodSandboxId, Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	var info struct{ Pid int }
	if err := json.Unmarshal([]byte(status.Info["info"]), &info); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the filter of the sandbox", func() bool {
		return strings.Contains(read(t, fmt.Sprintf("/proc/%d/status", info.Pid)), "\nSeccomp:\t2\n")
	})

	created, err := n.Runtime.CreateContainer(t.Context(), &criapi.CreateContainerRequest{
		PodSandboxId:  sandbox.PodSandboxId,
		SandboxConfig: config,
		Config: &criapi.ContainerConfig{
			Metadata: &criapi.ContainerMetadata{Name: "parent"},
			Image:    &criapi.ImageSpec{Image: "busybox:1.36"},
			// The shell in between ends before its child does, which becomes one of process 1.
			Command: []string{"sh", "-c", "sh -c 'true & echo $! > /tmp/orphan'; exec sleep 1000"},
			Linux:   &criapi.LinuxContainerConfig{SecurityContext: &criapi.LinuxContainerSecurityContext{NamespaceOptions: namespaces}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Runtime.StartContainer(t.Context(), &criapi.StartContainerRequest{ContainerId: created.ContainerId}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the orphan to be reaped", func() bool {
		out, err := n.Runtime.ExecSync(t.Context(), &criapi.ExecSyncRequest{
			ContainerId: created.ContainerId, Cmd: []string{"sh", "-c", "pid=$(cat /tmp/orphan) && ! [ -e /proc/$pid ]"}, Timeout: 5})
		return err == nil && out.ExitCode == 0
	})
	if _, err := n.Runtime.StopPodSandbox(t.Context(), &criapi.StopPodSandboxRequest{PodSandboxId: sandbox.PodSandboxId}); err != nil {
		t.Error(err)
	}
}
