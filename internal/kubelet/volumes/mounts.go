package volumes

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// MountOptions is what mounts depend on beside the pod.
type MountOptions struct {
	// Expand replaces references to variables in a subPathExpr; it fails on one that is not defined.
	Expand func(string) (string, error)
	// RecursiveReadOnly says that the runtime can make mounts read-only with all below them.
	RecursiveReadOnly bool
	// Images are the pulled references of image volumes, by volume name.
	Images map[string]*runtimeapi.ImageSpec
}

// Mounts gives the mounts of a container, whose volumes were set up before.
func (m *Manager) Mounts(pod *corev1.Pod, c *corev1.Container, o MountOptions) ([]*runtimeapi.Mount, error) {
	var list []*runtimeapi.Mount
	for i := range c.VolumeMounts {
		mount, err := m.mount(pod, c, &c.VolumeMounts[i], i, o)
		if err != nil {
			return nil, err
		}
		list = append(list, mount)
	}
	return list, nil
}

func (m *Manager) mount(pod *corev1.Pod, c *corev1.Container, vm *corev1.VolumeMount, index int, o MountOptions) (*runtimeapi.Mount, error) {
	v := find(pod, vm.Name)
	if v == nil {
		return nil, fmt.Errorf("volume %q not found", vm.Name)
	}
	s, err := sourceOf(v)
	if err != nil {
		return nil, err
	}
	out := &runtimeapi.Mount{ContainerPath: vm.MountPath, Readonly: vm.ReadOnly || s.readOnly, Propagation: propagation(vm)}
	if !filepath.IsAbs(out.ContainerPath) {
		out.ContainerPath = filepath.Join("/", out.ContainerPath)
	}
	if vm.RecursiveReadOnly != nil && vm.ReadOnly {
		switch *vm.RecursiveReadOnly {
		case corev1.RecursiveReadOnlyEnabled:
			if !o.RecursiveReadOnly {
				return nil, fmt.Errorf("volume %q requested recursive read-only mode, but it is not supported by the runtime", vm.Name)
			}
			out.RecursiveReadOnly = true
		case corev1.RecursiveReadOnlyIfPossible:
			out.RecursiveReadOnly = o.RecursiveReadOnly
		}
	}
	subPath := vm.SubPath
	if vm.SubPathExpr != "" {
		if subPath, err = o.Expand(vm.SubPathExpr); err != nil {
			return nil, err
		}
	}
	if err := checkSubPath(subPath, vm); err != nil {
		return nil, err
	}
	if v.Image != nil {
		out.Image, out.ImageSubPath = o.Images[vm.Name], subPath
		if out.Image == nil {
			return nil, fmt.Errorf("image of volume %q is not present", vm.Name)
		}
		return out, nil
	}
	if out.HostPath, err = m.Path(pod, vm.Name); err != nil {
		return nil, err
	}
	if subPath != "" {
		out.HostPath, err = m.bindSubPath(pod, c.Name, vm.Name, index, out.HostPath, subPath, out.Readonly)
		if err != nil {
			return nil, fmt.Errorf("failed to prepare subPath for volumeMount %q of container %q: %w", vm.Name, c.Name, err)
		}
	} else if v.HostPath != nil && (v.HostPath.Type == nil || *v.HostPath.Type == corev1.HostPathUnset) {
		// A path that nobody promised to be there becomes a directory.
		if _, err := os.Stat(out.HostPath); os.IsNotExist(err) {
			if err := os.MkdirAll(out.HostPath, 0o755); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

func propagation(vm *corev1.VolumeMount) runtimeapi.MountPropagation {
	if vm.MountPropagation != nil {
		switch *vm.MountPropagation {
		case corev1.MountPropagationHostToContainer:
			return runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER
		case corev1.MountPropagationBidirectional:
			return runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL
		}
	}
	return runtimeapi.MountPropagation_PROPAGATION_PRIVATE
}

func checkSubPath(subPath string, vm *corev1.VolumeMount) error {
	switch {
	case subPath == "":
		if vm.SubPathExpr != "" {
			return fmt.Errorf("subPathExpr %q of volumeMount %q is empty when expanded", vm.SubPathExpr, vm.Name)
		}
	case filepath.IsAbs(subPath):
		return fmt.Errorf("error SubPath `%s` must not be an absolute path", subPath)
	default:
		for _, part := range strings.Split(filepath.ToSlash(subPath), "/") {
			if part == ".." {
				return fmt.Errorf("unable to provision SubPath `%s`: must not contain '..'", subPath)
			}
		}
	}
	return nil
}

// bindSubPath gives a path that shows a place inside a volume and cannot be led out of it: what containers do with links
// in the volume, before or after, makes no difference, since the place is opened beneath the volume and bound by its
// descriptor.
func (m *Manager) bindSubPath(pod *corev1.Pod, container, volume string, index int, volumeDir, subPath string, readOnly bool) (string, error) {
	target := filepath.Join(m.PodDir(pod.UID), "volume-subpaths", volume, container, strconv.Itoa(index))
	base, err := unix.Open(volumeDir, unix.O_PATH|unix.O_CLOEXEC|unix.O_DIRECTORY, 0)
	if err != nil {
		return "", fmt.Errorf("opening volume: %w", err)
	}
	defer unix.Close(base)
	fd, err := openBeneath(base, subPath)
	if errors.Is(err, unix.ENOENT) && !readOnly {
		if err := makeBeneath(volumeDir, subPath); err != nil {
			return "", fmt.Errorf("error creating subPath directory %q: %w", subPath, err)
		}
		fd, err = openBeneath(base, subPath)
	}
	if errors.Is(err, unix.EXDEV) {
		return "", fmt.Errorf("subpath %q not within volume path %q", subPath, volumeDir)
	}
	if err != nil {
		return "", fmt.Errorf("opening %q: %w", subPath, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", err
	}
	if mounted, err := mountinfo.Mounted(target); err == nil && mounted {
		// An earlier instance of the container was given it; what it shows may have been replaced since.
		if err := unix.Unmount(target, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH); err != nil {
			return "", fmt.Errorf("unmounting %s: %w", target, err)
		}
	}
	if err := makeTarget(target, st.Mode&unix.S_IFMT == unix.S_IFDIR); err != nil {
		return "", err
	}
	if err := unix.Mount("/proc/self/fd/"+strconv.Itoa(fd), target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return "", fmt.Errorf("binding %q: %w", subPath, err)
	}
	return target, nil
}

func openBeneath(base int, path string) (int, error) {
	return unix.Openat2(base, path, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS,
	})
}

// makeBeneath makes the missing directories of a path, with the permissions and the group of the volume.
func makeBeneath(volumeDir, path string) error {
	root, err := os.OpenRoot(volumeDir)
	if err != nil {
		return err
	}
	defer root.Close()
	info, err := root.Stat(".")
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Stat(volumeDir, &st); err != nil {
		return err
	}
	made := ""
	for _, part := range strings.Split(filepath.Clean(path), "/") {
		made = filepath.Join(made, part)
		err := root.Mkdir(made, 0o750)
		if os.IsExist(err) {
			continue
		}
		if err != nil {
			return err
		}
		if err := root.Chown(made, -1, int(st.Gid)); err != nil {
			return err
		}
		if err := root.Chmod(made, info.Mode()&(os.ModePerm|os.ModeSetgid)); err != nil {
			return err
		}
	}
	return nil
}

func makeTarget(target string, dir bool) error {
	if info, err := os.Lstat(target); err == nil && info.IsDir() != dir {
		if err := os.Remove(target); err != nil {
			return err
		}
	}
	if dir {
		return os.MkdirAll(target, 0o750)
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o750); err != nil {
		return err
	}
	f, err := os.OpenFile(target, os.O_CREATE|os.O_RDONLY, 0o640)
	if err != nil {
		return err
	}
	return f.Close()
}
