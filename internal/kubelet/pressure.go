package kubelet

import (
	"bufio"
	"context"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/proa-k8s/proa/internal/kubelet/eviction"
	"github.com/proa-k8s/proa/internal/kubelet/podstatus"
)

const (
	// pressureLasts is how long a pressure is reported after it was last seen, so that the scheduler does not send new pods
	// at once.
	pressureLasts = 5 * time.Minute
	// imageInterval is how often disk usage is compared with the thresholds of image garbage collection.
	imageInterval = 5 * time.Minute
	// imageMinAge is how long an image that is not used is kept at least.
	imageMinAge = 2 * time.Minute
)

// evictionReserve is what thresholds take from what is allocatable.
func evictionReserve(capacity corev1.ResourceList, config map[string]string) corev1.ResourceList {
	list := corev1.ResourceList{}
	thresholds, err := eviction.Parse(config)
	if err != nil {
		return list // New has refused it
	}
	for _, t := range thresholds {
		switch t.Signal {
		case eviction.MemoryAvailable:
			list[corev1.ResourceMemory] = *resource.NewQuantity(t.At(capacity.Memory().Value()), resource.BinarySI)
		case eviction.NodeFsAvailable:
			list[corev1.ResourceEphemeralStorage] = *resource.NewQuantity(t.At(capacity.StorageEphemeral().Value()), resource.BinarySI)
		}
	}
	return list
}

// pressureWatch looks at what the machine has left: a few cheap reads each time, more only when something is short.
type pressureWatch struct {
	k          *Kubelet
	thresholds []eviction.Threshold
	seen       map[corev1.NodeConditionType]time.Time
	imagesAt   time.Time
	imageDir   string
}

func newPressureWatch(k *Kubelet) *pressureWatch {
	thresholds, _ := eviction.Parse(k.cfg.EvictionHard) // checked by New
	return &pressureWatch{k: k, thresholds: thresholds, seen: map[corev1.NodeConditionType]time.Time{}, imagesAt: time.Now()}
}

// check looks once, and acts.
func (p *pressureWatch) check(ctx context.Context) {
	observed := p.observe(ctx)
	crossed := eviction.Crossed(p.thresholds, observed)
	now := time.Now()
	for _, t := range crossed {
		condition := eviction.Condition(t.Signal)
		if now.Sub(p.seen[condition]) >= pressureLasts {
			p.k.events.nodeEvent(corev1.EventTypeWarning, "EvictionThresholdMet", "Attempting to reclaim "+string(eviction.Resource(t.Signal)))
		}
		p.seen[condition] = now
	}
	for _, c := range []corev1.NodeConditionType{corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure} {
		last, ok := p.seen[c]
		p.k.object.SetPressure(c, ok && now.Sub(last) < pressureLasts)
	}
	if now.Sub(p.imagesAt) >= imageInterval {
		p.imagesAt = now
		p.collectImages(ctx, observed[eviction.ImageFsAvailable])
	}
	if len(crossed) == 0 {
		return
	}
	t := crossed[0]
	if eviction.Condition(t.Signal) == corev1.NodeDiskPressure {
		for _, w := range p.k.allWorkers() {
			w.post(w.collect)
		}
		p.removeImages(ctx, func() bool { return false })
		observed = p.observe(ctx)
		if len(eviction.Crossed([]eviction.Threshold{t}, observed)) == 0 {
			return
		}
	}
	p.evictOne(ctx, t, observed[t.Signal])
}

// observe reads what is available.
func (p *pressureWatch) observe(ctx context.Context) map[string]eviction.Observation {
	observed := map[string]eviction.Observation{}
	if total, free, ok := memory("/proc/meminfo"); ok {
		observed[eviction.MemoryAvailable] = eviction.Observation{Available: free, Capacity: total}
	}
	fileSystem(observed, p.k.cfg.RootDir, eviction.NodeFsAvailable, eviction.NodeFsInodesFree)
	if p.imageDir == "" {
		if info, err := p.k.runtime.Images.ImageFsInfo(ctx, &runtimeapi.ImageFsInfoRequest{}); err == nil && len(info.ImageFilesystems) > 0 {
			p.imageDir = info.ImageFilesystems[0].GetFsId().GetMountpoint()
		}
	}
	if p.imageDir != "" {
		fileSystem(observed, p.imageDir, eviction.ImageFsAvailable, eviction.ImageFsInodesFree)
	}
	if used, limit, ok := processes(); ok {
		observed[eviction.PidAvailable] = eviction.Observation{Available: limit - used, Capacity: limit}
	}
	return observed
}

func fileSystem(observed map[string]eviction.Observation, dir, space, inodes string) {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return
	}
	observed[space] = eviction.Observation{Available: int64(st.Bavail) * st.Bsize, Capacity: int64(st.Blocks) * st.Bsize}
	if st.Files > 0 {
		observed[inodes] = eviction.Observation{Available: int64(st.Ffree), Capacity: int64(st.Files)}
	}
}

// memory reads the total and the available memory in bytes.
func memory(path string) (total, available int64, ok bool) {
	f, err := os.Open(path)
	if err != nil {
		return 0, 0, false
	}
	defer f.Close()
	for scan := bufio.NewScanner(f); scan.Scan(); {
		fields := strings.Fields(scan.Text())
		if len(fields) < 2 {
			continue
		}
		kb, _ := strconv.ParseInt(fields[1], 10, 64)
		switch fields[0] {
		case "MemTotal:":
			total = kb << 10
		case "MemAvailable:":
			return total, kb << 10, true
		}
	}
	return 0, 0, false
}

// processes reads how many processes and threads there are, and how many there can be.
func processes() (used, limit int64, ok bool) {
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0, 0, false
	}
	fields := strings.Fields(string(load))
	if len(fields) < 4 {
		return 0, 0, false
	}
	_, count, _ := strings.Cut(fields[3], "/")
	used, _ = strconv.ParseInt(count, 10, 64)
	text, err := os.ReadFile("/proc/sys/kernel/pid_max")
	if err != nil {
		return 0, 0, false
	}
	limit, err = strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return used, limit, err == nil
}

// evictOne ends the pod that is the first to go. One at a time: what it frees is seen before the next is chosen.
func (p *pressureWatch) evictOne(ctx context.Context, t eviction.Threshold, o eviction.Observation) {
	name := eviction.Resource(t.Signal)
	var usages []eviction.Usage
	used := p.usage(ctx, name)
	for _, w := range p.k.allWorkers() {
		pod := w.current.Load()
		switch {
		case w.origin == fromRemains, pod.DeletionTimestamp != nil, pod.Status.Phase == corev1.PodSucceeded, pod.Status.Phase == corev1.PodFailed:
			continue
		}
		if w.evicted.Load() {
			return // one is on its way
		}
		u := eviction.Usage{Pod: pod, Containers: used[string(pod.UID)]}
		if name == corev1.ResourceEphemeralStorage {
			all := p.storage(pod, u.Containers)
			u.Containers = all.containers
			for _, v := range all.volumes {
				u.Used += v
			}
		}
		for _, v := range u.Containers {
			u.Used += v
		}
		usages = append(usages, u)
	}
	ranked := eviction.Rank(usages, name)
	if len(ranked) == 0 {
		return
	}
	victim := &ranked[0]
	message := eviction.Message(&t, o, victim)
	p.k.cfg.Log.Warn("evicting a pod", "pod", victim.Pod.Namespace+"/"+victim.Pod.Name, "why", message)
	p.k.events.pod(victim.Pod, corev1.EventTypeWarning, "Evicted", message)
	if w := p.k.worker(victim.Pod.UID); w != nil {
		w.evict(podstatus.Reason{Reason: "Evicted", Message: message}, 0, disruption(victim.Pod, message))
	}
}

// disruption is the condition of a pod that the node ends.
func disruption(pod *corev1.Pod, message string) *corev1.PodCondition {
	return &corev1.PodCondition{
		Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: corev1.PodReasonTerminationByKubelet, Message: message,
		LastTransitionTime: metav1.NewTime(time.Now().Truncate(time.Second)), ObservedGeneration: pod.Generation,
	}
}

// usage asks the runtime what containers use, by pod UID and container name.
func (p *pressureWatch) usage(ctx context.Context, name corev1.ResourceName) map[string]map[string]int64 {
	all := map[string]map[string]int64{}
	answer, err := p.k.runtime.Runtime.ListContainerStats(ctx, &runtimeapi.ListContainerStatsRequest{})
	if err != nil {
		p.k.cfg.Log.Warn("asking the runtime what containers use failed", "err", err)
		return all
	}
	for _, s := range answer.Stats {
		uid := s.GetAttributes().GetLabels()["io.kubernetes.pod.uid"]
		value := int64(s.GetWritableLayer().GetUsedBytes().GetValue())
		switch name {
		case corev1.ResourceMemory:
			value = int64(s.GetMemory().GetWorkingSetBytes().GetValue())
		case "inodes":
			value = int64(s.GetWritableLayer().GetInodesUsed().GetValue())
		}
		if all[uid] == nil {
			all[uid] = map[string]int64{}
		}
		all[uid][s.GetAttributes().GetMetadata().GetName()] = value
	}
	return all
}

// imageUse remembers when images were last used.
type imageUse struct {
	mu   sync.Mutex
	last map[string]time.Time
}

func (u *imageUse) used(id string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.last == nil {
		u.last = map[string]time.Time{}
	}
	u.last[id] = time.Now()
}

// since tells when an image was last used; one that was never seen counts from now.
func (u *imageUse) since(id string) time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.last == nil {
		u.last = map[string]time.Time{}
	}
	t, ok := u.last[id]
	if !ok {
		t = time.Now()
		u.last[id] = t
	}
	return t
}

// collectImages removes images when the disk is fuller than the high threshold, until it is below the low one.
func (p *pressureWatch) collectImages(ctx context.Context, o eviction.Observation) {
	if o.Capacity == 0 {
		return
	}
	percent := func(o eviction.Observation) int { return 100 - int(o.Available*100/o.Capacity) }
	if percent(o) < p.k.cfg.ImageGCHighThreshold {
		return
	}
	p.removeImages(ctx, func() bool {
		now := map[string]eviction.Observation{}
		fileSystem(now, p.imageDir, eviction.ImageFsAvailable, eviction.ImageFsInodesFree)
		return percent(now[eviction.ImageFsAvailable]) < p.k.cfg.ImageGCLowThreshold
	})
}

// removeImages removes images that no container uses, those first that were not used for the longest time, until enough.
func (p *pressureWatch) removeImages(ctx context.Context, enough func() bool) {
	images, err := p.k.runtime.Images.ListImages(ctx, &runtimeapi.ListImagesRequest{})
	if err != nil {
		return
	}
	containers, err := p.k.runtime.Runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	if err != nil {
		return
	}
	used := map[string]bool{}
	for _, c := range containers.Containers {
		used[c.ImageRef], used[c.ImageId], used[c.GetImage().GetImage()] = true, true, true
	}
	var unused []*runtimeapi.Image
	for _, image := range images.Images {
		if !image.Pinned && !used[image.Id] && time.Since(p.k.imageUse.since(image.Id)) > imageMinAge {
			unused = append(unused, image)
		}
	}
	slices.SortFunc(unused, func(a, b *runtimeapi.Image) int {
		return p.k.imageUse.since(a.Id).Compare(p.k.imageUse.since(b.Id))
	})
	for _, image := range unused {
		if enough() {
			return
		}
		if _, err := p.k.runtime.Images.RemoveImage(ctx, &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: image.Id}}); err != nil {
			p.k.cfg.Log.Warn("removing an image failed", "image", image.Id, "err", err)
			continue
		}
		p.k.cfg.Log.Info("removed an image that is not used", "image", image.Id, "bytes", image.Size)
	}
}
