// Package nodeipam gives every node its part of the cluster's pod ranges.
//
// What flows in are nodes; what flows out is spec.podCIDR and spec.podCIDRs of those that have none, as soon as they
// appear: a node is not ready before.
package nodeipam

import (
	"context"
	"encoding/json"
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
				a.observe(old, n)
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
		return nil
	}
	if err != nil {
		return err
	}
	if len(n.Spec.PodCIDRs) > 0 {
		return nil
	}
	part, err := a.allocate(n.UID)
	if err != nil {
		env.Events.Eventf(n, corev1.EventTypeNormal, "CIDRNotAvailable", "Node %s status is now: CIDRNotAvailable", n.Name)
		return fmt.Errorf("allocating CIDRs for node %s: %w", n.Name, err)
	}
	_, err = env.Client.CoreV1().Nodes().Patch(ctx, n.Name, types.StrategicMergePatchType, patchOf(n, part), metav1.PatchOptions{})
	if err == nil {
		return nil
	}
	if apierrors.IsNotFound(err) || apierrors.IsInvalid(err) || apierrors.IsConflict(err) {
		a.giveBack(n.UID) // Nothing was written; after other errors the part stays reserved for the node.
		if apierrors.IsNotFound(err) {
			return nil
		}
	}
	env.Events.Eventf(n, corev1.EventTypeNormal, "CIDRAssignmentFailed", "Node %s status is now: CIDRAssignmentFailed", n.Name)
	return err
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
}

func newAllocator(c Config) (*allocator, error) {
	a := &allocator{reserved: make(map[types.UID][]netip.Prefix)}
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

// observe takes note of what a node has, and no longer has.
func (a *allocator) observe(old, n *corev1.Node) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var before, now []string
	if old != nil {
		before = old.Spec.PodCIDRs
	}
	if n != nil {
		now = n.Spec.PodCIDRs
	}
	if slices.Equal(before, now) && n != nil {
		return
	}
	a.each(now, (*cidrSet).occupy)
	a.each(before, (*cidrSet).release)
	switch {
	case n == nil:
		a.dropReservation(old.UID)
	case len(now) > 0:
		a.dropReservation(n.UID)
	}
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

// allocate gives a subnet of each range: the same ones again if the node was given some already.
func (a *allocator) allocate(uid types.UID) ([]netip.Prefix, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
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
