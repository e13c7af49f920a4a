package core

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// validatePodAnnotations checks the annotations that mean something for a pod.
func validatePodAnnotations(annotations map[string]string, spec *corev1.PodSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if value, ok := annotations[corev1.MirrorPodAnnotationKey]; ok && spec.NodeName == "" {
		errs = append(errs, field.Invalid(path.Key(corev1.MirrorPodAnnotationKey), value,
			"must set spec.nodeName if mirror pod annotation is set"))
	}
	if cost, ok := annotations[corev1.PodDeletionCost]; ok {
		errs = append(errs, validateDeletionCost(cost, path.Key(corev1.PodDeletionCost))...)
	}
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		container, ok := strings.CutPrefix(key, corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix)
		if !ok {
			continue
		}
		profile := annotations[key]
		if !hasContainer(spec, container) {
			errs = append(errs, field.Invalid(path.Key(key), container, "container not found"))
		}
		if appArmorFromAnnotation(profile) == nil && profile != "" {
			errs = append(errs, field.Invalid(path.Key(key), profile, "invalid AppArmor profile name"))
		}
	}
	return errs
}

// validateDeletionCost: a whole number in the one way it is written ("+1" and "01" are not).
func validateDeletionCost(cost string, path *field.Path) field.ErrorList {
	n, err := strconv.ParseInt(cost, 10, 32)
	if err != nil || strconv.FormatInt(n, 10) != cost {
		return field.ErrorList{field.Invalid(path, cost, "must be a 32bit integer")}
	}
	return nil
}

func hasContainer(spec *corev1.PodSpec, name string) bool {
	for c := range Containers(spec) {
		if c.Name == name {
			return true
		}
	}
	return false
}

// appArmorFromAnnotation reads the profile that annotations named before there was a field; nil when it is malformed.
func appArmorFromAnnotation(profile string) *corev1.AppArmorProfile {
	switch {
	case profile == corev1.DeprecatedAppArmorBetaProfileRuntimeDefault:
		return &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeRuntimeDefault}
	case profile == corev1.DeprecatedAppArmorBetaProfileNameUnconfined:
		return &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeUnconfined}
	}
	if name, ok := strings.CutPrefix(profile, corev1.DeprecatedAppArmorBetaProfileNamePrefix); ok && name != "" {
		return &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeLocalhost, LocalhostProfile: ptr.To(name)}
	}
	return nil
}

// adoptAppArmorAnnotations sets the field of each container that has an annotation and no profile (KEP-24).
func adoptAppArmorAnnotations(pod *corev1.Pod) {
	for key, value := range pod.Annotations {
		name, ok := strings.CutPrefix(key, corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix)
		if !ok {
			continue
		}
		profile := appArmorFromAnnotation(value)
		if profile == nil {
			continue
		}
		for c := range Containers(&pod.Spec) {
			if c.Name != name || c.SecurityContext != nil && c.SecurityContext.AppArmorProfile != nil {
				continue
			}
			if c.SecurityContext == nil {
				c.SecurityContext = &corev1.SecurityContext{}
			}
			c.SecurityContext.AppArmorProfile = profile.DeepCopy()
		}
	}
}

// validateClaimTemplateMeta checks the metadata of a claim that is made for a volume: labels and annotations are copied
// to the claim, nothing else may be set.
func validateClaimTemplateMeta(meta *metav1.ObjectMeta, path *field.Path) field.ErrorList {
	errs := apivalidation.ValidateAnnotations(meta.Annotations, path.Child("annotations"))
	errs = append(errs, metav1validation.ValidateLabels(meta.Labels, path.Child("labels"))...)
	forbid := func(set bool, name string) {
		if set {
			errs = append(errs, field.Forbidden(path.Child(name), "cannot be set for an ephemeral volume"))
		}
	}
	forbid(meta.Name != "", "name")
	forbid(meta.GenerateName != "", "generateName")
	forbid(meta.Namespace != "", "namespace")
	forbid(meta.UID != "", "uid")
	forbid(meta.ResourceVersion != "", "resourceVersion")
	forbid(meta.Generation != 0, "generation")
	forbid(len(meta.OwnerReferences) > 0, "ownerReferences")
	forbid(len(meta.Finalizers) > 0, "finalizers")
	forbid(len(meta.ManagedFields) > 0, "managedFields")
	forbid(!meta.CreationTimestamp.IsZero(), "creationTimestamp")
	forbid(meta.DeletionTimestamp != nil, "deletionTimestamp")
	forbid(meta.DeletionGracePeriodSeconds != nil, "deletionGracePeriodSeconds")
	return errs
}
