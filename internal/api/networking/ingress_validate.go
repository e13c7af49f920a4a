package networking

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"github.com/proa-k8s/proa/internal/api"
)

func validateIngressSpec(spec *networkingv1.IngressSpec, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(spec.Rules) == 0 && spec.DefaultBackend == nil {
		errs = append(errs, field.Invalid(at, spec.Rules, "either `defaultBackend` or `rules` must be specified"))
	}
	if spec.DefaultBackend != nil {
		errs = append(errs, validateBackend(spec.DefaultBackend, at.Child("defaultBackend"))...)
	}
	for i := range spec.Rules {
		errs = append(errs, validateIngressRule(&spec.Rules[i], at.Child("rules").Index(i))...)
	}
	for i, tls := range spec.TLS {
		where := at.Child("tls").Index(i)
		for j, host := range tls.Hosts {
			errs = append(errs, validateHost(host, where.Child("hosts").Index(j))...)
		}
		if tls.SecretName != "" {
			errs = append(errs, api.InvalidAll(where.Child("secretName"), tls.SecretName, apivalidation.NameIsDNSSubdomain(tls.SecretName, false))...)
		}
	}
	if class := spec.IngressClassName; class != nil {
		errs = append(errs, api.InvalidAll(at.Child("ingressClassName"), *class, apivalidation.NameIsDNSSubdomain(*class, false))...)
	}
	return errs
}

func validateHost(host string, at *field.Path) field.ErrorList {
	if strings.Contains(host, "*") {
		return api.InvalidAll(at, host, validation.IsWildcardDNS1123Subdomain(host))
	}
	return api.InvalidAll(at, host, validation.IsDNS1123Subdomain(host))
}

func validateIngressRule(rule *networkingv1.IngressRule, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if rule.Host != "" {
		if netutils.ParseIPSloppy(rule.Host) != nil {
			errs = append(errs, field.Invalid(at.Child("host"), rule.Host, "must be a DNS name, not an IP address"))
		}
		errs = append(errs, validateHost(rule.Host, at.Child("host"))...)
	}
	if rule.HTTP == nil {
		return errs
	}
	paths := at.Child("http", "paths")
	if len(rule.HTTP.Paths) == 0 {
		errs = append(errs, field.Required(paths, ""))
	}
	for i := range rule.HTTP.Paths {
		errs = append(errs, validateIngressPath(&rule.HTTP.Paths[i], paths.Index(i))...)
	}
	return errs
}

// Parts that a path must not have, so that it means the same to all who match it.
var (
	badPathParts = []string{"//", "/./", "/../", "%2f", "%2F"}
	badPathEnds  = []string{"/..", "/."}
)

func validateIngressPath(p *networkingv1.HTTPIngressPath, at *field.Path) field.ErrorList {
	if p.PathType == nil {
		return field.ErrorList{field.Required(at.Child("pathType"), "pathType must be specified")}
	}
	var errs field.ErrorList
	switch *p.PathType {
	case networkingv1.PathTypeExact, networkingv1.PathTypePrefix:
		if !strings.HasPrefix(p.Path, "/") {
			errs = append(errs, field.Invalid(at.Child("path"), p.Path, "must be an absolute path"))
		}
		for _, part := range badPathParts {
			if strings.Contains(p.Path, part) {
				errs = append(errs, field.Invalid(at.Child("path"), p.Path, fmt.Sprintf("must not contain '%s'", part)))
			}
		}
		for _, end := range badPathEnds {
			if strings.HasSuffix(p.Path, end) {
				errs = append(errs, field.Invalid(at.Child("path"), p.Path, fmt.Sprintf("cannot end with '%s'", end)))
			}
		}
	case networkingv1.PathTypeImplementationSpecific:
		if p.Path != "" && !strings.HasPrefix(p.Path, "/") {
			errs = append(errs, field.Invalid(at.Child("path"), p.Path, "must be an absolute path"))
		}
	default:
		errs = append(errs, api.ValidateSupported(at.Child("pathType"), *p.PathType,
			networkingv1.PathTypeExact, networkingv1.PathTypeImplementationSpecific, networkingv1.PathTypePrefix)...)
	}
	return append(errs, validateBackend(&p.Backend, at.Child("backend"))...)
}

func validateBackend(backend *networkingv1.IngressBackend, at *field.Path) field.ErrorList {
	switch {
	case backend.Resource != nil && backend.Service != nil:
		return field.ErrorList{field.Invalid(at, "", "cannot set both resource and service backends")}
	case backend.Resource != nil:
		return validateObjectReference(backend.Resource, at.Child("resource"))
	case backend.Service == nil:
		return field.ErrorList{field.Invalid(at, "", "resource or service backend is required")}
	}
	service := backend.Service
	var errs field.ErrorList
	if service.Name == "" {
		errs = append(errs, field.Required(at.Child("service", "name"), ""))
	} else {
		errs = append(errs, api.InvalidAll(at.Child("service", "name"), service.Name, apivalidation.NameIsDNSLabel(service.Name, false))...)
	}
	hasName, hasNumber := service.Port.Name != "", service.Port.Number != 0
	switch {
	case hasName && hasNumber:
		errs = append(errs, field.Invalid(at, "", "cannot set both port name & port number"))
	case hasName:
		errs = append(errs, api.InvalidAll(at.Child("service", "port", "name"), service.Port.Name, validation.IsValidPortName(service.Port.Name))...)
	case hasNumber:
		errs = append(errs, api.InvalidAll(at.Child("service", "port", "number"), service.Port.Number, validation.IsValidPortNum(int(service.Port.Number)))...)
	default:
		errs = append(errs, field.Required(at, "port name or number is required"))
	}
	return errs
}

func validateObjectReference(ref *corev1.TypedLocalObjectReference, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if ref.APIGroup != nil {
		errs = append(errs, api.InvalidAll(at.Child("apiGroup"), *ref.APIGroup, validation.IsDNS1123Subdomain(*ref.APIGroup))...)
	}
	errs = append(errs, validateSegment(ref.Kind, "kind is required", at.Child("kind"))...)
	return append(errs, validateSegment(ref.Name, "name is required", at.Child("name"))...)
}

// validateSegment demands a value that can be a part of a path.
func validateSegment(value, required string, at *field.Path) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(at, required)}
	}
	return api.InvalidAll(at, value, content.IsPathSegmentName(value))
}

func validateIngressStatus(_ context.Context, ing, old *networkingv1.Ingress) field.ErrorList {
	at := field.NewPath("status", "loadBalancer", "ingress")
	var before []string
	for _, ingress := range old.Status.LoadBalancer.Ingress {
		before = append(before, ingress.IP)
	}
	var errs field.ErrorList
	for i, ingress := range ing.Status.LoadBalancer.Ingress {
		if ingress.IP != "" {
			errs = append(errs, validation.IsValidIPForLegacyField(at.Index(i).Child("ip"), ingress.IP, true, before)...)
		}
		if ingress.Hostname != "" {
			where := at.Index(i).Child("hostname")
			errs = append(errs, api.InvalidAll(where, ingress.Hostname, validation.IsDNS1123Subdomain(ingress.Hostname))...)
			if netutils.ParseIPSloppy(ingress.Hostname) != nil {
				errs = append(errs, field.Invalid(where, ingress.Hostname, "must be a DNS name, not an IP address"))
			}
		}
	}
	return errs
}
