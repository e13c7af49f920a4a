package core

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// PodOptions say in what place a pod spec is validated. The zero value is for the template of a new object.
type PodOptions struct {
	// Pod is set when the spec is that of a Pod, not of a template.
	Pod bool
	// Old is the spec that is replaced, nil on creation. What it has already is tolerated where the rules became
	// stricter with time, so that an object that was stored can still be updated.
	Old *corev1.PodSpec
}

// ValidatePodTemplateSpec checks the metadata and the spec of a pod template.
func ValidatePodTemplateSpec(template *corev1.PodTemplateSpec, path *field.Path, opts PodOptions) field.ErrorList {
	return ValidatePodSpec(&template.Spec, &template.ObjectMeta, path.Child("spec"), opts)
}

// ValidatePodSpec checks a pod spec; meta is the metadata that belongs to it.
func ValidatePodSpec(spec *corev1.PodSpec, meta *metav1.ObjectMeta, path *field.Path, opts PodOptions) field.ErrorList {
	return nil
}

// WarnPodSpec gives the warnings for a pod spec in a Pod or a template; old is the spec it replaces, nil on creation.
func WarnPodSpec(spec, old *corev1.PodSpec, meta *metav1.ObjectMeta, path *field.Path, opts PodOptions) []string {
	return nil
}
