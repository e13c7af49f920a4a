package scheduler

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// report tells users why a pod is not scheduled: by an event, and in its status. nominated is the node on which room is
// made for it; nil leaves that as it is.
func (s *Scheduler) report(a *attempt, reason, message string, nominated *string) {
	a.profile.recorder.Eventf(a.Pod.Pod, nil, corev1.EventTypeWarning, "FailedScheduling", "Scheduling", "%s", shortened(message))
	s.statuses.put(a.Pod.Pod, notScheduled(a.Pod.Pod, reason, message), nominated)
}

// shortened keeps a message within what an event may hold.
func shortened(message string) string {
	const most, mark = 1024, " ..."
	if len(message) <= most {
		return message
	}
	return message[:most-len(mark)] + mark
}

func notScheduled(p *corev1.Pod, reason, message string) *corev1.PodCondition {
	return &corev1.PodCondition{
		Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: reason, Message: message, ObservedGeneration: p.Generation,
	}
}

// writeTimeout bounds a write of a status.
const writeTimeout = 30 * time.Second

// statusWriters is how many statuses are written at the same time, so that they share the store's transactions.
const statusWriters = 16

// statusWriter writes the status of pods that are not scheduled. Of several writes about a pod only the last is done, and
// no two at the same time.
type statusWriter struct {
	s       *Scheduler
	mu      sync.Mutex
	pending map[types.UID]*statusPatch
	order   []types.UID            // those of pending that are not being written
	writing map[types.UID]struct{} // pods about which a write is on its way
	running int
}

type statusPatch struct {
	pod       *corev1.Pod
	condition *corev1.PodCondition // nil: as it is
	nominated *string              // nil: as it is; empty: none
}

func newStatusWriter(s *Scheduler) *statusWriter {
	return &statusWriter{s: s, pending: map[types.UID]*statusPatch{}, writing: map[types.UID]struct{}{}}
}

// put has a status written, if it says anything new.
func (w *statusWriter) put(pod *corev1.Pod, c *corev1.PodCondition, nominated *string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.pending[pod.UID]
	if p == nil {
		if nominated == nil && (c == nil || same(pod, c)) {
			return
		}
		p = &statusPatch{}
		w.pending[pod.UID] = p
		if _, writing := w.writing[pod.UID]; !writing {
			w.enqueue(pod.UID)
		}
	}
	p.pod = pod
	if c != nil {
		p.condition = c
	}
	if nominated != nil {
		p.nominated = nominated
	}
}

// enqueue has what is pending about a pod written.
func (w *statusWriter) enqueue(uid types.UID) {
	w.order = append(w.order, uid)
	if w.running < statusWriters {
		w.running++
		w.s.owned.Go(w.run)
	}
}

// same tells whether the pod has the condition already.
func same(pod *corev1.Pod, c *corev1.PodCondition) bool {
	for i := range pod.Status.Conditions {
		if have := &pod.Status.Conditions[i]; have.Type == c.Type {
			return have.Status == c.Status && have.Reason == c.Reason && have.Message == c.Message && have.ObservedGeneration == c.ObservedGeneration
		}
	}
	return false
}

func (w *statusWriter) next() *statusPatch {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.order) == 0 {
		w.order = nil
		w.running--
		return nil
	}
	uid := w.order[0]
	w.order = w.order[1:]
	p := w.pending[uid]
	delete(w.pending, uid)
	w.writing[uid] = struct{}{}
	return p
}

// written ends a write: what came meanwhile is next.
func (w *statusWriter) written(uid types.UID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.writing, uid)
	if w.pending[uid] != nil {
		w.enqueue(uid)
	}
}

func (w *statusWriter) run() {
	for p := w.next(); p != nil; p = w.next() {
		ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
		err := w.write(ctx, p)
		cancel()
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			w.s.Log.Warn("writing the status of a pod", "pod", p.pod.Namespace+"/"+p.pod.Name, "error", err)
		}
		w.written(p.pod.UID)
	}
}

func (w *statusWriter) write(ctx context.Context, p *statusPatch) error {
	status := map[string]any{}
	if p.condition != nil {
		c := *p.condition
		c.LastTransitionTime = metav1.Now()
		for _, have := range p.pod.Status.Conditions {
			if have.Type == c.Type && have.Status == c.Status {
				c.LastTransitionTime = have.LastTransitionTime
			}
		}
		status["conditions"] = []corev1.PodCondition{c}
	}
	if p.nominated != nil {
		if status["nominatedNodeName"] = *p.nominated; *p.nominated == "" {
			status["nominatedNodeName"] = nil
		}
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": p.pod.UID}, // another pod of that name is left alone
		"status":   status,
	})
	if err != nil {
		return err
	}
	_, err = w.s.Client.CoreV1().Pods(p.pod.Namespace).Patch(ctx, p.pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}
