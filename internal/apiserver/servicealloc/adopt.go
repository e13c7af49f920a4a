package servicealloc

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/proa-k8s/proa/internal/store"
)

// Adopt brings the claims in line with the services that are stored: it claims what a service has without a claim (data
// of an upstream cluster, or services written around the API), and drops claims that no service has. It is called before
// services are written; with nothing to mend it only reads.
func (a *Allocator) Adopt(ctx context.Context) error {
	services, err := decodeAll[*corev1.Service](ctx, a.Services)
	if err != nil {
		return fmt.Errorf("adopting services: %w", err)
	}
	ips, ports := map[string]*corev1.Service{}, map[string]*corev1.Service{}
	for _, s := range services {
		for _, ip := range ipsOf(s.obj) {
			ips[ip.String()] = s.obj
		}
		for _, port := range portsOf(s.obj) {
			ports[portName(port)] = s.obj
		}
	}
	if err := a.adoptIPs(ctx, ips); err != nil {
		return fmt.Errorf("adopting cluster IPs: %w", err)
	}
	if err := a.adoptPorts(ctx, ports); err != nil {
		return fmt.Errorf("adopting node ports: %w", err)
	}
	return nil
}

func (a *Allocator) adoptIPs(ctx context.Context, used map[string]*corev1.Service) error {
	claims, err := decodeAll[*networkingv1.IPAddress](ctx, a.IPAddresses)
	if err != nil {
		return err
	}
	for _, claim := range claims {
		name := claim.obj.Name
		svc := used[name]
		delete(used, name)
		owned := false
		if svc != nil {
			if owned, err = ownsIP(svc, claim.stored); err != nil {
				return err
			}
		}
		if owned || claim.obj.Labels[networkingv1.LabelManagedBy] != managedBy {
			continue
		}
		if err := forget(ctx, a.IPAddresses, claim.stored); err != nil {
			return err
		}
		if svc != nil {
			used[name] = svc
		}
	}
	for name, svc := range used {
		ip, err := netip.ParseAddr(name)
		if err != nil {
			return err
		}
		if err := add(ctx, a.IPAddresses, name, newIPAddress(svc, ip)); err != nil {
			return err
		}
	}
	return nil
}

func (a *Allocator) adoptPorts(ctx context.Context, used map[string]*corev1.Service) error {
	claims, err := decodeAll[*corev1.RangeAllocation](ctx, a.ports)
	if err != nil {
		return err
	}
	for _, claim := range claims {
		name := claim.obj.Name
		svc := used[name]
		if svc != nil && string(claim.obj.Data) == owner(svc) {
			delete(used, name)
			continue
		}
		if err := forget(ctx, a.ports, claim.stored); err != nil {
			return err
		}
	}
	for name, svc := range used {
		port, err := strconv.ParseInt(name, 10, 32)
		if err != nil {
			return err
		}
		if err := add(ctx, a.ports, name, newPortClaim(svc, int32(port))); err != nil {
			return err
		}
	}
	return nil
}

func add(ctx context.Context, cache *store.Cache, name string, claim runtime.Object) error {
	_, err := cache.Create(ctx, "", name, claim, nil)
	if errors.Is(err, store.ErrExists) { // another server was faster
		return nil
	}
	return err
}

// forget deletes a claim if it is still the one that was seen.
func forget(ctx context.Context, cache *store.Cache, seen *store.Object) error {
	_, err := cache.Delete(ctx, "", seen.Name, func(cur *store.Object) ([]store.Op, error) {
		if cur.Rev != seen.Rev {
			return nil, store.ErrNotFound
		}
		return nil, nil
	})
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}

type decoded[T runtime.Object] struct {
	stored *store.Object
	obj    T
}

func decodeAll[T runtime.Object](ctx context.Context, cache *store.Cache) ([]decoded[T], error) {
	list, err := cache.List(ctx, store.ListOptions{})
	if err != nil {
		return nil, err
	}
	all := make([]decoded[T], 0, len(list.Objects))
	for _, o := range list.Objects {
		obj, err := o.Decoded()
		if err != nil {
			return nil, err
		}
		all = append(all, decoded[T]{o, obj.(T)})
	}
	return all, nil
}
