package containerd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/proa-k8s/proa/internal/containerd/helpers"
)

// Purge ends all containers and shims of an Instance that no longer runs, however it ended, and removes their mounts,
// network namespaces, sockets and State. Root stays, unmounted, for the caller to keep or remove. It fails with an error
// that wraps unix.EWOULDBLOCK while an Instance uses Root. Purging what never was is fine.
//
// What is killed are processes that run the shim from BinDir (or Root/bin), and their descendants: a shim is the reaper
// of all that its containers leave behind, so nothing of a container escapes from beneath its shim.
func Purge(ctx context.Context, cfg Config) error {
	if err := cfg.complete(); err != nil {
		return err
	}
	if _, err := os.Stat(cfg.Root); err == nil {
		lock, err := lockDir(cfg.Root)
		if err != nil {
			return err
		}
		defer lock.Close()
	}
	bin := cfg.BinDir
	if bin == "" {
		bin = filepath.Join(cfg.Root, "bin")
	}
	if err := killShims(ctx, bin); err != nil {
		return err
	}
	sockets := shimSocketDir(cfg.State)
	return errors.Join(unmountBelow(cfg.Root), unmountBelow(cfg.State), os.RemoveAll(sockets), os.RemoveAll(cfg.State))
}

// process is what /proc says about one.
type process struct {
	pid, parent int
	exe         string
}

// killShims kills the descendants of shims whose executable is below bin first, then the shims, and returns when none is
// left.
func killShims(ctx context.Context, bin string) error {
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		all, err := processes()
		if err != nil {
			return fmt.Errorf("looking for shims: %w", err)
		}
		shims, beneath := family(all, bin)
		if len(shims) == 0 {
			return nil
		}
		victims := beneath
		if len(beneath) == 0 {
			victims = shims
		}
		for _, p := range victims {
			if err := unix.Kill(p.pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("killing process %d: %w", p.pid, err)
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for containers to end: %w", context.Cause(ctx))
		case <-time.After(wait):
		}
	}
}

// family returns the shims among all whose executable is below bin, and all descendants of those.
func family(all []process, bin string) (shims, beneath []process) {
	children := map[int][]process{}
	for _, p := range all {
		children[p.parent] = append(children[p.parent], p)
		// The kernel marks an executable that was replaced.
		exe := strings.TrimSuffix(p.exe, " (deleted)")
		if filepath.Base(exe) == helpers.Shim && strings.HasPrefix(exe, bin+"/") {
			shims = append(shims, p)
		}
	}
	isShim := map[int]bool{}
	for _, s := range shims {
		isShim[s.pid] = true
	}
	for queue := slices.Clone(shims); len(queue) > 0; queue = queue[1:] {
		for _, child := range children[queue[0].pid] {
			if !isShim[child.pid] {
				beneath = append(beneath, child)
				queue = append(queue, child)
			}
		}
	}
	return shims, beneath
}

// processes lists the processes of the machine that are alive.
func processes() ([]process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var all []process
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "stat"))
		if err != nil {
			continue // it has ended
		}
		state, parent, ok := parseStat(string(stat))
		if !ok || state == "Z" || state == "X" {
			continue
		}
		exe, _ := os.Readlink(filepath.Join("/proc", entry.Name(), "exe"))
		all = append(all, process{pid: pid, parent: parent, exe: exe})
	}
	return all, nil
}

// hasProcess says whether a process runs an executable from below dir.
func hasProcess(dir string) (bool, error) {
	all, err := processes()
	return slices.ContainsFunc(all, func(p process) bool { return strings.HasPrefix(p.exe, dir+"/") }), err
}

// parseStat takes state and parent from /proc/<pid>/stat (proc_pid_stat(5)): "pid (command) state parent ...". The
// command may hold anything, parentheses too.
func parseStat(stat string) (state string, parent int, ok bool) {
	_, rest, ok := cutLast(stat, ") ")
	if !ok {
		return "", 0, false
	}
	fields := strings.Fields(rest)
	if len(fields) < 2 {
		return "", 0, false
	}
	parent, err := strconv.Atoi(fields[1])
	return fields[0], parent, err == nil
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// unmountBelow unmounts everything mounted below dir, latest first.
func unmountBelow(dir string) error {
	real, err := filepath.EvalSymlinks(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(real))
	if err != nil {
		return fmt.Errorf("looking for mounts below %s: %w", dir, err)
	}
	var errs []error
	for _, m := range slices.Backward(mounts) {
		if err := unix.Unmount(m.Mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil &&
			!errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("unmounting %s: %w", m.Mountpoint, err))
		}
	}
	return errors.Join(errs...)
}
