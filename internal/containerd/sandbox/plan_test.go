package sandbox

import (
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// podSpec is what CRI asks for to start the sandbox of an ordinary pod.
func podSpec() *specs.Spec {
	score, shares := -998, uint64(2)
	return &specs.Spec{
		Version: specs.Version,
		Process: &specs.Process{
			User: specs.User{UID: 65535, GID: 65535, AdditionalGids: []uint32{65535}},
			Args: []string{"/pause"}, Cwd: "/", NoNewPrivileges: true, OOMScoreAdj: &score,
			Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_CHOWN"}},
		},
		Root:     &specs.Root{Path: "rootfs", Readonly: true},
		Hostname: "web-0",
		Mounts:   []specs.Mount{{Destination: "/proc", Type: "proc"}, {Destination: "/etc/resolv.conf", Type: "bind"}},
		Annotations: map[string]string{
			"io.kubernetes.cri.container-type": "sandbox", "io.kubernetes.cri.podsandbox.image-name": "proa.local/pause:1",
		},
		Linux: &specs.Linux{
			CgroupsPath: "/kubepods/besteffort/poduid/id",
			Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace},
				{Type: specs.MountNamespace}, {Type: specs.NetworkNamespace, Path: "/run/netns/cni-1"}},
			Resources: &specs.LinuxResources{
				Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}}, CPU: &specs.LinuxCPU{Shares: &shares},
			},
			Sysctl:      map[string]string{"net.ipv4.ip_unprivileged_port_start": "0", "kernel.shm_rmid_forced": "1"},
			Seccomp:     &specs.LinuxSeccomp{DefaultAction: specs.ActErrno},
			MaskedPaths: []string{"/proc/kcore"}, ReadonlyPaths: []string{"/proc/sys"},
		},
	}
}

func TestPlan(t *testing.T) {
	spec := podSpec()
	p, ok := newPlan(spec)
	if !ok {
		t.Fatal("the sandbox of an ordinary pod is not served")
	}
	if p.uid != 65535 || p.gid != 65535 || len(p.groups) != 1 || *p.oomScoreAdj != -998 || p.hostname != "web-0" ||
		p.network != "/run/netns/cni-1" || p.cgroup != spec.Linux.CgroupsPath || *p.resources.CPU.Shares != 2 || len(p.sysctls) != 2 {
		t.Errorf("plan is %+v", p)
	}
	if want := uintptr(unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC); p.unshare != want || p.clone != unix.CLONE_NEWPID {
		t.Errorf("namespaces are %#x and %#x", p.unshare, p.clone)
	}
	if len(p.resources.Devices) != 1 || p.resources.Devices[0].Allow {
		t.Errorf("devices are %+v, want none", p.resources.Devices)
	}
	if spec.Process.Args == nil || spec.Linux.Seccomp == nil || spec.Linux.Resources.Devices == nil {
		t.Error("the specification was changed")
	}
}

// TestPlanOfHost has a pod that uses the namespaces of the host.
func TestPlanOfHost(t *testing.T) {
	spec := podSpec()
	spec.Hostname, spec.Linux.Sysctl = "", nil
	spec.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.MountNamespace}}
	p, ok := newPlan(spec)
	if !ok || p.unshare != unix.CLONE_NEWNS || p.clone != 0 || p.network != "" {
		t.Errorf("plan is %+v, %v", p, ok)
	}
}

func TestPlanRefuses(t *testing.T) {
	without := func(kind specs.LinuxNamespaceType) func(*specs.Spec) {
		return func(s *specs.Spec) {
			kept := s.Linux.Namespaces[:0]
			for _, n := range s.Linux.Namespaces {
				if n.Type != kind {
					kept = append(kept, n)
				}
			}
			s.Linux.Namespaces = kept
		}
	}
	add := func(n specs.LinuxNamespace) func(*specs.Spec) {
		return func(s *specs.Spec) { s.Linux.Namespaces = append(s.Linux.Namespaces, n) }
	}
	sysctl := func(name string) func(*specs.Spec) {
		return func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{name: "1"} }
	}
	limit := int64(1 << 20)
	for name, change := range map[string]func(*specs.Spec){
		"a container":              func(s *specs.Spec) { s.Annotations["io.kubernetes.cri.container-type"] = "container" },
		"another image":            func(s *specs.Spec) { s.Annotations[imageAnnotation] = "registry.k8s.io/pause:3.10" },
		"another command":          func(s *specs.Spec) { s.Process.Args = []string{"/pause", "-v"} },
		"another directory":        func(s *specs.Spec) { s.Process.Cwd = "/tmp" },
		"a user namespace":         add(specs.LinuxNamespace{Type: specs.UserNamespace}),
		"a time namespace":         add(specs.LinuxNamespace{Type: specs.TimeNamespace}),
		"another's IPC":            add(specs.LinuxNamespace{Type: specs.IPCNamespace, Path: "/proc/1/ns/ipc"}),
		"a new network":            add(specs.LinuxNamespace{Type: specs.NetworkNamespace}),
		"the host's mounts":        without(specs.MountNamespace),
		"the host's name":          without(specs.UTSNamespace),
		"the host's IPC settings":  without(specs.IPCNamespace),
		"the host's net settings":  without(specs.NetworkNamespace),
		"a setting of the machine": sysctl("vm.swappiness"),
		"a setting by its path":    sysctl("net.ipv4/../../vm/swappiness"),
		"a cgroup of systemd":      func(s *specs.Spec) { s.Linux.CgroupsPath = "kubepods.slice:cri-containerd:id" },
		"no cgroup":                func(s *specs.Spec) { s.Linux.CgroupsPath = "" },
		"a cgroup elsewhere":       func(s *specs.Spec) { s.Linux.CgroupsPath = "/kubepods/../../id" },
		"a memory limit":           func(s *specs.Spec) { s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit} },
		"a CPU limit":              func(s *specs.Spec) { s.Linux.Resources.CPU.Quota = &limit },
		"a mount":                  func(s *specs.Spec) { s.Mounts = append(s.Mounts, specs.Mount{Destination: "/data"}) },
		"a hook":                   func(s *specs.Spec) { s.Hooks = &specs.Hooks{} },
		"an SELinux label":         func(s *specs.Spec) { s.Process.SelinuxLabel = "label" },
		"an AppArmor profile":      func(s *specs.Spec) { s.Process.ApparmorProfile = "profile" },
		"a resource limit":         func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE"}} },
		"a domain name":            func(s *specs.Spec) { s.Domainname = "example.com" },
		"ID mappings":              func(s *specs.Spec) { s.Linux.UIDMappings = []specs.LinuxIDMapping{{Size: 1}} },
		"no process":               func(s *specs.Spec) { s.Process = nil },
		"no resources":             func(s *specs.Spec) { s.Linux.Resources = nil },
	} {
		t.Run(name, func(t *testing.T) {
			spec := podSpec()
			change(spec)
			if _, ok := newPlan(spec); ok {
				t.Error("served")
			}
		})
	}
}
