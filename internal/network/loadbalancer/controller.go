// Package loadbalancer is the load balancer of clusters that have none outside: services of type LoadBalancer get the addresses
// of the nodes, where the service proxy serves them.
//
// What flows in are services, nodes and endpoint slices; what flows out is the status of services. Services with a
// loadBalancerClass are left to their own load balancer.
package loadbalancer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"

	"github.com/proa-k8s/proa/internal/controller"
)

// everything is the only key: what a service gets depends on all others.
const everything = "services"

// New declares the controller.
func New() controller.Controller {
	return controller.Controller{
		Name: "service",
		Reads: []schema.GroupVersionResource{
			corev1.SchemeGroupVersion.WithResource("services"),
			corev1.SchemeGroupVersion.WithResource("nodes"),
			discoveryv1.SchemeGroupVersion.WithResource("endpointslices"),
		},
		Writes: []rbacv1.PolicyRule{controller.Rule("", []string{"services/status"}, "update")},
		Setup:  setup,
	}
}

type balancer struct {
	env      *controller.Env
	services corelisters.ServiceLister
	nodes    corelisters.NodeLister
	slices   discoverylisters.EndpointSliceLister

	mu       sync.Mutex
	problems map[types.NamespacedName]string // that an event has told of
}

func setup(env *controller.Env) (controller.Sync, error) {
	services, nodes, endpoints := env.Informers.Core().V1().Services(), env.Informers.Core().V1().Nodes(), env.Informers.Discovery().V1().EndpointSlices()
	b := &balancer{env: env, services: services.Lister(), nodes: nodes.Lister(), slices: endpoints.Lister(), problems: map[types.NamespacedName]string{}}
	controller.Watch(env, services.Informer(), func(old, s *corev1.Service) {
		if old != nil && concerns(old) || s != nil && concerns(s) {
			env.Queue.Add(everything)
		}
	})
	controller.Watch(env, nodes.Informer(), func(old, n *corev1.Node) {
		if old == nil || n == nil || usable(old) != usable(n) || !slices.Equal(addressesOf(old), addressesOf(n)) {
			env.Queue.Add(everything)
		}
	})
	controller.Watch(env, endpoints.Informer(), func(old, s *discoveryv1.EndpointSlice) {
		if s == nil {
			s = old
		}
		if b.matters(s) {
			env.Queue.Add(everything)
		}
	})
	return b.sync, nil
}

// concerns tells whether a service has, or should have, an address of the load balancer.
func concerns(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeLoadBalancer || len(s.Status.LoadBalancer.Ingress) > 0
}

// matters tells whether a slice is one that addresses depend on.
func (b *balancer) matters(s *discoveryv1.EndpointSlice) bool {
	service, err := b.services.Services(s.Namespace).Get(s.Labels[discoveryv1.LabelServiceName])
	return err == nil && (managed(service) && service.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal ||
		service.Namespace == metav1.NamespaceDefault && service.Name == "kubernetes")
}

func (b *balancer) sync(ctx context.Context, _ string) error {
	services, err := b.services.List(labels.Everything())
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(services, concerns) {
		b.forget(nil)
		return nil // as in most clusters; nodes may be many, and change often
	}
	nodes, err := b.nodes.List(labels.Everything())
	if err != nil {
		return err
	}
	assigned := assign(cluster{services: services, nodes: nodes, endpoints: b.endpoints})
	b.forget(assigned)
	var errs []error
	for _, s := range services {
		if !concerns(s) || s.Spec.Type == corev1.ServiceTypeLoadBalancer && s.Spec.LoadBalancerClass != nil {
			continue
		}
		if err := b.write(ctx, s, assigned[nameOf(s)]); err != nil {
			errs = append(errs, fmt.Errorf("service %s: %w", nameOf(s), err))
		}
	}
	return errors.Join(errs...)
}

func (b *balancer) endpoints(s *corev1.Service) []*discoveryv1.EndpointSlice {
	all, err := b.slices.EndpointSlices(s.Namespace).List(labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: s.Name}))
	if err != nil {
		return nil // a lister has no errors to give
	}
	return all
}

// write brings the status of a service up to date; a service that is none of the load balancer's any more has an empty
// assignment.
func (b *balancer) write(ctx context.Context, s *corev1.Service, a assignment) error {
	b.report(s, a.problem)
	had := s.Status.LoadBalancer.Ingress
	if equality.Semantic.DeepEqual(had, a.ingress) {
		return nil
	}
	switch {
	case len(a.ingress) == 0:
		b.env.Events.Eventf(s, corev1.EventTypeNormal, "DeletingLoadBalancer", "Deleting load balancer")
	case len(had) == 0:
		b.env.Events.Eventf(s, corev1.EventTypeNormal, "EnsuringLoadBalancer", "Ensuring load balancer")
	}
	changed := s.DeepCopy()
	changed.Status.LoadBalancer.Ingress = a.ingress
	_, err := b.env.Client.CoreV1().Services(s.Namespace).UpdateStatus(ctx, changed, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("writing the addresses of its load balancer: %w", err)
	}
	switch {
	case len(a.ingress) == 0:
		b.env.Events.Eventf(s, corev1.EventTypeNormal, "DeletedLoadBalancer", "Deleted load balancer")
	case len(had) == 0:
		b.env.Events.Eventf(s, corev1.EventTypeNormal, "EnsuredLoadBalancer", "Ensured load balancer")
	default:
		b.env.Events.Eventf(s, corev1.EventTypeNormal, "UpdatedLoadBalancer", "Updated load balancer with new hosts")
	}
	return nil
}

// forget forgets the problems of services that are gone.
func (b *balancer) forget(assigned map[types.NamespacedName]assignment) {
	b.mu.Lock()
	defer b.mu.Unlock()
	maps.DeleteFunc(b.problems, func(name types.NamespacedName, _ string) bool {
		_, stays := assigned[name]
		return !stays
	})
}

// report tells once why a service has no address.
func (b *balancer) report(s *corev1.Service, problem string) {
	b.mu.Lock()
	known := b.problems[nameOf(s)]
	if problem == "" {
		delete(b.problems, nameOf(s))
	} else {
		b.problems[nameOf(s)] = problem
	}
	b.mu.Unlock()
	if problem != "" && problem != known {
		b.env.Events.Eventf(s, corev1.EventTypeWarning, "SyncLoadBalancerFailed", "Error syncing load balancer: failed to ensure load balancer: %s", problem)
	}
}
