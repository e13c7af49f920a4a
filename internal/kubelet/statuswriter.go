package kubelet

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

// statusWriter writes the status of one pod to the API. A write begins at once; what comes while one is under way is
// written together when it has ended. It has a goroutine only while there is something to write.
type statusWriter struct {
	w *worker

	mu      sync.Mutex
	target  *corev1.Pod       // the object that is written: the pod, or its mirror; nil when there is none
	known   *corev1.PodStatus // what the API has, as far as is known
	want    *corev1.PodStatus
	writing bool
	closed  bool
	idle    *sync.Cond
}

func newStatusWriter(w *worker) *statusWriter {
	s := &statusWriter{w: w}
	s.idle = sync.NewCond(&s.mu)
	if w.origin == fromAPI {
		s.target, s.known = w.pod, w.pod.Status.DeepCopy()
	}
	return s
}

// setName tells the writer of a new version of the object. Its status is taken over only while nothing was written.
func (s *statusWriter) setName(pod *corev1.Pod) {
	if s.w.origin != fromAPI {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.target = pod
}

// setMirror tells the writer of the mirror of a static pod; nil when it is gone.
func (s *statusWriter) setMirror(mirror *corev1.Pod) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if mirror != nil && (s.target == nil || s.target.UID != mirror.UID) {
		s.known = mirror.Status.DeepCopy()
	}
	s.target = mirror
	s.begin()
}

// set gives the status to write. It does not wait.
func (s *statusWriter) set(status *corev1.PodStatus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.want = status
	s.begin()
}

// begin starts writing if there is something to write. The lock is held.
func (s *statusWriter) begin() {
	if s.closed || s.writing || s.target == nil || s.want == nil || equality.Semantic.DeepEqual(s.known, s.want) {
		return
	}
	s.writing = true
	s.w.k.wg.Go(s.write)
}

// synced reports whether the API has the status, or has no use for it any more.
func (s *statusWriter) synced() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.writing && (s.closed || s.target == nil || equality.Semantic.DeepEqual(s.known, s.want))
}

// close ends writing: the object is gone.
func (s *statusWriter) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
}

// wait returns when no write is under way.
func (s *statusWriter) wait() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.writing {
		s.idle.Wait()
	}
}

// write writes until the API has what is wanted.
func (s *statusWriter) write() {
	ctx := s.w.ctx
	delay := 20 * time.Millisecond
	for {
		s.mu.Lock()
		if s.closed || s.target == nil || ctx.Err() != nil || equality.Semantic.DeepEqual(s.known, s.want) {
			s.writing = false
			s.idle.Broadcast()
			s.mu.Unlock()
			s.w.post(func() {}) // the end of a pod may wait for this
			return
		}
		target, known, want := s.target, s.known, s.want
		s.mu.Unlock()

		err := s.patch(ctx, target, known, want)
		s.mu.Lock()
		switch {
		case err == nil:
			s.known = want
			delay = 20 * time.Millisecond
		case apierrors.IsNotFound(err) || apierrors.IsConflict(err):
			// The object is gone, or is another of the same name.
			if s.target == target && s.w.origin == fromAPI {
				s.closed = true
			} else if s.target == target {
				s.target = nil
			}
		}
		s.mu.Unlock()
		if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) || ctx.Err() != nil {
			continue
		}
		s.w.log.Warn("writing the status of a pod failed", "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(delay):
		}
		delay = min(2*delay, 5*time.Second)
	}
}

// patch writes the difference, and only to the very object.
func (s *statusWriter) patch(ctx context.Context, target *corev1.Pod, known, want *corev1.PodStatus) error {
	data, err := statusPatch(target.UID, known, want)
	if err != nil {
		return err
	}
	_, err = s.w.k.cfg.Client.CoreV1().Pods(target.Namespace).Patch(ctx, target.Name, types.StrategicMergePatchType, data, metav1.PatchOptions{}, "status")
	return err
}

// statusPatch is the strategic merge patch from one status to another, for the object with that UID.
func statusPatch(uid types.UID, known, want *corev1.PodStatus) ([]byte, error) {
	before, err := json.Marshal(corev1.Pod{Status: *known})
	if err != nil {
		return nil, err
	}
	after, err := json.Marshal(corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: uid}, Status: *want})
	if err != nil {
		return nil, err
	}
	data, err := strategicpatch.CreateTwoWayMergePatch(before, after, corev1.Pod{})
	if err != nil {
		return nil, fmt.Errorf("making the patch of a pod's status: %w", err)
	}
	return data, nil
}
