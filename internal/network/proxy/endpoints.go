package proxy

import (
	"cmp"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/utils/ptr"
)

// endpoint is an address that serves one port of a service.
type endpoint struct {
	addr                        netip.AddrPort
	ready, serving, terminating bool
	local                       bool // on this node
	forNodes, forZones          []string
}

// endpointsOf collects the endpoints of a service's port in one family, in the order of their addresses. An address that is in
// several slices, as it is for a moment when an endpoint moves between them, is taken once, ready if it is ready in one.
func endpointsOf(all []*discoveryv1.EndpointSlice, port *corev1.ServicePort, v6 bool, n node) []endpoint {
	family := discoveryv1.AddressTypeIPv4
	if v6 {
		family = discoveryv1.AddressTypeIPv6
	}
	var found []endpoint
	for _, s := range all {
		if s.AddressType != family {
			continue
		}
		for i := range s.Ports {
			p := &s.Ports[i]
			if p.Port == nil || ptr.Deref(p.Name, "") != port.Name || ptr.Deref(p.Protocol, corev1.ProtocolTCP) != port.Protocol {
				continue
			}
			for j := range s.Endpoints {
				if e, ok := newEndpoint(&s.Endpoints[j], uint16(*p.Port), v6, n); ok {
					found = append(found, e)
				}
			}
		}
	}
	slices.SortFunc(found, func(a, b endpoint) int {
		return cmp.Or(a.addr.Compare(b.addr), -compareBool(a.ready, b.ready), -compareBool(a.serving, b.serving))
	})
	return slices.CompactFunc(found, func(a, b endpoint) bool { return a.addr == b.addr })
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// newEndpoint reads an endpoint; conditions that are not given mean what the API says of them.
func newEndpoint(e *discoveryv1.Endpoint, port uint16, v6 bool, n node) (endpoint, bool) {
	if len(e.Addresses) == 0 {
		return endpoint{}, false
	}
	addr, err := netip.ParseAddr(e.Addresses[0]) // the others are of no meaning to a proxy
	if err != nil || addr.Is4() == v6 {
		return endpoint{}, false
	}
	ready := ptr.Deref(e.Conditions.Ready, true)
	got := endpoint{
		addr:        netip.AddrPortFrom(addr, port),
		ready:       ready,
		serving:     ptr.Deref(e.Conditions.Serving, ready),
		terminating: ptr.Deref(e.Conditions.Terminating, false),
		local:       n.name != "" && ptr.Deref(e.NodeName, "") == n.name,
	}
	if e.Hints != nil {
		for _, h := range e.Hints.ForNodes {
			got.forNodes = append(got.forNodes, h.Name)
		}
		for _, h := range e.Hints.ForZones {
			got.forZones = append(got.forZones, h.Name)
		}
	}
	return got, true
}

// usable are the endpoints that take connections: those that are ready, or, when there is none, those that still serve while
// they end (KEP-1669).
func usable(all []endpoint) []endpoint {
	if some := filter(all, func(e endpoint) bool { return e.ready }); len(some) > 0 {
		return some
	}
	return filter(all, func(e endpoint) bool { return e.serving && e.terminating })
}

// near are the ready endpoints that hints say are for this node, or else for its zone; all when the hints don't cover every
// endpoint or none is for this node (KEP-2433, KEP-3015).
func near(all []endpoint, n node) []endpoint {
	ready := filter(all, func(e endpoint) bool { return e.ready })
	if len(ready) == 0 {
		return all
	}
	for _, hints := range []struct {
		of  func(endpoint) []string
		own string
	}{
		{func(e endpoint) []string { return e.forNodes }, n.name},
		{func(e endpoint) []string { return e.forZones }, n.zone},
	} {
		if hints.own == "" || slices.ContainsFunc(ready, func(e endpoint) bool { return len(hints.of(e)) == 0 }) {
			continue
		}
		if some := filter(ready, func(e endpoint) bool { return slices.Contains(hints.of(e), hints.own) }); len(some) > 0 {
			return some
		}
	}
	return all
}

func onNode(all []endpoint) []endpoint { return filter(all, func(e endpoint) bool { return e.local }) }

func addresses(all []endpoint) []netip.AddrPort {
	some := make([]netip.AddrPort, len(all))
	for i, e := range all {
		some[i] = e.addr
	}
	return some
}

func filter(all []endpoint, keep func(endpoint) bool) []endpoint {
	var some []endpoint
	for _, e := range all {
		if keep(e) {
			some = append(some, e)
		}
	}
	return some
}
