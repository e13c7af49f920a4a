// Package sandbox runs the process that holds the namespaces of a pod without an OCI runtime, in the shim of the pod.
//
// In flows the task service of the shim (NewService) and the bundle of a task, which says what containerd wants; out flows the same
// service, in which the first task is a process that the shim has started itself, if it is a sandbox of the project's own image
// that asks for nothing unusual. Everything else is left to the service that was given.
//
// The process is held tighter than a specification can ask for: it has no capabilities, no privileges to gain, a filter that
// leaves it three system calls, no devices, and a read-only root directory with nothing in it but its executable.
package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/process"
	"github.com/containerd/containerd/v2/pkg/sys/reaper"
	"github.com/containerd/errdefs"
	"github.com/containerd/go-runc"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// cgroupFile is the file of a bundle that tells a sandbox of this package from a container, and names its cgroup.
const cgroupFile = "sandbox-cgroup"

// errNotServed says that a task is one for the runtime.
var errNotServed = errors.New("not a sandbox that can do without a runtime")

// sandbox is a running one, or one that has ended and is not deleted yet.
type sandbox struct {
	bundle string
	proc   handle
	cgroup *cgroup
	// ended is closed when exit is known.
	ended chan struct{}
	exit  runc.Exit
	// reported is closed when others have been told of it.
	reported chan struct{}

	mu      sync.Mutex
	started bool
}

// create starts the sandbox of a bundle. It fails with errNotServed if a runtime has to.
func create(bundle, executable string) (_ *sandbox, err error) {
	raw, err := os.ReadFile(filepath.Join(bundle, "config.json"))
	if err != nil {
		return nil, err
	}
	var spec specs.Spec
	if err := json.Unmarshal(raw, &spec); err != nil {
		return nil, fmt.Errorf("reading the specification of the task: %w", err)
	}
	p, served := newPlan(&spec)
	if !served {
		return nil, errNotServed
	}
	s := &sandbox{bundle: bundle, ended: make(chan struct{}), reported: make(chan struct{})}
	// Written before there is anything to be found by it.
	if err := os.WriteFile(filepath.Join(bundle, cgroupFile), []byte(p.cgroup), 0o600); err != nil {
		return nil, err
	}
	if s.cgroup, err = createCgroup(p.cgroup, &p.resources); err != nil {
		return nil, errors.Join(err, os.Remove(filepath.Join(bundle, cgroupFile)))
	}
	root := filepath.Join(bundle, "rootfs")
	if err := os.Mkdir(root, 0o711); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, errors.Join(err, s.discard())
	}
	exits := reaper.Default.Subscribe()
	if s.proc, err = p.start(s.cgroup, executable, root); err != nil {
		reaper.Default.Unsubscribe(exits)
		return nil, errors.Join(err, s.discard())
	}
	go s.watch(exits)
	pid := []byte(strconv.Itoa(s.proc.pid))
	if err := os.WriteFile(filepath.Join(bundle, process.InitPidFile), pid, 0o644); err != nil {
		err = errors.Join(err, s.proc.signal(unix.SIGKILL))
		<-s.ended
		s.proc.close()
		return nil, errors.Join(err, s.discard())
	}
	return s, nil
}

// watch waits for the end of the process. It ends with it.
func (s *sandbox) watch(exits chan runc.Exit) {
	for e := range exits {
		if e.Pid == s.proc.pid {
			s.exit = e
			break
		}
	}
	reaper.Default.Unsubscribe(exits)
	close(s.ended)
}

// discard removes what a sandbox without a process has left.
func (s *sandbox) discard() error {
	err := s.cgroup.remove()
	return errors.Join(err, os.Remove(filepath.Join(s.bundle, cgroupFile)))
}

// start marks the sandbox as started. It has been running since it was created, since no code of others is in it.
func (s *sandbox) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.started || s.hasEnded() {
		return fmt.Errorf("sandbox has been started already: %w", errdefs.ErrFailedPrecondition)
	}
	s.started = true
	return nil
}

func (s *sandbox) hasEnded() bool {
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

func (s *sandbox) status() task.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.hasEnded():
		return task.Status_STOPPED
	case s.started:
		return task.Status_RUNNING
	default:
		return task.Status_CREATED
	}
}

func (s *sandbox) kill(sig unix.Signal) error {
	if s.hasEnded() {
		return fmt.Errorf("sandbox has ended: %w", errdefs.ErrNotFound)
	}
	err := s.proc.signal(sig)
	if errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("sandbox has ended: %w", errdefs.ErrNotFound)
	}
	return err
}

// delete removes a sandbox that has ended.
func (s *sandbox) delete() error {
	if !s.hasEnded() {
		return fmt.Errorf("sandbox is running: %w", errdefs.ErrFailedPrecondition)
	}
	if err := s.discard(); err != nil {
		return err
	}
	s.proc.close()
	return nil
}

// Reclaim ends the sandbox of a bundle whose shim is gone, and removes its cgroup. It does nothing for another task.
func Reclaim(bundle string) error {
	path := filepath.Join(bundle, cgroupFile)
	name, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	g, err := loadCgroup(string(name))
	if err == nil {
		if err = g.kill(); err == nil {
			err = g.remove()
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing a sandbox without a shim: %w", err)
	}
	return os.Remove(path)
}

// exitedAt is when the process ended, or zero.
func (s *sandbox) exitedAt() time.Time {
	if !s.hasEnded() {
		return time.Time{}
	}
	return s.exit.Timestamp
}

func (s *sandbox) exitStatus() uint32 {
	if !s.hasEnded() {
		return 0
	}
	return uint32(s.exit.Status)
}
