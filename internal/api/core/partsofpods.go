package core

import (
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

// ValidateInlineVolumeSpec checks the spec of a persistent volume that is a part of another object, at the path: a volume of a
// CSI driver that no PersistentVolume stands for.
func ValidateInlineVolumeSpec(spec *corev1.PersistentVolumeSpec, path *field.Path) field.ErrorList {
	const forbidden = "may not be specified in the context of inline volumes"
	var errs field.ErrorList
	forbid := func(set bool, name, detail string) {
		if set {
			errs = append(errs, field.Forbidden(path.Child(name), detail))
		}
	}
	forbid(spec.ClaimRef != nil, "claimRef", forbidden)
	forbid(len(spec.Capacity) > 0, "capacity", forbidden)
	if spec.CSI == nil {
		errs = append(errs, field.Required(path.Child("csi"), "has to be specified in the context of inline volumes"))
	}
	policy, mode := spec.PersistentVolumeReclaimPolicy, spec.VolumeMode
	forbid(policy != "" && policy != corev1.PersistentVolumeReclaimRetain, "persistentVolumeReclaimPolicy",
		"may only be Retain in the context of inline volumes")
	forbid(spec.NodeAffinity != nil, "nodeAffinity", forbidden)
	forbid(spec.StorageClassName != "", "storageClassName", forbidden)
	forbid(mode != nil && *mode != corev1.PersistentVolumeFilesystem, "volumeMode",
		"may not specify volumeMode other than Filesystem in the context of inline volumes")
	errs = append(errs, validateAccessModes(spec.AccessModes, path.Child("accessModes"), "")...)
	errs = append(errs, validateVolumeSources(spec, path)...)
	return append(errs, validateVolumeAttributesClass(spec, path)...)
}
