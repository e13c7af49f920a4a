package catalog_test

import (
	"path/filepath"
	"testing"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/proa-k8s/proa/internal/containerd/containerdtest"
)

// TestRun runs commands in containers of the images that have a shell.
func TestRun(t *testing.T) {
	node := containerdtest.Start(t)
	config := &criapi.PodSandboxConfig{
		Metadata:     &criapi.PodSandboxMetadata{Name: "p", Namespace: "default", Uid: "u"},
		LogDirectory: filepath.Join(node.Dir, "logs"),
		Linux: &criapi.LinuxPodSandboxConfig{CgroupParent: node.Cgroup, SecurityContext: &criapi.LinuxSandboxSecurityContext{
			NamespaceOptions: &criapi.NamespaceOption{Network: criapi.NamespaceMode_NODE}}},
	}
	sandbox, err := node.Runtime.RunPodSandbox(t.Context(), &criapi.RunPodSandboxRequest{Config: config})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		image, ref string
		command    []string
		want       string
	}{
		{"busybox", "busybox:1.36", []string{"sh", "-c", "id -un; ls -d /tmp"}, "root\n/tmp\n"},
		{"nginx", "registry.local/nginx", []string{"/bin/sh", "-c", "grep -c Welcome /usr/share/nginx/html/index.html; which nginx"}, "2\n/usr/sbin/nginx\n"},
		{"centos", "centos:7", []string{"bin/bash", "-c", "curl -s file:///etc/centos-release; [[ $BASH_VERSION ]] && echo bash"},
			"CentOS Linux release 7.9.2009 (stand-in)\nbash\n"},
		{"tomcat", "registry.local/tomcat:8.5.100-jre8", []string{"sh", "-c", "pwd"}, "/usr/local/tomcat\n"},
	} {
		t.Run(test.image, func(t *testing.T) {
			containerdtest.Load(t, node.Address(), test.image)
			created, err := node.Runtime.CreateContainer(t.Context(), &criapi.CreateContainerRequest{
				PodSandboxId: sandbox.PodSandboxId, SandboxConfig: config,
				Config: &criapi.ContainerConfig{
					Metadata: &criapi.ContainerMetadata{Name: test.image},
					Image:    &criapi.ImageSpec{Image: test.ref},
					Command:  []string{"sleep", "1000"},
					LogPath:  test.image + ".log",
					Linux:    &criapi.LinuxContainerConfig{},
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := node.Runtime.StartContainer(t.Context(), &criapi.StartContainerRequest{ContainerId: created.ContainerId}); err != nil {
				t.Fatal(err)
			}
			out, err := node.Runtime.ExecSync(t.Context(), &criapi.ExecSyncRequest{ContainerId: created.ContainerId, Cmd: test.command, Timeout: 10})
			if err != nil || string(out.Stdout) != test.want {
				t.Errorf("got %q, %q, %v, want %q", out.GetStdout(), out.GetStderr(), err, test.want)
			}
		})
	}
}
