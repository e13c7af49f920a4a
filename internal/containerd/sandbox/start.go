package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// start starts executable as the process of a sandbox in cgroup g. The directory root is only where it is prepared: nothing is
// mounted there that others see.
//
// What a process inherits and what cannot be asked for when it is started (namespaces, host name, root directory, capabilities)
// is arranged for a thread of our own, which ends afterwards.
func (p *plan) start(g *cgroup, executable, root string) (proc handle, err error) {
	onThread(func() { proc, err = p.startHere(g, executable, root) })
	if err != nil {
		return handle{}, err
	}
	if p.oomScoreAdj != nil {
		path := fmt.Sprintf("/proc/%d/oom_score_adj", proc.pid)
		if err := os.WriteFile(path, []byte(strconv.Itoa(*p.oomScoreAdj)), 0); err != nil {
			err = errors.Join(err, proc.signal(unix.SIGKILL), proc.wait())
			proc.close()
			return handle{}, fmt.Errorf("setting the OOM score of the sandbox: %w", err)
		}
	}
	return proc, nil
}

// onThread runs f on a thread that ends with it, but never on the process's first, which stands for all in /proc.
func onThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			onThread(f) // on another, since this one is taken
			runtime.UnlockOSThread()
			return
		}
		f()
	}()
	<-done
}

// startHere does all of start that changes the calling thread for good.
func (p *plan) startHere(g *cgroup, executable, root string) (handle, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return handle{}, err
	}
	defer null.Close()
	pidfd := -1
	attr := &syscall.SysProcAttr{
		Setsid:     true,
		Cloneflags: p.clone,
		Credential: &syscall.Credential{Uid: p.uid, Gid: p.gid, Groups: p.groups},
		PidFD:      &pidfd,
	}
	dir, err := g.adopt(attr)
	if err != nil {
		return handle{}, err
	}
	defer dir.Close()
	for _, step := range []struct {
		doing string
		do    func() error
	}{
		{"entering the namespaces of the sandbox", p.enterNamespaces},
		{"setting the sysctls of the sandbox", p.setSysctls},
		{"making the root directory of the sandbox", func() error { return enterRoot(executable, root) }},
		{"dropping the privileges of the sandbox", dropPrivileges},
	} {
		if err := step.do(); err != nil {
			return handle{}, fmt.Errorf("%s: %w", step.doing, err)
		}
	}
	pid, err := syscall.ForkExec(Command, []string{Command}, &syscall.ProcAttr{
		Dir: "/", Env: p.env, Files: []uintptr{null.Fd(), null.Fd(), null.Fd()}, Sys: attr,
	})
	if err != nil {
		return handle{}, fmt.Errorf("starting the process of the sandbox: %w", err)
	}
	return handle{pid: pid, fd: pidfd}, nil
}

func (p *plan) enterNamespaces() error {
	if p.network != "" {
		f, err := os.Open(p.network)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
			return &os.PathError{Op: "setns", Path: p.network, Err: err}
		}
	}
	if err := unix.Unshare(int(p.unshare) | unix.CLONE_FS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	if p.hostname == "" {
		return nil
	}
	return os.NewSyscallError("sethostname", unix.Sethostname([]byte(p.hostname)))
}

// setSysctls writes the settings; the kernel takes the namespaces of the thread that opens the file.
func (p *plan) setSysctls() error {
	for name, value := range p.sysctls {
		path := filepath.Join("/proc/sys", strings.ReplaceAll(name, ".", "/"))
		if err := os.WriteFile(path, []byte(value), 0); err != nil {
			return err
		}
	}
	return nil
}

// enterRoot gives the thread, in a mount namespace of its own, a root directory in which there is nothing but the executable, and
// which cannot be written to.
func enterRoot(executable, root string) error {
	const flags = unix.MS_NODEV | unix.MS_NOSUID
	command := filepath.Join(root, Command)
	for _, m := range []struct {
		source, target, fstype string
		flags                  uintptr
		data                   string
		before                 func() error
	}{
		{target: "/", flags: unix.MS_REC | unix.MS_PRIVATE},
		{source: "tmpfs", target: root, fstype: "tmpfs", flags: flags, data: "mode=755,size=4k"},
		{source: executable, target: command, flags: unix.MS_BIND, before: func() error { return os.WriteFile(command, nil, 0o555) }},
		{target: command, flags: unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY | flags},
		{target: root, flags: unix.MS_REMOUNT | unix.MS_RDONLY | flags, data: "mode=755,size=4k"},
	} {
		if m.before != nil {
			if err := m.before(); err != nil {
				return err
			}
		}
		if err := unix.Mount(m.source, m.target, m.fstype, m.flags, m.data); err != nil {
			return &os.PathError{Op: "mount", Path: m.target, Err: err}
		}
	}
	if err := unix.Chdir(root); err != nil {
		return &os.PathError{Op: "chdir", Path: root, Err: err}
	}
	// The old root is stacked upon the new one, and taken away.
	if err := unix.PivotRoot(".", "."); err != nil {
		return os.NewSyscallError("pivot_root", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return os.NewSyscallError("umount", err)
	}
	return os.NewSyscallError("chdir", unix.Chdir("/"))
}

// dropPrivileges sees to it that what the thread starts has no capabilities, whoever it is, and never gets any. The thread keeps
// its own, to become someone else with.
func dropPrivileges() error {
	for capability := uintptr(0); ; capability++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) && capability > 0 {
			break // beyond the last that the kernel knows
		}
		if err != nil {
			return os.NewSyscallError("prctl", err)
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return os.NewSyscallError("capget", err)
	}
	data[0].Inheritable, data[1].Inheritable = 0, 0
	if err := unix.Capset(&header, &data[0]); err != nil {
		return os.NewSyscallError("capset", err)
	}
	return os.NewSyscallError("prctl", unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
}
