package core

import (
	"context"
	"fmt"
	"math"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

const immutableDetail = "pod updates may not change fields other than `spec.containers[*].image`," +
	"`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing " +
	"tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"

func preparePodUpdate(_ context.Context, pod, old *corev1.Pod) {
	pod.Status = old.Status
	// Ephemeral containers come and go by a subresource of their own; clients that don't know them leave them out.
	// They are the stored object's own, which nobody may write to: set them after all that changes the spec.
	dropOffFields(&pod.Spec)
	pod.Spec.EphemeralContainers = old.Spec.EphemeralContainers
	if len(pod.Spec.SchedulingGates) == 0 && len(old.Spec.SchedulingGates) > 0 {
		pod.Status = *old.Status.DeepCopy()
		dropGatedCondition(&pod.Status)
	}
	raisePodGeneration(pod, old)
}

// dropGatedCondition: the condition says why a pod is not looked at by the scheduler; with the gates gone it is not true.
func dropGatedCondition(status *corev1.PodStatus) {
	status.Conditions = slices.DeleteFunc(status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodScheduled && c.Reason == corev1.PodReasonSchedulingGated
	})
}

// raisePodGeneration counts the changes of the declared state (KEP-5067).
func raisePodGeneration(pod, old *corev1.Pod) {
	pod.Generation = old.Generation
	if !equality.Semantic.DeepEqual(pod.Spec, old.Spec) {
		pod.Generation++
	}
}

// validatePodUpdate: nearly all of a pod is immutable. Its parts that may change are checked by themselves, and put back
// in a copy that must then equal the old.
func validatePodUpdate(_ context.Context, pod, old *corev1.Pod) field.ErrorList {
	path := field.NewPath("spec")
	errs := ValidatePodSpec(&pod.Spec, &pod.ObjectMeta, path, PodOptions{Pod: true, Old: &old.Spec})
	errs = append(errs, validatePodAnnotationsUpdate(pod, old)...)
	for _, list := range []struct {
		name     string
		next, at []corev1.Container
	}{
		{"containers", pod.Spec.Containers, old.Spec.Containers},
		{"initContainers", pod.Spec.InitContainers, old.Spec.InitContainers},
	} {
		if len(list.next) != len(list.at) {
			return append(errs, field.Forbidden(path.Child(list.name), "pod updates may not add or remove containers"))
		}
	}
	errs = append(errs, validateDeadlineUpdate(pod.Spec.ActiveDeadlineSeconds, old.Spec.ActiveDeadlineSeconds, path.Child("activeDeadlineSeconds"))...)
	errs = append(errs, validateAddedTolerations(pod.Spec.Tolerations, old.Spec.Tolerations, path.Child("tolerations"))...)
	errs = append(errs, validateGatesUpdate(pod.Spec.SchedulingGates, old.Spec.SchedulingGates, path.Child("schedulingGates"))...)

	frozen := pod.Spec.DeepCopy()
	restoreMutable(frozen, &old.Spec)
	if len(old.Spec.SchedulingGates) > 0 {
		errs = append(errs, validateGatedScheduling(frozen, &old.Spec, path)...)
	}
	if !equality.Semantic.DeepEqual(frozen, &old.Spec) {
		errs = append(errs, field.Forbidden(path, immutableDetail+"\n"+diff.Diff(&old.Spec, frozen)))
	}
	return errs
}

// restoreMutable sets what an update may change to what it was.
func restoreMutable(spec, old *corev1.PodSpec) {
	for i := range spec.Containers {
		spec.Containers[i].Image = old.Containers[i].Image
	}
	for i := range spec.InitContainers {
		spec.InitContainers[i].Image = old.InitContainers[i].Image
	}
	spec.ActiveDeadlineSeconds = old.ActiveDeadlineSeconds
	spec.Tolerations = old.Tolerations
	spec.SchedulingGates = old.SchedulingGates
	if g := old.TerminationGracePeriodSeconds; g != nil && *g < 0 && ptr.Equal(spec.TerminationGracePeriodSeconds, ptr.To[int64](1)) {
		spec.TerminationGracePeriodSeconds = g
	}
}

// validateDeadlineUpdate: a deadline may be set, or brought nearer.
func validateDeadlineUpdate(next, old *int64, path *field.Path) field.ErrorList {
	switch {
	case next == nil && old == nil:
		return nil
	case next == nil:
		return field.ErrorList{field.Invalid(path, next, "must not update from a positive integer to nil value")}
	case *next < 0 || *next > math.MaxInt32:
		return field.ErrorList{field.Invalid(path, *next, validation.InclusiveRangeError(0, math.MaxInt32))}
	case old != nil && *next > *old:
		return field.ErrorList{field.Invalid(path, *next, "must be less than or equal to previous value")}
	}
	return nil
}

// validateAddedTolerations: tolerations may be added; of those that are there only the seconds may change.
func validateAddedTolerations(next, old []corev1.Toleration, path *field.Path) field.ErrorList {
	for i := range old {
		kept := slices.ContainsFunc(next, func(t corev1.Toleration) bool {
			t.TolerationSeconds = old[i].TolerationSeconds
			return t == old[i]
		})
		if !kept {
			return field.ErrorList{field.Forbidden(path, "existing toleration can not be modified except its tolerationSeconds")}
		}
	}
	return nil
}

// validateGatesUpdate: gates are set at creation and may be removed only.
func validateGatesUpdate(next, old []corev1.PodSchedulingGate, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, gate := range next {
		if !slices.Contains(old, gate) {
			errs = append(errs, field.Forbidden(path.Index(i).Child("name"),
				fmt.Sprintf("only deletion is allowed, but found new scheduling gate '%s'", gate.Name)))
		}
	}
	return errs
}

// validateGatedScheduling: while a pod is gated, the nodes it may run on can be narrowed (KEP-3838). Allowed changes are put
// back in spec.
func validateGatedScheduling(spec, old *corev1.PodSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if !equality.Semantic.DeepEqual(spec.NodeSelector, old.NodeSelector) {
		for key, value := range old.NodeSelector {
			if got, ok := spec.NodeSelector[key]; !ok || got != value {
				errs = append(errs, field.Invalid(path.Child("nodeSelector"), spec.NodeSelector,
					"only additions to spec.nodeSelector are allowed (no mutations or deletions)"))
				break
			}
		}
		spec.NodeSelector = old.NodeSelector
	}
	next, prev := nodeAffinityOf(spec), nodeAffinityOf(old)
	if equality.Semantic.DeepEqual(next, prev) {
		return errs
	}
	errs = append(errs, validateNarrowedAffinity(next, prev, path.Child("affinity", "nodeAffinity"))...)
	switch {
	case spec.Affinity == nil:
		spec.Affinity = &corev1.Affinity{NodeAffinity: prev}
	case old.Affinity == nil && spec.Affinity.PodAffinity == nil && spec.Affinity.PodAntiAffinity == nil:
		spec.Affinity = nil
	default:
		spec.Affinity.NodeAffinity = prev
	}
	return errs
}

func nodeAffinityOf(spec *corev1.PodSpec) *corev1.NodeAffinity {
	if spec.Affinity == nil {
		return nil
	}
	return spec.Affinity.NodeAffinity
}

func validateNarrowedAffinity(next, old *corev1.NodeAffinity, path *field.Path) field.ErrorList {
	if old == nil || old.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return nil // anything narrows "every node"
	}
	path = path.Child("requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms")
	was := old.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	var is []corev1.NodeSelectorTerm
	if next != nil && next.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		is = next.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	}
	if len(was) > 0 && len(is) != len(was) {
		return field.ErrorList{field.Invalid(path, is, "no additions/deletions to non-empty NodeSelectorTerms list are allowed")}
	}
	var errs field.ErrorList
	for i := range was {
		if !extends(is[i].MatchExpressions, was[i].MatchExpressions) || !extends(is[i].MatchFields, was[i].MatchFields) ||
			isEmptyTerm(&was[i]) && !isEmptyTerm(&is[i]) {
			errs = append(errs, field.Invalid(path.Index(i), is[i], "only additions are allowed (no mutations or deletions)"))
		}
	}
	return errs
}

// isEmptyTerm: an empty term matches no node, so that adding to it widens.
func isEmptyTerm(t *corev1.NodeSelectorTerm) bool {
	return len(t.MatchExpressions)+len(t.MatchFields) == 0
}

// extends says that next is old with something added at its end.
func extends(next, old []corev1.NodeSelectorRequirement) bool {
	return len(next) >= len(old) && (len(old) == 0 || equality.Semantic.DeepEqual(next[:len(old)], old))
}

// prepareEphemeralUpdate takes the ephemeral containers from the request, and all else from what is stored.
func prepareEphemeralUpdate(_ context.Context, pod, old *corev1.Pod) {
	added := pod.Spec.EphemeralContainers
	takeStored(pod, old)
	pod.Spec.EphemeralContainers = added
	dropOffFields(&pod.Spec)
	raisePodGeneration(pod, old)
}

// takeStored makes pod the stored one, but for what the machinery of updates needs of the request's metadata. The spec is
// a copy, since the stored object is shared and parts of it are going to be replaced.
func takeStored(pod, old *corev1.Pod) {
	metav1.ResetObjectMetaForStatus(pod, old)
	pod.Spec, pod.Status = *old.Spec.DeepCopy(), old.Status
}

// validateEphemeralUpdate: ephemeral containers may be added, never changed or removed.
func validateEphemeralUpdate(_ context.Context, pod, old *corev1.Pod) field.ErrorList {
	path := field.NewPath("spec", "ephemeralContainers")
	if _, mirror := old.Annotations[corev1.MirrorPodAnnotationKey]; mirror {
		return field.ErrorList{field.Forbidden(field.NewPath(""), "static pods do not support ephemeral containers")}
	}
	errs := ValidatePodSpec(&pod.Spec, &pod.ObjectMeta, field.NewPath("spec"), PodOptions{Pod: true, Old: &old.Spec})
	errs = append(errs, validatePodAnnotationsUpdate(pod, old)...)
	for i := range old.Spec.EphemeralContainers {
		was := &old.Spec.EphemeralContainers[i]
		at := slices.IndexFunc(pod.Spec.EphemeralContainers, func(c corev1.EphemeralContainer) bool { return c.Name == was.Name })
		if at < 0 {
			errs = append(errs, field.Forbidden(path, fmt.Sprintf("existing ephemeral containers %q may not be removed\n", was.Name)))
			continue
		}
		if is := &pod.Spec.EphemeralContainers[at]; !equality.Semantic.DeepEqual(is, was) {
			errs = append(errs, field.Forbidden(path, fmt.Sprintf("existing ephemeral containers %q may not be changed\n%v\n",
				was.Name, diff.Diff(was, is))))
		}
	}
	return errs
}
