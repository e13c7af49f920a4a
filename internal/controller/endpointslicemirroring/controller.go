//lint:file-ignore SA1019 Endpoints are deprecated, and mirrored as long as users may write them.

// Package endpointslicemirroring mirrors the Endpoints that users write for services without a selector into EndpointSlices,
// which is what proxies and DNS read.
//
// What flows in are services, Endpoints and slices; what flows out are slices, as Mirror plans them.
package endpointslicemirroring

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/endpointslice"
	"k8s.io/endpointslice/util"

	"github.com/proa-k8s/proa/internal/controller"
	slicer "github.com/proa-k8s/proa/internal/controller/endpointslice"
)

// New declares the controller.
func New() controller.Controller {
	return controller.Controller{
		Name: "endpointslicemirroring",
		Reads: []schema.GroupVersionResource{
			corev1.SchemeGroupVersion.WithResource("services"),
			corev1.SchemeGroupVersion.WithResource("endpoints"),
			discoveryv1.SchemeGroupVersion.WithResource("endpointslices"),
		},
		Writes: []rbacv1.PolicyRule{
			controller.Rule("", []string{"services/finalizers", "endpoints/finalizers"}, "update"),
			controller.Rule("discovery.k8s.io", []string{"endpointslices"}, "create", "delete", "update"),
		},
		Workers: 5,
		Setup:   setup,
	}
}

// mirror is the controller at work. A key is that of a service and of the Endpoints of the same name.
type mirror struct {
	env       *controller.Env
	services  corelisters.ServiceLister
	endpoints corelisters.EndpointsLister
	slices    cache.Indexer
	written   *util.EndpointSliceTracker
}

func setup(env *controller.Env) (controller.Sync, error) {
	services := env.Informers.Core().V1().Services()
	endpoints := env.Informers.Core().V1().Endpoints()
	slices := env.Informers.Discovery().V1().EndpointSlices()
	if err := slicer.IndexByService(slices.Informer()); err != nil {
		return nil, err
	}
	m := &mirror{
		env: env, services: services.Lister(), endpoints: endpoints.Lister(), slices: slices.Informer().GetIndexer(),
		written: util.NewEndpointSliceTracker(),
	}
	controller.Watch(env, services.Informer(), m.onService)
	controller.Watch(env, endpoints.Informer(), m.onEndpoints)
	controller.Watch(env, slices.Informer(), m.onSlice)
	return m.sync, nil
}

// onService wakes the Endpoints of a service that came, went, or has another opinion about who finds its endpoints.
func (m *mirror) onService(old, s *corev1.Service) {
	switch {
	case old == nil:
		m.env.Queue.Add(controller.Key(s))
	case s == nil:
		m.env.Queue.Add(controller.Key(old))
	case (old.Spec.Selector == nil) != (s.Spec.Selector == nil):
		m.env.Queue.Add(controller.Key(s))
	}
}

// onEndpoints wakes Endpoints that are mirrored, or were.
func (m *mirror) onEndpoints(old, e *corev1.Endpoints) {
	for _, each := range []*corev1.Endpoints{e, old} {
		if each != nil && mirrored(each) {
			m.env.Queue.Add(controller.Key(each))
			return
		}
	}
}

// onSlice wakes Endpoints when somebody else changed a slice of theirs.
func (m *mirror) onSlice(old, slice *discoveryv1.EndpointSlice) {
	var changed *discoveryv1.EndpointSlice
	switch {
	case slice != nil && ours(slice) && m.written.ShouldSync(slice):
		changed = slice
	case slice != nil && old != nil && ours(old) && !ours(slice):
		changed = old
	case slice == nil && ours(old) && m.written.Has(old) && !m.written.HandleDeletion(old):
		changed = old
	default:
		return
	}
	if key, err := endpointslice.ServiceControllerKey(changed); err == nil {
		m.env.Queue.Add(key)
	}
}

func ours(slice *discoveryv1.EndpointSlice) bool {
	return slice.Labels[discoveryv1.LabelManagedBy] == managedBy
}

func (m *mirror) sync(ctx context.Context, key string) error {
	namespace, name := controller.SplitKey(key)
	service, err := m.services.Services(namespace).Get(name)
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	wanted := err == nil && service.Spec.Selector == nil
	endpoints, err := m.endpoints.Endpoints(namespace).Get(name)
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	wanted = wanted && err == nil && mirrored(endpoints)
	present, err := slicer.OfService(m.slices, namespace, name, managedBy)
	if err != nil {
		return err
	}
	if !wanted {
		m.written.DeleteService(namespace, name)
		return m.apply(ctx, Plan{Delete: present})
	}
	if m.written.StaleSlices(service, present) {
		return controller.ErrStale
	}
	plan := Mirror(endpoints, present)
	if plan.Invalid > 0 {
		m.env.Events.Eventf(endpoints, corev1.EventTypeWarning, "InvalidIPAddress",
			"Skipped %d invalid IP addresses when mirroring to EndpointSlices", plan.Invalid)
	}
	if plan.Skipped > 0 {
		m.env.Events.Eventf(endpoints, corev1.EventTypeWarning, "TooManyAddressesToMirror",
			"A max of %d addresses can be mirrored to EndpointSlices per Endpoints subset. %d addresses were skipped", capacity, plan.Skipped)
	}
	if err := m.apply(ctx, plan); err != nil {
		m.env.Events.Eventf(endpoints, corev1.EventTypeWarning, "FailedToUpdateEndpointSlices",
			"Error updating Endpoint Slices for %s/%s Endpoints: %v", namespace, name, err)
		return err
	}
	return nil
}

// apply does what is planned, all of it that can be done.
func (m *mirror) apply(ctx context.Context, plan Plan) error {
	api := m.env.Client.DiscoveryV1()
	var failed []error
	for _, slice := range plan.Create {
		made, err := api.EndpointSlices(slice.Namespace).Create(ctx, slice, metav1.CreateOptions{})
		switch {
		case err == nil:
			m.written.Update(made)
		case !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
			failed = append(failed, fmt.Errorf("creating a slice: %w", err))
		}
	}
	for _, slice := range plan.Update {
		changed, err := api.EndpointSlices(slice.Namespace).Update(ctx, slice, metav1.UpdateOptions{})
		if err != nil {
			failed = append(failed, fmt.Errorf("updating slice %s: %w", slice.Name, err))
			continue
		}
		m.written.Update(changed)
	}
	for _, slice := range plan.Delete {
		err := api.EndpointSlices(slice.Namespace).Delete(ctx, slice.Name, metav1.DeleteOptions{})
		switch {
		case err == nil:
			m.written.ExpectDeletion(slice)
		case !apierrors.IsNotFound(err):
			failed = append(failed, fmt.Errorf("deleting slice %s: %w", slice.Name, err))
		}
	}
	return errors.Join(failed...)
}
