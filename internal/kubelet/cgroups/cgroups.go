// Package cgroups keeps the cgroups of pods: <root>/kubepods[/burstable|/besteffort]/pod<uid>.
//
// What flows in are pods and what the node may give; what flows out are directories and values in the cgroup file
// systems, version 1 (a hierarchy for each controller) and version 2 (one for all). Controllers that are missing or may
// not be written are done without; what is bounded is then less.
package cgroups

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// mountPoint is where cgroup file systems are found.
const mountPoint = "/sys/fs/cgroup"

// controllers are those that bound pods.
var controllers = []string{"cpu", "memory", "pids", "hugetlb", "cpuset", "io"}

// System is what the machine offers.
type System struct {
	// V2 says that version 2 is in use.
	V2 bool
	// Mounts are the hierarchies by controller. With V2 all are the same.
	Mounts map[string]string
	// all are the distinct hierarchies, also those of controllers that are not used here: containers have a cgroup in each.
	all []string
}

// Detect finds out what the machine offers.
func Detect() (*System, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(mountPoint, &st); err != nil {
		return nil, fmt.Errorf("looking at %s: %w", mountPoint, err)
	}
	if st.Type == unix.CGROUP2_SUPER_MAGIC {
		return detectV2(mountPoint)
	}
	return detectV1("/proc/self/mountinfo")
}

func detectV2(root string) (*System, error) {
	data, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	if err != nil {
		return nil, fmt.Errorf("reading the controllers of cgroup v2: %w", err)
	}
	s := &System{V2: true, Mounts: map[string]string{}, all: []string{root}}
	available := strings.Fields(string(data))
	for _, c := range controllers {
		if slices.Contains(available, c) {
			s.Mounts[c] = root
		}
	}
	return s, nil
}

func detectV1(mountinfo string) (*System, error) {
	f, err := os.Open(mountinfo)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s := &System{Mounts: map[string]string{}}
	for scan := bufio.NewScanner(f); scan.Scan(); {
		before, after, ok := strings.Cut(scan.Text(), " - ")
		fields, options := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 5 || len(options) < 3 || !strings.HasPrefix(options[0], "cgroup") {
			continue
		}
		point := fields[4]
		if options[0] == "cgroup2" {
			// Beside version 1 it has no controllers of use, but the runtime makes cgroups there, too.
			s.all = append(s.all, point)
			continue
		}
		if slices.Contains(s.all, point) {
			continue
		}
		s.all = append(s.all, point)
		for _, c := range strings.Split(options[2], ",") {
			if c == "blkio" {
				c = "io"
			}
			if slices.Contains(controllers, c) && s.Mounts[c] == "" {
				s.Mounts[c] = point
			}
		}
	}
	if len(s.Mounts) == 0 {
		return nil, errors.New("no cgroup file system is mounted")
	}
	return s, nil
}

// Limits are the bounds of a cgroup; zero values leave what is there.
type Limits struct {
	Shares    int64            `json:"shares"` // weight of CPU, as in version 1: 1024 is one core
	Quota     int64            `json:"quota"`  // microseconds in a period; -1 is none
	Period    int64            `json:"period"` // microseconds
	Memory    int64            `json:"memory"` // bytes; -1 is none
	Pids      int64            `json:"pids"`   // processes; -1 is none
	Hugepages map[string]int64 `json:"-"`
}

// Widest are the bounds that hold both what l and what o hold.
func (l Limits) Widest(o Limits) Limits {
	wide := func(a, b int64) int64 {
		if a < 0 || b < 0 {
			return -1
		}
		return max(a, b)
	}
	l.Shares, l.Quota, l.Memory, l.Pids = max(l.Shares, o.Shares), wide(l.Quota, o.Quota), wide(l.Memory, o.Memory), wide(l.Pids, o.Pids)
	return l
}

// Since are the bounds of l that are not those of o; the others are left as they are.
func (l Limits) Since(o Limits) Limits {
	changed := func(value *int64, old int64) {
		if *value == old {
			*value = 0
		}
	}
	changed(&l.Shares, o.Shares)
	changed(&l.Quota, o.Quota)
	changed(&l.Memory, o.Memory)
	changed(&l.Pids, o.Pids)
	l.Hugepages = nil
	return l
}

// Differ reports whether any bound that can be resized differs.
func (l Limits) Differ(o Limits) bool {
	return l.Shares != o.Shares || l.Quota != o.Quota || l.Memory != o.Memory
}

// write makes a cgroup and sets its limits. path is absolute in the hierarchies.
func (s *System) write(path string, l Limits) error {
	if err := s.create(path); err != nil {
		return err
	}
	var errs []error
	set := func(controller, file, value string) {
		mount, ok := s.Mounts[controller]
		if !ok {
			return
		}
		err := os.WriteFile(filepath.Join(mount, path, file), []byte(value), 0)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
			errs = append(errs, err)
		}
	}
	max := func(v int64) string {
		if v < 0 {
			if s.V2 {
				return "max"
			}
			return "-1"
		}
		return strconv.FormatInt(v, 10)
	}
	if l.Shares > 0 {
		if s.V2 {
			set("cpu", "cpu.weight", strconv.FormatUint(weight(l.Shares), 10))
		} else {
			set("cpu", "cpu.shares", strconv.FormatInt(l.Shares, 10))
		}
	}
	if l.Quota != 0 {
		period := strconv.FormatInt(l.Period, 10)
		if s.V2 {
			set("cpu", "cpu.max", max(l.Quota)+" "+period)
		} else {
			set("cpu", "cpu.cfs_period_us", period)
			set("cpu", "cpu.cfs_quota_us", max(l.Quota))
		}
	}
	if l.Memory != 0 {
		file := "memory.limit_in_bytes"
		if s.V2 {
			file = "memory.max"
		}
		set("memory", file, max(l.Memory))
	}
	if l.Pids != 0 {
		value := "max"
		if l.Pids > 0 {
			value = strconv.FormatInt(l.Pids, 10)
		}
		set("pids", "pids.max", value)
	}
	for size, bytes := range l.Hugepages {
		file := "hugetlb." + size + ".limit_in_bytes"
		if s.V2 {
			file = "hugetlb." + size + ".max"
		}
		set("hugetlb", file, strconv.FormatInt(bytes, 10))
	}
	return errors.Join(errs...)
}

// create makes a cgroup in every hierarchy that is used.
func (s *System) create(path string) error {
	if !s.V2 {
		var errs []error
		made := 0
		for _, c := range controllers {
			mount, ok := s.Mounts[c]
			if !ok || c == "cpuset" || c == "io" {
				continue // the runtime makes these where it needs them
			}
			if err := os.MkdirAll(filepath.Join(mount, path), 0o755); err != nil {
				errs = append(errs, err)
				continue
			}
			made++
		}
		if made == 0 {
			return errors.Join(errs...)
		}
		return nil
	}
	return s.createV2(filepath.Join(s.all[0], path))
}

// weight translates shares of version 1 to a weight of version 2.
func weight(shares int64) uint64 { return convertShares(uint64(shares)) }

// remove removes a cgroup and all below it from every hierarchy. Processes that are still in it are killed first: they
// are left of containers that have ended.
func (s *System) remove(path string, log *slog.Logger) error {
	var errs []error
	for _, mount := range s.all {
		errs = append(errs, removeTree(filepath.Join(mount, path), log))
	}
	return errors.Join(errs...)
}

func removeTree(dir string, log *slog.Logger) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name()), log); err != nil {
				return err
			}
		}
	}
	// A cgroup stays busy for a moment after its last process has died.
	for delay := time.Millisecond; ; delay *= 2 {
		err := unix.Rmdir(dir)
		if err == nil || err == unix.ENOENT {
			return nil
		}
		if err != unix.EBUSY || delay > 200*time.Millisecond {
			return fmt.Errorf("removing cgroup %s: %w", dir, err)
		}
		if delay == 16*time.Millisecond {
			killAll(dir, log)
		}
		time.Sleep(delay)
	}
}

func killAll(dir string, log *slog.Logger) {
	data, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return
	}
	for _, text := range strings.Fields(string(data)) {
		if pid, err := strconv.Atoi(text); err == nil && pid > 1 {
			log.Warn("killing a process that was left in the cgroup of a pod", "pid", pid, "cgroup", dir)
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}
