package volumes

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
)

// fsGroup is the group that the pod's volumes are given to, or nil.
func fsGroup(pod *corev1.Pod) (gid *int64, onRootMismatch bool) {
	sc := pod.Spec.SecurityContext
	if sc == nil {
		return nil, false
	}
	p := sc.FSGroupChangePolicy
	return sc.FSGroup, p != nil && *p == corev1.FSGroupChangeOnRootMismatch
}

// emptyDir is a directory, or a file system in memory, that lives as long as the pod.
func (m *Manager) emptyDir(_ context.Context, pod *corev1.Pod, v *corev1.Volume, dir string) (time.Time, error) {
	const ready = ".ready" // beside the volume, which a container may write
	marker := dir + ready
	if _, err := os.Lstat(marker); err == nil {
		if v.EmptyDir.Medium == corev1.StorageMediumDefault {
			return time.Time{}, nil
		}
		// What is in memory does not survive a restart of the machine, the marker does.
		if mounted, err := mountinfo.Mounted(dir); err != nil || mounted {
			return time.Time{}, err
		}
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return time.Time{}, err
	}
	var err error
	switch medium := v.EmptyDir.Medium; {
	case medium == corev1.StorageMediumDefault:
	case medium == corev1.StorageMediumMemory:
		err = mountTmpfs(dir, tmpfsSize(pod, v.EmptyDir.SizeLimit))
	case medium == corev1.StorageMediumHugePages || len(medium) > len(corev1.StorageMediumHugePagesPrefix) &&
		medium[:len(corev1.StorageMediumHugePagesPrefix)] == corev1.StorageMediumHugePagesPrefix:
		err = mountHugepages(pod, dir, string(medium))
	default:
		err = fmt.Errorf("unknown storage medium %q", medium)
	}
	if err != nil {
		return time.Time{}, err
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		return time.Time{}, err
	}
	if gid, _ := fsGroup(pod); gid != nil {
		if err := own(dir, *gid, false); err != nil {
			return time.Time{}, fmt.Errorf("applying fsGroup: %w", err)
		}
	}
	return time.Time{}, os.WriteFile(marker, nil, 0o600)
}

// tmpfsSize is the smaller of the volume's limit and what the pod may use of memory; nil when neither is bounded.
func tmpfsSize(pod *corev1.Pod, limit *resource.Quantity) int64 {
	limits := resourcehelper.PodLimits(pod, resourcehelper.PodResourcesOptions{})
	size := limits.Memory().Value()
	for i := range pod.Spec.Containers {
		if pod.Spec.Containers[i].Resources.Limits.Memory().IsZero() && !resourcehelper.IsPodLevelLimitsSet(pod) {
			size = 0 // a container without limit makes the pod unbounded
		}
	}
	if limit != nil && !limit.IsZero() && (size == 0 || limit.Value() < size) {
		size = limit.Value()
	}
	return size
}

func mountTmpfs(dir string, size int64) error {
	mounted, err := mountinfo.Mounted(dir)
	if err != nil || mounted {
		return err
	}
	options := "mode=0777"
	if size > 0 {
		options += ",size=" + strconv.FormatInt(size, 10)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_RELATIME, options); err != nil {
		return fmt.Errorf("mounting tmpfs: %w", err)
	}
	return nil
}

// mountHugepages mounts pages of the size that the medium names or, when it names none, of the only size that the pod asks for.
func mountHugepages(pod *corev1.Pod, dir, medium string) error {
	var size resource.Quantity
	if name := string(corev1.StorageMediumHugePagesPrefix); len(medium) > len(name) && medium[:len(name)] == name {
		q, err := resource.ParseQuantity(medium[len(name):])
		if err != nil {
			return fmt.Errorf("medium %q: %w", medium, err)
		}
		size = q
	} else {
		found := false
		for name := range resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{}) {
			prefix := corev1.ResourceHugePagesPrefix
			if len(name) <= len(prefix) || string(name[:len(prefix)]) != prefix {
				continue
			}
			if found {
				return fmt.Errorf("medium %q: the pod asks for huge pages of several sizes", medium)
			}
			q, err := resource.ParseQuantity(string(name[len(prefix):]))
			if err != nil {
				return err
			}
			size, found = q, true
		}
		if !found {
			return fmt.Errorf("medium %q: the pod asks for no huge pages", medium)
		}
	}
	mounted, err := mountinfo.Mounted(dir)
	if err != nil || mounted {
		return err
	}
	if err := unix.Mount("nodev", dir, "hugetlbfs", 0, "pagesize="+strconv.FormatInt(size.Value(), 10)); err != nil {
		return fmt.Errorf("mounting huge pages: %w", err)
	}
	return nil
}

// hostPath checks, or makes, a file or directory of the node.
func (m *Manager) hostPath(_ context.Context, _ *corev1.Pod, v *corev1.Volume, _ string) (time.Time, error) {
	path := v.HostPath.Path
	if v.HostPath.Type == nil {
		return time.Time{}, nil
	}
	kind := *v.HostPath.Type
	info, err := os.Stat(path)
	if os.IsNotExist(err) {
		switch kind {
		case corev1.HostPathDirectoryOrCreate:
			return time.Time{}, os.MkdirAll(path, 0o755)
		case corev1.HostPathFileOrCreate:
			f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o644)
			if err != nil {
				return time.Time{}, err
			}
			return time.Time{}, f.Close()
		}
	}
	is := func(ok bool, what string) (time.Time, error) {
		if err != nil && !os.IsNotExist(err) {
			return time.Time{}, err
		}
		if err != nil || !ok {
			return time.Time{}, fmt.Errorf("hostPath type check failed: %s is not a %s", path, what)
		}
		return time.Time{}, nil
	}
	mode := os.FileMode(0)
	if info != nil {
		mode = info.Mode()
	}
	switch kind {
	case corev1.HostPathUnset:
		return time.Time{}, nil
	case corev1.HostPathDirectory, corev1.HostPathDirectoryOrCreate:
		return is(mode.IsDir(), "directory")
	case corev1.HostPathFile, corev1.HostPathFileOrCreate:
		return is(mode.IsRegular(), "file")
	case corev1.HostPathSocket:
		return is(mode&os.ModeSocket != 0, "socket file")
	case corev1.HostPathCharDev:
		return is(mode&os.ModeCharDevice != 0, "character device")
	case corev1.HostPathBlockDev:
		return is(mode&os.ModeDevice != 0 && mode&os.ModeCharDevice == 0, "block device")
	}
	return time.Time{}, fmt.Errorf("%s is an invalid volume type", kind)
}

// show writes the files of a projected volume; in memory where they may be secret.
func show(pod *corev1.Pod, dir string, files map[string]file, inMemory bool) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if inMemory {
		if err := mountTmpfs(dir, 0); err != nil {
			return err
		}
	}
	gid, _ := fsGroup(pod)
	mode := os.FileMode(0o777)
	if gid != nil {
		mode |= os.ModeSetgid
		if err := os.Lchown(dir, -1, int(*gid)); err != nil {
			return fmt.Errorf("applying fsGroup: %w", err)
		}
	}
	if err := os.Chmod(dir, mode); err != nil {
		return err
	}
	return project(dir, files, gid)
}

// fileMode is the mode of an item: its own or the volume's.
func fileMode(own, volume *int32) os.FileMode {
	switch {
	case own != nil:
		return os.FileMode(*own).Perm()
	case volume != nil:
		return os.FileMode(*volume).Perm()
	}
	return 0o644
}

// unmountBelow unmounts everything at or below dir, the deepest first.
func unmountBelow(dir string) error {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return err
	}
	for i := len(mounts) - 1; i >= 0; i-- {
		point := mounts[i].Mountpoint
		if rel, err := filepath.Rel(dir, point); err != nil || !filepath.IsLocal(rel) {
			continue
		}
		if err := unix.Unmount(point, unix.UMOUNT_NOFOLLOW); err != nil && err != unix.EINVAL {
			// Someone on the node still looks at it. It goes from sight now and from memory when they are done.
			if err := unix.Unmount(point, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH); err != nil && err != unix.EINVAL {
				return fmt.Errorf("unmounting %s: %w", point, err)
			}
		}
	}
	return nil
}
