package kubelet

import (
	"errors"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/proa-k8s/proa/internal/kubelet/cri"
	"github.com/proa-k8s/proa/internal/kubelet/criconfig"
)

// finish clears away a pod of which nothing runs, step by step, and reports whether nothing is left of it: its volumes
// and its cgroup; then, if it is to be deleted, the API object; then, when that is gone, what remains in the runtime and
// its logs. A pod that has ended by itself stays, for its status and logs, until it is deleted.
func (w *worker) finish() bool {
	if w.cleanup == pending {
		w.cleanup = underway
		w.step(func() error {
			w.k.configMaps.Release(w.uid)
			w.k.secrets.Release(w.uid)
			return errors.Join(w.k.volumes.Teardown(w.uid), w.k.cgroups.RemoveUID(w.uid))
		}, &w.cleanup)
	}
	if w.cleanup != finished {
		return false
	}
	if w.origin == fromAPI && !w.removed {
		if w.pod.DeletionTimestamp == nil || !w.writer.synced() || w.gone != pending {
			return false
		}
		w.gone = underway
		pod := w.pod
		w.step(func() error { return w.deleteObject(pod) }, &w.gone)
		return false
	}
	if w.origin == fromFile && !w.removed {
		return false
	}
	if w.remains == pending {
		w.remains = underway
		ids := w.observed.Sandboxes
		containers := w.observed.Containers
		w.step(func() error { return w.removeRemains(ids, containers) }, &w.remains)
	}
	return w.remains == finished
}

// step runs one step beside the loop, and again after a while if it fails.
func (w *worker) step(f func() error, s *stage) {
	w.operate(func() func() {
		err := f()
		if err == nil {
			return func() { *s = finished }
		}
		if w.ctx.Err() == nil {
			w.log.Warn("clearing a pod away failed", "err", err)
			select {
			case <-time.After(time.Second):
			case <-w.ctx.Done():
			}
		}
		return func() { *s = pending }
	})
}

// deleteObject completes the deletion of the pod in the API.
func (w *worker) deleteObject(pod *corev1.Pod) error {
	zero := int64(0)
	err := w.k.cfg.Client.CoreV1().Pods(pod.Namespace).Delete(w.ctx, pod.Name, metav1.DeleteOptions{
		GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &pod.UID},
	})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // gone, or another one of that name
	}
	return err
}

func (w *worker) removeRemains(sandboxes []cri.Sandbox, containers []cri.Container) error {
	var errs []error
	note := func(err error) {
		if err != nil && !cri.IsNotFound(err) {
			errs = append(errs, err)
		}
	}
	for i := range containers {
		_, err := w.k.runtime.Runtime.RemoveContainer(w.ctx, &runtimeapi.RemoveContainerRequest{ContainerId: containers[i].ID})
		note(err)
	}
	for i := range sandboxes {
		_, err := w.k.runtime.Runtime.RemovePodSandbox(w.ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: sandboxes[i].ID})
		note(err)
	}
	w.k.images.Forget(w.uid)
	note(os.RemoveAll(criconfig.LogDirectory(w.k.cfg.LogDir, w.pod.Namespace, w.pod.Name, w.uid)))
	return errors.Join(errs...)
}
