package proxy

import (
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// node is what decisions depend on beside the service.
type node struct {
	name, zone string
	// families that the cluster has, and addresses of this node.
	v4, v6 bool
	ips    []netip.Addr
}

// frontend is where a service is reached: an address, or any address of the node when it is unspecified (node ports, host ports).
type frontend struct {
	addr  netip.Addr
	proto uint8 // IPPROTO_*
	port  uint16
}

func (f frontend) v6() bool       { return f.addr.Is6() }
func (f frontend) nodePort() bool { return f.addr.IsUnspecified() }

// masquerade says whose connections have the node's address when they arrive at an endpoint.
type masquerade uint8

const (
	masqueradeNone    masquerade = iota
	masqueradeOutside            // those that don't come from pods
	masqueradeAll
)

// refusal is what becomes of connections that no endpoint takes.
type refusal uint8

const (
	accept refusal = iota
	reject         // an error at once
	drop           // silence: another node may have an endpoint, and a load balancer that hears nothing tries it
)

// class is how connections to a frontend are treated. Frontends of the same class share a chain.
type class struct {
	refuse     refusal
	set        set // the map through which the frontend is found
	size       int // of the pool, which is not empty unless connections are refused
	masquerade masquerade
	affinity   uint32 // seconds that a client stays with its endpoint; 0: no affinity
	restricted bool   // only clients of certain ranges are let in
	split      bool   // what comes from pods and from this node is looked up among the internal frontends

	// sticky is what clients stay with, if there is affinity.
	sticky sticky
	// remember makes this the class of a chain that leads to the only endpoint of sticky and notes that a client has it. It is
	// of no frontend, and has only affinity beside.
	remember bool
}

// sticky are the endpoints of a service's port whose clients are remembered, each with two bytes of port behind the address.
type sticky struct {
	service   types.NamespacedName
	port      string
	endpoints string
}

// poolName names the endpoints that a frontend's connections are shared out to.
type poolName struct {
	service types.NamespacedName
	port    string
	proto   uint8
	v6      bool
	local   bool // the endpoints of this node only
}

type pool struct {
	endpoints []netip.AddrPort // in no order that means anything: see place
}

// target is where a frontend leads.
type target struct {
	class class
	pool  poolName // empty or of no meaning if the class refuses
}

// rules are all that the kernel must know of a service, or of a pod with ports of the node.
type rules struct {
	frontends map[frontend]target
	internal  map[frontend]target // of the frontends whose class is split
	pools     map[poolName]pool
	sources   map[frontend][]netip.Prefix // of the frontends whose class is restricted
	hairpins  map[netip.Addr]bool         // pods of this node that may be sent their own connections
	health    *healthCheck
}

func newRules() rules {
	return rules{frontends: map[frontend]target{}, internal: map[frontend]target{}, pools: map[poolName]pool{}, sources: map[frontend][]netip.Prefix{}, hairpins: map[netip.Addr]bool{}}
}

// classes gives the classes of all frontends, and those that they refer to, each as often as it is used.
func (r rules) classes() iter.Seq2[frontend, class] {
	return func(yield func(frontend, class) bool) {
		for _, m := range []map[frontend]target{r.frontends, r.internal} {
			for f, t := range m {
				if !yield(f, t.class) {
					return
				}
				for c := range t.class.remembering() {
					if !yield(f, c) {
						return
					}
				}
			}
		}
	}
}

// remembering gives the classes of the chains that lead to the single endpoints, where there is affinity.
func (c class) remembering() iter.Seq[class] {
	return func(yield func(class) bool) {
		size := len(c.sticky.endpoints) / max(c.size, 1)
		for i := 0; i < len(c.sticky.endpoints); i += size {
			one := c.sticky
			one.endpoints = c.sticky.endpoints[i : i+size]
			if !yield(class{remember: true, affinity: c.affinity, sticky: one}) {
				return
			}
		}
	}
}

// healthCheck is what a load balancer is told about this node.
type healthCheck struct {
	service types.NamespacedName
	port    uint16
	local   int // endpoints on this node that are ready
}

// rulesFor says what a service needs on a node. A service that is not for the proxy, or nil, needs nothing.
func rulesFor(svc *corev1.Service, endpointSlices []*discoveryv1.EndpointSlice, n node) rules {
	r := newRules()
	if svc == nil || svc.Spec.Type == corev1.ServiceTypeExternalName || svc.Spec.ClusterIP == corev1.ClusterIPNone || svc.Spec.ClusterIP == "" {
		return r
	}
	localReady := map[netip.Addr]bool{}
	for _, v6 := range []bool{false, true} {
		clusterIP, ok := clusterIPOf(svc, v6)
		if !ok || v6 && !n.v6 || !v6 && !n.v4 {
			continue
		}
		for i := range svc.Spec.Ports {
			p := portRules{rules: &r, svc: svc, port: &svc.Spec.Ports[i], v6: v6, node: n}
			p.add(clusterIP, endpointsOf(endpointSlices, p.port, v6, n))
			for _, e := range onNode(p.all) {
				if e.ready {
					localReady[e.addr.Addr()] = true
				}
			}
		}
	}
	if svc.Spec.Type == corev1.ServiceTypeLoadBalancer && svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal && svc.Spec.HealthCheckNodePort != 0 {
		r.health = &healthCheck{service: nameOf(svc), port: uint16(svc.Spec.HealthCheckNodePort), local: len(localReady)}
	}
	return r
}

func nameOf(svc *corev1.Service) types.NamespacedName {
	return types.NamespacedName{Namespace: svc.Namespace, Name: svc.Name}
}

// clusterIPOf finds the service's address of a family.
func clusterIPOf(svc *corev1.Service, v6 bool) (netip.Addr, bool) {
	ips := svc.Spec.ClusterIPs
	if len(ips) == 0 {
		ips = []string{svc.Spec.ClusterIP}
	}
	some := addrsOf(ips, v6)
	if len(some) == 0 {
		return netip.Addr{}, false
	}
	return some[0], true
}

func addrsOf(texts []string, v6 bool) []netip.Addr {
	var some []netip.Addr
	for _, text := range texts {
		if addr, err := netip.ParseAddr(text); err == nil && addr.Is6() == v6 {
			some = append(some, addr)
		}
	}
	return some
}

// portRules makes the rules for one port of a service in one family.
type portRules struct {
	rules *rules
	svc   *corev1.Service
	port  *corev1.ServicePort
	v6    bool
	node  node
	all   []endpoint
	// pools of the whole cluster and of this node
	cluster, local poolName
}

func (p *portRules) add(clusterIP netip.Addr, all []endpoint) {
	p.all = all
	p.cluster = p.addPool(false, usable(near(all, p.node)))
	p.local = p.addPool(true, usable(onNode(all)))

	internal := target{class: class{set: setServices, masquerade: masqueradeOutside}, pool: p.cluster}
	if ptr.Deref(p.svc.Spec.InternalTrafficPolicy, corev1.ServiceInternalTrafficPolicyCluster) == corev1.ServiceInternalTrafficPolicyLocal {
		internal.pool = p.local
	}
	p.rules.frontends[frontend{addr: clusterIP, proto: protocol(p.port.Protocol), port: uint16(p.port.Port)}] = p.complete(internal)

	for _, addr := range addrsOf(p.svc.Spec.ExternalIPs, p.v6) {
		p.addExternal(frontend{addr: addr, port: uint16(p.port.Port)}, nil)
	}
	if p.svc.Spec.Type == corev1.ServiceTypeLoadBalancer {
		ranges := p.sourceRanges()
		for _, in := range p.svc.Status.LoadBalancer.Ingress {
			if ptr.Deref(in.IPMode, corev1.LoadBalancerIPModeVIP) != corev1.LoadBalancerIPModeVIP {
				continue // a load balancer that wants to be passed
			}
			for _, addr := range addrsOf([]string{in.IP}, p.v6) {
				p.addExternal(frontend{addr: addr, port: uint16(p.port.Port)}, ranges)
			}
		}
	}
	if p.port.NodePort != 0 && p.svc.Spec.Type != corev1.ServiceTypeClusterIP {
		any := netip.IPv4Unspecified()
		if p.v6 {
			any = netip.IPv6Unspecified()
		}
		p.addExternal(frontend{addr: any, port: uint16(p.port.NodePort)}, nil)
	}
	p.dropUnusedPools()
}

func (p *portRules) addPool(local bool, some []endpoint) poolName {
	name := poolName{service: nameOf(p.svc), port: p.port.Name, proto: protocol(p.port.Protocol), v6: p.v6, local: local}
	if len(some) > 0 {
		p.rules.pools[name] = pool{endpoints: addresses(some)}
	}
	return name
}

// dropUnusedPools forgets the pools to which nothing leads, and notes the pods of this node in those that are left.
func (p *portRules) dropUnusedPools() {
	for _, name := range []poolName{p.cluster, p.local} {
		used := false
		for _, t := range []map[frontend]target{p.rules.frontends, p.rules.internal} {
			for target := range maps.Values(t) {
				used = used || target.class.refuse == accept && target.pool == name
			}
		}
		if !used {
			delete(p.rules.pools, name)
			continue
		}
		for _, e := range onNode(p.all) {
			if slices.Contains(p.rules.pools[name].endpoints, e.addr) {
				p.rules.hairpins[e.addr.Addr()] = true
			}
		}
	}
}

// addExternal adds a frontend that is reached from outside the cluster, too.
func (p *portRules) addExternal(f frontend, ranges []netip.Prefix) {
	f.proto = protocol(p.port.Protocol)
	if _, taken := p.rules.frontends[f]; taken {
		return
	}
	t := target{class: class{set: setServices, masquerade: masqueradeAll, restricted: len(ranges) > 0}, pool: p.cluster}
	inside := target{class: class{set: setInternalServices, masquerade: masqueradeOutside}, pool: p.cluster}
	if f.nodePort() {
		t.class.set, inside.class.set = setNodePorts, setInternalNodePorts
	}
	if p.svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal {
		// A client from outside keeps its address. Pods and the node itself may use every endpoint.
		t.pool, t.class.masquerade = p.local, masqueradeNone
		if inside = p.complete(inside); inside.class.refuse == accept {
			t.class.split = true
			p.rules.internal[f] = inside
		}
	}
	p.rules.frontends[f] = p.complete(t)
	if p.rules.frontends[f].class.restricted {
		p.rules.sources[f] = p.allowed(f.addr, ranges)
	}
}

// allowed adds the frontend's address to the ranges from which it may be reached, if they hold this node: what the node sends
// to an address that it has itself comes from there.
func (p *portRules) allowed(addr netip.Addr, ranges []netip.Prefix) []netip.Prefix {
	for _, r := range ranges {
		if slices.ContainsFunc(p.node.ips, r.Contains) {
			return disjoint(append(slices.Clone(ranges), netip.PrefixFrom(addr, addr.BitLen())))
		}
	}
	return disjoint(ranges)
}

// disjoint leaves out the ranges that lie within others, in the order of their addresses: the kernel refuses overlaps.
func disjoint(ranges []netip.Prefix) []netip.Prefix {
	ranges = slices.Clone(ranges)
	slices.SortFunc(ranges, netip.Prefix.Compare)
	var some []netip.Prefix
	for _, r := range ranges {
		if len(some) == 0 || !some[len(some)-1].Overlaps(r) {
			some = append(some, r)
		}
	}
	return some
}

// complete fills in what depends on the endpoints.
func (p *portRules) complete(t target) target {
	if pool, ok := p.rules.pools[t.pool]; ok {
		t.class.size, t.class.affinity = len(pool.endpoints), p.affinity()
		if t.class.affinity > 0 {
			t.class.sticky = sticky{service: nameOf(p.svc), port: p.port.Name}
			for _, e := range pool.endpoints {
				t.class.sticky.endpoints += address(e.Addr()) + string([]byte{byte(e.Port() >> 8), byte(e.Port())})
			}
		}
		return t
	}
	refused := class{refuse: reject}
	if len(usable(p.all)) > 0 { // on other nodes
		refused.refuse = drop
	}
	if t.class.split {
		refused.split, refused.set, refused.restricted = true, t.class.set, t.class.restricted
	}
	return target{class: refused, pool: t.pool}
}

// affinity is how long a client stays with its endpoint, in seconds.
func (p *portRules) affinity() uint32 {
	if p.svc.Spec.SessionAffinity != corev1.ServiceAffinityClientIP {
		return 0
	}
	if c := p.svc.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && ptr.Deref(c.ClientIP.TimeoutSeconds, 0) > 0 {
		return uint32(*c.ClientIP.TimeoutSeconds)
	}
	return uint32(corev1.DefaultClientIPServiceAffinitySeconds)
}

// sourceRanges are the ranges of this family that the load balancer's clients must come from; none means all.
func (p *portRules) sourceRanges() []netip.Prefix {
	texts := p.svc.Spec.LoadBalancerSourceRanges
	if len(texts) == 0 {
		if value := strings.TrimSpace(p.svc.Annotations[corev1.AnnotationLoadBalancerSourceRangesKey]); value != "" {
			texts = strings.Split(value, ",")
		}
	}
	var ranges []netip.Prefix
	for _, text := range texts {
		if r, err := netip.ParsePrefix(strings.TrimSpace(text)); err == nil && r.Addr().Is6() == p.v6 {
			ranges = append(ranges, r.Masked())
		}
	}
	return ranges
}

func protocol(p corev1.Protocol) uint8 {
	switch p {
	case corev1.ProtocolUDP:
		return unix.IPPROTO_UDP
	case corev1.ProtocolSCTP:
		return unix.IPPROTO_SCTP
	}
	return unix.IPPROTO_TCP
}
