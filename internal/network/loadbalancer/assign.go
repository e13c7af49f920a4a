package loadbalancer

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// listener is a port on an address that only one service can have.
type listener struct {
	addr  netip.Addr
	proto corev1.Protocol
	port  int32
}

// address is what a node has to offer.
type address struct {
	node string
	addr netip.Addr
}

// assignment is what a service gets.
type assignment struct {
	ingress []corev1.LoadBalancerIngress
	problem string // why there is no address
}

// cluster is what assignments follow from.
type cluster struct {
	services []*corev1.Service
	nodes    []*corev1.Node
	// endpoints gives the slices of a service.
	endpoints func(*corev1.Service) []*discoveryv1.EndpointSlice
}

// managed tells whether a service is for the built-in load balancer.
func managed(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeLoadBalancer && s.Spec.LoadBalancerClass == nil && s.DeletionTimestamp == nil
}

// assign shares the nodes' addresses out to the services that are for the load balancer. A port of an address goes to the
// service that was made first.
func assign(c cluster) map[types.NamespacedName]assignment {
	offered := addresses(c.nodes)
	taken := reserved(c)
	services := slices.DeleteFunc(slices.Clone(c.services), func(s *corev1.Service) bool { return !managed(s) })
	slices.SortFunc(services, func(a, b *corev1.Service) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	all := map[types.NamespacedName]assignment{}
	for _, s := range services {
		all[nameOf(s)] = assignOne(s, suitable(s, offered, c.endpoints), taken)
	}
	return all
}

func nameOf(s *corev1.Service) types.NamespacedName {
	return types.NamespacedName{Namespace: s.Namespace, Name: s.Name}
}

// assignOne gives a service all addresses that have all its ports free, and takes these.
func assignOne(s *corev1.Service, offered []address, taken map[listener]string) assignment {
	var got assignment
	if len(offered) == 0 {
		got.problem = "no node that is ready has an address for it"
		if s.Spec.LoadBalancerIP != "" {
			got.problem = fmt.Sprintf("no node that is ready has the address %s", s.Spec.LoadBalancerIP)
		}
		return got
	}
	for _, a := range offered {
		if conflict := conflictOf(s, a.addr, taken); conflict != "" {
			got.problem = conflict
			continue
		}
		for _, p := range s.Spec.Ports {
			taken[listener{a.addr, p.Protocol, p.Port}] = "service " + nameOf(s).String()
		}
		got.ingress = append(got.ingress, corev1.LoadBalancerIngress{IP: a.addr.String(), IPMode: ptr.To(corev1.LoadBalancerIPModeVIP)})
	}
	if len(got.ingress) > 0 {
		got.problem = ""
	}
	return got
}

func conflictOf(s *corev1.Service, addr netip.Addr, taken map[listener]string) string {
	for _, p := range s.Spec.Ports {
		if owner, ok := taken[listener{addr, p.Protocol, p.Port}]; ok {
			return fmt.Sprintf("port %d/%s of %s is used by %s", p.Port, p.Protocol, addr, owner)
		}
	}
	return ""
}

// reserved are the ports by which nodes and the API are reached: a service there would cut the cluster off.
func reserved(c cluster) map[listener]string {
	taken := map[listener]string{}
	for _, n := range c.nodes {
		if port := n.Status.DaemonEndpoints.KubeletEndpoint.Port; port != 0 {
			for _, addr := range addressesOf(n) {
				taken[listener{addr, corev1.ProtocolTCP, port}] = "the kubelet"
			}
		}
	}
	for _, s := range c.services {
		if s.Namespace != corev1.NamespaceDefault || s.Name != "kubernetes" {
			continue
		}
		for _, slice := range c.endpoints(s) {
			for _, p := range slice.Ports {
				for _, e := range slice.Endpoints {
					for _, text := range e.Addresses {
						if addr, err := netip.ParseAddr(text); err == nil && p.Port != nil {
							taken[listener{addr, ptr.Deref(p.Protocol, corev1.ProtocolTCP), *p.Port}] = "the API server"
						}
					}
				}
			}
		}
	}
	return taken
}

// addresses are those of the nodes that are ready and may be load balancers, by the names of the nodes.
func addresses(nodes []*corev1.Node) []address {
	var all []address
	for _, n := range nodes {
		if !usable(n) {
			continue
		}
		for _, addr := range addressesOf(n) {
			all = append(all, address{n.Name, addr})
		}
	}
	slices.SortFunc(all, func(a, b address) int { return cmp.Or(cmp.Compare(a.node, b.node), a.addr.Compare(b.addr)) })
	return all
}

func usable(n *corev1.Node) bool {
	if _, excluded := n.Labels[corev1.LabelNodeExcludeBalancers]; excluded || n.DeletionTimestamp != nil {
		return false
	}
	return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

// addressesOf are the node's external addresses, or its internal ones when it has none, in each family.
func addressesOf(n *corev1.Node) []netip.Addr {
	byType := func(kind corev1.NodeAddressType, v6 bool) []netip.Addr {
		var some []netip.Addr
		for _, a := range n.Status.Addresses {
			if addr, err := netip.ParseAddr(a.Address); err == nil && a.Type == kind && addr.Is6() == v6 {
				some = append(some, addr)
			}
		}
		return some
	}
	var all []netip.Addr
	for _, v6 := range []bool{false, true} {
		some := byType(corev1.NodeExternalIP, v6)
		if len(some) == 0 {
			some = byType(corev1.NodeInternalIP, v6)
		}
		all = append(all, some...)
	}
	return all
}

// suitable are the addresses that a service can have: of its families, the one it asks for, and, with externalTrafficPolicy Local,
// of nodes that have endpoints.
func suitable(s *corev1.Service, offered []address, endpoints func(*corev1.Service) []*discoveryv1.EndpointSlice) []address {
	var nodes map[string]bool
	if s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal {
		nodes = nodesWithEndpoints(endpoints(s))
	}
	return slices.DeleteFunc(slices.Clone(offered), func(a address) bool {
		family := corev1.IPv4Protocol
		if a.addr.Is6() {
			family = corev1.IPv6Protocol
		}
		if len(s.Spec.IPFamilies) > 0 && !slices.Contains(s.Spec.IPFamilies, family) {
			return true
		}
		if s.Spec.LoadBalancerIP != "" && !strings.EqualFold(s.Spec.LoadBalancerIP, a.addr.String()) {
			return true
		}
		return nodes != nil && !nodes[a.node]
	})
}

func nodesWithEndpoints(all []*discoveryv1.EndpointSlice) map[string]bool {
	nodes := map[string]bool{}
	for _, slice := range all {
		for _, e := range slice.Endpoints {
			if e.NodeName != nil && ptr.Deref(e.Conditions.Ready, true) {
				nodes[*e.NodeName] = true
			}
		}
	}
	return nodes
}
