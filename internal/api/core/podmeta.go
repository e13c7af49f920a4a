package core

import (
	"fmt"
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
		if key == corev1.SeccompPodAnnotationKey || strings.HasPrefix(key, corev1.SeccompContainerAnnotationKeyPrefix) {
			errs = append(errs, validateSeccompAnnotation(annotations[key], path.Child(key))...)
		}
		container, ok := strings.CutPrefix(key, corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix)
		if !ok {
			continue
		}
		profile := annotations[key]
		if !hasContainer(spec, container) {
			errs = append(errs, field.Invalid(path.Key(key), container, "container not found"))
		}
		if !isAppArmorAnnotation(profile) {
			errs = append(errs, field.Invalid(path.Key(key), profile, fmt.Sprintf("invalid AppArmor profile name: %q", profile)))
		}
	}
	return errs
}

// validatePodAnnotationsUpdate: what makes a pod the mirror of a static one, and AppArmor profiles, are decided at creation.
func validatePodAnnotationsUpdate(pod, old *corev1.Pod) field.ErrorList {
	path := field.NewPath("metadata", "annotations")
	var errs field.ErrorList
	kept := func(key, what string) {
		is, has := pod.Annotations[key]
		was, had := old.Annotations[key]
		switch {
		case had && (!has || is != was):
			errs = append(errs, field.Forbidden(path.Key(key), "may not remove or update "+what))
		case has && !had:
			errs = append(errs, field.Forbidden(path.Key(key), "may not add "+what))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(old.Annotations)) {
		if strings.HasPrefix(key, corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix) {
			kept(key, "AppArmor annotations")
		}
	}
	for _, key := range slices.Sorted(maps.Keys(pod.Annotations)) {
		if _, had := old.Annotations[key]; !had && strings.HasPrefix(key, corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix) {
			kept(key, "AppArmor annotations")
		}
	}
	kept(corev1.MirrorPodAnnotationKey, "mirror pod annotation")
	return append(errs, validatePodAnnotations(pod.Annotations, &pod.Spec, path)...)
}

// validateProfilesMatch: who names a seccomp or AppArmor profile both by an annotation, the old way, and by the field must name
// the same. path is that of the spec.
func validateProfilesMatch(annotations map[string]string, spec *corev1.PodSpec, path *field.Path) field.ErrorList {
	if len(annotations) == 0 {
		return nil
	}
	v := &podValidator{spec: spec}
	var podAppArmor *corev1.AppArmorProfile
	if sc := spec.SecurityContext; sc != nil {
		podAppArmor = sc.AppArmorProfile
		if annotation, ok := annotations[corev1.SeccompPodAnnotationKey]; ok {
			v.seccompMatches(annotation, sc.SeccompProfile, path.Child("securityContext", "seccompProfile"))
		}
	}
	v.eachContainer(path, func(c *corev1.Container, list *field.Path, i int) {
		if c.SecurityContext == nil {
			return
		}
		if annotation, ok := annotations[corev1.SeccompContainerAnnotationKeyPrefix+c.Name]; ok {
			v.seccompMatches(annotation, c.SecurityContext.SeccompProfile, list.Index(i).Child("securityContext", "seccompProfile"))
		}
	})
	if spec.OS != nil && spec.OS.Name == corev1.Windows {
		return v.errs
	}
	v.eachContainer(path, func(c *corev1.Container, list *field.Path, i int) {
		profile := podAppArmor
		if c.SecurityContext != nil && c.SecurityContext.AppArmorProfile != nil {
			profile = c.SecurityContext.AppArmorProfile
		}
		if annotation, ok := annotations[corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix+c.Name]; ok {
			v.appArmorMatches(annotation, profile, list.Index(i).Child("securityContext", "appArmorProfile"))
		}
	})
	return v.errs
}

func (v *podValidator) seccompMatches(annotation string, p *corev1.SeccompProfile, path *field.Path) {
	if p == nil {
		return
	}
	var same bool
	switch p.Type {
	case corev1.SeccompProfileTypeUnconfined:
		same = annotation == corev1.SeccompProfileNameUnconfined
	case corev1.SeccompProfileTypeRuntimeDefault:
		same = annotation == corev1.SeccompProfileRuntimeDefault || annotation == corev1.DeprecatedSeccompProfileDockerDefault
	case corev1.SeccompProfileTypeLocalhost:
		var profile string
		profile, same = strings.CutPrefix(annotation, corev1.SeccompLocalhostProfileNamePrefix)
		if same && (p.LocalhostProfile == nil || *p.LocalhostProfile != profile) {
			v.add(field.Forbidden(path.Child("localhostProfile"), "seccomp profile in annotation and field must match"))
		}
	default: // said elsewhere
		same = true
	}
	if !same {
		v.add(field.Forbidden(path.Child("type"), "seccomp type in annotation and field must match"))
	}
}

func (v *podValidator) appArmorMatches(annotation string, p *corev1.AppArmorProfile, path *field.Path) {
	if p == nil {
		return
	}
	var same bool
	switch p.Type {
	case corev1.AppArmorProfileTypeUnconfined:
		same = annotation == corev1.DeprecatedAppArmorBetaProfileNameUnconfined
	case corev1.AppArmorProfileTypeRuntimeDefault:
		same = annotation == corev1.DeprecatedAppArmorBetaProfileRuntimeDefault
	case corev1.AppArmorProfileTypeLocalhost:
		var profile string
		profile, same = strings.CutPrefix(annotation, corev1.DeprecatedAppArmorBetaProfileNamePrefix)
		if same && (p.LocalhostProfile == nil || *p.LocalhostProfile != profile) {
			v.add(field.Forbidden(path.Child("localhostProfile"), "apparmor profile in annotation and field must match"))
		}
	default: // said elsewhere
		same = true
	}
	if !same {
		v.add(field.Forbidden(path.Child("type"), "apparmor type in annotation and field must match"))
	}
}

// validateSeccompAnnotation checks the name of a profile as annotations give it.
func validateSeccompAnnotation(profile string, path *field.Path) field.ErrorList {
	switch profile {
	case corev1.SeccompProfileRuntimeDefault, corev1.DeprecatedSeccompProfileDockerDefault, corev1.SeccompProfileNameUnconfined:
		return nil
	}
	local, ok := strings.CutPrefix(profile, corev1.SeccompLocalhostProfileNamePrefix)
	if !ok {
		return field.ErrorList{field.Invalid(path, profile, "must be a valid seccomp profile")}
	}
	v := &podValidator{}
	v.localDescendingPath(local, path)
	return v.errs
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

// isAppArmorAnnotation says whether an annotation names a profile; the empty one names none.
func isAppArmorAnnotation(profile string) bool {
	return profile == "" || profile == corev1.DeprecatedAppArmorBetaProfileRuntimeDefault ||
		profile == corev1.DeprecatedAppArmorBetaProfileNameUnconfined ||
		strings.HasPrefix(profile, corev1.DeprecatedAppArmorBetaProfileNamePrefix)
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
			errs = append(errs, field.Forbidden(path.Child(name), "cannot be set"))
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
