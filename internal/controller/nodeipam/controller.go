// Package nodeipam gives every node its part of the cluster's pod ranges.
//
// What flows in are nodes; what flows out is spec.podCIDR and spec.podCIDRs of those that have none, as soon as they
// appear: a node is not ready before.
package nodeipam

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	corelisters "k8s.io/client-go/listers/core/v1"

	"github.com/proa-k8s/proa/internal/controller"
)

// Config says what is shared out.
type Config struct {
	// ClusterCIDRs are the pod ranges: one, or one of each IP family.
	ClusterCIDRs []netip.Prefix
	// MaskSizeIPv4 and MaskSizeIPv6 are the lengths of the nodes' prefixes; 24 and 64 when zero.
	MaskSizeIPv4, MaskSizeIPv6 int
	// ServiceCIDRs lie inside no node's part.
	ServiceCIDRs []netip.Prefix
}

// New declares the controller.
func New(c Config) controller.Controller {
	return controller.Controller{
		Name:   "node-ipam",
		Reads:  []schema.GroupVersionResource{corev1.SchemeGroupVersion.WithResource("nodes")},
		Writes: []rbacv1.PolicyRule{controller.Rule("", []string{"nodes"}, "patch")},
		Setup: func(env *controller.Env) (controller.Sync, error) {
			a, err := newAllocator(c)
			if err != nil {
				return nil, err
			}
			informer := env.Informers.Core().V1().Nodes()
			controller.Watch(env, informer.Informer(), func(old, n *corev1.Node) {
				if a.observe(old, n) {
					wakeNext(env, a)
				}
				if n != nil && len(n.Spec.PodCIDRs) == 0 {
					env.Queue.Add(n.Name)
				}
			})
			lister := informer.Lister()
			return func(ctx context.Context, name string) error { return assign(ctx, env, lister, a, name) }, nil
		},
	}
}

// assign gives one node its part.
func assign(ctx context.Context, env *controller.Env, nodes corelisters.NodeLister, a *allocator, name string) error {
	n, err := nodes.Get(name)
	if apierrors.IsNotFound(err) {
		a.forget(name)
		wakeNext(env, a) // It may have been waked for a part that it no longer needs.
		return nil
	}
	if err != nil {
		return err
	}
	if len(n.Spec.PodCIDRs) > 0 {
		wakeNext(env, a)
		return nil
	}
	part, news, err := a.allocate(n)
	if errors.Is(err, errFull) {
		if news {
			env.Log.Warn("a node gets no part of the pod ranges", "node", n.Name, "err", err)
			env.Events.Eventf(n, corev1.EventTypeNormal, "CIDRNotAvailable", "Node %s status is now: CIDRNotAvailable", n.Name)
		}
		return nil
	}
	if err != nil {
		env.Events.Eventf(n, corev1.EventTypeNormal, "CIDRNotAvailable", "Node %s status is now: CIDRNotAvailable", n.Name)
		return fmt.Errorf("allocating CIDRs for node %s: %w", n.Name, err)
	}
	_, err = env.Client.CoreV1().Nodes().Patch(ctx, n.Name, types.StrategicMergePatchType, patchOf(n, part), metav1.PatchOptions{})
	if err == nil {
		wakeNext(env, a) // There may be more room.
		return nil
	}
	if apierrors.IsNotFound(err) || apierrors.IsInvalid(err) || apierrors.IsConflict(err) {
		a.giveBack(n.UID) // Nothing was written; after other errors the part stays reserved for the node.
		wakeNext(env, a)
		if apierrors.IsNotFound(err) {
			return nil
		}
	}
	env.Events.Eventf(n, corev1.EventTypeNormal, "CIDRAssignmentFailed", "Node %s status is now: CIDRAssignmentFailed", n.Name)
	return err
}

// wakeNext has one of the nodes tried again that wait for a part, if there are any.
func wakeNext(env *controller.Env, a *allocator) {
	if name, ok := a.next(); ok {
		env.Queue.Add(name)
	}
}

// patchOf is the patch that gives a node its part.
func patchOf(n *corev1.Node, part []netip.Prefix) []byte {
	cidrs := make([]string, len(part))
	for i, p := range part {
		cidrs[i] = p.String()
	}
	data, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": n.UID},
		"spec":     map[string]any{"podCIDR": cidrs[0], "podCIDRs": cidrs},
	})
	if err != nil { // Strings always marshal.
		panic(err)
	}
	return data
}

// allocator knows what is taken, by whom.
type allocator struct {
	mu       sync.Mutex
	ranges   []*cidrSet
	reserved map[types.UID][]netip.Prefix // allocated, and not seen in the node yet
	waiting  sets.Set[string]             // nodes for which there was no part, by name
	told     sets.Set[string]             // those of them, and of those that were waked since, that know it
}

func newAllocator(c Config) (*allocator, error) {
	a := &allocator{reserved: make(map[types.UID][]netip.Prefix), waiting: sets.New[string](), told: sets.New[string]()}
	for _, base := range c.ClusterCIDRs {
		size := c.MaskSizeIPv4
		if size == 0 {
			size = 24
		}
		if base.Addr().Is6() {
			if size = c.MaskSizeIPv6; size == 0 {
				size = 64
			}
		}
		s, err := newCIDRSet(base, size)
		if err != nil {
			return nil, err
		}
		for _, p := range c.ServiceCIDRs {
			s.occupy(p)
		}
		a.ranges = append(a.ranges, s)
	}
	if len(a.ranges) == 0 {
		return nil, fmt.Errorf("no cluster CIDR is given")
	}
	return a, nil
}

// observe takes note of what a node has, and no longer has. It tells whether there may be room for another node now.
func (a *allocator) observe(old, n *corev1.Node) (released bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n == nil {
		a.waiting.Delete(old.Name)
		a.told.Delete(old.Name)
	}
	var before, now []string
	if old != nil {
		before = old.Spec.PodCIDRs
	}
	if n != nil {
		now = n.Spec.PodCIDRs
	}
	if slices.Equal(before, now) && n != nil {
		return false
	}
	released = len(before) > 0 || n == nil && a.reserved[old.UID] != nil
	a.each(now, (*cidrSet).occupy)
	a.each(before, (*cidrSet).release)
	switch {
	case n == nil:
		a.dropReservation(old.UID)
	case len(now) > 0:
		a.waiting.Delete(n.Name)
		a.told.Delete(n.Name)
		a.dropReservation(n.UID)
	}
	return released
}

// forget drops what is known of a node that is gone.
func (a *allocator) forget(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting.Delete(name)
	a.told.Delete(name)
}

// next takes a node from those that wait, if there are any.
func (a *allocator) next() (name string, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.waiting.PopAny()
}

// each calls fn for every range and every CIDR of a node; what doesn't parse is nobody's.
func (a *allocator) each(cidrs []string, fn func(*cidrSet, netip.Prefix)) {
	for _, c := range cidrs {
		if p, err := netip.ParsePrefix(c); err == nil {
			for _, r := range a.ranges {
				fn(r, p)
			}
		}
	}
}

// allocate gives a node a subnet of each range: the same ones again if it was given some already. A node for which there is
// none waits: next will give it. news is false if that was said of it before.
func (a *allocator) allocate(n *corev1.Node) (part []netip.Prefix, news bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if part, err = a.reserve(n.UID); !errors.Is(err, errFull) {
		return part, false, err
	}
	news = !a.told.Has(n.Name)
	a.waiting.Insert(n.Name)
	a.told.Insert(n.Name)
	return nil, news, err
}

// reserve takes a subnet of each range for a node.
func (a *allocator) reserve(uid types.UID) ([]netip.Prefix, error) {
	if part := a.reserved[uid]; part != nil {
		return part, nil
	}
	var part []netip.Prefix
	for _, r := range a.ranges {
		p, err := r.allocate()
		if err != nil {
			for i, p := range part {
				a.ranges[i].release(p)
			}
			return nil, err
		}
		part = append(part, p)
	}
	a.reserved[uid] = part
	return part, nil
}

// giveBack releases what was allocated and not written.
func (a *allocator) giveBack(uid types.UID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.dropReservation(uid)
}

func (a *allocator) dropReservation(uid types.UID) {
	for i, p := range a.reserved[uid] {
		a.ranges[i].release(p)
	}
	delete(a.reserved, uid)
}
