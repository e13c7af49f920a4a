// Package servicealloc gives services their cluster IPs and node ports, in the same transaction that writes the service:
// there is never a service without its addresses nor an address whose service was not written.
//
// What flows in are services on their way into the store, and the caches; what flows out are completed services and the
// writes of their claims. A cluster IP is claimed by an IPAddress object, as upstream does. A node port is claimed by a
// key of its own, /registry/ranges/servicenodeports/<port>, which must not exist before. Upstream keeps all ports in one
// bitmap, the value of /registry/ranges/servicenodeports, that every writer would have to win against all others, and
// repairs it from the services every few minutes; with a key for each port, writers meet only where they want the same
// port, and nothing drifts. The other direction stays open: upstream builds its bitmap from the services at its start,
// as Adopt makes claims of services that were written before.
package servicealloc

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-k8s/proa/internal/api/core"
	"github.com/proa-k8s/proa/internal/store"
)

// DefaultNodePorts is the range of node ports unless another is configured: 30000-32767.
var DefaultNodePorts = utilnet.PortRange{Base: 30000, Size: 2768}

// Config is what an Allocator is made of.
type Config struct {
	// Store is where the claims of node ports are registered.
	Store *store.Store
	// Services, IPAddresses and ServiceCIDRs are the caches of these resources.
	Services, IPAddresses, ServiceCIDRs *store.Cache
	// Ranges are those of the cluster's configuration: one, or one for each IP family, the default family first. Ranges
	// of ServiceCIDR objects are used beside them.
	Ranges []netip.Prefix
	// NodePorts is the range of node ports; zero is DefaultNodePorts.
	NodePorts utilnet.PortRange
}

// Allocator gives services their addresses. It is safe for concurrent use, and keeps no state: what is taken is what the
// caches say, and what they say too late is refused by the guards of the transaction.
type Allocator struct {
	Config
	ports *store.Cache // claims of node ports
	// rand returns a random number below n; tests replace it.
	rand func(n uint64) uint64
}

// New makes an Allocator. Adopt should be called before the first service is written.
func New(config Config) (*Allocator, error) {
	if len(config.Ranges) == 0 || len(config.Ranges) > 2 {
		return nil, fmt.Errorf("%d service ranges: there must be one, or one for each IP family", len(config.Ranges))
	}
	if len(config.Ranges) == 2 && familyOf(config.Ranges[0].Addr()) == familyOf(config.Ranges[1].Addr()) {
		return nil, fmt.Errorf("the service ranges %s and %s are of the same IP family", config.Ranges[0], config.Ranges[1])
	}
	if config.NodePorts.Size == 0 {
		config.NodePorts = DefaultNodePorts
	}
	return &Allocator{Config: config, ports: config.Store.Register(portClaims()), rand: rand.Uint64N}, nil
}

// Companion completes a service that is created or updated and returns the writes of its claims; it is called again when
// another writer was faster. obj is nil on deletion, old on creation. It is the apiserver.Companion of services.
func (a *Allocator) Companion(ctx context.Context, obj, old runtime.Object) ([]store.Op, error) {
	var svc, was *corev1.Service
	if obj != nil {
		svc = obj.(*corev1.Service)
	}
	if old != nil {
		was = old.(*corev1.Service)
	}
	if svc == nil {
		return a.release(ctx, was, nil, nil)
	}
	if was != nil && apiequality.Semantic.DeepEqual(svc.Spec, was.Spec) {
		return nil, nil
	}
	if errs := a.setFamilies(svc); len(errs) > 0 {
		return nil, apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Service").GroupKind(), svc.Name, errs)
	}
	claims := &claims{a: a, svc: svc}
	if was != nil {
		claims.ips, claims.ports = ipsOf(was), portsOf(was)
	}
	if err := claims.clusterIPs(ctx); err != nil {
		return nil, err
	}
	if err := claims.nodePorts(ctx); err != nil {
		return nil, err
	}
	if err := claims.healthCheckPort(ctx); err != nil {
		return nil, err
	}
	if was == nil {
		return claims.ops, nil
	}
	released, err := a.release(ctx, was, ipsOf(svc), portsOf(svc))
	return append(claims.ops, released...), err
}

// setFamilies completes the IP families of a service.
func (a *Allocator) setFamilies(svc *corev1.Service) field.ErrorList {
	families := make([]corev1.IPFamily, len(a.Ranges))
	for i, r := range a.Ranges {
		families[i] = familyOf(r.Addr())
	}
	return setFamilies(svc, families)
}

// ipsOf are the cluster IPs that a service has claimed.
func ipsOf(svc *corev1.Service) []netip.Addr {
	if !core.NeedsClusterIP(svc) || core.IsHeadless(svc) {
		return nil
	}
	ips := make([]netip.Addr, 0, len(svc.Spec.ClusterIPs))
	for _, s := range svc.Spec.ClusterIPs {
		if ip, err := netip.ParseAddr(s); err == nil {
			ips = append(ips, ip)
		}
	}
	return ips
}

// portsOf are the node ports that a service has claimed, each once (two protocols may share one).
func portsOf(svc *corev1.Service) []int32 {
	ports := map[int32]bool{}
	for _, port := range svc.Spec.Ports {
		ports[port.NodePort] = true
	}
	ports[svc.Spec.HealthCheckNodePort] = true
	delete(ports, 0)
	return slices.Sorted(maps.Keys(ports))
}
