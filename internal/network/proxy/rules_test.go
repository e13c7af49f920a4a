package proxy

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/utils/ptr"
)

// describe prints rules: each frontend with the class of its treatment and its endpoints.
func describe(r rules) string {
	var lines []string
	for _, m := range []struct {
		prefix  string
		targets map[frontend]target
	}{{"", r.frontends}, {"inside ", r.internal}} {
		for f, t := range m.targets {
			line := fmt.Sprintf("%s%s/%d:", m.prefix, netip.AddrPortFrom(f.addr, f.port), f.proto)
			switch t.class.refuse {
			case reject:
				line += " reject"
			case drop:
				line += " drop"
			default:
				for _, e := range r.pools[t.pool].endpoints {
					line += " " + strings.TrimPrefix(e.Addr().String(), "10.244.")
				}
			}
			line += [...]string{"", " outside", " all"}[t.class.masquerade]
			if t.class.split {
				line += " split"
			}
			if t.class.restricted {
				line += fmt.Sprint(" from ", r.sources[f])
			}
			if t.class.affinity > 0 {
				line += fmt.Sprint(" sticky ", t.class.affinity)
			}
			lines = append(lines, line)
		}
	}
	if len(r.hairpins) > 0 {
		var hairpins []string
		for a := range r.hairpins {
			hairpins = append(hairpins, strings.TrimPrefix(a.String(), "10.244."))
		}
		slices.Sort(hairpins)
		lines = append(lines, "hairpins: "+strings.Join(hairpins, " "))
	}
	if r.health != nil {
		lines = append(lines, fmt.Sprintf("health: %d %d", r.health.port, r.health.local))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func TestRules(t *testing.T) {
	nodePort := func(s *corev1.Service) {
		s.Spec.Type = corev1.ServiceTypeNodePort
		s.Spec.Ports[0].NodePort = 30001
	}
	loadBalancer := func(s *corev1.Service) {
		nodePort(s)
		s.Spec.Type = corev1.ServiceTypeLoadBalancer
		s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{
			{IP: "198.51.100.1"}, {IP: "198.51.100.2", IPMode: ptr.To(corev1.LoadBalancerIPModeProxy)}, {Hostname: "lb.example"},
		}
	}
	externalLocal := func(s *corev1.Service) { s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal }
	internalLocal := func(s *corev1.Service) {
		s.Spec.InternalTrafficPolicy = ptr.To(corev1.ServiceInternalTrafficPolicyLocal)
	}
	headless := func(s *corev1.Service) {
		s.Spec.ClusterIP, s.Spec.ClusterIPs = corev1.ClusterIPNone, []string{corev1.ClusterIPNone}
	}
	sticky := func(s *corev1.Service) {
		s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
		s.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: ptr.To(int32(60))}}
	}
	for name, tc := range map[string]struct {
		change    []func(*corev1.Service)
		endpoints []string
		want      []string
	}{
		"cluster IP": {nil, []string{"10.244.3.1", "-10.244.4.1"},
			[]string{"10.96.0.7:80/6: 3.1 4.1 outside", "hairpins: 3.1"}},
		"no endpoints": {nil, nil,
			[]string{"10.96.0.7:80/6: reject"}},
		"headless":      {[]func(*corev1.Service){headless}, []string{"10.244.3.1"}, nil},
		"external name": {[]func(*corev1.Service){func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeExternalName }}, []string{"10.244.3.1"}, nil},
		"terminating endpoints are left out": {nil, []string{"10.244.3.1", "10.244.3.2!"},
			[]string{"10.96.0.7:80/6: 3.1 outside", "hairpins: 3.1"}},
		"unless there are no others": {nil, []string{"10.244.3.2!"},
			[]string{"10.96.0.7:80/6: 3.2 outside", "hairpins: 3.2"}},
		"internal policy Local": {[]func(*corev1.Service){internalLocal}, []string{"10.244.3.1", "-10.244.4.1"},
			[]string{"10.96.0.7:80/6: 3.1 outside", "hairpins: 3.1"}},
		"internal policy Local without local endpoints": {[]func(*corev1.Service){internalLocal}, []string{"-10.244.4.1"},
			[]string{"10.96.0.7:80/6: drop"}},
		"internal policy Local without any endpoints": {[]func(*corev1.Service){internalLocal}, nil,
			[]string{"10.96.0.7:80/6: reject"}},
		"node port": {[]func(*corev1.Service){nodePort}, []string{"10.244.3.1", "-10.244.4.1"},
			[]string{"0.0.0.0:30001/6: 3.1 4.1 all", "10.96.0.7:80/6: 3.1 4.1 outside", "hairpins: 3.1"}},
		"node port, policy Local": {[]func(*corev1.Service){nodePort, externalLocal}, []string{"10.244.3.1", "-10.244.4.1"},
			[]string{"0.0.0.0:30001/6: 3.1 split", "10.96.0.7:80/6: 3.1 4.1 outside", "hairpins: 3.1", "inside 0.0.0.0:30001/6: 3.1 4.1 outside"}},
		"node port, policy Local, without local endpoints": {[]func(*corev1.Service){nodePort, externalLocal}, []string{"-10.244.4.1"},
			[]string{"0.0.0.0:30001/6: drop split", "10.96.0.7:80/6: 4.1 outside", "inside 0.0.0.0:30001/6: 4.1 outside"}},
		"node port, policy Local, without any endpoints": {[]func(*corev1.Service){nodePort, externalLocal}, nil,
			[]string{"0.0.0.0:30001/6: reject", "10.96.0.7:80/6: reject"}},
		"load balancer": {[]func(*corev1.Service){loadBalancer, func(s *corev1.Service) {
			s.Spec.LoadBalancerSourceRanges = []string{"192.0.2.0/24", "192.0.2.128/25", "fd00::/8"}
		}}, []string{"10.244.3.1"},
			[]string{"0.0.0.0:30001/6: 3.1 all", "10.96.0.7:80/6: 3.1 outside", "198.51.100.1:80/6: 3.1 all from [192.0.2.0/24 198.51.100.1/32]", "hairpins: 3.1"}},
		"load balancer, ranges without the node": {[]func(*corev1.Service){loadBalancer, func(s *corev1.Service) {
			s.Annotations = map[string]string{corev1.AnnotationLoadBalancerSourceRangesKey: " 203.0.113.0/24, 203.0.112.1/32 "}
		}}, []string{"10.244.3.1"},
			[]string{"0.0.0.0:30001/6: 3.1 all", "10.96.0.7:80/6: 3.1 outside", "198.51.100.1:80/6: 3.1 all from [203.0.112.1/32 203.0.113.0/24]", "hairpins: 3.1"}},
		"health check": {[]func(*corev1.Service){loadBalancer, externalLocal, func(s *corev1.Service) { s.Spec.HealthCheckNodePort = 31000; s.Status = corev1.ServiceStatus{} }}, []string{"10.244.3.1", "10.244.3.2", "10.244.3.3!", "-10.244.4.1"},
			[]string{"0.0.0.0:30001/6: 3.1 3.2 split", "10.96.0.7:80/6: 3.1 3.2 4.1 outside", "hairpins: 3.1 3.2", "health: 31000 2", "inside 0.0.0.0:30001/6: 3.1 3.2 4.1 outside"}},
		"external IPs": {[]func(*corev1.Service){func(s *corev1.Service) { s.Spec.ExternalIPs = []string{"203.0.113.1", "2001:db8::9", "10.96.0.7"} }}, []string{"-10.244.4.1"},
			[]string{"10.96.0.7:80/6: 4.1 outside", "203.0.113.1:80/6: 4.1 all"}},
		"affinity": {[]func(*corev1.Service){sticky}, []string{"-10.244.4.1", "-10.244.4.2"},
			[]string{"10.96.0.7:80/6: 4.1 4.2 outside sticky 60"}},
	} {
		t.Run(name, func(t *testing.T) {
			svc := service("web", corev1.ProtocolTCP, nil, "10.96.0.7")
			for _, c := range tc.change {
				c(svc)
			}
			got := describe(rulesFor(svc, []*discoveryv1.EndpointSlice{slice(svc, tc.endpoints...)}, node1))
			slices.Sort(tc.want)
			if want := strings.Join(tc.want, "\n"); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
	if got := describe(rulesFor(nil, nil, node1)); got != "" {
		t.Errorf("no service: %s", got)
	}
}

func TestNear(t *testing.T) {
	hint := func(e endpoint, node string, zones ...string) endpoint {
		if node != "" {
			e.forNodes = []string{node}
		}
		e.forZones = zones
		return e
	}
	ep := func(n byte) endpoint {
		return endpoint{addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, n}), 80), ready: true}
	}
	notReady := ep(9)
	notReady.ready = false
	for name, tc := range map[string]struct {
		all  []endpoint
		want int // the number of endpoints that are left
	}{
		"no hints":                              {[]endpoint{ep(1), ep(2)}, 2},
		"own zone":                              {[]endpoint{hint(ep(1), "", "a"), hint(ep(2), "", "b"), hint(ep(3), "", "a", "b")}, 2},
		"a hint is missing":                     {[]endpoint{hint(ep(1), "", "a"), hint(ep(2), "", "b"), ep(3)}, 3},
		"nothing for the zone":                  {[]endpoint{hint(ep(1), "", "b"), hint(ep(2), "", "c")}, 2},
		"own node":                              {[]endpoint{hint(ep(1), "node", "a"), hint(ep(2), "other", "a")}, 1},
		"not for the node, but zone":            {[]endpoint{hint(ep(1), "x", "a"), hint(ep(2), "y", "b")}, 1},
		"one that is not ready does not matter": {[]endpoint{hint(ep(1), "", "a"), hint(ep(2), "", "b"), notReady}, 1},
		"none is ready":                         {[]endpoint{notReady}, 1},
	} {
		if got := near(tc.all, node{name: "node", zone: "a"}); len(got) != tc.want {
			t.Errorf("%s: %d endpoints, want %d", name, len(got), tc.want)
		}
	}
	all := []endpoint{hint(ep(1), "", "a"), hint(ep(2), "", "b")}
	if got := near(all, node{name: "node"}); len(got) != 2 {
		t.Errorf("a node without a zone: %d endpoints, want 2", len(got))
	}
}

func TestEndpointsOf(t *testing.T) {
	svc := service("web", corev1.ProtocolTCP, nil, "10.96.0.7")
	good := slice(svc, "10.244.3.1")
	again := slice(svc, "10.244.3.1!", "10.244.3.2")
	wrongName, wrongProtocol, noPort, fqdn := slice(svc, "10.244.3.3"), slice(svc, "10.244.3.4"), slice(svc, "10.244.3.5"), slice(svc, "10.244.3.6")
	wrongName.Ports[0].Name = ptr.To("other")
	wrongProtocol.Ports[0].Protocol = ptr.To(corev1.ProtocolUDP)
	noPort.Ports[0].Port = nil
	fqdn.AddressType = discoveryv1.AddressTypeFQDN
	bad := slice(svc, "10.244.3.7")
	bad.Endpoints[0].Addresses = []string{"x"}
	empty := slice(svc, "10.244.3.8")
	empty.Endpoints[0].Addresses = nil
	got := endpointsOf([]*discoveryv1.EndpointSlice{again, good, wrongName, wrongProtocol, noPort, fqdn, bad, empty}, &svc.Spec.Ports[0], false, node1)
	if len(got) != 2 || got[0].addr.String() != "10.244.3.1:8080" || !got[0].ready || !got[0].local || got[1].addr.String() != "10.244.3.2:8080" {
		t.Errorf("got %+v", got)
	}
}

func TestPlace(t *testing.T) {
	list := func(s string) []netip.AddrPort {
		var all []netip.AddrPort
		for _, r := range s {
			all = append(all, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(r)}), 80))
		}
		return all
	}
	for _, tc := range []struct{ old, want, placed string }{
		{"", "abc", "abc"},
		{"abc", "abcd", "abcd"},
		{"cba", "abc", "cba"},
		{"abcd", "bcd", "dbc"}, // only the hole is filled
		{"abcd", "ad", "ad"},
		{"abcd", "axcd", "axcd"},
		{"abc", "", ""},
		{"abc", "xyz", "xyz"},
	} {
		if got := place(list(tc.old), list(tc.want)); !slices.Equal(got, list(tc.placed)) {
			t.Errorf("%s → %s: got %v", tc.old, tc.want, got)
		}
	}
}

// TestLedger applies what the ledger says to maps, as the kernel would, and compares with what a new ledger says.
// Endpoints that packets on their way may have drawn go after everything else has changed.
func TestSplit(t *testing.T) {
	one := func(in set, key, value string) element {
		return element{elementKey{set: in, key: key}, elementValue{value: value}}
	}
	c := changes{
		newClasses: []familyClass{{class: class{size: 2}}},
		remove:     []element{one(setServices, "svc", "three"), one(setEndpoints, "svc/0", "a"), one(setEndpoints, "svc/2", "c"), one(setHairpins, "c", "")},
		add:        []element{one(setServices, "svc", "two"), one(setEndpoints, "svc/0", "d")},
		oldClasses: []familyClass{{class: class{size: 3}}},
	}
	first, second := c.split()
	if want := (changes{c.newClasses, []element{c.remove[0], c.remove[1], c.remove[3]}, c.add, c.oldClasses}); fmt.Sprint(first) != fmt.Sprint(want) {
		t.Errorf("first %+v, want %+v", first, want)
	}
	if want := (changes{remove: []element{c.remove[2]}}); fmt.Sprint(second) != fmt.Sprint(want) {
		t.Errorf("second %+v, want %+v", second, want)
	}
}

func TestLedger(t *testing.T) {
	kernel, chains := map[elementKey]elementValue{}, map[familyClass]bool{}
	l := newLedger()
	step := func(what string, services map[*corev1.Service][]string) (removed, added int) {
		t.Helper()
		l.begin()
		for svc, endpoints := range services {
			r := rules{}
			if endpoints != nil {
				r = rulesFor(svc, []*discoveryv1.EndpointSlice{slice(svc, endpoints...)}, node1)
			}
			l.replace(nameOf(svc), r)
		}
		c := l.commit()
		for _, n := range c.newClasses {
			if chains[n] {
				t.Errorf("%s: chain %v is there", what, n)
			}
			chains[n] = true
		}
		for _, e := range c.remove {
			if v, ok := kernel[e.elementKey]; !ok || v != e.elementValue {
				t.Errorf("%s: %v is not there", what, e)
			}
			delete(kernel, e.elementKey)
		}
		for _, e := range c.add {
			if _, ok := kernel[e.elementKey]; ok {
				t.Errorf("%s: %v is there", what, e)
			}
			kernel[e.elementKey] = e.elementValue
		}
		for _, n := range c.oldClasses {
			if !chains[n] {
				t.Errorf("%s: chain %v is not there", what, n)
			}
			delete(chains, n)
		}
		all := l.everything()
		if len(all.add) != len(kernel) || len(all.newClasses) != len(chains) {
			t.Errorf("%s: the kernel has %d elements and %d chains, want %d and %d", what, len(kernel), len(chains), len(all.add), len(all.newClasses))
		}
		for _, e := range all.add {
			if kernel[e.elementKey] != e.elementValue {
				t.Errorf("%s: %v is %v in the kernel", what, e, kernel[e.elementKey])
			}
		}
		for e := range maps.Values(kernel) {
			if e.chain != "" && !slices.ContainsFunc(slices.Collect(maps.Keys(chains)), func(c familyClass) bool { return c.class.chain() == e.chain }) {
				t.Errorf("%s: no chain %s", what, e.chain)
			}
		}
		return len(c.remove), len(c.add)
	}
	shared := func(s *corev1.Service) { s.Spec.ExternalIPs = []string{"203.0.113.1"} }
	a, b := service("a", corev1.ProtocolTCP, shared, "10.96.0.1"), service("b", corev1.ProtocolTCP, shared, "10.96.0.2")
	sticky := service("sticky", corev1.ProtocolTCP, func(s *corev1.Service) { s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP }, "10.96.0.3")

	step("two that want one address", map[*corev1.Service][]string{a: {"10.244.3.1"}})
	step("the second", map[*corev1.Service][]string{b: {"10.244.3.1", "10.244.3.2"}})
	step("no change", map[*corev1.Service][]string{a: {"10.244.3.1"}, b: {"10.244.3.2", "10.244.3.1"}})
	if removed, added := step("nothing", map[*corev1.Service][]string{a: {"10.244.3.1"}}); removed+added != 0 {
		t.Errorf("no change, but %d removed and %d added", removed, added)
	}
	step("the first goes", map[*corev1.Service][]string{a: nil})
	step("the second goes, the first is back", map[*corev1.Service][]string{b: nil, a: {}})
	step("endpoints come", map[*corev1.Service][]string{a: {"10.244.3.1", "10.244.3.2", "10.244.3.3", "10.244.3.4"}})
	if removed, added := step("one is replaced", map[*corev1.Service][]string{a: {"10.244.3.1", "10.244.3.2", "10.244.3.3", "10.244.3.9"}}); removed != 3 || added != 3 {
		t.Errorf("one endpoint of two frontends was replaced: %d removed, %d added; want the two, and its hairpin", removed, added)
	}
	step("sticky", map[*corev1.Service][]string{sticky: {"10.244.3.1", "-10.244.4.2"}})
	step("sticky changes", map[*corev1.Service][]string{sticky: {"10.244.3.1", "-10.244.4.3"}})
	step("everything goes", map[*corev1.Service][]string{sticky: nil, a: nil})
	if len(kernel)+len(chains)+len(l.services)+len(l.held)+len(l.classes) != 0 {
		t.Errorf("left: %v %v %v", kernel, chains, l)
	}
}

func TestLast(t *testing.T) {
	for _, tc := range [][2]string{{"10.0.0.0/8", "10.255.255.255"}, {"192.0.2.77/32", "192.0.2.77"}, {"0.0.0.0/0", "255.255.255.255"}, {"fd00::/127", "fd00::1"}} {
		if got := last(netip.MustParsePrefix(tc[0])); got.String() != tc[1] {
			t.Errorf("%s ends at %s, want %s", tc[0], got, tc[1])
		}
	}
}
