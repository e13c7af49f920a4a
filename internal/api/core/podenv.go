package core

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// maxEnvFileKey is how long a key of an env file may be, in bytes.
const maxEnvFileKey = 128

// The fields that the downward API gives, and the resources.
var (
	envFieldPaths = sets.New("metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName",
		"spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs")
	volumeFieldPaths = sets.New("metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace",
		"metadata.uid")
	knownFieldPaths = envFieldPaths.Union(volumeFieldPaths).Insert("spec.restartPolicy", "spec.schedulerName", "status.phase")

	downwardResources = sets.New("limits.cpu", "limits.memory", "limits.ephemeral-storage", "requests.cpu",
		"requests.memory", "requests.ephemeral-storage")
	downwardResourcePrefixes = []string{"limits.hugepages-", "requests.hugepages-"}

	cpuDivisors    = sets.New("1m", "1")
	memoryDivisors = sets.New("1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei")
)

func (v *podValidator) env(env []corev1.EnvVar, path *field.Path) {
	for i := range env {
		e := &env[i]
		if e.Name == "" {
			v.add(field.Required(path.Index(i).Child("name"), ""))
		} else if messages := validation.IsRelaxedEnvVarName(e.Name); len(messages) > 0 {
			v.invalid(path.Index(i).Child("name"), e.Name, messages)
		}
		if e.ValueFrom != nil {
			v.envValueFrom(e, path.Index(i).Child("valueFrom"))
		}
	}
}

func (v *podValidator) envValueFrom(e *corev1.EnvVar, path *field.Path) {
	from, sources := e.ValueFrom, 0
	if from.FieldRef != nil {
		sources++
		v.fieldRef(from.FieldRef, envFieldPaths, path.Child("fieldRef"))
	}
	if from.ResourceFieldRef != nil {
		sources++
		v.resourceFieldRef(from.ResourceFieldRef, path.Child("resourceFieldRef"), false)
	}
	if from.ConfigMapKeyRef != nil {
		sources++
		v.keyRef(from.ConfigMapKeyRef.Name, from.ConfigMapKeyRef.Key, path.Child("configMapKeyRef"))
	}
	if from.SecretKeyRef != nil {
		sources++
		v.keyRef(from.SecretKeyRef.Name, from.SecretKeyRef.Key, path.Child("secretKeyRef"))
	}
	if from.FileKeyRef != nil {
		sources++
		v.fileKeyRef(from.FileKeyRef, path.Child("fileKeyRef"))
	}
	switch {
	case sources == 0:
		v.add(field.Invalid(path, "",
			"must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"))
	case e.Value != "":
		v.add(field.Invalid(path, "", "may not be specified when `value` is not empty"))
	case sources > 1:
		v.add(field.Invalid(path, "", "may not have more than one field specified at a time"))
	}
}

func (v *podValidator) keyRef(name, key string, path *field.Path) {
	v.invalid(path.Child("name"), name, apivalidation.NameIsDNSSubdomain(name, false))
	if key == "" {
		v.add(field.Required(path.Child("key"), ""))
		return
	}
	v.invalid(path.Child("key"), key, validation.IsConfigMapKey(key))
}

// fileKeyRef checks a key of an env file (KEP-3721).
func (v *podValidator) fileKeyRef(ref *corev1.FileKeySelector, path *field.Path) {
	if ref.VolumeName == "" {
		v.add(field.Required(path.Child("volumeName"), ""))
	} else {
		v.invalid(path.Child("volumeName"), ref.VolumeName, validation.IsDNS1123Label(ref.VolumeName))
	}
	if ref.Path == "" {
		v.add(field.Required(path.Child("path"), ""))
	} else {
		v.localPath(ref.Path, path.Child("path"))
	}
	if ref.Key == "" {
		v.add(field.Required(path.Child("key"), ""))
		return
	}
	v.invalid(path.Child("key"), ref.Key, validation.IsRelaxedEnvVarName(ref.Key))
	if len(ref.Key) > maxEnvFileKey {
		v.add(field.TooLong(path.Child("key"), ref.Key, maxEnvFileKey))
	}
}

func (v *podValidator) fieldRef(ref *corev1.ObjectFieldSelector, allowed sets.Set[string], path *field.Path) {
	if ref.APIVersion == "" {
		v.add(field.Required(path.Child("apiVersion"), ""))
		return
	}
	if ref.FieldPath == "" {
		v.add(field.Required(path.Child("fieldPath"), ""))
		return
	}
	name, subscript, hasSubscript := splitSubscript(ref.FieldPath)
	if name == "spec.host" { // what spec.nodeName was called in v1beta3
		name = "spec.nodeName"
	}
	reject := func(format string, args ...any) {
		v.add(field.Invalid(path.Child("fieldPath"), ref.FieldPath,
			"error converting fieldPath: "+fmt.Sprintf(format, args...)))
	}
	switch {
	case ref.APIVersion != "v1":
		reject("unsupported pod version: %s", ref.APIVersion)
	case hasSubscript && name == "metadata.annotations":
		// Keys of annotations are compared in lower case.
		v.invalid(path, subscript, validation.IsQualifiedName(strings.ToLower(subscript)))
	case hasSubscript && name == "metadata.labels":
		v.invalid(path, subscript, validation.IsQualifiedName(subscript))
	case hasSubscript:
		reject("field label does not support subscript: %s", ref.FieldPath)
	case !knownFieldPaths.Has(name):
		reject("field label not supported: %s", ref.FieldPath)
	case !allowed.Has(name):
		v.add(field.NotSupported(path.Child("fieldPath"), name, sets.List(allowed)))
	}
}

// splitSubscript splits metadata.labels['key'] into metadata.labels and key.
func splitSubscript(path string) (name, subscript string, ok bool) {
	rest, found := strings.CutSuffix(path, "']")
	if !found {
		return path, "", false
	}
	name, subscript, ok = strings.Cut(rest, "['")
	if !ok || name == "" {
		return path, "", false
	}
	return name, subscript, true
}

func (v *podValidator) resourceFieldRef(ref *corev1.ResourceFieldSelector, path *field.Path, volume bool) {
	switch {
	case volume && ref.ContainerName == "":
		v.add(field.Required(path.Child("containerName"), ""))
	case ref.Resource == "":
		v.add(field.Required(path.Child("resource"), ""))
	case !downwardResources.Has(ref.Resource) && !hasAnyPrefix(ref.Resource, downwardResourcePrefixes):
		v.add(field.NotSupported(path.Child("resource"), ref.Resource, sets.List(downwardResources)))
	}
	v.divisor(ref.Resource, ref.Divisor, path)
}

func hasAnyPrefix(s string, prefixes []string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}

func (v *podValidator) divisor(name string, divisor resource.Quantity, path *field.Path) {
	if divisor.IsZero() {
		return
	}
	value := divisor.String()
	reject := func(values, what string) {
		v.add(field.Invalid(path.Child("divisor"), name,
			fmt.Sprintf("only divisor's values %s are supported with the %s resource", values, what)))
	}
	const bytes = "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei"
	switch {
	case strings.HasSuffix(name, ".cpu"):
		if !cpuDivisors.Has(value) {
			reject("1m and 1", "cpu")
		}
	case strings.HasSuffix(name, ".memory"):
		if !memoryDivisors.Has(value) {
			reject(bytes, "memory")
		}
	case strings.HasSuffix(name, ".ephemeral-storage"):
		if !memoryDivisors.Has(value) {
			reject(bytes, "local ephemeral storage")
		}
	case hasAnyPrefix(name, downwardResourcePrefixes):
		if !memoryDivisors.Has(value) {
			reject(bytes, "hugepages")
		}
	}
}

func (v *podValidator) envFrom(sources []corev1.EnvFromSource, path *field.Path) {
	for i := range sources {
		s, at, n := &sources[i], path.Index(i), 0
		if s.Prefix != "" {
			v.invalid(at.Child("prefix"), s.Prefix, validation.IsRelaxedEnvVarName(s.Prefix))
		}
		if s.ConfigMapRef != nil {
			n++
			v.objectName(s.ConfigMapRef.Name, at.Child("configMapRef"))
		}
		if s.SecretRef != nil {
			n++
			v.objectName(s.SecretRef.Name, at.Child("secretRef"))
		}
		switch {
		case n == 0:
			v.add(field.Invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"))
		case n > 1:
			v.add(field.Invalid(path, "", "may not have more than one field specified at a time"))
		}
	}
}

// objectName checks the name in a reference to a ConfigMap or Secret.
func (v *podValidator) objectName(name string, path *field.Path) {
	if name == "" {
		v.add(field.Required(path.Child("name"), ""))
		return
	}
	v.invalid(path.Child("name"), name, apivalidation.NameIsDNSSubdomain(name, true))
}
