package server

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// jiffy is the unit of /proc/stat: USER_HZ is 100 on every architecture that Go runs on.
const jiffy = 10 * time.Millisecond

// nodeUsage is what the machine uses, from /proc.
type nodeUsage struct {
	bootTime time.Time
	// cpu is the time that all processors together have worked since boot.
	cpu time.Duration
	// Bytes. The working set is what cannot be had back without swapping.
	memoryTotal, memoryUsage, workingSet, rss, swapUsage, swapFree uint64
	interfaces                                                     []stats.InterfaceStats
}

// readNode reads the files of /proc.
func readNode() (nodeUsage, error) {
	var files [3][]byte
	for i, name := range []string{"/proc/stat", "/proc/meminfo", "/proc/net/dev"} {
		var err error
		if files[i], err = os.ReadFile(name); err != nil {
			return nodeUsage{}, fmt.Errorf("reading the usage of the node: %w", err)
		}
	}
	var u nodeUsage
	if err := u.parseStat(files[0]); err != nil {
		return u, err
	}
	u.parseMeminfo(files[1])
	u.parseNetDev(files[2])
	return u, nil
}

// parseStat reads /proc/stat (proc_stat(5)): "cpu user nice system idle iowait irq softirq steal guest guest_nice".
func (u *nodeUsage) parseStat(data []byte) error {
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		switch {
		case len(fields) > 8 && fields[0] == "cpu":
			for i, field := range fields[1:9] {
				const idle, ioWait = 3, 4
				n, err := strconv.ParseInt(field, 10, 64)
				if err != nil {
					return fmt.Errorf("/proc/stat: %w", err)
				}
				if i != idle && i != ioWait {
					u.cpu += time.Duration(n) * jiffy
				}
			}
		case len(fields) == 2 && fields[0] == "btime":
			n, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil {
				return fmt.Errorf("/proc/stat: %w", err)
			}
			u.bootTime = time.Unix(n, 0)
		}
	}
	return nil
}

// parseMeminfo reads /proc/meminfo (proc_meminfo(5)): "Name:   12345 kB".
func (u *nodeUsage) parseMeminfo(data []byte) {
	values := map[string]uint64{}
	for line := range strings.Lines(string(data)) {
		name, rest, ok := strings.Cut(line, ":")
		if fields := strings.Fields(rest); ok && len(fields) > 0 {
			if n, err := strconv.ParseUint(fields[0], 10, 64); err == nil {
				values[name] = n << 10
			}
		}
	}
	u.memoryTotal = values["MemTotal"]
	u.memoryUsage = u.memoryTotal - min(u.memoryTotal, values["MemFree"])
	u.workingSet = u.memoryUsage - min(u.memoryUsage, values["Inactive(file)"])
	u.rss = values["AnonPages"]
	u.swapFree = values["SwapFree"]
	u.swapUsage = values["SwapTotal"] - min(values["SwapTotal"], u.swapFree)
}

// parseNetDev reads /proc/net/dev: "  eth0: rx_bytes packets errs drop fifo frame compressed multicast tx_bytes packets
// errs ...". Loopback and what belongs to pods are left out.
func (u *nodeUsage) parseNetDev(data []byte) {
	for line := range bytes.Lines(data) {
		name, rest, ok := strings.Cut(string(line), ":")
		name = strings.TrimSpace(name)
		fields := strings.Fields(rest)
		if !ok || len(fields) < 11 || name == "lo" || strings.HasPrefix(name, "veth") {
			continue
		}
		u.interfaces = append(u.interfaces, stats.InterfaceStats{
			Name:    name,
			RxBytes: number(fields[0]), RxErrors: number(fields[2]),
			TxBytes: number(fields[8]), TxErrors: number(fields[10]),
		})
	}
	slices.SortFunc(u.interfaces, func(a, b stats.InterfaceStats) int { return strings.Compare(a.Name, b.Name) })
}

func number(text string) *uint64 {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return nil
	}
	return &n
}

// fileSystem returns the usage of the file system that path is on.
func fileSystem(path string, now metav1.Time) *stats.FsStats {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return nil
	}
	block := uint64(fs.Bsize)
	available, capacity, used := fs.Bavail*block, fs.Blocks*block, (fs.Blocks-fs.Bfree)*block
	inodes, free, inodesUsed := fs.Files, fs.Ffree, fs.Files-fs.Ffree
	return &stats.FsStats{
		Time: now, AvailableBytes: &available, CapacityBytes: &capacity, UsedBytes: &used,
		Inodes: &inodes, InodesFree: &free, InodesUsed: &inodesUsed,
	}
}
