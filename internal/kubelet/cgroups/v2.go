package cgroups

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// evacuated is the cgroup that processes move to when they are where the controllers must be delegated from: the name that
// container images with an init use.
const evacuated = "init"

// createV2 makes a cgroup of version 2 and those above it, with the controllers enabled for what is in them.
func (s *System) createV2(dir string) error {
	err := os.Mkdir(dir, 0o755)
	if errors.Is(err, fs.ErrNotExist) && dir != s.all[0] {
		if err := s.createV2(filepath.Dir(dir)); err != nil {
			return err
		}
		err = os.Mkdir(dir, 0o755)
	}
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return s.delegate(dir)
}

// delegateTo makes sure that the controllers are enabled from the root down to a cgroup and for what is in it. In the
// hierarchy of a container, the root has processes, and a cgroup has either processes or delegates controllers (Control
// Group v2 of Linux's documentation, "No Internal Process Constraint"): they move to a cgroup of their own then.
func (s *System) delegateTo(path string, log *slog.Logger) error {
	root := s.all[0]
	err := s.delegate(root)
	if errors.Is(err, unix.EBUSY) {
		if err = evacuate(root, log); err == nil {
			err = s.delegate(root)
		}
	}
	if err != nil {
		return err
	}
	dir := root
	for part := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		dir = filepath.Join(dir, part)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := s.delegate(dir); err != nil {
			return err
		}
	}
	return nil
}

// delegate enables the controllers for the children of a cgroup.
func (s *System) delegate(dir string) error {
	file := filepath.Join(dir, "cgroup.subtree_control")
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	enabled := strings.Fields(string(data))
	var missing []string
	for _, c := range controllers {
		if _, ok := s.Mounts[c]; ok && !slices.Contains(enabled, c) {
			missing = append(missing, "+"+c)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	err = os.WriteFile(file, []byte(strings.Join(missing, " ")), 0)
	if err == nil || errors.Is(err, unix.EBUSY) {
		return err
	}
	// One that cannot be enabled is done without, as if the machine had it not.
	for _, c := range missing {
		_ = os.WriteFile(file, []byte(c), 0)
	}
	return nil
}

// evacuate moves the processes of a cgroup to one below it.
func evacuate(dir string, log *slog.Logger) error {
	to := filepath.Join(dir, evacuated)
	if err := os.Mkdir(to, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	moved := 0
	for range 10 { // those that were started meanwhile are found the next time
		data, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil {
			return err
		}
		pids := strings.Fields(string(data))
		if len(pids) == 0 {
			break
		}
		for _, pid := range pids {
			err := os.WriteFile(filepath.Join(to, "cgroup.procs"), []byte(pid), 0)
			if err != nil && !errors.Is(err, unix.ESRCH) { // it has ended
				return fmt.Errorf("moving process %s to cgroup %s: %w", pid, to, err)
			}
			moved++
		}
	}
	log.Info("processes have moved, so that cgroups for pods can be made beside them", "processes", moved, "from", dir, "to", to)
	return nil
}
