package sandbox

import (
	"path"
	"reflect"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Command is the one process of a sandbox that this package starts. An annotation with the name of the image that the agent makes
// of it (containerd.DefaultSandboxImage) tells that it is meant.
const (
	Command = "/pause"

	imageAnnotation = "io.kubernetes.cri.podsandbox.image-name"
	image           = "proa.local/pause:1"
	typeAnnotation  = "io.kubernetes.cri.container-type"
	typeSandbox     = "sandbox"
)

// plan is all that a specification says about a sandbox whose process sees nothing but itself.
type plan struct {
	uid, gid    uint32
	groups      []uint32
	env         []string
	oomScoreAdj *int
	hostname    string
	sysctls     map[string]string
	// unshare and clone are the namespaces to be made, by the thread that starts the process and with it.
	unshare, clone uintptr
	// network is the path of the network namespace to be in, or empty for the one of the shim.
	network   string
	cgroup    string
	resources specs.LinuxResources
}

// mountpoints are where CRI mounts things into a sandbox. They are left out, for pause opens no file.
var mountpoints = []string{"/proc", "/dev", "/dev/pts", "/dev/mqueue", "/dev/shm", "/sys", "/sys/fs/cgroup", "/etc/resolv.conf"}

// newPlan returns the plan for a specification, or false if it says something that is not served here.
//
// What is served is taken out of a copy. A field that is left, be it one of a later version, is not.
func newPlan(spec *specs.Spec) (*plan, bool) {
	if spec.Process == nil || spec.Root == nil || spec.Linux == nil || spec.Linux.Resources == nil ||
		spec.Annotations[typeAnnotation] != typeSandbox || spec.Annotations[imageAnnotation] != image {
		return nil, false
	}
	rest, process, linux, resources := *spec, *spec.Process, *spec.Linux, *spec.Linux.Resources
	p := &plan{
		uid: process.User.UID, gid: process.User.GID, groups: process.User.AdditionalGids,
		env: process.Env, oomScoreAdj: process.OOMScoreAdj, hostname: spec.Hostname, sysctls: linux.Sysctl,
		cgroup: linux.CgroupsPath, resources: *linux.Resources,
	}
	// A path with colons is one for systemd; without one it is up to the runtime.
	served := slices.Equal(process.Args, []string{Command}) && process.Cwd == "/" &&
		path.IsAbs(p.cgroup) && path.Clean(p.cgroup) == p.cgroup && p.cgroup != "/" &&
		p.addNamespaces(linux.Namespaces) && p.namespaced() &&
		!slices.ContainsFunc(spec.Mounts, func(m specs.Mount) bool { return !slices.Contains(mountpoints, m.Destination) })

	// Devices, capabilities and system calls are denied whatever the specification allows.
	resources.Devices = nil
	if resources.CPU != nil {
		cpu := *resources.CPU
		cpu.Shares = nil
		if !reflect.ValueOf(cpu).IsZero() {
			return nil, false
		}
		resources.CPU = nil
	}
	process.User.UID, process.User.GID, process.User.AdditionalGids = 0, 0, nil
	process.Args, process.Cwd, process.Env, process.OOMScoreAdj = nil, "", nil, nil
	process.Capabilities, process.NoNewPrivileges = nil, false
	linux.Resources, linux.CgroupsPath, linux.Namespaces, linux.Sysctl, linux.Seccomp = nil, "", nil, nil, nil
	linux.MaskedPaths, linux.ReadonlyPaths = nil, nil
	rest.Version, rest.Process, rest.Root, rest.Linux, rest.Mounts, rest.Annotations = "", nil, nil, nil, nil, nil
	rest.Hostname = ""
	for _, left := range []any{rest, process, linux, resources} {
		served = served && reflect.ValueOf(left).IsZero()
	}
	all := int64(-1)
	p.resources.Devices = []specs.LinuxDeviceCgroup{{Type: "a", Major: &all, Minor: &all, Access: "rwm"}}
	return p, served
}

// addNamespaces says whether all namespaces can be had.
func (p *plan) addNamespaces(all []specs.LinuxNamespace) bool {
	for _, n := range all {
		switch {
		case n.Type == specs.NetworkNamespace && n.Path != "":
			p.network = n.Path
		case n.Path != "":
			return false
		case n.Type == specs.MountNamespace:
			p.unshare |= unix.CLONE_NEWNS
		case n.Type == specs.UTSNamespace:
			p.unshare |= unix.CLONE_NEWUTS
		case n.Type == specs.IPCNamespace:
			p.unshare |= unix.CLONE_NEWIPC
		case n.Type == specs.PIDNamespace:
			p.clone |= unix.CLONE_NEWPID
		case n.Type == specs.CgroupNamespace:
			p.clone |= unix.CLONE_NEWCGROUP
		default:
			return false
		}
	}
	return p.unshare&unix.CLONE_NEWNS != 0
}

// ipcSysctls are settings of an IPC namespace, beside those of message queues.
var ipcSysctls = []string{"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem",
	"kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced"}

// namespaced says whether host name and sysctls are about namespaces that the sandbox has for itself.
func (p *plan) namespaced() bool {
	if p.hostname != "" && p.unshare&unix.CLONE_NEWUTS == 0 {
		return false
	}
	for name := range p.sysctls {
		ipc := slices.Contains(ipcSysctls, name) || strings.HasPrefix(name, "fs.mqueue.")
		net := strings.HasPrefix(name, "net.")
		if strings.Contains(name, "/") || !(ipc && p.unshare&unix.CLONE_NEWIPC != 0 || net && p.network != "") {
			return false
		}
	}
	return true
}
