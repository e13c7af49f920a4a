package proxy

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	corev1 "k8s.io/api/core/v1"
)

func TestNodePort(t *testing.T) {
	w := newWorld(t)
	a, b := w.pod(11), w.pod(12)
	w.serve(a, "tcp", ":8080", "a")
	nodePort := func(port int32, policy corev1.ServiceExternalTrafficPolicy) func(*corev1.Service) {
		return func(s *corev1.Service) {
			s.Spec.Type, s.Spec.Ports[0].NodePort, s.Spec.ExternalTrafficPolicy = corev1.ServiceTypeNodePort, port, policy
		}
	}
	cluster := service("cluster", corev1.ProtocolTCP, nodePort(30001, corev1.ServiceExternalTrafficPolicyCluster), "10.96.0.7", "fd11::7")
	local := service("local", corev1.ProtocolTCP, nodePort(30002, corev1.ServiceExternalTrafficPolicyLocal), "10.96.0.8")
	nowhere := service("nowhere", corev1.ProtocolTCP, nodePort(30003, corev1.ServiceExternalTrafficPolicyLocal), "10.96.0.9")
	w.put(cluster, slice(cluster, "10.244.3.11"), slice(cluster, "fd10:0:0:3::11"), local, slice(local, "10.244.3.11"),
		nowhere, slice(nowhere, "-10.244.3.11")) // as if it were on another node
	here := w.here()
	for _, target := range []string{"192.0.2.1:30001", "10.244.3.1:30001", "[2001:db8::1]:30001"} {
		for from, ns := range map[string]netns.NsHandle{"outside": w.outside, "the node": here, "a pod": b, "the pod itself": a} {
			answer, err := ask(ns, "tcp", target)
			if strings.HasPrefix(target, "10.") && from == "outside" {
				continue // it has no route
			}
			if name, client, _ := strings.Cut(answer, " "); err != nil || name != "a" || client != "10.244.3.1" && client != "fd10:0:0:3::1" {
				t.Errorf("%s from %s: %q, %v", target, from, answer, err)
			}
		}
	}
	if answer, err := ask(w.outside, "tcp", "192.0.2.1:30002"); err != nil || answer != "a 192.0.2.2" {
		t.Errorf("policy Local hides the client: %q, %v", answer, err)
	}
	if answer, err := ask(b, "tcp", "192.0.2.1:30003"); err != nil || answer != "a 10.244.3.12" {
		t.Errorf("policy Local without endpoints here, from a pod: %q, %v", answer, err)
	}
	if answer, err := ask(here, "tcp", "192.0.2.1:30003"); err != nil || answer != "a 10.244.3.1" {
		t.Errorf("policy Local without endpoints here, from the node: %q, %v", answer, err)
	}
	if !silent(w.outside, "tcp", "192.0.2.1:30003") {
		t.Errorf("policy Local without endpoints here, from outside: somebody answers")
	}
}

func TestLoadBalancer(t *testing.T) {
	w := newWorld(t)
	pod := w.pod(11)
	w.serve(pod, "tcp", ":8080", "a")
	lb := service("lb", corev1.ProtocolTCP, func(s *corev1.Service) {
		s.Spec.Type = corev1.ServiceTypeLoadBalancer
		s.Spec.LoadBalancerSourceRanges = []string{"192.0.2.1/32", "198.51.100.0/24"}
		s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: nodeV4}}
	}, "10.96.0.7")
	w.put(lb, slice(lb, "10.244.3.11"))
	if answer, err := ask(w.here(), "tcp", "192.0.2.1:80"); err != nil || !strings.HasPrefix(answer, "a ") {
		t.Errorf("from the node: %q, %v", answer, err)
	}
	if !silent(w.outside, "tcp", "192.0.2.1:80") {
		t.Errorf("from an address that is not allowed: somebody answers")
	}
	lb.Spec.LoadBalancerSourceRanges = append(lb.Spec.LoadBalancerSourceRanges, "192.0.2.0/30")
	w.put(lb)
	if answer, err := ask(w.outside, "tcp", "192.0.2.1:80"); err != nil || !strings.HasPrefix(answer, "a ") {
		t.Errorf("from an address that is allowed now: %q, %v", answer, err)
	}
	lb.Spec.LoadBalancerSourceRanges = nil
	w.put(lb)
	if answer, err := ask(w.outside, "tcp", "192.0.2.1:80"); err != nil || !strings.HasPrefix(answer, "a ") {
		t.Errorf("without ranges: %q, %v", answer, err)
	}
}

func TestSessionAffinity(t *testing.T) {
	w := newWorld(t)
	var addrs []string
	for i := range 4 {
		w.serve(w.pod(11+i), "tcp", ":8080", string(rune('a'+i)))
		addrs = append(addrs, fmt.Sprintf(podV4, 11+i))
	}
	client := w.pod(20)
	sticky := service("sticky", corev1.ProtocolTCP, func(s *corev1.Service) {
		s.Spec.SessionAffinity, s.Spec.Type, s.Spec.Ports[0].NodePort = corev1.ServiceAffinityClientIP, corev1.ServiceTypeNodePort, 30001
	}, "10.96.0.7")
	w.put(sticky, slice(sticky, addrs...))
	first := func(target string) string {
		answer, err := ask(client, "tcp", target)
		must(t, err)
		name, _, _ := strings.Cut(answer, " ")
		return name
	}
	mine := first("10.96.0.7:80")
	for range 30 {
		if now := first("10.96.0.7:80"); now != mine {
			t.Fatalf("the client was with %s and is with %s", mine, now)
		}
	}
	if now := first("192.0.2.1:30001"); now != mine {
		t.Errorf("by the node port, the client is with %s instead of %s", now, mine)
	}
	// Another endpoint goes: nothing changes. The own goes: another takes over, for good.
	i := int(mine[0] - 'a')
	w.put(sticky, slice(sticky, addrs[i], addrs[(i+1)%4], addrs[(i+2)%4]))
	if now := first("10.96.0.7:80"); now != mine {
		t.Errorf("the client was with %s and is with %s", mine, now)
	}
	w.put(sticky, slice(sticky, addrs[(i+1)%4], addrs[(i+2)%4]))
	next := first("10.96.0.7:80")
	if next == mine {
		t.Error("the client is with an endpoint that is gone")
	}
	for range 20 {
		if now := first("10.96.0.7:80"); now != next {
			t.Fatalf("the client was with %s and is with %s", next, now)
		}
	}
	sticky.Spec.SessionAffinity = corev1.ServiceAffinityNone
	w.put(sticky)
	seen := map[string]bool{}
	for range 40 {
		seen[first("10.96.0.7:80")] = true
	}
	if len(seen) != 2 {
		t.Errorf("without affinity, the client sees %v", seen)
	}
	w.remove(sticky)
	if _, err := ask(client, "tcp", "10.96.0.7:80"); !refused(err) {
		t.Errorf("after the service has gone: %v", err)
	}
}

// afterRefusals sends one packet and returns its answer; what came of earlier packets is passed over.
func afterRefusals(c net.Conn) (string, error) {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	_, err := c.Write([]byte("?"))
	for refused(err) {
		_, err = c.Write([]byte("?"))
	}
	buffer := make([]byte, 100)
	n := 0
	if err == nil {
		n, err = c.Read(buffer)
	}
	for refused(err) {
		n, err = c.Read(buffer)
	}
	return string(buffer[:n]), err
}

// TestStaleUDP has a client that keeps sending from one port.
func TestStaleUDP(t *testing.T) {
	w := newWorld(t)
	a, b, client := w.pod(11), w.pod(12), w.pod(13)
	w.serve(a, "udp", ":8080", "a")
	w.serve(b, "udp", ":8080", "b")
	dns := service("dns", corev1.ProtocolUDP, func(s *corev1.Service) {
		s.Spec.Type, s.Spec.Ports[0].NodePort = corev1.ServiceTypeNodePort, 30053
	}, "10.96.0.8")
	var conns []net.Conn
	for _, target := range []string{"10.96.0.8:80", "192.0.2.1:30053"} {
		must(t, in(client, func() error {
			c, err := net.Dial("udp", target)
			if err == nil {
				_, err = c.Write([]byte("?")) // before there is a service
				conns = append(conns, c)
			}
			return err
		}))
	}
	for _, step := range []struct{ endpoint, want string }{{"10.244.3.11", "a"}, {"10.244.3.12", "b"}, {"10.244.3.11", "a"}} {
		w.put(dns, slice(dns, step.endpoint))
		for _, c := range conns {
			answer, err := afterRefusals(c)
			if err != nil || !strings.HasPrefix(answer, step.want) {
				t.Errorf("%s: endpoint is %s, but got %q, %v", c.RemoteAddr(), step.endpoint, answer, err)
			}
		}
	}
	for _, c := range conns {
		c.Close()
	}
}

// TestRestart starts a second proxy on the tables of the first, as after a crash.
func TestRestart(t *testing.T) {
	w := newWorld(t)
	pod, client := w.pod(11), w.pod(12)
	var l net.Listener
	must(t, in(pod, func() (err error) {
		l, err = net.Listen("tcp", ":8080")
		return err
	}))
	defer l.Close()
	web := service("web", corev1.ProtocolTCP, nil, "10.96.0.7")
	w.put(web, slice(web, "10.244.3.11"))
	var c net.Conn
	must(t, in(client, func() (err error) {
		c, err = net.DialTimeout("tcp", "10.96.0.7:80", patience)
		return err
	}))
	defer c.Close()
	server, err := l.Accept()
	must(t, err)
	defer server.Close()

	again := &proxy{Config: w.p.Config, objects: newObjects(), ledger: newLedger(), kernel: newKernel(w.p.Config), health: newHealthChecks(w.p.Log), node: node1}
	again.objects.unseen = 0
	w.p = again
	other := service("other", corev1.ProtocolTCP, nil, "10.96.0.8")
	w.put(web, slice(web, "10.244.3.11"), other, slice(other, "10.244.3.11"))
	_, err = c.Write([]byte("still here"))
	must(t, err)
	must(t, server.SetReadDeadline(time.Now().Add(patience)))
	if got, err := io.ReadAll(io.LimitReader(server, 10)); err != nil || string(got) != "still here" {
		t.Errorf("%q, %v", got, err)
	}
	if err := in(client, func() error {
		c, err := net.DialTimeout("tcp", "10.96.0.8:80", patience)
		if err == nil {
			c.Close()
		}
		return err
	}); err != nil {
		t.Error(err)
	}
}

// TestRepair has somebody else flush all rules.
func TestRepair(t *testing.T) {
	w := newWorld(t)
	w.serve(w.pod(11), "tcp", ":8080", "a")
	web := service("web", corev1.ProtocolTCP, nil, "10.96.0.7")
	w.put(web, slice(web, "10.244.3.11"))
	conn, err := nftables.New()
	must(t, err)
	conn.FlushRuleset()
	must(t, conn.Flush())
	other := service("other", corev1.ProtocolTCP, nil, "10.96.0.8")
	w.put(other, slice(other, "10.244.3.11"))
	for _, target := range []string{"10.96.0.7:80", "10.96.0.8:80"} {
		if answer, err := ask(w.here(), "tcp", target); err != nil || !strings.HasPrefix(answer, "a ") {
			t.Errorf("%s: %q, %v", target, answer, err)
		}
	}
}

// TestTwoClusters has the proxies of two clusters on one machine.
func TestTwoClusters(t *testing.T) {
	w := newWorld(t)
	pod := w.pod(11)
	w.serve(pod, "tcp", ":8080", "a")
	nodePort := func(port int32) func(*corev1.Service) {
		return func(s *corev1.Service) { s.Spec.Type, s.Spec.Ports[0].NodePort = corev1.ServiceTypeNodePort, port }
	}
	one := service("one", corev1.ProtocolTCP, nodePort(30001), "10.96.0.7")
	w.put(one, slice(one, "10.244.3.11"))
	c := w.p.Config
	c.Table, c.ServiceCIDRs, c.ClusterCIDRs = "second", []netip.Prefix{netip.MustParsePrefix("10.97.0.0/16")}, []netip.Prefix{netip.MustParsePrefix("10.245.0.0/16")}
	link, err := netlink.LinkByName(c.Bridge)
	must(t, err)
	_, dst, _ := net.ParseCIDR("10.97.0.0/16")
	must(t, netlink.RouteAdd(&netlink.Route{Dst: dst, LinkIndex: link.Attrs().Index, Scope: netlink.SCOPE_LINK}))
	w.p = &proxy{Config: c, objects: newObjects(), ledger: newLedger(), kernel: newKernel(c), health: newHealthChecks(c.Log), node: node{name: "node", v4: true}}
	w.p.objects.unseen = 0
	two := service("two", corev1.ProtocolTCP, nodePort(30002), "10.97.0.7")
	w.put(two, slice(two, "10.244.3.11"))
	for _, target := range []string{"10.96.0.7:80", "10.97.0.7:80", "192.0.2.1:30001", "192.0.2.1:30002"} {
		if answer, err := ask(w.here(), "tcp", target); err != nil || !strings.HasPrefix(answer, "a ") {
			t.Errorf("%s: %q, %v", target, answer, err)
		}
	}
	for _, target := range []string{"10.96.0.8:80", "10.97.0.8:80"} {
		if answer, err := ask(pod, "tcp", target); !refused(err) {
			t.Errorf("%s: %q, %v", target, answer, err)
		}
	}
}

func TestHealthCheck(t *testing.T) {
	w := newWorld(t)
	lb := service("lb", corev1.ProtocolTCP, func(s *corev1.Service) {
		s.Spec.Type, s.Spec.ExternalTrafficPolicy, s.Spec.HealthCheckNodePort = corev1.ServiceTypeLoadBalancer, corev1.ServiceExternalTrafficPolicyLocal, 31000
	}, "10.96.0.7")
	check := func() (status int, endpoints float64) {
		t.Helper()
		must(t, in(w.outside, func() error {
			c, err := net.DialTimeout("tcp", "192.0.2.1:31000", patience)
			if err != nil {
				return err
			}
			transport := &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) { return c, nil }}
			resp, err := (&http.Client{Transport: transport, Timeout: patience}).Get("http://192.0.2.1:31000/healthz")
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			var body map[string]any
			if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
				return err
			}
			if fmt.Sprint(body["service"]) != "map[name:lb namespace:default]" || body["serviceProxyHealthy"] != true {
				t.Errorf("got %v", body)
			}
			status, endpoints = resp.StatusCode, body["localEndpoints"].(float64)
			return nil
		}))
		return status, endpoints
	}
	w.put(lb, slice(lb, "-10.244.4.1"))
	if status, n := check(); status != http.StatusServiceUnavailable || n != 0 {
		t.Errorf("no endpoints here: %d, %v", status, n)
	}
	w.put(slice(lb, "10.244.3.11", "10.244.3.12"))
	if status, n := check(); status != http.StatusOK || n != 2 {
		t.Errorf("two endpoints here: %d, %v", status, n)
	}
	w.remove(lb)
	if _, err := ask(w.outside, "tcp", "192.0.2.1:31000"); !refused(err) {
		t.Errorf("after the service has gone: %v", err)
	}
}
