package scheduler

import (
	"context"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-k8s/proa/internal/scheduler/framework"
)

// maxBinders is how many pods are bound at the same time. Bindings share the store's transactions, so some dozens make the
// most of it.
const maxBinders = 64

// binder binds pods beside the scheduling goroutine, by as many goroutines as there is work for.
type binder struct {
	s       *Scheduler
	mu      sync.Mutex
	pending []*attempt
	running int
}

func newBinder(s *Scheduler) *binder { return &binder{s: s} }

// start has a pod bound.
func (b *binder) start(ctx context.Context, a *attempt) {
	if len(a.reservations) > 0 { // may wait for a volume to be made
		b.s.owned.Go(func() { b.bind(ctx, a) })
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pending = append(b.pending, a)
	if b.running < maxBinders {
		b.running++
		b.s.owned.Go(func() { b.run(ctx) })
	}
}

// run binds what is pending until there is nothing left.
func (b *binder) run(ctx context.Context) {
	for {
		b.mu.Lock()
		if len(b.pending) == 0 {
			b.pending = nil
			b.running--
			b.mu.Unlock()
			return
		}
		a := b.pending[0]
		b.pending[0] = nil
		b.pending = b.pending[1:]
		b.mu.Unlock()
		b.bind(ctx, a)
	}
}

// bind does all that the API has to be told, and reports the outcome.
func (b *binder) bind(ctx context.Context, a *attempt) {
	err := b.write(ctx, a)
	if err == nil {
		b.s.announcer.bound(ctx, a)
	}
	b.s.mailbox.put(func(s *Scheduler) { s.bound(a, err) })
}

func (b *binder) write(ctx context.Context, a *attempt) error {
	for _, r := range a.reservations {
		if err := r.PreBind(ctx); err != nil {
			return fmt.Errorf("running PreBind: %w", err)
		}
	}
	pods := b.s.Client.CoreV1().Pods(a.Pod.Namespace)
	err := pods.Bind(ctx, &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: a.Pod.Namespace, Name: a.Pod.Name, UID: a.Pod.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: a.node},
	}, metav1.CreateOptions{})
	if err == nil {
		return nil
	}
	err = fmt.Errorf("running Bind plugin %q: %w", "DefaultBinder", err)
	if apierrors.IsNotFound(err) || ctx.Err() != nil {
		return err
	}
	// Whether it was done is not known for sure when an answer is lost; the pod tells.
	if now, getErr := pods.Get(ctx, a.Pod.Name, metav1.GetOptions{}); getErr == nil && now.UID == a.Pod.UID && now.Spec.NodeName == a.node {
		return nil
	}
	return err
}

// bound takes note of what became of a binding.
func (s *Scheduler) bound(a *attempt, err error) {
	if s.binding[a.Pod.UID] == a {
		delete(s.binding, a.Pod.UID)
	}
	a.unreserve()
	if err == nil {
		s.metrics.attempted(a.profile.name, scheduled, s.Clock.Since(a.begun))
		s.metrics.bound(a.Attempts, s.Clock.Since(a.Since))
		return // the informer shows it, or shows that the pod is gone
	}
	s.metrics.attempted(a.profile.name, resultError, s.Clock.Since(a.begun))
	if !s.state.Forget(a.Pod.UID) {
		return // it was seen on a node, or is gone
	}
	s.event(&framework.Event{Kind: framework.PodRemoved, Pod: a.Pod})
	// While it was being bound the pod may have changed.
	now, getErr := s.pods.Pods(a.Pod.Namespace).Get(a.Pod.Name)
	if getErr != nil || now.UID != a.Pod.UID || now.Spec.NodeName != "" || now.DeletionTimestamp != nil {
		return
	}
	if now.ResourceVersion != a.Pod.ResourceVersion {
		a.Pod = framework.NewPod(now)
	}
	s.fail(a, err.Error())
}

func (s *Scheduler) event(e *framework.Event) { s.queue.Event(e, s.Clock.Now()) }
