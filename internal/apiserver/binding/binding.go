// Package binding assigns pods to nodes: the subresource pods/binding, and the old resource bindings.
//
// What flows in is a Binding, from a scheduler; what flows out is an update of the pod.
package binding

import (
	"context"
	"errors"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/util/dryrun"

	"github.com/proa-k8s/proa/internal/apiserver"
	"github.com/proa-k8s/proa/internal/store"
)

var podResource = schema.GroupResource{Resource: "pods"}

// Create makes the function that serves a POST of a Binding; pods is the cache of pods.
func Create(pods *store.Cache) apiserver.CreateFunc {
	return func(ctx context.Context, namespace, name string, obj runtime.Object, options *metav1.CreateOptions) (runtime.Object, error) {
		b, ok := obj.(*corev1.Binding)
		if !ok {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("not a Binding object: %T", obj))
		}
		if name == "" {
			name = b.Name // POST of the old resource
		}
		if b.Name != "" && b.Name != name {
			return nil, apierrors.NewBadRequest("name in URL does not match name in Binding object")
		}
		if errs := validate(b); len(errs) > 0 {
			return nil, apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Binding").GroupKind(), b.Name, errs)
		}
		dry := dryrun.IsDryRun(options.DryRun)
		_, err := pods.Update(ctx, namespace, name, func(cur *store.Object) (runtime.Object, []store.Op, error) {
			obj, err := cur.Decoded()
			if err != nil {
				return nil, nil, err
			}
			pod := obj.(*corev1.Pod)
			bound, err := assign(pod, b, metav1.Now())
			if dry || err != nil {
				return pod, nil, err // nothing to write
			}
			return bound, nil, nil
		})
		if errors.Is(err, store.ErrNotFound) {
			return nil, apierrors.NewNotFound(podResource, name)
		}
		if err != nil {
			return nil, err
		}
		return &metav1.Status{Status: metav1.StatusSuccess, Code: 201}, nil
	}
}

func validate(b *corev1.Binding) field.ErrorList {
	var errs field.ErrorList
	target := field.NewPath("target")
	if kind := b.Target.Kind; kind != "" && kind != "Node" {
		errs = append(errs, field.NotSupported(target.Child("kind"), kind, []string{"Node", "<empty>"}))
	}
	if b.Target.Name == "" {
		errs = append(errs, field.Required(target.Child("name"), ""))
	}
	return errs
}

// assign decides: it returns the pod as it is once it is bound, or why it can't be. The pod is not changed.
func assign(pod *corev1.Pod, b *corev1.Binding, now metav1.Time) (*corev1.Pod, error) {
	conflict := func(format string, args ...any) error {
		return apierrors.NewConflict(podResource, pod.Name, fmt.Errorf(format, args...))
	}
	switch {
	case b.UID != "" && b.UID != pod.UID:
		return nil, conflict("Precondition failed: UID in precondition: %v, UID in object meta: %v", b.UID, pod.UID)
	case b.ResourceVersion != "" && b.ResourceVersion != pod.ResourceVersion:
		return nil, conflict("Precondition failed: ResourceVersion in precondition: %v, ResourceVersion in object meta: %v", b.ResourceVersion, pod.ResourceVersion)
	case pod.DeletionTimestamp != nil:
		return nil, conflict("pod %s is being deleted, cannot be assigned to a host", pod.Name)
	case pod.Spec.NodeName != "":
		return nil, conflict("pod %v is already assigned to node %q", pod.Name, pod.Spec.NodeName)
	case len(pod.Spec.SchedulingGates) != 0:
		return nil, conflict("pod %v has non-empty .spec.schedulingGates", pod.Name)
	}
	bound := *pod // what is changed below is copied first
	bound.ResourceVersion = ""
	bound.Spec.NodeName = b.Target.Name
	bound.Annotations = merged(pod.Annotations, b.Annotations)
	bound.Labels = merged(pod.Labels, b.Labels)
	bound.Status.Conditions = scheduled(pod.Status.Conditions, pod.Generation, now)
	return &bound, nil
}

func merged(old, more map[string]string) map[string]string {
	if len(more) == 0 {
		return old
	}
	all := make(map[string]string, len(old)+len(more))
	maps.Copy(all, old)
	maps.Copy(all, more)
	return all
}

// scheduled returns the conditions with PodScheduled true.
func scheduled(old []corev1.PodCondition, generation int64, now metav1.Time) []corev1.PodCondition {
	is := corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: now, ObservedGeneration: generation}
	conditions := make([]corev1.PodCondition, 0, len(old)+1)
	for _, c := range old {
		if c.Type != corev1.PodScheduled {
			conditions = append(conditions, c)
		} else if c.Status == corev1.ConditionTrue {
			is.LastTransitionTime = c.LastTransitionTime
		}
	}
	return append(conditions, is)
}
