package proxy

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/proa-k8s/proa/internal/network/cni"
)

// world is a node with a proxy in a network namespace of its own: the test's goroutine is in it. Pods and a machine outside are
// namespaces that are linked to it. All end with the test.
type world struct {
	t       testing.TB
	p       *proxy
	outside netns.NsHandle
	pods    map[string]netns.NsHandle // by address
}

const (
	nodeV4, nodeV6       = "192.0.2.1", "2001:db8::1"
	outsideV4, outsideV6 = "192.0.2.2", "2001:db8::2"
	podV4, podV6         = "10.244.3.%d", "fd10:0:0:3::%d"
)

var (
	clusterCIDRs = []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd10::/56")}
	serviceCIDRs = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd11::/112")}
)

func newWorld(t testing.TB) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for network namespaces")
	}
	runtime.LockOSThread() // for good: the thread ends with the test
	w := &world{t: t, pods: map[string]netns.NsHandle{}}
	node := w.namespace()
	must(t, netns.Set(node))
	// /sys shows the network namespace in which it was mounted.
	must(t, unix.Unshare(unix.CLONE_NEWNS))
	must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	must(t, unix.Mount("sysfs", "/sys", "sysfs", 0, ""))
	must(t, setUp("lo"))

	c := Config{
		NodeName: "node", NodeIPs: []netip.Addr{netip.MustParseAddr(nodeV4), netip.MustParseAddr(nodeV6)}, Table: "test", Bridge: "test0",
		ClusterCIDRs: clusterCIDRs, ServiceCIDRs: serviceCIDRs, Log: slog.Default(),
	}
	must(t, cni.Setup(cni.Config{
		NodeName: c.NodeName, Bridge: c.Bridge, Table: "test.node", ConfDir: t.TempDir(), StateDir: t.TempDir(),
		ClusterCIDRs: c.ClusterCIDRs, ServiceCIDRs: c.ServiceCIDRs, Log: c.Log,
	}, []netip.Prefix{netip.MustParsePrefix("10.244.3.0/24"), netip.MustParsePrefix("fd10:0:0:3::/64")}))
	w.outside = w.namespace()
	w.link("uplink", "", w.outside, []string{nodeV4 + "/24", nodeV6 + "/64"}, []string{outsideV4 + "/24", outsideV6 + "/64"}, nodeV4, nodeV6)

	w.p = &proxy{Config: c, objects: newObjects(), ledger: newLedger(), kernel: newKernel(c), health: newHealthChecks(c.Log)}
	w.p.node = node1
	w.p.objects.unseen = 0
	t.Cleanup(w.p.health.close)
	t.Cleanup(func() { _ = w.p.kernel.close() })
	return w
}

var node1 = node{name: "node", v4: true, v6: true, ips: []netip.Addr{netip.MustParseAddr(nodeV4), netip.MustParseAddr(nodeV6)}}

// namespace makes a network namespace; the calling goroutine stays where it is.
func (w *world) namespace() netns.NsHandle {
	made := make(chan netns.NsHandle)
	go func() {
		runtime.LockOSThread()
		ns, err := netns.New()
		if err == nil {
			err = setUp("lo")
		}
		if err == nil { // so that link-local addresses can be used at once
			err = os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0)
		}
		if err != nil {
			w.t.Error(err)
		}
		made <- ns
	}()
	ns := <-made
	w.t.Cleanup(func() { ns.Close() })
	return ns
}

// in runs fn in a namespace.
func in(ns netns.NsHandle, fn func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := netns.Set(ns); err != nil {
			done <- err
			return
		}
		done <- fn()
	}()
	return <-done
}

func setUp(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}

// waitUntilUp waits until a link forwards: the kernel announces a carrier later than it has it, and drops packets until then.
func (w *world) waitUntilUp(name string) {
	w.t.Helper()
	changes, done := make(chan netlink.LinkUpdate), make(chan struct{})
	defer close(done)
	must(w.t, netlink.LinkSubscribeWithOptions(changes, done, netlink.LinkSubscribeOptions{ListExisting: true}))
	for {
		select {
		case change := <-changes:
			if attrs := change.Attrs(); attrs.Name == name && attrs.OperState == netlink.OperUp {
				return
			}
		case <-time.After(patience):
			w.t.Fatalf("%s does not come up", name)
		}
	}
}

// link makes a pair of links between the node and a namespace, with addresses on both ends and default routes.
func (w *world) link(name, bridge string, ns netns.NsHandle, here, there []string, gateways ...string) {
	w.t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(ns)}
	must(w.t, netlink.LinkAdd(veth))
	if bridge != "" {
		master, err := netlink.LinkByName(bridge)
		must(w.t, err)
		must(w.t, netlink.LinkSetMaster(veth, master))
		must(w.t, netlink.LinkSetHairpin(veth, true))
	}
	must(w.t, addAddresses(name, here))
	must(w.t, netlink.LinkSetUp(veth))
	must(w.t, in(ns, func() error {
		if err := addAddresses("eth0", there); err != nil {
			return err
		}
		if err := setUp("eth0"); err != nil {
			return err
		}
		for _, g := range gateways {
			if err := netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(g)}); err != nil {
				return fmt.Errorf("route by %s: %w", g, err)
			}
		}
		return nil
	}))
	w.waitUntilUp(name)
}

func addAddresses(name string, addrs []string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			return err
		}
		addr.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(link, addr); err != nil {
			return err
		}
	}
	return nil
}

// pod makes a pod with the addresses that end in n.
func (w *world) pod(n int) netns.NsHandle {
	w.t.Helper()
	ns := w.namespace()
	v4, v6 := fmt.Sprintf(podV4, n), fmt.Sprintf(podV6, n)
	w.link(fmt.Sprintf("veth%d", n), w.p.Bridge, ns, nil, []string{v4 + "/24", v6 + "/64"}, "10.244.3.1", "fd10:0:0:3::1")
	w.pods[v4], w.pods[v6] = ns, ns
	return ns
}

// serve answers each connection (or packet) with the name and the address of the client as it is seen.
func (w *world) serve(ns netns.NsHandle, network, address, name string) {
	w.t.Helper()
	must(w.t, in(ns, func() error {
		if strings.HasPrefix(network, "udp") {
			c, err := net.ListenPacket(network, address)
			if err != nil {
				return err
			}
			w.t.Cleanup(func() { c.Close() })
			go func() {
				buffer := make([]byte, 100)
				for {
					_, from, err := c.ReadFrom(buffer)
					if err != nil {
						return
					}
					_, _ = c.WriteTo([]byte(name+" "+host(from)), from)
				}
			}()
			return nil
		}
		l, err := net.Listen(network, address)
		if err != nil {
			return err
		}
		w.t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = c.Write([]byte(name + " " + host(c.RemoteAddr())))
				c.Close()
			}
		}()
		return nil
	}))
}

func host(a net.Addr) string {
	h, _, _ := net.SplitHostPort(a.String())
	return h
}

// patience is how long an answer may take: a first packet that is lost on a busy machine is sent again after a second.
const patience = 5 * time.Second

// ask connects from a namespace and returns what the server says: its name and the address that it sees.
func ask(ns netns.NsHandle, network, address string) (answer string, err error) {
	return askWithin(patience, ns, network, address)
}

// silent says whether nobody answers at all, not even with a refusal.
func silent(ns netns.NsHandle, network, address string) bool {
	_, err := askWithin(time.Second, ns, network, address)
	return err != nil && !refused(err)
}

func askWithin(limit time.Duration, ns netns.NsHandle, network, address string) (answer string, err error) {
	err = in(ns, func() error {
		c, err := net.DialTimeout(network, address, limit)
		if err != nil {
			return err
		}
		defer c.Close()
		return converse(c, network, &answer)
	})
	return answer, err
}

func converse(c net.Conn, network string, answer *string) error {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if strings.HasPrefix(network, "udp") {
		if _, err := c.Write([]byte("?")); err != nil {
			return err
		}
	}
	buffer := make([]byte, 100)
	n, err := c.Read(buffer)
	*answer = string(buffer[:n])
	return err
}

// here is the node's namespace.
func (w *world) here() netns.NsHandle {
	ns, err := netns.Get()
	must(w.t, err)
	w.t.Cleanup(func() { ns.Close() })
	return ns
}

// put gives services, slices and pods to the proxy and has it write them.
func (w *world) put(objects ...any) {
	w.t.Helper()
	w.p.objects.mu.Lock()
	for _, o := range objects {
		switch o := o.(type) {
		case *corev1.Service:
			w.p.objects.setService(nameOf(o), o.DeepCopy())
		case *discoveryv1.EndpointSlice:
			w.p.objects.setSlice(w.p.objects.slices[serviceOf(o)][o.Name], o.DeepCopy())
		case *corev1.Pod:
			w.p.objects.setPod(nil, trimmed(o))
		}
	}
	w.p.objects.mu.Unlock()
	w.p.sync(context.Background())
	if !w.p.written {
		w.t.Fatal("the rules were not written")
	}
}

func (w *world) remove(svc *corev1.Service) {
	w.t.Helper()
	w.p.objects.mu.Lock()
	w.p.objects.setService(nameOf(svc), nil)
	w.p.objects.mu.Unlock()
	w.put()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// service makes a service of one port.
func service(name string, proto corev1.Protocol, change func(*corev1.Service), ips ...string) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: ips[0], ClusterIPs: ips,
			Ports: []corev1.ServicePort{{Name: "p", Protocol: proto, Port: 80}},
		},
	}
	if change != nil {
		change(s)
	}
	return s
}

// slice makes an endpoint slice for port 8080 of a service; an address that begins with "-" is not on this node, one that ends
// with "!" is terminating.
func slice(svc *corev1.Service, addrs ...string) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: svc.Namespace, Name: svc.Name + "-v4", Labels: map[string]string{discoveryv1.LabelServiceName: svc.Name}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: ptr.To("p"), Protocol: &svc.Spec.Ports[0].Protocol, Port: ptr.To(int32(8080))}},
	}
	for _, a := range addrs {
		e := discoveryv1.Endpoint{NodeName: ptr.To("node")}
		if other, ok := strings.CutPrefix(a, "-"); ok {
			a, e.NodeName = other, ptr.To("other")
		}
		if ending, ok := strings.CutSuffix(a, "!"); ok {
			a = ending
			e.Conditions = discoveryv1.EndpointConditions{Ready: ptr.To(false), Serving: ptr.To(true), Terminating: ptr.To(true)}
		}
		if strings.Contains(a, ":") {
			s.AddressType, s.Name = discoveryv1.AddressTypeIPv6, svc.Name+"-v6"
		}
		e.Addresses = []string{a}
		s.Endpoints = append(s.Endpoints, e)
	}
	return s
}
