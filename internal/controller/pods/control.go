package pods

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
)

// Control creates and deletes pods in the name of their owners, and records events on these.
type Control struct {
	Client kubernetes.Interface
	Events record.EventRecorder
}

// FromTemplate makes the pod that a template describes, owned by owner.
func FromTemplate(t *corev1.PodTemplateSpec, ownerName string, owner *metav1.OwnerReference) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		GenerateName: ownerName + "-",
		Labels:       maps.Clone(t.Labels),
		Annotations:  maps.Clone(t.Annotations),
		Finalizers:   slices.Clone(t.Finalizers),
	}}
	if owner != nil {
		p.OwnerReferences = []metav1.OwnerReference{*owner}
	}
	t.Spec.DeepCopyInto(&p.Spec)
	return p
}

// Create creates the pod in the namespace; events go to owner.
func (c Control) Create(ctx context.Context, namespace string, p *corev1.Pod, owner runtime.Object) error {
	if len(p.Labels) == 0 {
		return errors.New("unable to create pods, no labels")
	}
	created, err := c.Client.CoreV1().Pods(namespace).Create(ctx, p, metav1.CreateOptions{})
	if err != nil {
		// A namespace that is being deleted is no news for its objects.
		if !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			c.Events.Eventf(owner, corev1.EventTypeWarning, "FailedCreate", "Error creating: %v", err)
		}
		return err
	}
	c.Events.Eventf(owner, corev1.EventTypeNormal, "SuccessfulCreate", "Created pod: %v", created.Name)
	return nil
}

// Delete deletes the pod; events go to owner. A pod that is gone already is an error that apierrors.IsNotFound knows.
func (c Control) Delete(ctx context.Context, p *corev1.Pod, owner runtime.Object) error {
	err := c.Client.CoreV1().Pods(p.Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(p.UID))})
	switch {
	case apierrors.IsNotFound(err):
		return err
	case err != nil:
		c.Events.Eventf(owner, corev1.EventTypeWarning, "FailedDelete", "Error deleting: %v", err)
		return fmt.Errorf("unable to delete pods: %w", err)
	}
	c.Events.Eventf(owner, corev1.EventTypeNormal, "SuccessfulDelete", "Deleted pod: %v", p.Name)
	return nil
}

// SlowStart calls fn count times, at first once, then, as long as all calls succeed, twice as many at the same time as
// before: what fails for all (a quota) fails once and not count times. It returns how many calls succeeded, and the first
// error.
func SlowStart(count int, fn func(i int) error) (succeeded int, err error) {
	started := 0
	for size := 1; started < count; size *= 2 {
		size = min(size, count-started)
		ok, err := All(size, func(i int) error { return fn(started + i) })
		succeeded, started = succeeded+ok, started+size
		if err != nil {
			return succeeded, err
		}
	}
	return succeeded, nil
}

// All calls fn count times at the same time, waits for all, and returns how many calls succeeded, and the first error.
func All(count int, fn func(i int) error) (succeeded int, err error) {
	if count == 1 {
		if err := fn(0); err != nil {
			return 0, err
		}
		return 1, nil
	}
	errs := make([]error, count)
	var group sync.WaitGroup
	for i := range count {
		group.Go(func() { errs[i] = fn(i) })
	}
	group.Wait()
	for _, e := range errs {
		if e == nil {
			succeeded++
		} else if err == nil {
			err = e
		}
	}
	return succeeded, err
}
