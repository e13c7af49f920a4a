package server

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	"k8s.io/kubelet/pkg/types"
	"k8s.io/utils/ptr"
)

// summary answers /stats/summary.
func (s *Server) summary(w http.ResponseWriter, r *http.Request) {
	summary, err := s.readSummary(r.Context())
	if err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, summary)
}

func (s *Server) readSummary(ctx context.Context) (*stats.Summary, error) {
	usage, err := readNode()
	if err != nil {
		return nil, err
	}
	now := metav1.Now()
	images := s.imageFileSystem(ctx, now)
	node := stats.NodeStats{
		NodeName:  s.cfg.NodeName,
		StartTime: metav1.NewTime(usage.bootTime),
		CPU: &stats.CPUStats{
			Time:                 now,
			UsageCoreNanoSeconds: ptr.To(uint64(usage.cpu)),
			UsageNanoCores:       s.rates.of("", uint64(usage.cpu), now.Time),
			PSI:                  nodePressure("cpu"),
		},
		Memory: &stats.MemoryStats{
			Time:            now,
			UsageBytes:      &usage.memoryUsage,
			WorkingSetBytes: &usage.workingSet,
			AvailableBytes:  ptr.To(usage.memoryTotal - min(usage.memoryTotal, usage.workingSet)),
			RSSBytes:        &usage.rss,
			PSI:             nodePressure("memory"),
		},
		Swap:    &stats.SwapStats{Time: now, SwapUsageBytes: &usage.swapUsage, SwapAvailableBytes: &usage.swapFree},
		Network: &stats.NetworkStats{Time: now, Interfaces: usage.interfaces},
		Fs:      fileSystem(s.cfg.RootDir, now),
		Runtime: &stats.RuntimeStats{ImageFs: images, ContainerFs: images},
	}
	if psi := nodePressure("io"); psi != nil {
		node.IO = &stats.IOStats{Time: now, PSI: psi}
	}
	if len(usage.interfaces) > 0 {
		node.Network.InterfaceStats = usage.interfaces[0]
	}
	sandboxes, running, err := s.sandboxStats(ctx)
	if err != nil {
		return nil, err
	}
	summary := &stats.Summary{Node: node, Pods: []stats.PodStats{}}
	seen := map[string]bool{"": true}
	for _, sandbox := range sandboxes {
		pod := podStats(sandbox)
		pod.StartTime = at(running.sandboxes[sandbox.GetAttributes().GetId()].GetCreatedAt())
		seen[pod.PodRef.UID] = true
		pod.CPU.UsageNanoCores = s.rates.of(pod.PodRef.UID, ptr.Deref(pod.CPU.UsageCoreNanoSeconds, 0), pod.CPU.Time.Time)
		for i, container := range sandbox.GetLinux().GetContainers() {
			id := container.GetAttributes().GetId()
			seen[id] = true
			c := &pod.Containers[i]
			c.StartTime = at(running.containers[id].CreatedAt)
			c.CPU.UsageNanoCores = s.rates.of(id, ptr.Deref(c.CPU.UsageCoreNanoSeconds, 0), c.CPU.Time.Time)
			completeFs(c.Rootfs, images)
			c.Logs = s.logUsage(sandbox.GetAttributes().GetMetadata(), c.Name, images, now)
		}
		pod.EphemeralStorage = ephemeralStorage(pod.Containers, images, now)
		summary.Pods = append(summary.Pods, pod)
	}
	s.rates.forget(seen)
	return summary, nil
}

// running is what runs, by the runtime's IDs.
type running struct {
	sandboxes  map[string]*criapi.PodSandbox
	containers map[string]*criapi.Container
}

// sandboxStats returns what the runtime measures of the pods that run, and of those of their containers that do, and what
// these are.
func (s *Server) sandboxStats(ctx context.Context) ([]*criapi.PodSandboxStats, running, error) {
	measured, err := s.cfg.Runtime.ListPodSandboxStats(ctx, &criapi.ListPodSandboxStatsRequest{})
	if err != nil {
		return nil, running{}, err
	}
	sandboxes, err := s.cfg.Runtime.ListPodSandbox(ctx, &criapi.ListPodSandboxRequest{Filter: &criapi.PodSandboxFilter{
		State: &criapi.PodSandboxStateValue{State: criapi.PodSandboxState_SANDBOX_READY},
	}})
	if err != nil {
		return nil, running{}, err
	}
	containers, err := s.cfg.Runtime.ListContainers(ctx, &criapi.ListContainersRequest{Filter: &criapi.ContainerFilter{
		State: &criapi.ContainerStateValue{State: criapi.ContainerState_CONTAINER_RUNNING},
	}})
	if err != nil {
		return nil, running{}, err
	}
	run := running{sandboxes: map[string]*criapi.PodSandbox{}, containers: map[string]*criapi.Container{}}
	for _, sandbox := range sandboxes.Items {
		run.sandboxes[sandbox.Id] = sandbox
	}
	for _, c := range containers.Containers {
		run.containers[c.Id] = c
	}
	list := slices.DeleteFunc(measured.Stats, func(p *criapi.PodSandboxStats) bool {
		return p.GetLinux() == nil || run.sandboxes[p.GetAttributes().GetId()] == nil
	})
	for _, p := range list {
		p.Linux.Containers = slices.DeleteFunc(p.Linux.Containers, func(c *criapi.ContainerStats) bool {
			return run.containers[c.GetAttributes().GetId()] == nil
		})
	}
	return list, run, nil
}

// imageFileSystem returns the usage of the file system of images, of which the runtime knows how much is images.
func (s *Server) imageFileSystem(ctx context.Context, now metav1.Time) *stats.FsStats {
	if s.cfg.Images == nil {
		return nil
	}
	info, err := s.cfg.Images.ImageFsInfo(ctx, &criapi.ImageFsInfoRequest{})
	if err != nil || len(info.ImageFilesystems) == 0 {
		return nil
	}
	usage := info.ImageFilesystems[0]
	fs := fileSystem(usage.GetFsId().GetMountpoint(), now)
	if fs != nil {
		fs.UsedBytes = value(usage.UsedBytes)
		fs.InodesUsed = value(usage.InodesUsed)
	}
	return fs
}

// podStats translates what CRI says of a sandbox and its containers.
func podStats(sandbox *criapi.PodSandboxStats) stats.PodStats {
	linux, meta := sandbox.GetLinux(), sandbox.GetAttributes().GetMetadata()
	pod := stats.PodStats{
		PodRef:     stats.PodReference{Name: meta.GetName(), Namespace: meta.GetNamespace(), UID: meta.GetUid()},
		CPU:        cpuStats(linux.GetCpu()),
		Memory:     memoryStats(linux.GetMemory()),
		IO:         ioStats(linux.GetIo()),
		Containers: []stats.ContainerStats{},
	}
	if network := linux.GetNetwork(); network != nil {
		pod.Network = &stats.NetworkStats{Time: at(network.Timestamp)}
		for _, i := range network.Interfaces {
			pod.Network.Interfaces = append(pod.Network.Interfaces, interfaceStats(i))
		}
		if i := network.DefaultInterface; i != nil {
			pod.Network.InterfaceStats = interfaceStats(i)
		}
	}
	if process := linux.GetProcess(); process != nil {
		pod.ProcessStats = &stats.ProcessStats{ProcessCount: value(process.ProcessCount)}
	}
	for _, container := range linux.GetContainers() {
		c := stats.ContainerStats{
			Name:   container.GetAttributes().GetLabels()[types.KubernetesContainerNameLabel],
			CPU:    cpuStats(container.GetCpu()),
			Memory: memoryStats(container.GetMemory()),
			IO:     ioStats(container.GetIo()),
		}
		if layer := container.GetWritableLayer(); layer != nil {
			c.Rootfs = &stats.FsStats{Time: at(layer.Timestamp), UsedBytes: value(layer.UsedBytes), InodesUsed: value(layer.InodesUsed)}
		}
		if swap := container.GetSwap(); swap != nil {
			c.Swap = &stats.SwapStats{Time: at(swap.Timestamp),
				SwapUsageBytes: value(swap.SwapUsageBytes), SwapAvailableBytes: value(swap.SwapAvailableBytes)}
		}
		pod.Containers = append(pod.Containers, c)
	}
	return pod
}

func interfaceStats(i *criapi.NetworkInterfaceUsage) stats.InterfaceStats {
	return stats.InterfaceStats{Name: i.Name, RxBytes: value(i.RxBytes), RxErrors: value(i.RxErrors), TxBytes: value(i.TxBytes), TxErrors: value(i.TxErrors)}
}

func cpuStats(cpu *criapi.CpuUsage) *stats.CPUStats {
	return &stats.CPUStats{Time: at(cpu.GetTimestamp()), UsageCoreNanoSeconds: value(cpu.GetUsageCoreNanoSeconds()), PSI: pressure(cpu.GetPsi())}
}

func memoryStats(memory *criapi.MemoryUsage) *stats.MemoryStats {
	return &stats.MemoryStats{
		Time:            at(memory.GetTimestamp()),
		AvailableBytes:  value(memory.GetAvailableBytes()),
		UsageBytes:      value(memory.GetUsageBytes()),
		WorkingSetBytes: value(memory.GetWorkingSetBytes()),
		RSSBytes:        value(memory.GetRssBytes()),
		PageFaults:      value(memory.GetPageFaults()),
		MajorPageFaults: value(memory.GetMajorPageFaults()),
		PSI:             pressure(memory.GetPsi()),
	}
}

// ioStats is nil with cgroup v1, which does not tell how long one waited.
func ioStats(io *criapi.IoUsage) *stats.IOStats {
	if io.GetPsi() == nil {
		return nil
	}
	return &stats.IOStats{Time: at(io.GetTimestamp()), PSI: pressure(io.GetPsi())}
}

func value(v *criapi.UInt64Value) *uint64 {
	if v == nil {
		return nil
	}
	return ptr.To(v.Value)
}

func at(nanoseconds int64) metav1.Time {
	if nanoseconds == 0 {
		return metav1.Time{}
	}
	return metav1.NewTime(time.Unix(0, nanoseconds))
}

// completeFs adds what is true of the whole file system to the usage of a part.
func completeFs(part, whole *stats.FsStats) {
	if part != nil && whole != nil {
		part.AvailableBytes, part.CapacityBytes = whole.AvailableBytes, whole.CapacityBytes
		part.Inodes, part.InodesFree = whole.Inodes, whole.InodesFree
	}
}

// logUsage adds up the log files of a container.
func (s *Server) logUsage(pod *criapi.PodSandboxMetadata, container string, whole *stats.FsStats, now metav1.Time) *stats.FsStats {
	dir := filepath.Join(s.cfg.PodLogDir, pod.GetNamespace()+"_"+pod.GetName()+"_"+pod.GetUid(), container)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var bytes, inodes uint64
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil && info.Mode().IsRegular() {
			bytes += uint64(info.Size())
			inodes++
		}
	}
	usage := &stats.FsStats{Time: now, UsedBytes: &bytes, InodesUsed: &inodes}
	completeFs(usage, whole)
	return usage
}

// ephemeralStorage adds up the writable layers and logs of containers.
func ephemeralStorage(containers []stats.ContainerStats, whole *stats.FsStats, now metav1.Time) *stats.FsStats {
	var bytes, inodes uint64
	for _, c := range containers {
		for _, fs := range []*stats.FsStats{c.Rootfs, c.Logs} {
			if fs != nil {
				bytes += ptr.Deref(fs.UsedBytes, 0)
				inodes += ptr.Deref(fs.InodesUsed, 0)
			}
		}
	}
	usage := &stats.FsStats{Time: now, UsedBytes: &bytes, InodesUsed: &inodes}
	completeFs(usage, whole)
	return usage
}

// sample is a reading of a counter of processor time in nanoseconds.
type sample struct {
	at    time.Time
	total uint64
	// rate is what was computed when this sample was taken.
	rate *uint64
}

// rates computes use of processors from counters, between one request and the next, so that nothing has to be measured
// while nobody asks.
type rates struct {
	mu   sync.Mutex
	last map[string]sample
}

// minInterval is the time between samples that gives a rate worth telling.
const minInterval = time.Second

// of returns the nanoseconds of processor time per second since the last time it was asked about key, or nil the first
// time. If that was only just now, what was said then is said again.
func (r *rates) of(key string, total uint64, now time.Time) *uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	last, ok := r.last[key]
	interval := now.Sub(last.at)
	if ok && interval < minInterval {
		return last.rate
	}
	next := sample{at: now, total: total}
	if ok && total >= last.total {
		next.rate = ptr.To(uint64(float64(total-last.total) / interval.Seconds()))
	}
	r.last[key] = next
	return next.rate
}

// forget drops all keys but the given ones.
func (r *rates) forget(keep map[string]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key := range r.last {
		if !keep[key] {
			delete(r.last, key)
		}
	}
}
