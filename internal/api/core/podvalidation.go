package core

import (
	"math"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-k8s/proa/internal/api"
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
	opts.Pod = false
	errs := metav1validation.ValidateLabels(template.Labels, path.Child("labels"))
	errs = append(errs, apivalidation.ValidateAnnotations(template.Annotations, path.Child("annotations"))...)
	errs = append(errs, validatePodAnnotations(template.Annotations, &template.Spec, path.Child("annotations"))...)
	errs = append(errs, ValidatePodSpec(&template.Spec, &template.ObjectMeta, path.Child("spec"), opts)...)
	errs = append(errs, validateProfilesMatch(template.Annotations, &template.Spec, path.Child("spec"))...)
	if len(template.Spec.EphemeralContainers) > 0 {
		errs = append(errs, field.Forbidden(path.Child("spec", "ephemeralContainers"),
			"ephemeral containers not allowed in pod template"))
	}
	return errs
}

// podValidator collects what is wrong with one pod spec.
type podValidator struct {
	PodOptions
	spec    *corev1.PodSpec
	meta    *metav1.ObjectMeta
	volumes map[string]*corev1.Volume
	claims  sets.Set[string] // names in spec.resourceClaims
	errs    field.ErrorList
}

func (v *podValidator) add(err *field.Error) { v.errs = append(v.errs, err) }

func (v *podValidator) addAll(errs field.ErrorList) { v.errs = append(v.errs, errs...) }

// required adds an error when value is empty.
func (v *podValidator) required(value string, path *field.Path, name string) {
	if value == "" {
		v.add(field.Required(path.Child(name), ""))
	}
}

// invalid adds one error for each message.
func (v *podValidator) invalid(path *field.Path, value any, messages []string) {
	v.addAll(api.InvalidAll(path, value, messages))
}

// enum adds an error unless value is one of those that are supported; an empty value is missing.
func enum[T ~string](v *podValidator, path *field.Path, value T, supported ...T) {
	v.addAll(api.ValidateEnum(path, value, supported...))
}

// optionalEnum is enum for values of which the empty one needs no word of its own.
func optionalEnum[T ~string](v *podValidator, path *field.Path, value T, supported ...T) {
	v.addAll(api.ValidateSupported(path, value, supported...))
}

// ValidatePodSpec checks a pod spec after its defaults are set; meta is the metadata of the Pod or the template that it
// belongs to.
func ValidatePodSpec(spec *corev1.PodSpec, meta *metav1.ObjectMeta, path *field.Path, opts PodOptions) field.ErrorList {
	v := &podValidator{PodOptions: opts, spec: spec, meta: meta}
	v.volumeList(path.Child("volumes"))
	v.resourceClaims(path.Child("resourceClaims"))
	v.containers(path.Child("containers"))
	v.initContainers(path.Child("initContainers"))
	v.ephemeralContainers(path.Child("ephemeralContainers"))
	v.podResources(path)
	v.hostNetworkPorts(spec.Containers, path.Child("containers"))
	enum(v, path.Child("restartPolicy"), spec.RestartPolicy,
		corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever)
	enum(v, path.Child("dnsPolicy"), spec.DNSPolicy,
		corev1.DNSClusterFirstWithHostNet, corev1.DNSClusterFirst, corev1.DNSDefault, corev1.DNSNone)
	v.addAll(metav1validation.ValidateLabels(spec.NodeSelector, path.Child("nodeSelector")))
	v.podSecurityContext(path.Child("securityContext"))
	v.affinity(path.Child("affinity"))
	v.dnsConfig(path.Child("dnsConfig"))
	v.readinessGates(path.Child("readinessGates"))
	v.schedulingGates(path.Child("schedulingGates"))
	v.topologySpread(path.Child("topologySpreadConstraints"))
	v.windowsHostProcess(path)
	v.hostUsers(path)
	v.names(path)
	v.limits(path)
	v.tolerations(spec.Tolerations, path.Child("tolerations"))
	v.hostAliases(path.Child("hostAliases"))
	v.os(path)
	return v.errs
}

// names checks the fields that hold a name.
func (v *podValidator) names(path *field.Path) {
	spec := v.spec
	subdomain := func(value, name string) {
		if value != "" {
			v.invalid(path.Child(name), value, apivalidation.NameIsDNSSubdomain(value, false))
		}
	}
	label := func(value, name string) {
		if value != "" {
			v.invalid(path.Child(name), value, validation.IsDNS1123Label(value))
		}
	}
	subdomain(spec.ServiceAccountName, "serviceAccountName")
	subdomain(spec.NodeName, "nodeName")
	label(spec.Hostname, "hostname")
	label(spec.Subdomain, "subdomain")
	subdomain(spec.PriorityClassName, "priorityClassName")
	if name := spec.RuntimeClassName; name != nil {
		v.invalid(path.Child("runtimeClassName"), *name, apivalidation.NameIsDNSSubdomain(*name, false))
	}
	if spec.HostnameOverride != nil {
		v.hostnameOverride(*spec.HostnameOverride, path)
	}
}

// maxHostname is how long a name the kernel takes (HOST_NAME_MAX).
const maxHostname = 64

func (v *podValidator) hostnameOverride(name string, path *field.Path) {
	own := path.Child("hostnameOverride")
	v.invalid(own, name, validation.IsDNS1123Subdomain(name))
	if len(name) > maxHostname {
		v.add(field.TooLong(own, name, maxHostname))
	}
	if v.spec.HostNetwork {
		v.add(field.Forbidden(path.Child("hostNetwork"), "must be false when `hostnameOverride` is set"))
	}
	if fqdn := v.spec.SetHostnameAsFQDN; fqdn != nil && *fqdn {
		v.add(field.Forbidden(path.Child("setHostnameAsFQDN"), "must be nil or false when `hostnameOverride` is set"))
	}
}

// limits checks numbers, quantities and small enumerations of the pod as a whole.
func (v *podValidator) limits(path *field.Path) {
	spec := v.spec
	if spec.TerminationGracePeriodSeconds == nil {
		v.add(field.Required(path.Child("terminationGracePeriodSeconds"), ""))
	}
	if d := spec.ActiveDeadlineSeconds; d != nil && (*d < 1 || *d > math.MaxInt32) {
		v.add(field.Invalid(path.Child("activeDeadlineSeconds"), *d, validation.InclusiveRangeError(1, math.MaxInt32)))
	}
	if p := spec.PreemptionPolicy; p != nil {
		enum(v, path.Child("preemptionPolicy"), *p, corev1.PreemptLowerPriority, corev1.PreemptNever)
	}
	v.overhead(path.Child("overhead"))
}
