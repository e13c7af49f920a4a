package core

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/utils/ptr"
)

// NeedsClusterIP returns whether the type of service has cluster IPs (or "None").
func NeedsClusterIP(svc *corev1.Service) bool {
	switch svc.Spec.Type {
	case corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer:
		return true
	}
	return false
}

// NeedsNodePort returns whether every port of the service gets a node port.
func NeedsNodePort(svc *corev1.Service) bool {
	return mayHaveNodePorts(svc) &&
		(svc.Spec.Type != corev1.ServiceTypeLoadBalancer || ptr.Deref(svc.Spec.AllocateLoadBalancerNodePorts, true))
}

// mayHaveNodePorts returns whether the type of service has node ports at all: a load balancer that does not want them keeps
// those it has until they are removed explicitly.
func mayHaveNodePorts(svc *corev1.Service) bool {
	return svc.Spec.Type == corev1.ServiceTypeNodePort || svc.Spec.Type == corev1.ServiceTypeLoadBalancer
}

// NeedsHealthCheckPort returns whether the service has a node port on which nodes say if they have local endpoints.
func NeedsHealthCheckPort(svc *corev1.Service) bool {
	return svc.Spec.Type == corev1.ServiceTypeLoadBalancer &&
		svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
}

// IsHeadless returns whether the service has no cluster IP on purpose.
func IsHeadless(svc *corev1.Service) bool {
	return len(svc.Spec.ClusterIPs) == 1 && svc.Spec.ClusterIPs[0] == corev1.ClusterIPNone ||
		len(svc.Spec.ClusterIPs) == 0 && svc.Spec.ClusterIP == corev1.ClusterIPNone
}

// externallyAccessible returns whether the service is reached from outside of the cluster through nodes.
func externallyAccessible(svc *corev1.Service) bool {
	return svc.Spec.Type == corev1.ServiceTypeLoadBalancer || svc.Spec.Type == corev1.ServiceTypeNodePort ||
		svc.Spec.Type == corev1.ServiceTypeClusterIP && len(svc.Spec.ExternalIPs) > 0
}

func defaultService(svc *corev1.Service) {
	spec := &svc.Spec
	if spec.SessionAffinity == "" {
		spec.SessionAffinity = corev1.ServiceAffinityNone
	}
	switch spec.SessionAffinity {
	case corev1.ServiceAffinityNone:
		spec.SessionAffinityConfig = nil
	case corev1.ServiceAffinityClientIP:
		if c := spec.SessionAffinityConfig; c == nil || c.ClientIP == nil || c.ClientIP.TimeoutSeconds == nil {
			spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{
				ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: ptr.To(corev1.DefaultClientIPServiceAffinitySeconds)},
			}
		}
	}
	if spec.Type == "" {
		spec.Type = corev1.ServiceTypeClusterIP
	}
	for i := range spec.Ports {
		port := &spec.Ports[i]
		if port.Protocol == "" {
			port.Protocol = corev1.ProtocolTCP
		}
		if port.TargetPort == intstr.FromInt32(0) || port.TargetPort == intstr.FromString("") {
			port.TargetPort = intstr.FromInt32(port.Port)
		}
	}
	if spec.ExternalTrafficPolicy == "" && externallyAccessible(svc) {
		spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster
	}
	if spec.InternalTrafficPolicy == nil && NeedsClusterIP(svc) {
		spec.InternalTrafficPolicy = ptr.To(corev1.ServiceInternalTrafficPolicyCluster)
	}
	if spec.Type == corev1.ServiceTypeLoadBalancer && spec.AllocateLoadBalancerNodePorts == nil {
		spec.AllocateLoadBalancerNodePorts = ptr.To(true)
	}
	if spec.Type == corev1.ServiceTypeLoadBalancer {
		for i := range svc.Status.LoadBalancer.Ingress {
			if ingress := &svc.Status.LoadBalancer.Ingress[i]; ingress.IP != "" && ingress.IPMode == nil {
				ingress.IPMode = ptr.To(corev1.LoadBalancerIPModeVIP)
			}
		}
	}
}

// normalizeClusterIPs keeps clusterIP and clusterIPs in step for clients that know only the former. old is nil on
// creation.
func normalizeClusterIPs(svc, old *corev1.Service) {
	spec := &svc.Spec
	if old == nil {
		if spec.ClusterIP != "" && len(spec.ClusterIPs) == 0 {
			spec.ClusterIPs = []string{spec.ClusterIP}
		}
		return
	}
	switch {
	case spec.ClusterIP != old.Spec.ClusterIP && slices.Equal(spec.ClusterIPs, old.Spec.ClusterIPs):
		spec.ClusterIPs = nil
		if spec.ClusterIP != "" {
			spec.ClusterIPs = []string{spec.ClusterIP}
		}
	case spec.ClusterIP == old.Spec.ClusterIP && len(spec.ClusterIPs) == 0 && len(old.Spec.ClusterIPs) > 0:
		spec.ClusterIP = ""
	case spec.ClusterIP != "" && len(spec.ClusterIPs) == 0:
		spec.ClusterIPs = []string{spec.ClusterIP}
	}
}

func prepareServiceUpdate(svc, old *corev1.Service) {
	svc.Status = old.Status
	keepAllocated(svc, old)
	normalizeClusterIPs(svc, old)
	dropFieldsOfOldType(svc, old)
	trimSecondFamily(svc, old)
}

// keepAllocated fills in what was allocated before and is not repeated by the update.
func keepAllocated(svc, old *corev1.Service) {
	if NeedsClusterIP(old) && NeedsClusterIP(svc) {
		if svc.Spec.ClusterIP == "" {
			svc.Spec.ClusterIP = old.Spec.ClusterIP
		}
		if len(svc.Spec.ClusterIPs) == 0 && svc.Spec.ClusterIP == old.Spec.ClusterIP {
			svc.Spec.ClusterIPs = old.Spec.ClusterIPs
		}
		if len(svc.Spec.IPFamilies) == 0 {
			svc.Spec.IPFamilies = old.Spec.IPFamilies
		}
		if svc.Spec.IPFamilyPolicy == nil {
			svc.Spec.IPFamilyPolicy = old.Spec.IPFamilyPolicy
		}
	}
	if mayHaveNodePorts(old) && NeedsNodePort(svc) {
		keepNodePorts(svc, old)
	}
	if NeedsHealthCheckPort(old) && NeedsHealthCheckPort(svc) && svc.Spec.HealthCheckNodePort == 0 {
		svc.Spec.HealthCheckNodePort = old.Spec.HealthCheckNodePort
	}
}

// keepNodePorts gives ports without a node port the one that the port of the same name had, unless another has it now.
func keepNodePorts(svc, old *corev1.Service) {
	used := nodePorts(old).Intersection(nodePorts(svc))
	byName := make(map[string]int32, len(old.Spec.Ports))
	for _, port := range old.Spec.Ports {
		byName[port.Name] = port.NodePort
	}
	for i := range svc.Spec.Ports {
		port := &svc.Spec.Ports[i]
		if before := byName[port.Name]; port.NodePort == 0 && !used.Has(before) {
			port.NodePort = before
			used.Insert(before)
		}
	}
}

func nodePorts(svc *corev1.Service) sets.Set[int32] {
	ports := sets.New[int32]()
	for _, port := range svc.Spec.Ports {
		if port.NodePort != 0 {
			ports.Insert(port.NodePort)
		}
	}
	return ports
}

// dropFieldsOfOldType clears what the type before needed and the new one must not have, as long as the update has not
// touched it.
func dropFieldsOfOldType(svc, old *corev1.Service) {
	now, was := &svc.Spec, &old.Spec
	if NeedsClusterIP(old) && !NeedsClusterIP(svc) {
		if now.ClusterIP == was.ClusterIP && slices.Equal(now.ClusterIPs, was.ClusterIPs) {
			now.ClusterIP, now.ClusterIPs = "", nil
		}
		if slices.Equal(now.IPFamilies, was.IPFamilies) {
			now.IPFamilies = nil
		}
		if ptr.Equal(now.IPFamilyPolicy, was.IPFamilyPolicy) {
			now.IPFamilyPolicy = nil
		}
	}
	if mayHaveNodePorts(old) && !mayHaveNodePorts(svc) && sameNodePorts(now.Ports, was.Ports) {
		for i := range now.Ports {
			now.Ports[i].NodePort = 0
		}
	}
	if NeedsHealthCheckPort(old) && !NeedsHealthCheckPort(svc) && now.HealthCheckNodePort == was.HealthCheckNodePort {
		now.HealthCheckNodePort = 0
	}
	if was.Type == corev1.ServiceTypeLoadBalancer && now.Type != corev1.ServiceTypeLoadBalancer {
		if ptr.Equal(now.AllocateLoadBalancerNodePorts, was.AllocateLoadBalancerNodePorts) {
			now.AllocateLoadBalancerNodePorts = nil
		}
		if ptr.Equal(now.LoadBalancerClass, was.LoadBalancerClass) {
			now.LoadBalancerClass = nil
		}
	}
	if externallyAccessible(old) && !externallyAccessible(svc) && now.ExternalTrafficPolicy == was.ExternalTrafficPolicy {
		now.ExternalTrafficPolicy = ""
	}
}

func sameNodePorts(now, was []corev1.ServicePort) bool {
	ports := func(list []corev1.ServicePort) sets.Set[int32] {
		set := sets.New[int32]()
		for _, port := range list {
			set.Insert(port.NodePort)
		}
		return set
	}
	return ports(now).Equal(ports(was))
}

// trimSecondFamily drops the second IP and family when the policy changes to SingleStack and they were not touched.
func trimSecondFamily(svc, old *corev1.Service) {
	now, was := &svc.Spec, &old.Spec
	if !NeedsClusterIP(svc) || was.IPFamilyPolicy == nil || *was.IPFamilyPolicy == corev1.IPFamilyPolicySingleStack ||
		now.IPFamilyPolicy == nil || *now.IPFamilyPolicy != corev1.IPFamilyPolicySingleStack {
		return
	}
	if len(now.ClusterIPs) > 1 && slices.Equal(now.ClusterIPs, was.ClusterIPs) {
		now.ClusterIPs = now.ClusterIPs[:1:1]
	}
	if len(now.IPFamilies) > 1 && slices.Equal(now.IPFamilies, was.IPFamilies) {
		now.IPFamilies = now.IPFamilies[:1:1]
	}
}
