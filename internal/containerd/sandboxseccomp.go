package containerd

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// sandboxSyscalls are all that happens in a sandbox that runc starts, between the moment when runc has loaded the filter and the end.
var sandboxSyscalls = []string{
	// pause; it gives up most of them when it waits
	"rt_sigprocmask", "rt_sigtimedwait", "wait4", "write", "prctl", "close_range", "close", "exit_group",
	// runc init: it waits to be started, closes what it has open, and becomes pause.
	"execve", "fcntl", "fstat", "fstatfs", "getdents64", "getpid", "getppid", "lseek", "newfstatat",
	"openat", "openat2", "read", "readlinkat", "recvmsg", "sendmsg", "statx",
	// the runtime of Go, which runc init is written in
	"arch_prctl", "brk", "clone", "clone3", "epoll_create1", "epoll_ctl", "epoll_pwait", "eventfd2", "exit", "futex",
	"getrandom", "gettid", "madvise", "mmap", "mprotect", "munmap", "nanosleep", "restart_syscall", "rseq", "rt_sigaction",
	"rt_sigreturn", "sched_getaffinity", "sched_yield", "set_robust_list", "set_tid_address", "sigaltstack", "tgkill",
}

// sandboxSeccomp is the filter for the sandboxes of our own image. It lets them do far less than the default filter of the
// runtime, and takes a fraction of the time to compile, which is the largest part of a sandbox's start otherwise.
func sandboxSeccomp() *specs.LinuxSeccomp {
	denied := uint(unix.EPERM)
	return &specs.LinuxSeccomp{
		DefaultAction:   specs.ActErrno,
		DefaultErrnoRet: &denied,
		// No architectures: the machine's own alone.
		Syscalls: []specs.LinuxSyscall{{Names: sandboxSyscalls, Action: specs.ActAllow}},
	}
}

// SandboxSeccompProfile returns the path of a seccomp profile for sandboxes, to be used as a profile of type Localhost. It is
// empty with another sandbox image than ours, of which it is not known what it does.
func (in *Instance) SandboxSeccompProfile() string {
	if in.cfg.SandboxImage != DefaultSandboxImage {
		return ""
	}
	return filepath.Join(in.cfg.State, "sandbox-seccomp.json")
}

// writeSandboxSeccomp puts the profile in its place. Nobody reads it before Start has returned.
func (in *Instance) writeSandboxSeccomp() error {
	path := in.SandboxSeccompProfile()
	if path == "" {
		return nil
	}
	data, err := json.Marshal(sandboxSeccomp())
	if err == nil {
		err = os.WriteFile(path, data, 0o644)
	}
	if err != nil {
		return fmt.Errorf("writing the seccomp profile of sandboxes: %w", err)
	}
	return nil
}
