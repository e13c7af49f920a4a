package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxSlots is how many clusters with default address ranges fit on one machine.
const maxSlots = 16

// A Slot gives a cluster address ranges and ports of its own among the clusters of one machine. Slot 0 has the numbers
// that every Kubernetes user knows and belongs to the cluster with the default name.
type Slot int

// ClusterCIDR is the range of pods: 10.244.0.0/16 for slot 0, going down.
func (s Slot) ClusterCIDR() string { return fmt.Sprintf("10.%d.0.0/16", 244-int(s)) }

// ServiceCIDR is the range of services: 10.96.0.0/16 for slot 0, going up.
func (s Slot) ServiceCIDR() string { return fmt.Sprintf("10.%d.0.0/16", 96+int(s)) }

// APIPort is where the API is served: 6443 for slot 0.
func (s Slot) APIPort() int { return 6443 + 100*int(s) }

// KubeletPort is where the node serves logs and exec: 10250 for slot 0.
func (s Slot) KubeletPort() int { return 10250 + 100*int(s) }

// DNSPort is where the cluster's DNS listens on the node: 10053 for slot 0.
func (s Slot) DNSPort() int { return 10053 + 100*int(s) }

// takeSlot gives the cluster the slot it had, or the first free one. Clusters that start at the same time wait for each other.
func takeSlot(l Layout) (Slot, error) {
	if err := os.MkdirAll(runRoot, 0o755); err != nil {
		return 0, err
	}
	lock, err := lockFile(filepath.Join(runRoot, "slots.lock"), unix.LOCK_EX)
	if err != nil {
		return 0, fmt.Errorf("waiting for other clusters to start: %w", err)
	}
	defer lock.Close()

	taken, err := slotsTaken(l)
	if err != nil {
		return 0, err
	}
	slot, err := chooseSlot(l.Name, readSlot(filepath.Join(l.DataDir, "slot")), taken)
	if err != nil {
		return 0, err
	}
	for _, dir := range []string{l.DataDir, l.RunDir} {
		if err := os.WriteFile(filepath.Join(dir, "slot"), []byte(strconv.Itoa(int(slot))+"\n"), 0o644); err != nil {
			return 0, err
		}
	}
	return slot, nil
}

// chooseSlot decides: had is the slot of an earlier start or -1, taken maps slots to the names of other clusters.
func chooseSlot(name string, had Slot, taken map[Slot]string) (Slot, error) {
	if had < 0 && name == DefaultName {
		had = 0
	}
	if had >= 0 {
		if other, ok := taken[had]; ok {
			return 0, fmt.Errorf("the address ranges of cluster %q are in use by cluster %q: end that one with 'proa down --name %s', or give this one --cluster-cidr, --service-cidr and ports of its own", name, other, other)
		}
		return had, nil
	}
	for s := Slot(1); s < maxSlots; s++ {
		if _, ok := taken[s]; !ok {
			return s, nil
		}
	}
	return 0, fmt.Errorf("%d clusters run on this machine already: end one with 'proa down --name NAME', or give this one --cluster-cidr, --service-cidr and ports of its own", maxSlots)
}

func slotsTaken(l Layout) (map[Slot]string, error) {
	entries, err := os.ReadDir(runRoot)
	if err != nil {
		return nil, err
	}
	taken := map[Slot]string{}
	for _, e := range entries {
		if !e.IsDir() || e.Name() == l.Name {
			continue
		}
		if s := readSlot(filepath.Join(runRoot, e.Name(), "slot")); s >= 0 {
			taken[s] = e.Name()
		}
	}
	return taken, nil
}

func readSlot(path string) Slot {
	data, err := os.ReadFile(path)
	if err != nil {
		return -1
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || n < 0 || n >= maxSlots {
		return -1
	}
	return Slot(n)
}

// errLocked says that another process holds a lock.
var errLocked = errors.New("locked by another process")

// lockFile opens and locks a file; how is unix.LOCK_EX, with unix.LOCK_NB to fail with errLocked instead of waiting. The
// lock ends when the file is closed or the process ends.
func lockFile(path string, how int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = errLocked
		}
		return nil, &fs.PathError{Op: "lock", Path: path, Err: err}
	}
	return f, nil
}

// claim makes the cluster's directories, takes its lock for this process and notes the process id, so that only one process runs
// the cluster. The claim ends when the file is closed.
func claim(l Layout) (*os.File, error) {
	if err := l.MakeDirs(); err != nil {
		return nil, fmt.Errorf("making directories: %w", err)
	}
	f, err := lockFile(l.LockFile(), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, errLocked) {
		return nil, fmt.Errorf("cluster %q is running already (process %d): end it with 'proa down --name %s'", l.Name, readPID(l.LockFile()), l.Name)
	}
	if err != nil {
		return nil, err
	}
	if err := f.Truncate(0); err != nil {
		f.Close()
		return nil, err
	}
	if _, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func readPID(path string) int {
	data, _ := os.ReadFile(path)
	pid, _ := strconv.Atoi(strings.TrimSpace(string(data)))
	return pid
}

// Running returns the process id of the process that runs the cluster, 0 when there is none.
func Running(l Layout) int {
	f, err := os.Open(l.LockFile())
	if err != nil {
		return 0
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err == nil {
		return 0
	}
	return readPID(l.LockFile())
}
