package core

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubectl/pkg/util/qos"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/proa-k8s/proa/internal/api"
)

var (
	specPath   = fieldpath.MakePathOrDie("spec")
	statusPath = fieldpath.MakePathOrDie("status")
)

// Pod describes pods.
func Pod() *api.Resource {
	return api.Define[corev1.Pod, corev1.PodList](corev1.SchemeGroupVersion, api.Resource{
		Plural: "pods", Singular: "pod", Kind: "Pod", ShortNames: []string{"po"}, Categories: []string{"all"},
		Namespaced: true, Prefix: "pods", ReturnDeleted: true,
		Strategy: api.Typed[*corev1.Pod]{
			Default:        defaultPod,
			PrepareCreate:  preparePodCreate,
			PrepareUpdate:  preparePodUpdate,
			Validate:       validatePodCreate,
			ValidateUpdate: validatePodUpdate,
			Warn:           warnPod,
			Graceful:       podGrace,
			ResetFields:    api.Reset([]string{"v1"}, statusPath),
		}.Strategy(),
		Subresources: podSubresources(),
		Columns:      podColumns(),
		Row:          api.Row(podRow),
		SelectableFields: []string{"spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName",
			"spec.hostNetwork", "status.phase", "status.podIP", "status.nominatedNodeName"},
		Fields: api.Fields(podFields),
	})
}

// podSubresources in the order of discovery.
func podSubresources() []api.Subresource {
	kind := corev1.SchemeGroupVersion.WithKind
	own := func(strategy api.Typed[*corev1.Pod]) *api.Strategy {
		s := strategy.Strategy()
		return &s
	}
	view := []string{"get", "patch", "update"}
	return []api.Subresource{
		{Name: "attach", Kind: kind("PodAttachOptions"), Verbs: []string{"create", "get"}},
		{Name: "binding", Kind: kind("Binding"), Verbs: []string{"create"}},
		{Name: "ephemeralcontainers", Kind: kind("Pod"), Verbs: view, Strategy: own(api.Typed[*corev1.Pod]{
			PrepareUpdate:  prepareEphemeralUpdate,
			ValidateUpdate: validateEphemeralUpdate,
			Warn:           warnPod,
			ResetFields:    api.Reset([]string{"v1"}, statusPath),
		})},
		{Name: "eviction", Kind: schema.GroupVersionKind{Group: "policy", Version: "v1", Kind: "Eviction"}, Verbs: []string{"create"},
			Accepts: []schema.GroupVersionKind{{Group: "policy", Version: "v1beta1", Kind: "Eviction"}}},
		{Name: "exec", Kind: kind("PodExecOptions"), Verbs: []string{"create", "get"}},
		{Name: "log", Kind: kind("Pod"), Verbs: []string{"get"}},
		{Name: "portforward", Kind: kind("PodPortForwardOptions"), Verbs: []string{"create", "get"}},
		{Name: "proxy", Kind: kind("PodProxyOptions"),
			Verbs: []string{"create", "delete", "get", "patch", "update"}},
		{Name: "resize", Kind: kind("Pod"), Verbs: view, Strategy: own(api.Typed[*corev1.Pod]{
			PrepareUpdate:  prepareResize,
			ValidateUpdate: validateResize,
			Warn:           warnPod,
			ResetFields:    api.Reset([]string{"v1"}, statusPath),
		})},
		{Name: "status", Kind: kind("Pod"), Verbs: view, Strategy: own(api.Typed[*corev1.Pod]{
			PrepareUpdate:  preparePodStatus,
			ValidateUpdate: validatePodStatus,
			ResetFields: api.Reset([]string{"v1"}, specPath,
				fieldpath.MakePathOrDie("metadata", "deletionTimestamp"), fieldpath.MakePathOrDie("metadata", "ownerReferences")),
		})},
	}
}

func podFields(pod *corev1.Pod) fields.Set {
	hostNetwork := "false"
	if pod.Spec.HostNetwork {
		hostNetwork = "true"
	}
	ip := pod.Status.PodIP
	if ip == "" && len(pod.Status.PodIPs) > 0 {
		ip = pod.Status.PodIPs[0].IP
	}
	return fields.Set{
		"spec.nodeName":            pod.Spec.NodeName,
		"spec.restartPolicy":       string(pod.Spec.RestartPolicy),
		"spec.schedulerName":       pod.Spec.SchedulerName,
		"spec.serviceAccountName":  pod.Spec.ServiceAccountName,
		"spec.hostNetwork":         hostNetwork,
		"status.phase":             string(pod.Status.Phase),
		"status.podIP":             ip,
		"status.nominatedNodeName": pod.Status.NominatedNodeName,
	}
}

func preparePodCreate(_ context.Context, pod *corev1.Pod) {
	pod.Generation = 1
	pod.Status = corev1.PodStatus{Phase: corev1.PodPending, QOSClass: qos.ComputePodQOS(pod)}
	dropOffFields(&pod.Spec)
	if len(pod.Spec.SchedulingGates) > 0 {
		pod.Status.Conditions = []corev1.PodCondition{{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonSchedulingGated,
			Message: "Scheduling is blocked due to non-empty scheduling gates",
		}}
	}
	mergeLabelKeys(pod)
	adoptAppArmorAnnotations(pod)
}

// mergeLabelKeys writes the pod's own values of matchLabelKeys and mismatchLabelKeys into the selectors, so that whoever reads
// the pod needs to look at the selectors only (KEP-3633, KEP-3243).
func mergeLabelKeys(pod *corev1.Pod) {
	merge := func(selector *metav1.LabelSelector, keys []string, op metav1.LabelSelectorOperator) {
		for _, key := range keys {
			if value, ok := pod.Labels[key]; ok && selector != nil {
				selector.MatchExpressions = append(selector.MatchExpressions,
					metav1.LabelSelectorRequirement{Key: key, Operator: op, Values: []string{value}})
			}
		}
	}
	eachAffinityTerm(pod.Spec.Affinity, func(term *corev1.PodAffinityTerm) {
		merge(term.LabelSelector, term.MatchLabelKeys, metav1.LabelSelectorOpIn)
		merge(term.LabelSelector, term.MismatchLabelKeys, metav1.LabelSelectorOpNotIn)
	})
	for i := range pod.Spec.TopologySpreadConstraints {
		c := &pod.Spec.TopologySpreadConstraints[i]
		merge(c.LabelSelector, c.MatchLabelKeys, metav1.LabelSelectorOpIn)
	}
}

func validatePodCreate(_ context.Context, pod *corev1.Pod) field.ErrorList {
	path := field.NewPath("spec")
	errs := validatePodAnnotations(pod.Annotations, &pod.Spec, field.NewPath("metadata", "annotations"))
	errs = append(errs, ValidatePodSpec(&pod.Spec, &pod.ObjectMeta, path, PodOptions{Pod: true})...)
	if len(pod.Spec.EphemeralContainers) > 0 {
		errs = append(errs, field.Forbidden(path.Child("ephemeralContainers"), "cannot be set on create"))
	}
	if pod.Spec.NodeName != "" && len(pod.Spec.SchedulingGates) > 0 {
		errs = append(errs, field.Forbidden(path.Child("nodeName"), "cannot be set until all schedulingGates have been cleared"))
	}
	return append(errs, validateProfilesMatch(pod.Annotations, &pod.Spec, path)...)
}

// podGrace decides how long a pod that is to be deleted may live on: what the request says, or else the pod itself. A
// pod that nobody runs, because it has no node yet or has finished, goes at once.
func podGrace(_ context.Context, pod *corev1.Pod, options *metav1.DeleteOptions) int64 {
	var grace int64
	switch {
	case options != nil && options.GracePeriodSeconds != nil:
		grace = *options.GracePeriodSeconds
	case pod.Spec.TerminationGracePeriodSeconds != nil:
		grace = *pod.Spec.TerminationGracePeriodSeconds
	}
	if pod.Spec.NodeName == "" || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return 0
	}
	if grace < 0 {
		return 1
	}
	return grace
}
