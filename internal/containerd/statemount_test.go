package containerd

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

func TestMountState(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount")
	}
	base := t.TempDir()
	onTmpfs := func(dir string) bool {
		var at unix.Statfs_t
		if err := unix.Statfs(dir, &at); err != nil {
			t.Fatal(err)
		}
		return at.Type == unix.TMPFS_MAGIC
	}
	if onTmpfs(base) {
		t.Skip("the tests' directory is on a tmpfs itself")
	}
	fresh := filepath.Join(base, "fresh", "state")
	defer func() { _ = unmountBelow(fresh) }()
	for range 2 { // the second time it is there
		if err := mountState(fresh); err != nil {
			t.Fatal(err)
		}
	}
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(fresh))
	if err != nil || len(mounts) != 1 || !onTmpfs(fresh) {
		t.Errorf("mounts %v, %v; want one tmpfs", mounts, err)
	}

	used := filepath.Join(base, "used")
	bundle := filepath.Join(used, "bundle")
	if err := os.MkdirAll(bundle, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := mountState(used); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(bundle); err != nil || onTmpfs(used) {
		t.Errorf("what shims use was hidden: %v", err)
	}
}
