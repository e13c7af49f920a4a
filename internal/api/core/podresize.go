package core

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubectl/pkg/util/qos"
)

// prepareResize takes the resources of containers, and how they may be resized, from the request, and all else from what is
// stored (KEP-1287). Containers that were added, removed or moved are left for validation to refuse.
func prepareResize(_ context.Context, pod, old *corev1.Pod) {
	containers, inits, level := pod.Spec.Containers, pod.Spec.InitContainers, pod.Spec.Resources
	takeStored(pod, old)
	pod.Spec.Containers = resized(containers, pod.Spec.Containers)
	pod.Spec.InitContainers = resized(inits, pod.Spec.InitContainers)
	pod.Spec.Resources = level
	raisePodGeneration(pod, old)
}

func resized(request, stored []corev1.Container) []corev1.Container {
	if len(request) != len(stored) {
		return request
	}
	for i := range request {
		if request[i].Name != stored[i].Name {
			return request
		}
	}
	for i := range request {
		stored[i].Resources, stored[i].ResizePolicy = request[i].Resources, request[i].ResizePolicy
	}
	return stored
}

func validateResize(_ context.Context, pod, old *corev1.Pod) field.ErrorList {
	path := field.NewPath("spec")
	errs := ValidatePodSpec(&pod.Spec, &pod.ObjectMeta, path, PodOptions{Pod: true, Old: &old.Spec})
	if _, static := old.Annotations[corev1.MirrorPodAnnotationKey]; static {
		return append(errs, field.Forbidden(field.NewPath(""), "static pods cannot be resized"))
	}
	if old.Spec.OS != nil && old.Spec.OS.Name == corev1.Windows {
		return append(errs, field.Forbidden(field.NewPath(""), "windows pods cannot be resized"))
	}
	if len(pod.Spec.Containers) != len(old.Spec.Containers) || len(pod.Spec.InitContainers) != len(old.Spec.InitContainers) {
		return append(errs, field.Forbidden(path, "containers may not be added or removed on resize"))
	}
	was := old.Status.QOSClass
	if was == "" {
		was = qos.ComputePodQOS(old)
	}
	if is := qos.ComputePodQOS(pod); is != was {
		errs = append(errs, field.Invalid(path, is, "Pod QOS Class may not change as a result of resizing"))
	}
	if !resizable(old) {
		errs = append(errs, field.Forbidden(path, "Pod running on node without support for resize"))
	}
	frozen := pod.Spec.DeepCopy()
	for i := range frozen.Containers {
		errs = append(errs, validateResized(&frozen.Containers[i], &old.Spec.Containers[i], path.Child("containers").Index(i))...)
	}
	for i := range frozen.InitContainers {
		if restartsAlways(&old.Spec.InitContainers[i]) {
			errs = append(errs, validateResized(&frozen.InitContainers[i], &old.Spec.InitContainers[i], path.Child("initContainers").Index(i))...)
		}
	}
	if frozen.Resources != nil && old.Spec.Resources != nil {
		errs = append(errs, validateKept(frozen.Resources, old.Spec.Resources, path.Child("resources"))...)
		restoreResized(frozen.Resources, old.Spec.Resources)
	}
	if !equality.Semantic.DeepEqual(frozen, &old.Spec) {
		errs = append(errs, field.Forbidden(path, "only cpu and memory resources are mutable"))
	}
	return errs
}

// resizable reports whether the node of a pod can resize it: such a node says what running containers have.
func resizable(pod *corev1.Pod) bool {
	for i := range pod.Status.ContainerStatuses {
		if s := &pod.Status.ContainerStatuses[i]; s.State.Running != nil {
			return s.Resources != nil
		}
	}
	return true
}

// validateResized checks one container, and sets what may have changed back to what it was.
func validateResized(c, old *corev1.Container, path *field.Path) field.ErrorList {
	if c.Name != old.Name {
		return field.ErrorList{field.Forbidden(path.Child("name"), "containers may not be renamed or reordered on resize")}
	}
	errs := validateKept(&c.Resources, &old.Resources, path.Child("resources"))
	restoreResized(&c.Resources, &old.Resources)
	c.ResizePolicy = old.ResizePolicy
	return errs
}

// validateKept: amounts of what was given may change, but not go.
func validateKept(next, old *corev1.ResourceRequirements, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	check := func(next, old corev1.ResourceList, what string) {
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			_, is := next[name]
			if _, was := old[name]; was && !is {
				errs = append(errs, field.Forbidden(path.Child(what), fmt.Sprintf("resource %s cannot be removed", what)))
				return
			}
		}
	}
	check(next.Limits, old.Limits, "limits")
	check(next.Requests, old.Requests, "requests")
	return errs
}

func restoreResized(next, old *corev1.ResourceRequirements) {
	next.Limits = restored(next.Limits, old.Limits)
	next.Requests = restored(next.Requests, old.Requests)
}

func restored(next, old corev1.ResourceList) corev1.ResourceList {
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		delete(next, name)
		if q, ok := old[name]; ok {
			if next == nil {
				next = corev1.ResourceList{}
			}
			next[name] = q
		}
	}
	if len(next) == 0 && len(old) == 0 {
		return old
	}
	return next
}
