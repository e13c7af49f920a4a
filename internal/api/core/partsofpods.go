package core

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// The functions of this file are for kinds outside of this package that have parts of a pod spec.

// ValidateTolerations checks tolerations.
func ValidateTolerations(tolerations []corev1.Toleration, path *field.Path) field.ErrorList {
	var v podValidator
	v.tolerations(tolerations, path)
	return v.errs
}

// ValidateResourceRequirements checks the requests and limits of a container.
func ValidateResourceRequirements(requirements *corev1.ResourceRequirements, path *field.Path) field.ErrorList {
	var v podValidator
	v.resourceRequirements(requirements, path, false)
	return v.errs
}

// RoundQuantities brings quantities to the precision that is accounted, thousandths.
func RoundQuantities(list corev1.ResourceList) { roundUp(list) }

// ValidatePersistentVolumeSpec checks the spec of a persistent volume that is a part of another object, at the path.
func ValidatePersistentVolumeSpec(spec *corev1.PersistentVolumeSpec, path *field.Path) field.ErrorList {
	errs := validateVolumeSpec(spec)
	for _, err := range errs {
		err.Field = path.String() + strings.TrimPrefix(err.Field, "spec")
	}
	return errs
}
