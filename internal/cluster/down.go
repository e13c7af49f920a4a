package cluster

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/proa-k8s/proa/internal/containerd"
	"github.com/proa-k8s/proa/internal/network/cni"
)

// Down ends a cluster and removes every trace of it: processes, mounts, namespaces, links, rules, cgroups and, unless
// keepData, the data directory. It works on what is found on the host, so that it also cleans up after a cluster that was
// killed in the middle of anything. What isn't there is not an error.
func Down(ctx context.Context, l Layout, keepData bool) error {
	if err := stopServer(ctx, l); err != nil {
		return err
	}
	var errs []error
	step := func(what string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
		}
	}
	step("ending containers", killWorkloads(ctx, l))
	step("unmounting", unmountBelow(l.RunDir, l.DataDir))
	step("removing links", removeLinks(l))
	step("removing routes", removeRoutes(l))
	step("removing nftables rules", removeTables(l))
	step("removing cgroups", removeCgroups(l))
	if len(errs) > 0 {
		return errors.Join(errs...) // keep the directories: they say what is left
	}
	step("removing "+l.RunDir, os.RemoveAll(l.RunDir))
	if !keepData {
		step("removing "+l.DataDir, os.RemoveAll(l.DataDir))
	}
	return errors.Join(errs...)
}

// stopServer ends the process that runs the cluster, and waits until it has gone.
func stopServer(ctx context.Context, l Layout) error {
	pid := Running(l)
	if pid == 0 {
		return nil
	}
	if err := endProcess(ctx, pid, unix.SIGTERM); err != nil {
		return fmt.Errorf("ending the cluster's process %d: %w", pid, err)
	}
	return nil
}

// endProcess sends a signal and waits for the end of a process that need not be a child; after ten seconds it is killed.
func endProcess(ctx context.Context, pid int, sig unix.Signal) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, s := range []unix.Signal{sig, unix.SIGKILL} {
		if err := unix.PidfdSendSignal(fd, s, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
		gone, err := waitPidfd(ctx, fd, 10*time.Second)
		if gone || err != nil {
			return err
		}
	}
	return errors.New("did not end")
}

// waitPidfd waits for the end of a process.
func waitPidfd(ctx context.Context, fd int, timeout time.Duration) (gone bool, err error) {
	deadline := time.Now().Add(timeout)
	for {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		left := min(time.Until(deadline), 500*time.Millisecond) // so that ctx is seen
		if left <= 0 {
			return false, nil
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return false, err
		}
		if n > 0 {
			return true, nil
		}
	}
}

// killWorkloads ends the containers of the embedded runtime with their shims, then every process in the cluster's cgroups, which
// also covers containers of another runtime, and waits for them.
func killWorkloads(ctx context.Context, l Layout) error {
	err := containerd.Purge(ctx, containerd.Config{Root: l.ContainerdRoot(), State: l.ContainerdState(), Address: l.ContainerdSocket(), BinDir: l.BinDir()})
	if err != nil {
		return err
	}
	pids := cgroupProcesses(l)
	for _, pid := range pids {
		_ = unix.Kill(pid, unix.SIGKILL) // all at once; what becomes of each is seen below
	}
	var errs []error
	for _, pid := range pids {
		if err := endProcess(ctx, pid, unix.SIGKILL); err != nil {
			errs = append(errs, fmt.Errorf("process %d: %w", pid, err))
		}
	}
	return errors.Join(errs...)
}

// cgroupDirs returns the cluster's cgroups in every hierarchy, each after its children.
func cgroupDirs(l Layout) []string {
	roots, _ := filepath.Glob("/sys/fs/cgroup/*" + l.CgroupRoot())
	roots = append(roots, "/sys/fs/cgroup"+l.CgroupRoot())
	var dirs []string
	for _, root := range roots {
		_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
	}
	slices.SortFunc(dirs, func(a, b string) int { return len(b) - len(a) })
	return dirs
}

func cgroupProcesses(l Layout) []int {
	var pids []int
	for _, dir := range cgroupDirs(l) {
		data, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil {
			continue
		}
		for field := range strings.FieldsSeq(string(data)) {
			if pid, err := strconv.Atoi(field); err == nil && pid != os.Getpid() {
				pids = append(pids, pid)
			}
		}
	}
	slices.Sort(pids)
	return slices.Compact(pids)
}

func removeCgroups(l Layout) error {
	var errs []error
	for _, dir := range cgroupDirs(l) {
		if err := removeCgroup(dir); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// removeCgroup removes one cgroup. The kernel reports it busy for a moment after its last process has gone.
func removeCgroup(dir string) error {
	for wait := time.Millisecond; ; wait *= 2 {
		err := unix.Rmdir(dir)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || wait > time.Second {
			return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
		}
		time.Sleep(wait)
	}
}

// unmountBelow unmounts everything at or beneath the directories, the innermost first. A mount with propagation may show
// up again beneath another, so it looks until nothing is left.
func unmountBelow(dirs ...string) error {
	for range 16 {
		mounts, err := mountsBelow(dirs)
		if err != nil || len(mounts) == 0 {
			return err
		}
		for _, m := range slices.Backward(mounts) {
			if err := unix.Unmount(m, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
				return &fs.PathError{Op: "unmount", Path: m, Err: err}
			}
		}
	}
	return fmt.Errorf("mounts beneath %s keep coming back", strings.Join(dirs, ", "))
}

func mountsBelow(dirs []string) ([]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var mounts []string
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			continue
		}
		path := unescapeMount(fields[4])
		if slices.ContainsFunc(dirs, func(dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }) {
			mounts = append(mounts, path)
		}
	}
	return mounts, lines.Err()
}

// unescapeMount undoes the octal escapes of proc_pid_mountinfo(5).
func unescapeMount(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// removeLinks removes the bridge and the host's ends of pods' links, which are its ports.
func removeLinks(l Layout) error {
	bridge, err := netlink.LinkByName(l.Bridge())
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return err
	}
	links, err := netlink.LinkList()
	if err != nil {
		return err
	}
	var errs []error
	for _, link := range links {
		if link.Attrs().MasterIndex == bridge.Attrs().Index {
			errs = append(errs, ignoreNoDevice(netlink.LinkDel(link)))
		}
	}
	return errors.Join(append(errs, ignoreNoDevice(netlink.LinkDel(bridge)))...)
}

// removeRoutes removes the route that rejects the cluster's pod range; the others went with the bridge.
func removeRoutes(l Layout) error {
	facts, err := readFacts(l.DataDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it never came so far
	}
	if err != nil {
		return err
	}
	return cni.Cleanup([]netip.Prefix{facts.ClusterCIDR})
}

// ignoreNoDevice forgives that a link has gone by itself, with its pod's network namespace.
func ignoreNoDevice(err error) error {
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

func removeTables(l Layout) error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	tables, err := conn.ListTables()
	if err != nil {
		return err
	}
	for _, t := range tables {
		if t.Name == l.NftTable() || t.Name == l.NodeTable() {
			conn.DelTable(t)
		}
	}
	return conn.Flush()
}
