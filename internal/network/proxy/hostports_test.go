package proxy

import (
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// hostPortPod makes a pod with the addresses that end in n.
func hostPortPod(n int, ports ...corev1.ContainerPort) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprint("pod", n)},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Ports: ports}}},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: fmt.Sprintf(podV4, n)}, {IP: fmt.Sprintf(podV6, n)}}},
	}
}

func hostPort(proto corev1.Protocol, hostIP string, port int32) corev1.ContainerPort {
	return corev1.ContainerPort{Protocol: proto, HostIP: hostIP, HostPort: port, ContainerPort: 8080}
}

func TestHostPortRules(t *testing.T) {
	with := func(change func(*corev1.Pod)) *corev1.Pod {
		pod := hostPortPod(11, hostPort(corev1.ProtocolTCP, "", 80))
		change(pod)
		return pod
	}
	const both = "0.0.0.0:80/6→10.244.3.11:8080 [::]:80/6→[fd10:0:0:3::11]:8080"
	for name, test := range map[string]struct {
		pod  *corev1.Pod
		want string
	}{
		"none":             {nil, ""},
		"every address":    {with(func(*corev1.Pod) {}), both},
		"pending":          {with(func(p *corev1.Pod) { p.Status.Phase = corev1.PodPending }), both},
		"ended":            {with(func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }), ""},
		"without address":  {with(func(p *corev1.Pod) { p.Status.PodIPs = nil }), ""},
		"in node's net":    {with(func(p *corev1.Pod) { p.Spec.HostNetwork = true }), ""},
		"no host port":     {with(func(p *corev1.Pod) { p.Spec.Containers[0].Ports[0].HostPort = 0 }), ""},
		"every v4 address": {hostPortPod(11, hostPort(corev1.ProtocolUDP, "0.0.0.0", 53)), "0.0.0.0:53/17→10.244.3.11:8080"},
		"v6 only":          {hostPortPod(11, hostPort(corev1.ProtocolSCTP, "2001:db8::1", 9)), "[2001:db8::1]:9/132→[fd10:0:0:3::11]:8080"},
		"one port, two addresses and protocols": {
			hostPortPod(11, hostPort(corev1.ProtocolTCP, "192.0.2.1", 80), hostPort(corev1.ProtocolTCP, "127.0.0.1", 80), hostPort(corev1.ProtocolUDP, "127.0.0.1", 80)),
			"127.0.0.1:80/17→10.244.3.11:8080 127.0.0.1:80/6→10.244.3.11:8080 192.0.2.1:80/6→10.244.3.11:8080",
		},
		"sidecar": {with(func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{p.Spec.Containers[0], *p.Spec.Containers[0].DeepCopy()}
			p.Spec.InitContainers[1].RestartPolicy = ptr.To(corev1.ContainerRestartPolicyAlways)
			p.Spec.InitContainers[1].Ports[0].HostPort = 81
			p.Spec.Containers = nil
		}), strings.ReplaceAll(both, ":80/", ":81/")},
	} {
		if test.pod != nil && len(hostPorts(test.pod)) > 0 {
			test.pod = trimmed(test.pod)
		}
		r := hostPortRules(test.pod, node1)
		var got []string
		for f, to := range r.frontends {
			for _, e := range r.pools[to.pool].endpoints {
				got = append(got, fmt.Sprintf("%s/%d→%s", netipAddrPort(f), f.proto, e))
			}
		}
		slices.Sort(got)
		if strings.Join(got, " ") != test.want {
			t.Errorf("%s: got %v, want %s (of %v)", name, got, test.want, slices.Collect(maps.Keys(r.pools)))
		}
	}
}

func netipAddrPort(f frontend) string { return net.JoinHostPort(f.addr.String(), fmt.Sprint(f.port)) }

func TestHostPort(t *testing.T) {
	w := newWorld(t)
	a, b := w.pod(11), w.pod(12)
	for _, network := range []string{"tcp", "udp"} {
		w.serve(a, network, ":8080", "a "+network)
		w.serve(b, network, ":8080", "b "+network)
	}
	here := w.here()
	// Two pods have one port at different addresses, and one of them another protocol of it.
	first := hostPortPod(11, hostPort(corev1.ProtocolTCP, "", 4000), hostPort(corev1.ProtocolTCP, "127.0.0.1", 4001), hostPort(corev1.ProtocolUDP, nodeV4, 4001))
	second := hostPortPod(12, hostPort(corev1.ProtocolTCP, nodeV4, 4001))
	w.put(first, second)
	for _, test := range []struct {
		from            string
		ns              netns.NsHandle
		network, target string
		want            string
	}{
		{"outside", w.outside, "tcp", "192.0.2.1:4000", "a tcp 192.0.2.2"},
		{"outside", w.outside, "tcp", "[2001:db8::1]:4000", "a tcp 2001:db8::2"},
		{"outside", w.outside, "tcp", "192.0.2.1:4001", "b tcp 192.0.2.2"},
		{"outside", w.outside, "udp", "192.0.2.1:4001", "a udp 192.0.2.2"},
		{"the node", here, "tcp", "192.0.2.1:4000", "a tcp 192.0.2.1"},
		{"the node", here, "tcp", "127.0.0.1:4000", "a tcp 10.244.3.1"},
		{"the node", here, "tcp", "127.0.0.1:4001", "a tcp 10.244.3.1"},
		{"the node", here, "tcp", "192.0.2.1:4001", "b tcp 192.0.2.1"},
		{"another pod", b, "tcp", "192.0.2.1:4000", "a tcp 10.244.3.12"},
		{"another pod", b, "tcp", "10.244.3.1:4000", "a tcp 10.244.3.12"},
		{"the pod itself", a, "tcp", "192.0.2.1:4000", "a tcp 10.244.3.1"},
		{"the pod itself", a, "tcp", "[2001:db8::1]:4000", "a tcp fd10:0:0:3::1"},
	} {
		if answer, err := ask(test.ns, test.network, test.target); err != nil || answer != test.want {
			t.Errorf("%s from %s: %q, %v; want %q", test.target, test.from, answer, err, test.want)
		}
	}

	first.Status.Phase = corev1.PodSucceeded
	w.put(first)
	if answer, err := ask(w.outside, "tcp", "192.0.2.1:4000"); !refused(err) {
		t.Errorf("a pod that has ended: %q, %v; want a refusal", answer, err)
	}
	if answer, err := ask(w.outside, "tcp", "192.0.2.1:4001"); err != nil || answer != "b tcp 192.0.2.2" {
		t.Errorf("the other pod: %q, %v", answer, err)
	}
	w.p.objects.setPod(second, nil)
	w.put()
	if answer, err := ask(w.outside, "tcp", "192.0.2.1:4001"); !refused(err) {
		t.Errorf("a pod that is gone: %q, %v; want a refusal", answer, err)
	}
}

// TestLoopbackIsTheNodes has a pod send packets to 127.0.0.1 by its gateway: they must not reach what the node serves there.
func TestLoopbackIsTheNodes(t *testing.T) {
	w := newWorld(t)
	pod := w.pod(11)
	w.serve(w.here(), "tcp", "127.0.0.1:5000", "the node")
	must(t, in(pod, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		eth0, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		loopback, err := netlink.ParseAddr("127.0.0.1/8")
		if err != nil {
			return err
		}
		if err := netlink.AddrDel(lo, loopback); err != nil {
			return err
		}
		if err := os.WriteFile("/proc/sys/net/ipv4/conf/eth0/route_localnet", []byte("1"), 0); err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{
			Dst: &net.IPNet{IP: net.IPv4(127, 0, 0, 1), Mask: net.CIDRMask(32, 32)}, Gw: net.IPv4(10, 244, 3, 1), Src: net.IPv4(10, 244, 3, 11), LinkIndex: eth0.Attrs().Index,
		})
	}))
	if !silent(pod, "tcp", "127.0.0.1:5000") {
		t.Error("a pod reaches the node's loopback")
	}
}
