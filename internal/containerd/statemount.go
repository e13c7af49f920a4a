package containerd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// mountState gives the state a tmpfs of its own where it would be on a disk, as on machines without a tmpfs at /run: a pod makes
// some thirty files there, and after a reboot none may be left. State that is there already stays where it is, since
// shims use it.
func mountState(dir string) error {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return fmt.Errorf("making containerd's state directory: %w", err)
	}
	var at unix.Statfs_t
	if err := unix.Statfs(dir, &at); err != nil {
		return &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	if at.Type == unix.TMPFS_MAGIC {
		return nil
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		return err
	}
	err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NODEV|unix.MS_NOSUID, "mode=711")
	if errors.Is(err, unix.EPERM) {
		return nil // the disk does, too
	}
	if err != nil {
		return fmt.Errorf("mounting a tmpfs for containerd's state: %w", err)
	}
	return nil
}
