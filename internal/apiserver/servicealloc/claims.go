package servicealloc

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-k8s/proa/internal/api/core"
	"github.com/proa-k8s/proa/internal/store"
)

// The words of a refusal.
var (
	errAllocated     = errors.New("provided IP is already allocated")
	errPortAllocated = errors.New("provided port is already allocated")
	errFull          = errors.New("range is full")
)

// claims are what one service gets by one write.
type claims struct {
	a   *Allocator
	svc *corev1.Service
	// ips and ports are those that the service has claimed already.
	ips   []netip.Addr
	ports []int32
	ops   []store.Op
}

// clusterIPs claims the addresses that are asked for and gives those that are missing.
func (c *claims) clusterIPs(ctx context.Context) error {
	spec := &c.svc.Spec
	if !core.NeedsClusterIP(c.svc) || core.IsHeadless(c.svc) {
		return nil
	}
	ips := slices.Clone(spec.ClusterIPs)
	for i, family := range spec.IPFamilies {
		if i < len(ips) {
			if err := c.claimIP(ctx, ips[i], family); err != nil {
				return apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Service").GroupKind(), c.svc.Name, field.ErrorList{
					field.Invalid(field.NewPath("spec", "clusterIPs"), spec.ClusterIPs,
						fmt.Sprintf("failed to allocate IP %v: %v", ips[i], err)),
				})
			}
			continue
		}
		ip, err := c.giveIP(ctx, family)
		if err != nil {
			return apierrors.NewInternalError(fmt.Errorf("failed to allocate a serviceIP: %w", err))
		}
		ips = append(ips, ip)
	}
	spec.ClusterIPs = ips
	if len(ips) > 0 {
		spec.ClusterIP = ips[0]
	}
	return nil
}

func (c *claims) claimIP(ctx context.Context, value string, family corev1.IPFamily) error {
	ip, err := netip.ParseAddr(value)
	if err != nil {
		return err
	}
	if slices.Contains(c.ips, ip) {
		return nil
	}
	ranges, err := c.a.ranges(ctx, family)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(ranges, func(r netip.Prefix) bool { return within(r, ip) }) {
		texts := make([]string, len(ranges))
		for i, r := range ranges {
			texts[i] = r.String()
		}
		return fmt.Errorf("the provided IP (%v) is not in the valid range. The range of valid IPs is %s", ip, strings.Join(texts, ","))
	}
	taken, err := taken(ctx, c.a.IPAddresses, ip.String())
	if err != nil {
		return err
	}
	if taken {
		return errAllocated
	}
	return c.addIP(ip)
}

// giveIP finds an address that nobody has, in the first range of the family that has one.
func (c *claims) giveIP(ctx context.Context, family corev1.IPFamily) (string, error) {
	ranges, err := c.a.ranges(ctx, family)
	if err != nil {
		return "", err
	}
	for _, r := range ranges {
		first, n := usable(r)
		offset, ok, err := c.a.pickFree(ctx, c.a.IPAddresses, addressBand(n), func(i uint64) string {
			return plus(first, i).String()
		})
		if err != nil {
			return "", err
		}
		if ok {
			ip := plus(first, offset)
			return ip.String(), c.addIP(ip)
		}
	}
	return "", errFull
}

func (c *claims) addIP(ip netip.Addr) error {
	value, err := encode(newIPAddress(c.svc, ip))
	if err != nil {
		return err
	}
	c.ops = append(c.ops, store.Op{Key: ipKey(ip.String()), Value: value})
	c.ips = append(c.ips, ip)
	return nil
}

// nodePorts claims the node ports that are asked for and gives those that are missing. Ports of the service that differ
// only in their protocol share one, unless told otherwise.
func (c *claims) nodePorts(ctx context.Context) error {
	if !core.NeedsNodePort(c.svc) {
		// A load balancer that needs none may still ask for some.
		for i := range c.svc.Spec.Ports {
			if err := c.claimNodePort(ctx, i); err != nil {
				return err
			}
		}
		return nil
	}
	ports := c.svc.Spec.Ports
	for i := range ports { // what is asked for first, so that it is not given to another
		if err := c.claimNodePort(ctx, i); err != nil {
			return err
		}
	}
	for i := range ports {
		if ports[i].NodePort != 0 {
			continue
		}
		if shared := sharedNodePort(ports, i); shared != 0 {
			ports[i].NodePort = shared
			continue
		}
		port, err := c.givePort(ctx)
		if err != nil {
			return apierrors.NewInternalError(fmt.Errorf("failed to allocate a nodePort: %w", err))
		}
		ports[i].NodePort = port
	}
	return nil
}

func (c *claims) claimNodePort(ctx context.Context, i int) error {
	port := c.svc.Spec.Ports[i].NodePort
	if port == 0 || c.svc.Spec.Type == corev1.ServiceTypeExternalName {
		return nil
	}
	if err := c.claimPort(ctx, port); err != nil {
		return apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Service").GroupKind(), c.svc.Name, field.ErrorList{
			field.Invalid(field.NewPath("spec", "ports").Index(i).Child("nodePort"), port, err.Error()),
		})
	}
	return nil
}

// sharedNodePort returns the node port of another port of the service with the same number, which ports[i] can have too
// since its protocol differs.
func sharedNodePort(ports []corev1.ServicePort, i int) int32 {
	for j := range ports {
		candidate := ports[j].NodePort
		if candidate == 0 || ports[j].Port != ports[i].Port {
			continue
		}
		clash := slices.ContainsFunc(ports, func(p corev1.ServicePort) bool {
			return p.NodePort == candidate && p.Protocol == ports[i].Protocol
		})
		if !clash {
			return candidate
		}
	}
	return 0
}

// healthCheckPort claims or gives the node port of the health check.
func (c *claims) healthCheckPort(ctx context.Context) error {
	if !core.NeedsHealthCheckPort(c.svc) {
		return nil
	}
	spec := &c.svc.Spec
	if spec.HealthCheckNodePort != 0 {
		if err := c.claimPort(ctx, spec.HealthCheckNodePort); err != nil {
			return apierrors.NewInternalError(fmt.Errorf("failed to allocate requested HealthCheck NodePort %v: %w", spec.HealthCheckNodePort, err))
		}
		return nil
	}
	port, err := c.givePort(ctx)
	if err != nil {
		return apierrors.NewInternalError(fmt.Errorf("failed to allocate a HealthCheck NodePort %v: %w", port, err))
	}
	spec.HealthCheckNodePort = port
	return nil
}

func (c *claims) claimPort(ctx context.Context, port int32) error {
	if slices.Contains(c.ports, port) {
		return nil
	}
	if !c.a.NodePorts.Contains(int(port)) {
		return fmt.Errorf("provided port is not in the valid range. The range of valid ports is %s", c.a.NodePorts.String())
	}
	taken, err := taken(ctx, c.a.ports, portName(port))
	if err != nil {
		return err
	}
	if taken {
		return errPortAllocated
	}
	return c.addPort(port)
}

func (c *claims) givePort(ctx context.Context) (int32, error) {
	base := int32(c.a.NodePorts.Base)
	offset, ok, err := c.a.pickFree(ctx, c.a.ports, portBand(uint64(c.a.NodePorts.Size)), func(i uint64) string {
		if port := base + int32(i); !slices.Contains(c.ports, port) {
			return portName(port)
		}
		return "" // taken by this very write
	})
	if err != nil {
		return 0, err
	}
	if !ok {
		return 0, errFull
	}
	port := base + int32(offset)
	return port, c.addPort(port)
}

func (c *claims) addPort(port int32) error {
	value, err := encode(newPortClaim(c.svc, port))
	if err != nil {
		return err
	}
	c.ops = append(c.ops, store.Op{Key: portKey(port), Value: value})
	c.ports = append(c.ports, port)
	return nil
}

// release gives back what the service had and keeps no longer.
func (a *Allocator) release(ctx context.Context, was *corev1.Service, ips []netip.Addr, ports []int32) ([]store.Op, error) {
	var ops []store.Op
	drop := func(cache *store.Cache, name, key string, owned func(*store.Object) (bool, error)) error {
		// The claims in the cache may be older than the service.
		for _, minRev := range []int64{0, -1} {
			claim, err := cache.Get(ctx, "", name, minRev)
			if errors.Is(err, store.ErrNotFound) {
				continue
			}
			if err != nil {
				return fmt.Errorf("releasing %s: %w", name, err)
			}
			if isOwned, err := owned(claim); err != nil {
				return err
			} else if isOwned {
				ops = append(ops, store.Op{Key: key, ModRevision: claim.Rev})
				return nil
			}
		}
		return nil
	}
	for _, ip := range ipsOf(was) {
		if slices.Contains(ips, ip) {
			continue
		}
		name := ip.String()
		if err := drop(a.IPAddresses, name, ipKey(name), func(o *store.Object) (bool, error) { return ownsIP(was, o) }); err != nil {
			return nil, err
		}
	}
	for _, port := range portsOf(was) {
		if slices.Contains(ports, port) {
			continue
		}
		if err := drop(a.ports, portName(port), portKey(port), func(o *store.Object) (bool, error) { return ownsPort(was, o) }); err != nil {
			return nil, err
		}
	}
	return ops, nil
}

// ranges are those of an IP family: the configured one, then those of ServiceCIDR objects that are not on their way out.
func (a *Allocator) ranges(ctx context.Context, family corev1.IPFamily) ([]netip.Prefix, error) {
	var ranges []netip.Prefix
	for _, r := range a.Ranges {
		if familyOf(r.Addr()) == family {
			ranges = append(ranges, r.Masked())
		}
	}
	list, err := a.ServiceCIDRs.List(ctx, store.ListOptions{Match: store.MatchNotOlder})
	if err != nil {
		return nil, fmt.Errorf("listing service ranges: %w", err)
	}
	for _, o := range list.Objects {
		obj, err := o.Decoded()
		if err != nil {
			return nil, err
		}
		cidr := obj.(*networkingv1.ServiceCIDR)
		if cidr.DeletionTimestamp != nil {
			continue
		}
		for _, s := range cidr.Spec.CIDRs {
			r, err := netip.ParsePrefix(s)
			if err == nil && familyOf(r.Addr()) == family && !slices.Contains(ranges, r.Masked()) {
				ranges = append(ranges, r.Masked())
			}
		}
	}
	return ranges, nil
}

// pickFree picks a number whose claim, of the given name, does not exist; the empty name is taken. When it seems that all
// are, it looks at one state of all claims, as new as the store: while they are looked at one by one others take and
// release them, so that a free one can be missed.
func (a *Allocator) pickFree(ctx context.Context, cache *store.Cache, b band, name func(uint64) string) (number uint64, ok bool, err error) {
	number, ok, err = b.pick(a.rand, func(i uint64) (bool, error) {
		n := name(i)
		if n == "" {
			return true, nil
		}
		return exists(ctx, cache, n, 0)
	})
	if ok || err != nil {
		return number, ok, err
	}
	list, err := cache.List(ctx, store.ListOptions{})
	if err != nil {
		return 0, false, err
	}
	held := make(map[string]bool, len(list.Objects))
	for _, o := range list.Objects {
		held[o.Name] = true
	}
	return b.pick(a.rand, func(i uint64) (bool, error) {
		n := name(i)
		return n == "" || held[n], nil
	})
}

// exists returns whether there is a claim of that name, in a state at least as new as minRev.
func exists(ctx context.Context, cache *store.Cache, name string, minRev int64) (bool, error) {
	_, err := cache.Get(ctx, "", name, minRev)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// taken is exists for a claim that a client asks for: a refusal is only given by the state of the store itself.
func taken(ctx context.Context, cache *store.Cache, name string) (bool, error) {
	found, err := exists(ctx, cache, name, 0)
	if !found || err != nil {
		return false, err
	}
	return exists(ctx, cache, name, -1)
}
