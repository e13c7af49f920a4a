// Package podrefs finds out which objects a pod uses: what its node must be allowed to read, and what admission checks.
//
// What flows in is a pod or a persistent volume; what flows out are references with the place where each was found.
package podrefs

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Kind is the kind of object that is referred to.
type Kind uint8

// The kinds that pods refer to, all in the pod's own namespace.
const (
	Secret Kind = iota
	ConfigMap
	PersistentVolumeClaim
	ServiceAccount
	ResourceClaim
)

// Visit calls fn with every reference of the pod until it returns false; the result says whether it reached the end. The
// path is where the name stands, and nil when withPaths is false, which spares the allocations. Names are never empty,
// and can come more than once.
func Visit(pod *corev1.Pod, withPaths bool, fn func(kind Kind, name string, path *field.Path) bool) bool {
	v := visitor{fn: fn}
	if withPaths {
		v.root = field.NewPath("spec")
	}
	return v.pod(pod)
}

type visitor struct {
	root *field.Path // nil: no paths are wanted
	fn   func(Kind, string, *field.Path) bool
}

func (v *visitor) see(kind Kind, name string, path func() *field.Path) bool {
	if name == "" {
		return true
	}
	if v.root == nil {
		return v.fn(kind, name, nil)
	}
	return v.fn(kind, name, path())
}

func (v *visitor) pod(pod *corev1.Pod) bool {
	spec := &pod.Spec
	ok := v.see(ServiceAccount, spec.ServiceAccountName, func() *field.Path { return v.root.Child("serviceAccountName") })
	for i := range spec.ImagePullSecrets {
		ok = ok && v.see(Secret, spec.ImagePullSecrets[i].Name, func() *field.Path { return v.root.Child("imagePullSecrets").Index(i).Child("name") })
	}
	for i := range spec.InitContainers {
		c := &spec.InitContainers[i]
		ok = ok && v.environment(c.Env, c.EnvFrom, func() *field.Path { return v.root.Child("initContainers").Index(i) })
	}
	for i := range spec.Containers {
		c := &spec.Containers[i]
		ok = ok && v.environment(c.Env, c.EnvFrom, func() *field.Path { return v.root.Child("containers").Index(i) })
	}
	for i := range spec.EphemeralContainers {
		c := &spec.EphemeralContainers[i]
		ok = ok && v.environment(c.Env, c.EnvFrom, func() *field.Path { return v.root.Child("ephemeralContainers").Index(i) })
	}
	for i := range spec.Volumes {
		ok = ok && v.volume(pod.Name, &spec.Volumes[i], func() *field.Path { return v.root.Child("volumes").Index(i) })
	}
	for i := range spec.ResourceClaims {
		if name := spec.ResourceClaims[i].ResourceClaimName; name != nil {
			ok = ok && v.see(ResourceClaim, *name, func() *field.Path { return v.root.Child("resourceClaims").Index(i).Child("resourceClaimName") })
		}
	}
	for i := range pod.Status.ResourceClaimStatuses { // made from templates
		if name := pod.Status.ResourceClaimStatuses[i].ResourceClaimName; name != nil {
			ok = ok && v.see(ResourceClaim, *name, func() *field.Path {
				return field.NewPath("status", "resourceClaimStatuses").Index(i).Child("resourceClaimName")
			})
		}
	}
	return ok
}

func (v *visitor) environment(env []corev1.EnvVar, from []corev1.EnvFromSource, path func() *field.Path) bool {
	ok := true
	for i := range from {
		at := func(source string) func() *field.Path {
			return func() *field.Path { return path().Child("envFrom").Index(i).Child(source).Child("name") }
		}
		if r := from[i].SecretRef; r != nil {
			ok = ok && v.see(Secret, r.Name, at("secretRef"))
		}
		if r := from[i].ConfigMapRef; r != nil {
			ok = ok && v.see(ConfigMap, r.Name, at("configMapRef"))
		}
	}
	for i := range env {
		if env[i].ValueFrom == nil {
			continue
		}
		at := func(source string) func() *field.Path {
			return func() *field.Path { return path().Child("env").Index(i).Child("valueFrom", source, "name") }
		}
		if r := env[i].ValueFrom.SecretKeyRef; r != nil {
			ok = ok && v.see(Secret, r.Name, at("secretKeyRef"))
		}
		if r := env[i].ValueFrom.ConfigMapKeyRef; r != nil {
			ok = ok && v.see(ConfigMap, r.Name, at("configMapKeyRef"))
		}
	}
	return ok
}

func (v *visitor) volume(pod string, vol *corev1.Volume, path func() *field.Path) bool {
	at := func(names ...string) func() *field.Path {
		return func() *field.Path { return path().Child(names[0], names[1:]...) }
	}
	local := func(r *corev1.LocalObjectReference, source string) bool {
		return r == nil || v.see(Secret, r.Name, at(source, "secretRef", "name"))
	}
	switch {
	case vol.Secret != nil:
		return v.see(Secret, vol.Secret.SecretName, at("secret", "secretName"))
	case vol.ConfigMap != nil:
		return v.see(ConfigMap, vol.ConfigMap.Name, at("configMap", "name"))
	case vol.Projected != nil:
		return v.projected(vol.Projected, path)
	case vol.PersistentVolumeClaim != nil:
		return v.see(PersistentVolumeClaim, vol.PersistentVolumeClaim.ClaimName, at("persistentVolumeClaim", "claimName"))
	case vol.Ephemeral != nil:
		return v.see(PersistentVolumeClaim, pod+"-"+vol.Name, at("ephemeral"))
	case vol.CSI != nil:
		r := vol.CSI.NodePublishSecretRef
		return r == nil || v.see(Secret, r.Name, at("csi", "nodePublishSecretRef", "name"))
	case vol.AzureFile != nil:
		return v.see(Secret, vol.AzureFile.SecretName, at("azureFile", "secretName"))
	case vol.CephFS != nil:
		return local(vol.CephFS.SecretRef, "cephfs")
	case vol.Cinder != nil:
		return local(vol.Cinder.SecretRef, "cinder")
	case vol.FlexVolume != nil:
		return local(vol.FlexVolume.SecretRef, "flexVolume")
	case vol.ISCSI != nil:
		return local(vol.ISCSI.SecretRef, "iscsi")
	case vol.RBD != nil:
		return local(vol.RBD.SecretRef, "rbd")
	case vol.ScaleIO != nil:
		return local(vol.ScaleIO.SecretRef, "scaleIO")
	case vol.StorageOS != nil:
		return local(vol.StorageOS.SecretRef, "storageos")
	}
	return true
}

func (v *visitor) projected(p *corev1.ProjectedVolumeSource, path func() *field.Path) bool {
	ok := true
	for i := range p.Sources {
		at := func(source string) func() *field.Path {
			return func() *field.Path { return path().Child("projected", "sources").Index(i).Child(source, "name") }
		}
		if r := p.Sources[i].Secret; r != nil {
			ok = ok && v.see(Secret, r.Name, at("secret"))
		}
		if r := p.Sources[i].ConfigMap; r != nil {
			ok = ok && v.see(ConfigMap, r.Name, at("configMap"))
		}
	}
	return ok
}

// VisitVolumeSecrets calls fn with every secret that the node needs to mount a persistent volume. The namespace is the
// claim's where the volume doesn't name one.
func VisitVolumeSecrets(pv *corev1.PersistentVolume, fn func(namespace, name string)) {
	claim := ""
	if pv.Spec.ClaimRef != nil {
		claim = pv.Spec.ClaimRef.Namespace
	}
	see := func(r *corev1.SecretReference) {
		if r == nil || r.Name == "" {
			return
		}
		namespace := r.Namespace
		if namespace == "" {
			namespace = claim
		}
		fn(namespace, r.Name)
	}
	source := &pv.Spec.PersistentVolumeSource
	switch {
	case source.CSI != nil:
		see(source.CSI.NodePublishSecretRef)
		see(source.CSI.NodeStageSecretRef)
		see(source.CSI.NodeExpandSecretRef)
	case source.AzureFile != nil:
		r := corev1.SecretReference{Name: source.AzureFile.SecretName}
		if source.AzureFile.SecretNamespace != nil {
			r.Namespace = *source.AzureFile.SecretNamespace
		}
		see(&r)
	case source.CephFS != nil:
		see(source.CephFS.SecretRef)
	case source.Cinder != nil:
		see(source.Cinder.SecretRef)
	case source.FlexVolume != nil:
		see(source.FlexVolume.SecretRef)
	case source.ISCSI != nil:
		see(source.ISCSI.SecretRef)
	case source.RBD != nil:
		see(source.RBD.SecretRef)
	case source.ScaleIO != nil:
		see(source.ScaleIO.SecretRef)
	}
}
