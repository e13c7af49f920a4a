package servicealloc

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/utils/ptr"

	"github.com/proa-k8s/proa/internal/api"
	"github.com/proa-k8s/proa/internal/api/core"
	"github.com/proa-k8s/proa/internal/api/networking"
	"github.com/proa-k8s/proa/internal/apiserver/codec"
	"github.com/proa-k8s/proa/internal/store"
	"github.com/proa-k8s/proa/internal/store/etcd"
)

// world is an allocator on a store, and what a server does with it.
type world struct {
	*Allocator
	t *testing.T
}

func newWorld(t *testing.T, nodePorts utilnet.PortRange, ranges ...string) *world {
	t.Helper()
	ctx := t.Context()
	server, err := etcd.Start(ctx, etcd.Config{Dir: t.TempDir(), UnsafeNoFsync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	s, err := store.Open(ctx, server.Client(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	resources := []*api.Resource{core.Service(), networking.IPAddress(), networking.ServiceCIDR()}
	types := codec.NewTypes(resources)
	var caches []*store.Cache
	for _, r := range resources {
		caches = append(caches, s.Register(types.Stored(r)))
	}
	config := Config{Store: s, Services: caches[0], IPAddresses: caches[1], ServiceCIDRs: caches[2], NodePorts: nodePorts}
	for _, r := range ranges {
		config.Ranges = append(config.Ranges, netip.MustParsePrefix(r))
	}
	a, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	return &world{a, t}
}

func prepare(svc *corev1.Service) *corev1.Service {
	svc = svc.DeepCopy()
	if svc.Namespace == "" {
		svc.Namespace = "default"
	}
	r := core.Service()
	r.Default(svc)
	r.PrepareCreate(context.Background(), svc)
	return svc
}

// create does what the API server does with a valid service.
func (w *world) create(svc *corev1.Service) (*corev1.Service, error) {
	svc = prepare(svc)
	for {
		whole := svc.DeepCopy()
		ops, err := w.Companion(w.t.Context(), whole, nil)
		if err != nil {
			return nil, err
		}
		stored, err := w.Services.Create(w.t.Context(), whole.Namespace, whole.Name, whole, ops)
		if errors.Is(err, store.ErrGuard) {
			continue
		}
		return decode(stored, err)
	}
}

func (w *world) update(name string, change func(*corev1.Service)) (*corev1.Service, error) {
	r := core.Service()
	return decode(w.Services.Update(w.t.Context(), "default", name, func(cur *store.Object) (runtime.Object, []store.Op, error) {
		old, err := cur.Decoded()
		if err != nil {
			return nil, nil, err
		}
		svc := old.(*corev1.Service).DeepCopy()
		change(svc)
		r.Default(svc)
		r.PrepareUpdate(context.Background(), svc, old)
		if errs := r.ValidateUpdate(context.Background(), svc, old); len(errs) > 0 {
			return nil, nil, errs.ToAggregate()
		}
		ops, err := w.Companion(w.t.Context(), svc, old)
		return svc, ops, err
	}))
}

func (w *world) delete(name string) error {
	_, err := w.Services.Delete(w.t.Context(), "default", name, func(cur *store.Object) ([]store.Op, error) {
		old, err := cur.Decoded()
		if err != nil {
			return nil, err
		}
		return w.Companion(w.t.Context(), nil, old)
	})
	return err
}

func decode(o *store.Object, err error) (*corev1.Service, error) {
	if err != nil {
		return nil, err
	}
	obj, err := o.Decoded()
	if err != nil {
		return nil, err
	}
	return obj.(*corev1.Service), nil
}

// held are the names of all claims.
func (w *world) held() (ips, ports []string) {
	w.t.Helper()
	for cache, names := range map[*store.Cache]*[]string{w.IPAddresses: &ips, w.ports: &ports} {
		list, err := cache.List(w.t.Context(), store.ListOptions{})
		if err != nil {
			w.t.Fatal(err)
		}
		for _, o := range list.Objects {
			*names = append(*names, o.Name)
		}
	}
	return ips, ports
}

func (w *world) wantHeld(ips, ports []string) {
	w.t.Helper()
	gotIPs, gotPorts := w.held()
	ips, ports = slices.Sorted(slices.Values(ips)), slices.Sorted(slices.Values(ports))
	slices.Sort(gotIPs)
	if !slices.Equal(gotIPs, ips) || !slices.Equal(gotPorts, ports) {
		w.t.Errorf("claimed are %q and %q, want %q and %q", gotIPs, gotPorts, ips, ports)
	}
}

func service(name string, change ...func(*corev1.ServiceSpec)) *corev1.Service {
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"a": "b"}, Ports: []corev1.ServicePort{{Port: 80}}},
	}
	for _, f := range change {
		f(&svc.Spec)
	}
	return svc
}

func withType(typ corev1.ServiceType) func(*corev1.ServiceSpec) {
	return func(s *corev1.ServiceSpec) { s.Type = typ }
}

func withIP(ip string) func(*corev1.ServiceSpec) {
	return func(s *corev1.ServiceSpec) { s.ClusterIP = ip }
}

func withNodePort(port int32) func(*corev1.ServiceSpec) {
	return func(s *corev1.ServiceSpec) {
		s.Type = corev1.ServiceTypeNodePort
		s.Ports[0].NodePort = port
	}
}

func TestRefusals(t *testing.T) {
	w := newWorld(t, utilnet.PortRange{}, "10.96.0.0/16")
	if _, err := w.create(service("first", withIP("10.96.0.5"), withNodePort(30001))); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		svc  *corev1.Service
		want string
	}{
		{service("a", withIP("10.0.171.239")), `Service "a" is invalid: spec.clusterIPs: Invalid value: ["10.0.171.239"]: failed to allocate IP 10.0.171.239: the provided IP (10.0.171.239) is not in the valid range. The range of valid IPs is 10.96.0.0/16`},
		{service("a", withIP("10.96.0.0")), `the provided IP (10.96.0.0) is not in the valid range`},
		{service("a", withIP("10.96.255.255")), `the provided IP (10.96.255.255) is not in the valid range`},
		{service("a", withIP("10.96.0.5")), `failed to allocate IP 10.96.0.5: provided IP is already allocated`},
		{service("a", withIP("fd00::1")), `spec.clusterIPs[0]: Invalid value: ["fd00::1"]: may not use IPv6 on a cluster which is not configured for it`},
		{service("a", withNodePort(80)), `Service "a" is invalid: spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767`},
		{service("a", withNodePort(30001)), `Service "a" is invalid: spec.ports[0].nodePort: Invalid value: 30001: provided port is already allocated`},
		{service("a", func(s *corev1.ServiceSpec) { s.IPFamilyPolicy = ptr.To(corev1.IPFamilyPolicyRequireDualStack) }), `spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services`},
		{service("a", func(s *corev1.ServiceSpec) { s.IPFamilies = []corev1.IPFamily{corev1.IPv6Protocol} }), `spec.ipFamilies[0]: Invalid value: "IPv6": may not use IPv6 on a cluster which is not configured for it`},
		{service("a", withType(corev1.ServiceTypeLoadBalancer), func(s *corev1.ServiceSpec) {
			s.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
			s.HealthCheckNodePort = 30001
		}), `failed to allocate requested HealthCheck NodePort 30001: provided port is already allocated`},
	} {
		_, err := w.create(tc.svc)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("got  %v\nwant %s", err, tc.want)
		}
	}
	w.wantHeld([]string{"10.96.0.5"}, []string{"30001"})
}

func TestLifeOfClaims(t *testing.T) {
	w := newWorld(t, utilnet.PortRange{}, "10.96.0.0/16")
	must := func(svc *corev1.Service, err error) *corev1.Service {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return svc
	}
	svc := must(w.create(service("web", withType(corev1.ServiceTypeLoadBalancer), func(s *corev1.ServiceSpec) {
		s.Ports = []corev1.ServicePort{{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP}, {Name: "dns-tcp", Port: 53}, {Name: "http", Port: 80}}
		s.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	})))
	ip := svc.Spec.ClusterIP
	first, other, check := svc.Spec.Ports[0].NodePort, svc.Spec.Ports[2].NodePort, svc.Spec.HealthCheckNodePort
	if ip == "" || !slices.Equal(svc.Spec.ClusterIPs, []string{ip}) || !slices.Equal(svc.Spec.IPFamilies, []corev1.IPFamily{corev1.IPv4Protocol}) {
		t.Errorf("addresses: %+v", svc.Spec)
	}
	if svc.Spec.Ports[1].NodePort != first {
		t.Error("a number in two protocols does not share its node port")
	}
	w.wantHeld([]string{ip}, []string{portName(first), portName(other), portName(check)})

	svc = must(w.update("web", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeNodePort }))
	if svc.Spec.Ports[2].NodePort != other || svc.Spec.HealthCheckNodePort != 0 || svc.Spec.ClusterIP != ip {
		t.Errorf("became a NodePort service: %+v", svc.Spec)
	}
	w.wantHeld([]string{ip}, []string{portName(first), portName(other)})

	must(w.update("web", func(s *corev1.Service) { s.Spec.Ports[2].NodePort = 30999 }))
	w.wantHeld([]string{ip}, []string{portName(first), "30999"})

	must(w.update("web", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeClusterIP }))
	w.wantHeld([]string{ip}, nil)

	svc = must(w.update("web", func(s *corev1.Service) {
		s.Spec.Type = corev1.ServiceTypeExternalName
		s.Spec.ExternalName = "example.org"
	}))
	if svc.Spec.ClusterIP != "" || svc.Spec.IPFamilies != nil {
		t.Errorf("became an ExternalName service: %+v", svc.Spec)
	}
	w.wantHeld(nil, nil)

	svc = must(w.update("web", func(s *corev1.Service) {
		s.Spec.Type = corev1.ServiceTypeNodePort
		s.Spec.ExternalName = ""
	}))
	w.wantHeld([]string{svc.Spec.ClusterIP}, []string{portName(svc.Spec.Ports[0].NodePort), portName(svc.Spec.Ports[2].NodePort)})

	if _, err := w.update("web", func(s *corev1.Service) { s.Spec.ClusterIP = "10.96.7.7" }); err == nil || !strings.Contains(err.Error(), "may not change once set") {
		t.Errorf("changed the cluster IP: %v", err)
	}
	if err := w.delete("web"); err != nil {
		t.Fatal(err)
	}
	w.wantHeld(nil, nil)
}

func TestHeadless(t *testing.T) {
	w := newWorld(t, utilnet.PortRange{}, "10.96.0.0/16")
	svc, err := w.create(service("headless", withIP(corev1.ClusterIPNone)))
	if err != nil {
		t.Fatal(err)
	}
	if svc.Spec.ClusterIP != "None" || !slices.Equal(svc.Spec.IPFamilies, []corev1.IPFamily{corev1.IPv4Protocol}) {
		t.Errorf("%+v", svc.Spec)
	}
	w.wantHeld(nil, nil)
}

func TestDualStack(t *testing.T) {
	w := newWorld(t, utilnet.PortRange{}, "10.96.0.0/16", "fd00:10:96::/112")
	svc, err := w.create(service("web", func(s *corev1.ServiceSpec) {
		s.IPFamilyPolicy = ptr.To(corev1.IPFamilyPolicyPreferDualStack)
		s.IPFamilies = []corev1.IPFamily{corev1.IPv6Protocol}
	}))
	if err != nil {
		t.Fatal(err)
	}
	if len(svc.Spec.ClusterIPs) != 2 || !strings.HasPrefix(svc.Spec.ClusterIPs[0], "fd00:10:96::") || !strings.HasPrefix(svc.Spec.ClusterIPs[1], "10.96.") {
		t.Fatalf("addresses %q", svc.Spec.ClusterIPs)
	}
	six := svc.Spec.ClusterIPs[0]
	w.wantHeld(svc.Spec.ClusterIPs, nil)

	svc, err = w.update("web", func(s *corev1.Service) { s.Spec.IPFamilyPolicy = ptr.To(corev1.IPFamilyPolicySingleStack) })
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(svc.Spec.ClusterIPs, []string{six}) || !slices.Equal(svc.Spec.IPFamilies, []corev1.IPFamily{corev1.IPv6Protocol}) {
		t.Errorf("downgraded: %+v", svc.Spec)
	}
	w.wantHeld([]string{six}, nil)

	svc, err = w.update("web", func(s *corev1.Service) { s.Spec.IPFamilyPolicy = ptr.To(corev1.IPFamilyPolicyRequireDualStack) })
	if err != nil {
		t.Fatal(err)
	}
	if len(svc.Spec.ClusterIPs) != 2 || svc.Spec.ClusterIPs[0] != six {
		t.Errorf("upgraded: %+v", svc.Spec)
	}
	w.wantHeld(svc.Spec.ClusterIPs, nil)
}

func TestFullAndExtraRange(t *testing.T) {
	w := newWorld(t, utilnet.PortRange{Base: 30000, Size: 2}, "10.96.0.0/30") // two addresses
	for i := range 2 {
		if _, err := w.create(service(fmt.Sprint("s", i), withType(corev1.ServiceTypeNodePort))); err != nil {
			t.Fatal(err)
		}
	}
	_, err := w.create(service("more"))
	if err == nil || !strings.Contains(err.Error(), "failed to allocate a serviceIP: range is full") {
		t.Errorf("a third address: %v", err)
	}
	cidr := &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "more"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.97.0.0/24"}}}
	if _, err := w.ServiceCIDRs.Create(t.Context(), "", "more", cidr, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := w.ServiceCIDRs.Get(t.Context(), "", "more", -1); err != nil {
		t.Fatal(err)
	}
	svc, err := w.create(service("more"))
	if err != nil || !strings.HasPrefix(svc.Spec.ClusterIP, "10.97.0.") {
		t.Errorf("an address of the extra range: %v %v", svc, err)
	}
	_, err = w.create(service("port", withType(corev1.ServiceTypeNodePort)))
	if err == nil || !strings.Contains(err.Error(), "failed to allocate a nodePort: range is full") {
		t.Errorf("a third port: %v", err)
	}
}

// TestContention lets many writers fight for few addresses and ports: each is given once.
func TestContention(t *testing.T) {
	w := newWorld(t, utilnet.PortRange{Base: 30000, Size: 24}, "10.96.0.0/27")
	const writers = 24
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			name := fmt.Sprint("s", i)
			for range 4 {
				if _, err := w.create(service(name, withType(corev1.ServiceTypeNodePort))); err != nil {
					t.Errorf("creating %s: %v", name, err)
					return
				}
				if err := w.delete(name); err != nil {
					t.Errorf("deleting %s: %v", name, err)
				}
			}
			if _, err := w.create(service(name, withType(corev1.ServiceTypeNodePort))); err != nil {
				t.Errorf("creating %s: %v", name, err)
			}
		})
	}
	wg.Wait()
	ips, ports := w.held()
	if len(ips) != writers || len(ports) != writers {
		t.Errorf("%d addresses and %d ports are claimed by %d services", len(ips), len(ports), writers)
	}
	services, err := decodeAll[*corev1.Service](t.Context(), w.Services)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, s := range services {
		for _, what := range []string{s.obj.Spec.ClusterIP, portName(s.obj.Spec.Ports[0].NodePort)} {
			if seen[what] {
				t.Errorf("%s was given twice", what)
			}
			seen[what] = true
		}
	}
}

func TestAdopt(t *testing.T) {
	w := newWorld(t, utilnet.PortRange{}, "10.96.0.0/16")
	ctx := t.Context()
	// A service of an upstream cluster has no claims yet; a claim of a service that is gone is left over.
	svc := prepare(service("old", withIP("10.96.0.9"), withNodePort(30009)))
	if _, err := w.Services.Create(ctx, "default", "old", svc, nil); err != nil {
		t.Fatal(err)
	}
	gone := prepare(service("gone"))
	if _, err := w.IPAddresses.Create(ctx, "", "10.96.0.8", newIPAddress(gone, netip.MustParseAddr("10.96.0.8")), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := w.ports.Create(ctx, "", "30008", newPortClaim(gone, 30008), nil); err != nil {
		t.Fatal(err)
	}
	// An address that somebody else keeps is theirs.
	theirs := newIPAddress(gone, netip.MustParseAddr("10.96.0.7"))
	theirs.Labels = nil
	if _, err := w.IPAddresses.Create(ctx, "", "10.96.0.7", theirs, nil); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := w.Adopt(ctx); err != nil {
			t.Fatal(err)
		}
		w.wantHeld([]string{"10.96.0.7", "10.96.0.9"}, []string{"30009"})
	}
	if _, err := w.create(service("new", withNodePort(30009))); err == nil {
		t.Error("the port of an adopted service was given again")
	}
	if err := w.delete("old"); err != nil {
		t.Fatal(err)
	}
	w.wantHeld([]string{"10.96.0.7"}, nil)
}
