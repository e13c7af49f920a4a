package core

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
	"k8s.io/utils/ptr"

	"github.com/proa-k8s/proa/internal/api"
)

// topologyHints is the annotation that topology mode has replaced.
const topologyHints = corev1.DeprecatedAnnotationTopologyAwareHints

// validateClusterIPs checks the addresses that a service asks for against themselves and its families. Whether the
// cluster has them is for the allocator to say.
func validateClusterIPs(svc *corev1.Service, path *field.Path) field.ErrorList {
	spec := &svc.Spec
	if spec.Type == corev1.ServiceTypeExternalName {
		return nil // forbidden altogether
	}
	var errs field.ErrorList
	at := path.Child("clusterIPs")
	switch {
	case spec.ClusterIP == "" && len(spec.ClusterIPs) > 0:
		errs = append(errs, field.Invalid(at, spec.ClusterIPs, "must be empty when `clusterIP` is not specified"))
	case spec.ClusterIP != "" && len(spec.ClusterIPs) == 0:
		errs = append(errs, field.Required(at, ""))
	case spec.ClusterIP != "" && spec.ClusterIP != spec.ClusterIPs[0]:
		errs = append(errs, field.Invalid(at, spec.ClusterIPs, "first value must match `clusterIP`"))
	}
	errs = append(errs, validateIPFamilies(spec, path)...)
	if IsHeadless(svc) {
		return errs
	}
	valid := true
	seen := sets.New[string]()
	for i, ip := range spec.ClusterIPs {
		if ip == corev1.ClusterIPNone {
			valid = false
			errs = append(errs, field.Invalid(at, spec.ClusterIPs, "'None' must be the first and only value"))
			continue
		}
		if bad := validation.IsValidIP(at.Index(i), ip); len(bad) > 0 {
			valid = false
			errs = append(errs, bad...)
		}
		if seen.Has(ip) {
			errs = append(errs, field.Duplicate(at.Index(i), ip))
		}
		seen.Insert(ip)
	}
	if len(spec.ClusterIPs) > 2 {
		errs = append(errs, field.Invalid(at, spec.ClusterIPs, "may only hold up to 2 values"))
		valid = false
	}
	if !valid {
		return errs
	}
	if len(spec.ClusterIPs) == 2 && netutils.IsIPv6String(spec.ClusterIPs[0]) == netutils.IsIPv6String(spec.ClusterIPs[1]) {
		errs = append(errs, field.Invalid(at, spec.ClusterIPs, "may specify no more than one IP for each IP family"))
	}
	for i := range min(len(spec.ClusterIPs), len(spec.IPFamilies)) {
		ip, family := spec.ClusterIPs[i], spec.IPFamilies[i]
		if family == corev1.IPv6Protocol != netutils.IsIPv6String(ip) {
			errs = append(errs, field.Invalid(at.Index(i), ip,
				fmt.Sprintf("expected an %s value as indicated by `ipFamilies[%d]`", family, i)))
		}
	}
	return errs
}

func validateIPFamilies(spec *corev1.ServiceSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := sets.New[corev1.IPFamily]()
	for i, family := range spec.IPFamilies {
		at := path.Child("ipFamilies").Index(i)
		if family != corev1.IPv4Protocol && family != corev1.IPv6Protocol {
			errs = append(errs, field.NotSupported(at, family, []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}))
		}
		if seen.Has(family) {
			errs = append(errs, field.Duplicate(at, family))
		}
		seen.Insert(family)
	}
	if policy := spec.IPFamilyPolicy; policy != nil {
		supported := []corev1.IPFamilyPolicy{
			corev1.IPFamilyPolicyPreferDualStack, corev1.IPFamilyPolicyRequireDualStack, corev1.IPFamilyPolicySingleStack,
		}
		if !slices.Contains(supported, *policy) {
			errs = append(errs, field.NotSupported(path.Child("ipFamilyPolicy"), *policy, supported))
		}
	}
	return errs
}

func validateLoadBalancerFields(svc, old *corev1.Service, path *field.Path) field.ErrorList {
	spec := &svc.Spec
	isLoadBalancer := spec.Type == corev1.ServiceTypeLoadBalancer
	errs := validateSourceRanges(svc, old, path)
	allocate := path.Child("allocateLoadBalancerNodePorts")
	if isLoadBalancer && spec.AllocateLoadBalancerNodePorts == nil {
		errs = append(errs, field.Required(allocate, ""))
	} else if !isLoadBalancer && spec.AllocateLoadBalancerNodePorts != nil {
		errs = append(errs, field.Forbidden(allocate, onlyLoadBalancer))
	}
	class := path.Child("loadBalancerClass")
	if spec.LoadBalancerClass != nil {
		if !isLoadBalancer {
			errs = append(errs, field.Forbidden(class, onlyLoadBalancer))
		} else {
			errs = append(errs, api.InvalidAll(class, *spec.LoadBalancerClass, validation.IsQualifiedName(*spec.LoadBalancerClass))...)
		}
	}
	if old != nil && isLoadBalancer && old.Spec.Type == corev1.ServiceTypeLoadBalancer &&
		!ptr.Equal(spec.LoadBalancerClass, old.Spec.LoadBalancerClass) {
		errs = append(errs, field.Invalid(class, spec.LoadBalancerClass, "may not change once set"))
	}
	return errs
}

// validateSourceRanges checks the clients that a load balancer admits: the field, or the annotation that was before it.
func validateSourceRanges(svc, old *corev1.Service, path *field.Path) field.ErrorList {
	at := path.Child("LoadBalancerSourceRanges") // the case is upstream's
	ranges := svc.Spec.LoadBalancerSourceRanges
	annotation, annotated := svc.Annotations[corev1.AnnotationLoadBalancerSourceRangesKey]
	var before []string
	if old != nil {
		before = old.Spec.LoadBalancerSourceRanges
		before = append(slices.Clone(before), strings.Split(old.Annotations[corev1.AnnotationLoadBalancerSourceRangesKey], ",")...)
		for i := range before {
			before[i] = strings.TrimSpace(before[i])
		}
	}
	if len(ranges) == 0 {
		if !annotated {
			return nil
		}
		at = field.NewPath("metadata", "annotations").Key(corev1.AnnotationLoadBalancerSourceRangesKey)
		if annotation = strings.TrimSpace(annotation); annotation != "" {
			ranges = strings.Split(annotation, ",")
		}
	}
	var errs field.ErrorList
	if svc.Spec.Type != corev1.ServiceTypeLoadBalancer {
		errs = append(errs, field.Forbidden(at, onlyLoadBalancer))
	}
	for i, cidr := range ranges {
		where := at
		if len(svc.Spec.LoadBalancerSourceRanges) > 0 {
			where = at.Index(i)
		}
		errs = append(errs, validation.IsValidCIDRForLegacyField(where, strings.TrimSpace(cidr), true, before)...)
	}
	return errs
}

func validateServiceUpdate(svc, old *corev1.Service) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("spec")
	if svc.Spec.Type != corev1.ServiceTypeExternalName && old.Spec.Type != corev1.ServiceTypeExternalName {
		policy := svc.Spec.IPFamilyPolicy
		is, was := IsHeadless(svc), IsHeadless(old)
		if !is || !was {
			errs = append(errs, keepsFirst(path.Child("clusterIPs"), svc.Spec.ClusterIPs, old.Spec.ClusterIPs, policy, "clusterIP")...)
		}
		if !is && !was { // a headless service can change its families
			errs = append(errs, keepsFirst(path.Child("ipFamilies"), svc.Spec.IPFamilies, old.Spec.IPFamilies, policy, "ipFamily")...)
		}
	}
	if NeedsHealthCheckPort(svc) && NeedsHealthCheckPort(old) && svc.Spec.HealthCheckNodePort != old.Spec.HealthCheckNodePort {
		errs = append(errs, field.Forbidden(path.Child("healthCheckNodePort"), "field is immutable"))
	}
	return append(errs, validateService(svc, old)...)
}

// keepsFirst checks that a list of at most two, once set, keeps its first element, and its second unless it is dropped, which
// the policy must say.
func keepsFirst[T ~string](path *field.Path, now, was []T, policy *corev1.IPFamilyPolicy, name string) field.ErrorList {
	switch {
	case len(was) == 0:
		return nil
	case len(now) == 0:
		return field.ErrorList{field.Invalid(path.Index(0), now, "primary "+name+" can not be unset")}
	case now[0] != was[0]:
		return field.ErrorList{field.Invalid(path.Index(0), now, "may not change once set")}
	case len(now) > 1 && len(was) > 1 && now[1] != was[1]:
		return field.ErrorList{field.Invalid(path.Index(1), now, "may not change once set")}
	case len(now) == 1 && len(was) > 1 && ptr.Deref(policy, "") != corev1.IPFamilyPolicySingleStack:
		return field.ErrorList{field.Invalid(field.NewPath("spec", "ipFamilyPolicy"), policy,
			"must be set to 'SingleStack' when releasing the secondary "+name)}
	}
	return nil
}

func validateServiceStatusUpdate(_ context.Context, svc, old *corev1.Service) field.ErrorList {
	status := field.NewPath("status")
	path := status.Child("loadBalancer", "ingress")
	ingresses := svc.Status.LoadBalancer.Ingress
	var errs field.ErrorList
	if len(ingresses) > 0 && svc.Spec.Type != corev1.ServiceTypeLoadBalancer {
		errs = append(errs, field.Forbidden(path, "may only be used when `spec.type` is 'LoadBalancer'"))
	}
	var before []string
	for _, ingress := range old.Status.LoadBalancer.Ingress {
		before = append(before, ingress.IP)
	}
	for i, ingress := range ingresses {
		at := path.Index(i)
		if ingress.IP != "" {
			errs = append(errs, validation.IsValidIPForLegacyField(at.Child("ip"), ingress.IP, true, before)...)
		}
		errs = append(errs, validateIPMode(ingress, at.Child("ipMode"))...)
		if ingress.Hostname != "" {
			errs = append(errs, api.InvalidAll(at.Child("hostname"), ingress.Hostname, validation.IsDNS1123Subdomain(ingress.Hostname))...)
			if netutils.ParseIPSloppy(ingress.Hostname) != nil {
				errs = append(errs, field.Invalid(at.Child("hostname"), ingress.Hostname, "must be a DNS name, not an IP address"))
			}
		}
	}
	return append(errs, metav1validation.ValidateConditions(svc.Status.Conditions, status.Child("conditions"))...)
}

func validateIPMode(ingress corev1.LoadBalancerIngress, path *field.Path) field.ErrorList {
	supported := []corev1.LoadBalancerIPMode{corev1.LoadBalancerIPModeProxy, corev1.LoadBalancerIPModeVIP}
	switch {
	case ingress.IP != "" && ingress.IPMode == nil:
		return field.ErrorList{field.Required(path, "must be specified when `ip` is set")}
	case ingress.IP == "" && ingress.IPMode != nil:
		return field.ErrorList{field.Forbidden(path, "may not be specified when `ip` is not set")}
	case ingress.IPMode != nil && !slices.Contains(supported, *ingress.IPMode):
		return field.ErrorList{field.NotSupported(path, *ingress.IPMode, supported)}
	}
	return nil
}

func warnService(_ context.Context, svc, old *corev1.Service) []string {
	spec, path := &svc.Spec, field.NewPath("spec")
	var warnings []string
	if _, ok := svc.Annotations[topologyHints]; ok {
		if old == nil || old.Annotations[topologyHints] != svc.Annotations[topologyHints] {
			warnings = append(warnings, "annotation "+topologyHints+" is deprecated, please use "+corev1.AnnotationTopologyMode+" instead")
		}
	}
	if len(spec.ExternalIPs) > 0 && (old == nil || !slices.Equal(spec.ExternalIPs, old.Spec.ExternalIPs)) {
		warnings = append(warnings, "spec.externalIPs is deprecated")
	}
	if IsHeadless(svc) {
		if spec.LoadBalancerIP != "" {
			warnings = append(warnings, "spec.loadBalancerIP is ignored for headless services")
		}
		if len(spec.ExternalIPs) > 0 {
			warnings = append(warnings, "spec.externalIPs is ignored for headless services")
		}
		if spec.SessionAffinity != corev1.ServiceAffinityNone {
			warnings = append(warnings, "spec.SessionAffinity is ignored for headless services")
		}
	}
	if spec.Type == corev1.ServiceTypeExternalName && len(spec.ExternalIPs) > 0 {
		warnings = append(warnings, `spec.externalIPs is ignored when spec.type is "ExternalName"`)
	}
	if spec.Type != corev1.ServiceTypeExternalName && spec.ExternalName != "" {
		warnings = append(warnings, `spec.externalName is ignored when spec.type is not "ExternalName"`)
	}
	for i, ip := range spec.ClusterIPs {
		if ip != corev1.ClusterIPNone {
			warnings = append(warnings, validation.GetWarningsForIP(path.Child("clusterIPs").Index(i), ip)...)
		}
	}
	for i, ip := range spec.ExternalIPs {
		warnings = append(warnings, validation.GetWarningsForIP(path.Child("externalIPs").Index(i), ip)...)
	}
	if netutils.ParseIPSloppy(spec.LoadBalancerIP) != nil { // the field is not validated
		warnings = append(warnings, validation.GetWarningsForIP(path.Child("loadBalancerIP"), spec.LoadBalancerIP)...)
	}
	for i, cidr := range spec.LoadBalancerSourceRanges {
		warnings = append(warnings, validation.GetWarningsForCIDR(path.Child("loadBalancerSourceRanges").Index(i), strings.TrimSpace(cidr))...)
	}
	return warnings
}
