package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// cgroupRoot is where the hierarchies are mounted.
const cgroupRoot = "/sys/fs/cgroup"

// cgroup is a control group of version 1 or 2, whichever the machine has.
type cgroup struct {
	path string
	v1   cgroup1.Cgroup
	v2   *cgroup2.Manager
}

func createCgroup(path string, resources *specs.LinuxResources) (*cgroup, error) {
	var err error
	g := &cgroup{path: path}
	if cgroups.Mode() == cgroups.Unified {
		limits := cgroup2.ToResources(resources)
		limits.Devices = resources.Devices
		g.v2, err = cgroup2.NewManager(cgroupRoot, path, limits)
	} else if g.v1, err = cgroup1.New(cgroup1.StaticPath(path), resources); err != nil {
		// Some of the hierarchies have it already.
		if made, loadErr := loadCgroup(path); loadErr == nil {
			err = errors.Join(err, made.remove())
		}
	}
	if err != nil {
		return nil, fmt.Errorf("creating cgroup %s: %w", path, err)
	}
	return g, nil
}

func loadCgroup(path string) (*cgroup, error) {
	var err error
	g := &cgroup{path: path}
	if cgroups.Mode() == cgroups.Unified {
		if _, err = os.Stat(filepath.Join(cgroupRoot, path)); err == nil {
			g.v2, err = cgroup2.Load(path)
		}
	} else {
		g.v1, err = cgroup1.Load(cgroup1.StaticPath(path))
	}
	if errors.Is(err, cgroup1.ErrCgroupDeleted) {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, fmt.Errorf("loading cgroup %s: %w", path, err)
	}
	return g, nil
}

// adopt makes the process that the calling thread is going to start with attr be born in the cgroup. With version 1 the thread
// moves there, with version 2 the kernel puts the process there. The caller closes what it gets after the start.
func (g *cgroup) adopt(attr *syscall.SysProcAttr) (*os.File, error) {
	if g.v1 != nil {
		if err := g.v1.AddTask(cgroup1.Process{Pid: unix.Gettid()}); err != nil {
			return nil, fmt.Errorf("entering cgroup %s: %w", g.path, err)
		}
		return nil, nil
	}
	dir, err := os.Open(filepath.Join(cgroupRoot, g.path))
	if err != nil {
		return nil, err
	}
	attr.UseCgroupFD, attr.CgroupFD = true, int(dir.Fd())
	return dir, nil
}

// stat returns the metrics of the cgroup in containerd's type for its version.
func (g *cgroup) stat() (any, error) {
	if g.v1 != nil {
		return g.v1.Stat(cgroup1.IgnoreNotExist)
	}
	return g.v2.Stat()
}

// pids lists the processes in the cgroup.
func (g *cgroup) pids() ([]int, error) {
	var pids []int
	if g.v1 != nil {
		// The devices are in every hierarchy of version 1 that runs containers.
		all, err := g.v1.Processes(cgroup1.Devices, false)
		for _, p := range all {
			pids = append(pids, p.Pid)
		}
		return pids, err
	}
	all, err := g.v2.Procs(false)
	for _, p := range all {
		pids = append(pids, int(p))
	}
	return pids, err
}

// kill ends all processes in the cgroup and waits for that.
func (g *cgroup) kill() error {
	pids, err := g.pids()
	if err != nil {
		return fmt.Errorf("listing the processes of cgroup %s: %w", g.path, err)
	}
	var errs []error
	for _, pid := range pids {
		p, err := openProcess(pid)
		if err == nil {
			err = errors.Join(p.signal(unix.SIGKILL), p.wait())
			p.close()
		}
		if !errors.Is(err, unix.ESRCH) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (g *cgroup) remove() error {
	if g.v1 != nil {
		return g.v1.Delete()
	}
	return g.v2.Delete()
}
