package core

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-k8s/proa/internal/api"
)

const (
	onlyLoadBalancer = "may only be used when `type` is 'LoadBalancer'"
	// maxAffinitySeconds is the longest time that a client keeps its endpoint: a day.
	maxAffinitySeconds = 86400
)

// validateService checks a service; old is nil on creation, and lets badly written addresses stay that are there already.
func validateService(svc, old *corev1.Service) field.ErrorList {
	spec, path := &svc.Spec, field.NewPath("spec")
	errs := validateTopologyAnnotations(svc.Annotations)
	if len(spec.Ports) == 0 && !IsHeadless(svc) && spec.Type != corev1.ServiceTypeExternalName {
		errs = append(errs, field.Required(path.Child("ports"), ""))
	}
	errs = append(errs, validateServiceType(svc, path)...)
	errs = append(errs, validateServicePorts(spec, path.Child("ports"))...)
	if spec.Selector != nil {
		errs = append(errs, metav1validation.ValidateLabels(spec.Selector, path.Child("selector"))...)
	}
	errs = append(errs, validateSessionAffinity(spec, path)...)
	errs = append(errs, validateClusterIPs(svc, path)...)
	var oldExternal []string
	if old != nil {
		oldExternal = old.Spec.ExternalIPs
	}
	for i, ip := range spec.ExternalIPs {
		at := path.Child("externalIPs").Index(i)
		if bad := validation.IsValidIPForLegacyField(at, ip, true, oldExternal); len(bad) > 0 {
			errs = append(errs, bad...)
			continue
		}
		errs = append(errs, ValidateNonSpecialIP(ip, at)...)
	}
	errs = append(errs, validateLoadBalancerFields(svc, old, path)...)
	errs = append(errs, validateTrafficPolicies(svc, path)...)
	return errs
}

// validateTopologyAnnotations: the old annotation and the one that replaced it must say the same.
func validateTopologyAnnotations(annotations map[string]string) field.ErrorList {
	hints, isOld := annotations[topologyHints]
	mode, isNew := annotations[corev1.AnnotationTopologyMode]
	if !isOld || !isNew || hints == mode {
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath("metadata", "annotations").Key(corev1.AnnotationTopologyMode), mode,
		"must match annotations["+topologyHints+"] when both are specified")}
}

func validateServiceType(svc *corev1.Service, path *field.Path) field.ErrorList {
	spec := &svc.Spec
	errs := api.ValidateEnum(path.Child("type"), spec.Type, corev1.ServiceTypeClusterIP, corev1.ServiceTypeExternalName,
		corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort)
	headless := func(typ string) {
		if IsHeadless(svc) {
			errs = append(errs, field.Invalid(path.Child("clusterIPs").Index(0), corev1.ClusterIPNone,
				"may not be set to 'None' for "+typ+" services"))
		}
	}
	switch spec.Type {
	case corev1.ServiceTypeLoadBalancer:
		headless("LoadBalancer")
	case corev1.ServiceTypeNodePort:
		headless("NodePort")
	case corev1.ServiceTypeExternalName:
		const forbidden = "may not be set for ExternalName services"
		if len(spec.ClusterIPs) > 0 {
			errs = append(errs, field.Forbidden(path.Child("clusterIPs"), forbidden))
		}
		if len(spec.IPFamilies) > 0 {
			errs = append(errs, field.Forbidden(path.Child("ipFamilies"), forbidden))
		}
		if spec.IPFamilyPolicy != nil {
			errs = append(errs, field.Forbidden(path.Child("ipFamilyPolicy"), forbidden))
		}
		// A trailing dot says that the name is fully qualified.
		if name := strings.TrimSuffix(spec.ExternalName, "."); name != "" {
			errs = append(errs, api.InvalidAll(path.Child("externalName"), name, validation.IsDNS1123Subdomain(name))...)
		} else {
			errs = append(errs, field.Required(path.Child("externalName"), ""))
		}
	}
	return errs
}

func validateServicePorts(spec *corev1.ServiceSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	names := sets.New[string]()
	type endpoint struct {
		protocol corev1.Protocol
		port     int32
	}
	used, usedNodePorts := sets.New[endpoint](), sets.New[endpoint]()
	for i := range spec.Ports {
		port, at := &spec.Ports[i], path.Index(i)
		errs = append(errs, validateServicePort(port, len(spec.Ports) > 1, names, at)...)
		if port.NodePort != 0 {
			if spec.Type == corev1.ServiceTypeClusterIP {
				errs = append(errs, field.Forbidden(at.Child("nodePort"), "may not be used when `type` is 'ClusterIP'"))
			}
			key := endpoint{port.Protocol, port.NodePort}
			if usedNodePorts.Has(key) {
				errs = append(errs, field.Duplicate(at.Child("nodePort"), port.NodePort))
			}
			usedNodePorts.Insert(key)
		}
		key := endpoint{port.Protocol, port.Port}
		if used.Has(key) {
			errs = append(errs, field.Duplicate(at, corev1.ServicePort{Protocol: port.Protocol, Port: port.Port}))
		}
		used.Insert(key)
	}
	return errs
}

func validateServicePort(port *corev1.ServicePort, requireName bool, names sets.Set[string], path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if requireName && port.Name == "" {
		errs = append(errs, field.Required(path.Child("name"), ""))
	} else if port.Name != "" {
		errs = append(errs, api.InvalidAll(path.Child("name"), port.Name, validation.IsDNS1123Label(port.Name))...)
		if names.Has(port.Name) {
			errs = append(errs, field.Duplicate(path.Child("name"), port.Name))
		}
		names.Insert(port.Name)
	}
	errs = append(errs, api.InvalidAll(path.Child("port"), port.Port, validation.IsValidPortNum(int(port.Port)))...)
	errs = append(errs, api.ValidateEnum(path.Child("protocol"), port.Protocol,
		corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP)...)
	if port.TargetPort.Type == intstr.Int {
		errs = append(errs, api.InvalidAll(path.Child("targetPort"), port.TargetPort.IntVal, validation.IsValidPortNum(int(port.TargetPort.IntVal)))...)
	} else {
		errs = append(errs, api.InvalidAll(path.Child("targetPort"), port.TargetPort.StrVal, validation.IsValidPortName(port.TargetPort.StrVal))...)
	}
	if port.AppProtocol != nil {
		errs = append(errs, api.InvalidAll(path.Child("appProtocol"), *port.AppProtocol, validation.IsQualifiedName(*port.AppProtocol))...)
	}
	return errs
}

func validateSessionAffinity(spec *corev1.ServiceSpec, path *field.Path) field.ErrorList {
	errs := api.ValidateEnum(path.Child("sessionAffinity"), spec.SessionAffinity,
		corev1.ServiceAffinityClientIP, corev1.ServiceAffinityNone)
	config := path.Child("sessionAffinityConfig")
	switch spec.SessionAffinity {
	case corev1.ServiceAffinityNone:
		if spec.SessionAffinityConfig != nil {
			errs = append(errs, field.Forbidden(config, "must not be set when session affinity is None"))
		}
	case corev1.ServiceAffinityClientIP:
		required := "when session affinity type is ClientIP"
		switch c := spec.SessionAffinityConfig; {
		case c == nil:
			errs = append(errs, field.Required(config, required))
		case c.ClientIP == nil:
			errs = append(errs, field.Required(config.Child("clientIP"), required))
		case c.ClientIP.TimeoutSeconds == nil:
			errs = append(errs, field.Required(config.Child("clientIP", "timeoutSeconds"), required))
		case *c.ClientIP.TimeoutSeconds <= 0 || *c.ClientIP.TimeoutSeconds > maxAffinitySeconds:
			errs = append(errs, field.Invalid(config.Child("clientIP", "timeoutSeconds"), *c.ClientIP.TimeoutSeconds,
				fmt.Sprintf("must be greater than 0 and less than %d", maxAffinitySeconds)))
		}
	}
	return errs
}

func validateTrafficPolicies(svc *corev1.Service, path *field.Path) field.ErrorList {
	spec := &svc.Spec
	var errs field.ErrorList
	external := path.Child("externalTrafficPolicy")
	if externallyAccessible(svc) {
		errs = append(errs, api.ValidateEnum(external, spec.ExternalTrafficPolicy,
			corev1.ServiceExternalTrafficPolicyCluster, corev1.ServiceExternalTrafficPolicyLocal)...)
	} else if spec.ExternalTrafficPolicy != "" {
		errs = append(errs, field.Invalid(external, spec.ExternalTrafficPolicy, "may only be set for externally-accessible services"))
	}
	check := path.Child("healthCheckNodePort")
	if port := spec.HealthCheckNodePort; !NeedsHealthCheckPort(svc) {
		if port != 0 {
			errs = append(errs, field.Invalid(check, port,
				"may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"))
		}
	} else if port != 0 { // otherwise one is allocated
		errs = append(errs, api.InvalidAll(check, port, validation.IsValidPortNum(int(port)))...)
	}
	internal := path.Child("internalTrafficPolicy")
	if spec.InternalTrafficPolicy != nil {
		errs = append(errs, api.ValidateEnum(internal, *spec.InternalTrafficPolicy,
			corev1.ServiceInternalTrafficPolicyCluster, corev1.ServiceInternalTrafficPolicyLocal)...)
	} else if NeedsClusterIP(svc) {
		errs = append(errs, field.Required(internal, ""))
	}
	if spec.TrafficDistribution != nil {
		supported := []string{
			corev1.ServiceTrafficDistributionPreferClose, corev1.ServiceTrafficDistributionPreferSameNode,
			corev1.ServiceTrafficDistributionPreferSameZone,
		}
		if !slices.Contains(supported, *spec.TrafficDistribution) {
			errs = append(errs, field.NotSupported(path.Child("trafficDistribution"), *spec.TrafficDistribution, supported))
		}
	}
	return errs
}
