package eviction

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/proa-k8s/proa/internal/store"
)

// mark sets the pod's condition DisruptionTarget, under the preconditions of the deletion; a resourceVersion among them
// follows the change.
func (e *evictor) mark(ctx context.Context, pod *corev1.Pod, conditions *metav1.Preconditions) error {
	marked, err := e.Pods.Update(ctx, pod.Namespace, pod.Name, func(cur *store.Object) (runtime.Object, []store.Op, error) {
		obj, err := cur.Decoded()
		if err != nil {
			return nil, nil, err
		}
		p := obj.(*corev1.Pod)
		if err := check(p, conditions); err != nil {
			return nil, nil, err
		}
		return disrupted(p, metav1.Now()), nil, nil
	})
	switch {
	case errors.Is(err, store.ErrNotFound):
		return apierrors.NewNotFound(podResource, pod.Name)
	case err != nil:
		return err
	}
	if conditions != nil && conditions.ResourceVersion != nil {
		obj, err := marked.Decoded()
		if err != nil {
			return err
		}
		conditions.ResourceVersion = &obj.(*corev1.Pod).ResourceVersion
	}
	return nil
}

// check says in the words of a deletion that the pod isn't the one that was meant.
func check(p *corev1.Pod, c *metav1.Preconditions) error {
	if c == nil {
		return nil
	}
	if c.UID != nil && *c.UID != p.UID {
		//lint:ignore ST1005 the words are upstream's
		return apierrors.NewConflict(podResource, p.Name, fmt.Errorf("Precondition failed: UID in precondition: %v, UID in object meta: %v", *c.UID, p.UID))
	}
	if c.ResourceVersion != nil && *c.ResourceVersion != p.ResourceVersion {
		//lint:ignore ST1005 the words are upstream's
		return apierrors.NewConflict(podResource, p.Name, fmt.Errorf("Precondition failed: ResourceVersion in precondition: %v, ResourceVersion in object meta: %v", *c.ResourceVersion, p.ResourceVersion))
	}
	return nil
}

// disrupted gives the pod with its condition, the pod itself if it has it. The pod is not changed.
func disrupted(p *corev1.Pod, now metav1.Time) *corev1.Pod {
	is := corev1.PodCondition{
		Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "EvictionByEvictionAPI", Message: "Eviction API: evicting",
		LastTransitionTime: now, ObservedGeneration: p.Generation,
	}
	conditions := make([]corev1.PodCondition, 0, len(p.Status.Conditions)+1)
	for _, c := range p.Status.Conditions {
		if c.Type != is.Type {
			conditions = append(conditions, c)
			continue
		}
		if c.Status == is.Status {
			is.LastTransitionTime = c.LastTransitionTime
			if c == is {
				return p
			}
		}
	}
	out := *p
	out.ResourceVersion = ""
	out.Status.Conditions = append(conditions, is)
	return &out
}
