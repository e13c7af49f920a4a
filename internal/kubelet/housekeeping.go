package kubelet

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/proa-k8s/proa/internal/kubelet/cri"
	"github.com/proa-k8s/proa/internal/kubelet/criconfig"
	"github.com/proa-k8s/proa/internal/kubelet/logs"
)

// logInterval is how often the sizes of logs are looked at, and what else is bounded of the disk.
const logInterval = 10 * time.Second

// housekeep does what no event asks for: it looks for lost events, removes what nobody owns, rotates logs, and watches
// over disk and memory.
func (k *Kubelet) housekeep(ctx context.Context) {
	k.removeOrphans()
	pressure := newPressureWatch(k)
	ticker := time.NewTicker(logInterval)
	defer ticker.Stop()
	for last := time.Now().Add(logInterval - housekeepingInterval); ; {
		pressure.check(ctx)
		k.rotateLogs(ctx)
		pressure.checkStorage(ctx)
		if time.Since(last) >= housekeepingInterval {
			last = time.Now()
			k.relist(ctx)
			k.removeOrphans()
			for _, w := range k.allWorkers() {
				w.post(w.collect)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// collect removes containers that have ended but for the last of each name, whose log users may want to see.
func (w *worker) collect() {
	if w.down || w.operations > 0 {
		return
	}
	dead := map[string]int{}
	var surplus []cri.Container
	kept := w.observed.Containers[:0:0]
	for _, c := range w.observed.Containers {
		if c.State == cri.Exited {
			dead[c.Name]++
			if dead[c.Name] > 1 {
				surplus = append(surplus, c)
				continue
			}
		}
		kept = append(kept, c)
	}
	// Sandboxes that have ended go when nothing refers to them any more.
	var sandboxes []cri.Sandbox
	keptSandboxes := w.observed.Sandboxes[:0:0]
	for i, s := range w.observed.Sandboxes {
		used := i == 0 || s.State != cri.Exited
		for j := range kept {
			used = used || kept[j].SandboxID == s.ID
		}
		if used {
			keptSandboxes = append(keptSandboxes, s)
		} else {
			sandboxes = append(sandboxes, s)
		}
	}
	if len(surplus) == 0 && len(sandboxes) == 0 {
		return
	}
	observed := *w.observed
	observed.Containers, observed.Sandboxes = kept, keptSandboxes
	w.observed = &observed
	w.operate(func() func() {
		var errs []error
		for _, c := range surplus {
			_, err := w.k.runtime.Runtime.RemoveContainer(w.ctx, &runtimeapi.RemoveContainerRequest{ContainerId: c.ID})
			if err != nil && !cri.IsNotFound(err) {
				errs = append(errs, err)
				continue
			}
			errs = append(errs, removeLogs(c.LogPath))
		}
		for _, s := range sandboxes {
			_, err := w.k.runtime.Runtime.RemovePodSandbox(w.ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: s.ID})
			if err != nil && !cri.IsNotFound(err) {
				errs = append(errs, err)
			}
		}
		if err := errors.Join(errs...); err != nil && w.ctx.Err() == nil {
			w.log.Warn("removing containers that have ended failed", "err", err)
		}
		return nil
	})
}

// removeLogs removes a log with all that was rotated out of it.
func removeLogs(path string) error {
	if path == "" {
		return nil
	}
	all, err := filepath.Glob(path + "*")
	for _, f := range all {
		err = errors.Join(err, os.Remove(f))
	}
	return err
}

// removeOrphans removes directories, cgroups and logs of pods that nobody knows.
func (k *Kubelet) removeOrphans() {
	k.mu.Lock()
	settled := k.settled
	k.mu.Unlock()
	if !settled {
		return
	}
	// A pod that comes to be known after this list was made is asked for again below.
	unknown := func(uid types.UID) bool { return k.worker(uid) == nil }
	note := func(what string, uid types.UID, err error) {
		if err != nil {
			k.cfg.Log.Warn("removing what is left of a pod failed", "what", what, "uid", uid, "err", err)
		}
	}
	uids, err := k.volumes.Present()
	note("volumes", "", err)
	for _, uid := range uids {
		if unknown(uid) {
			note("volumes", uid, k.volumes.Teardown(uid))
		}
	}
	for _, uid := range k.cgroups.Pods() {
		if unknown(uid) {
			note("cgroup", uid, k.cgroups.RemoveUID(uid))
		}
	}
	entries, err := os.ReadDir(k.cfg.LogDir)
	note("logs", "", err)
	for _, e := range entries {
		parts := strings.Split(e.Name(), "_")
		if uid := types.UID(parts[len(parts)-1]); len(parts) == 3 && e.IsDir() && unknown(uid) {
			note("logs", uid, os.RemoveAll(filepath.Join(k.cfg.LogDir, e.Name())))
		}
	}
}

// rotateLogs keeps the logs of running containers within bounds.
func (k *Kubelet) rotateLogs(ctx context.Context) {
	for _, w := range k.allWorkers() {
		pod := w.current.Load()
		dir := criconfig.LogDirectory(k.cfg.LogDir, pod.Namespace, pod.Name, pod.UID)
		for _, list := range [][]corev1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses, pod.Status.EphemeralContainerStatuses} {
			for i := range list {
				s := &list[i]
				if s.State.Running == nil || time.Since(s.State.Running.StartedAt.Time) < logInterval {
					continue
				}
				path := filepath.Join(dir, criconfig.LogPath(s.Name, uint32(s.RestartCount)))
				_, id, _ := strings.Cut(s.ContainerID, "://")
				err := logs.Rotate(ctx, path, k.cfg.ContainerLogMaxSize, k.cfg.ContainerLogMaxFiles, func(ctx context.Context) error {
					_, err := k.runtime.Runtime.ReopenContainerLog(ctx, &runtimeapi.ReopenContainerLogRequest{ContainerId: id})
					return err
				})
				if err != nil && ctx.Err() == nil && k.worker(pod.UID) != nil {
					w.log.Debug("rotating a log failed", "log", path, "err", err)
				}
			}
		}
	}
}
