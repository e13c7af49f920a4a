package kubelet

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"

	"github.com/proa-k8s/proa/internal/kubelet/criconfig"
	"github.com/proa-k8s/proa/internal/kubelet/podstatus"
)

// storage is what a pod uses of the node's disk, in bytes.
type storage struct {
	volumes    map[string]int64 // emptyDirs on disk
	containers map[string]int64 // writable layers and logs
}

// overLimit tells which limit on local storage a pod exceeds; empty when none.
func overLimit(pod *corev1.Pod, used storage) string {
	var total int64
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.EmptyDir == nil || v.EmptyDir.Medium != corev1.StorageMediumDefault {
			continue
		}
		total += used.volumes[v.Name]
		if limit := v.EmptyDir.SizeLimit; limit != nil && !limit.IsZero() && used.volumes[v.Name] > limit.Value() {
			return fmt.Sprintf("Usage of EmptyDir volume %q exceeds the limit %q. ", v.Name, limit.String())
		}
	}
	for _, bytes := range used.containers { // sidecars are among them
		total += bytes
	}
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		if limit, ok := c.Resources.Limits[corev1.ResourceEphemeralStorage]; ok && used.containers[c.Name] > limit.Value() {
			return fmt.Sprintf("Container %s exceeded its local ephemeral storage limit %q. ", c.Name, limit.String())
		}
	}
	limits := resourcehelper.PodLimits(pod, resourcehelper.PodResourcesOptions{})
	if limit, ok := limits[corev1.ResourceEphemeralStorage]; ok && total > limit.Value() {
		return fmt.Sprintf("Pod ephemeral local storage usage exceeds the total limit of containers %s. ", limit.String())
	}
	return ""
}

// limitsStorage reports whether the pod bounds what it uses of the disk: others need not be measured.
func limitsStorage(pod *corev1.Pod) bool {
	limits := resourcehelper.PodLimits(pod, resourcehelper.PodResourcesOptions{})
	if _, ok := limits[corev1.ResourceEphemeralStorage]; ok {
		return true
	}
	for i := range pod.Spec.Volumes {
		if e := pod.Spec.Volumes[i].EmptyDir; e != nil && e.Medium == corev1.StorageMediumDefault && e.SizeLimit != nil && !e.SizeLimit.IsZero() {
			return true
		}
	}
	return false
}

// checkStorage evicts pods that use more of the disk than they said.
func (p *pressureWatch) checkStorage(ctx context.Context) {
	var limited []*worker
	for _, w := range p.k.allWorkers() {
		if pod := w.current.Load(); w.origin != fromRemains && !w.evicted.Load() && pod.Status.Phase == corev1.PodRunning && limitsStorage(pod) {
			limited = append(limited, w)
		}
	}
	if len(limited) == 0 {
		return
	}
	upper, err := upperDirs()
	if err != nil {
		p.k.cfg.Log.Warn("looking for the writable layers of containers failed", "err", err)
	}
	var told map[string]map[string]int64 // what the runtime says
	for _, w := range limited {
		pod := w.current.Load()
		layers, found := writableLayers(pod, upper)
		if !found {
			if told == nil {
				told = p.usage(ctx, corev1.ResourceEphemeralStorage)
			}
			layers = told[string(pod.UID)]
		}
		if message := overLimit(pod, p.storage(pod, layers)); message != "" {
			p.k.events.pod(pod, corev1.EventTypeWarning, "Evicted", message)
			w.evict(podstatus.Reason{Reason: "Evicted", Message: message}, 0, disruption(pod, message))
		}
	}
}

// upperDirs finds the writable layers of all containers by their IDs, where these are directories of overlay file systems.
// A runtime says what its containers use, too, but from measurements that may be minutes old.
func upperDirs() (map[string]string, error) {
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("overlay"))
	if err != nil {
		return nil, err
	}
	return upperDirsOf(mounts), nil
}

func upperDirsOf(mounts []*mountinfo.Info) map[string]string {
	dirs := make(map[string]string, len(mounts))
	for _, m := range mounts {
		for option := range strings.SplitSeq(m.VFSOptions, ",") {
			if dir, ok := strings.CutPrefix(option, "upperdir="); ok { // mounted at CONTAINER-ID/rootfs
				dirs[filepath.Base(filepath.Dir(m.Mountpoint))] = dir
			}
		}
	}
	return dirs
}

// writableLayers measures the writable layers of a pod's running containers by their names; ok is false when one of them is
// not known.
func writableLayers(pod *corev1.Pod, upper map[string]string) (layers map[string]int64, ok bool) {
	layers = map[string]int64{}
	for _, list := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for i := range list {
			if list[i].State.Running == nil {
				continue
			}
			_, id, _ := strings.Cut(list[i].ContainerID, "://")
			dir, known := upper[id]
			if !known {
				return nil, false
			}
			layers[list[i].Name] = diskUsage(dir)
		}
	}
	return layers, true
}

// storage measures what a pod uses of the disk; layers are the writable layers of its containers.
func (p *pressureWatch) storage(pod *corev1.Pod, layers map[string]int64) storage {
	used := storage{volumes: map[string]int64{}, containers: map[string]int64{}}
	for name, bytes := range layers {
		used.containers[name] += bytes
	}
	for i := range pod.Spec.Containers {
		name := pod.Spec.Containers[i].Name
		used.containers[name] += diskUsage(filepath.Join(criconfig.LogDirectory(p.k.cfg.LogDir, pod.Namespace, pod.Name, pod.UID), name))
	}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.EmptyDir == nil || v.EmptyDir.Medium != corev1.StorageMediumDefault {
			continue
		}
		if dir, err := p.k.volumes.Path(pod, v.Name); err == nil {
			used.volumes[v.Name] = diskUsage(dir)
		}
	}
	return used
}

// diskUsage is what the files below a directory take, in bytes, each once. Files that come and go meanwhile do not matter.
func diskUsage(dir string) int64 {
	type inode struct{ dev, ino uint64 }
	linked := map[inode]bool{}
	var sum int64
	_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err != nil || unix.Lstat(path, &st) != nil {
			return nil
		}
		if st.Nlink > 1 && !entry.IsDir() {
			if linked[inode{st.Dev, st.Ino}] {
				return nil
			}
			linked[inode{st.Dev, st.Ino}] = true
		}
		sum += st.Blocks * 512
		return nil
	})
	return sum
}
