// Package endpointslice keeps the EndpointSlices of services that have a selector.
//
// What flows in are services, pods, nodes and slices; what flows out are slices, as k8s.io/endpointslice computes them.
package endpointslice

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/endpointslice"
	"k8s.io/endpointslice/topologycache"
	"k8s.io/endpointslice/util"

	"github.com/proa-k8s/proa/internal/client"
	"github.com/proa-k8s/proa/internal/controller"
)

// managedBy is the value of the label endpointslice.kubernetes.io/managed-by on the controller's slices.
const managedBy = "endpointslice-controller.k8s.io"

// perSlice is how many endpoints a slice has at most.
const perSlice = 100

// New declares the controller.
func New() controller.Controller {
	return controller.Controller{
		Name: "endpointslice",
		Reads: []schema.GroupVersionResource{
			corev1.SchemeGroupVersion.WithResource("services"),
			corev1.SchemeGroupVersion.WithResource("pods"),
			corev1.SchemeGroupVersion.WithResource("nodes"),
			discoveryv1.SchemeGroupVersion.WithResource("endpointslices"),
		},
		Writes: []rbacv1.PolicyRule{
			controller.Rule("", []string{"services/finalizers"}, "update"),
			controller.Rule("discovery.k8s.io", []string{"endpointslices"}, "create", "delete", "update"),
		},
		Workers: 16, // most of the time they wait for a write, and traffic waits for them
		Setup:   setup,
	}
}

// slicer is the controller at work.
type slicer struct {
	env        *controller.Env
	log        logr.Logger
	services   corelisters.ServiceLister
	pods       cache.Indexer
	nodes      corelisters.NodeLister
	slices     cache.Indexer
	reconciler *endpointslice.Reconciler
	written    *util.EndpointSliceTracker
	topology   *topologycache.TopologyCache
	triggers   *util.TriggerTimeTracker
}

func setup(env *controller.Env) (controller.Sync, error) {
	services := env.Informers.Core().V1().Services()
	pods := env.Informers.Core().V1().Pods()
	nodes := env.Informers.Core().V1().Nodes()
	slices := env.Informers.Discovery().V1().EndpointSlices()
	if err := IndexByService(slices.Informer()); err != nil {
		return nil, err
	}
	s := &slicer{
		env: env, log: logr.FromSlogHandler(warnings{env.Log.Handler()}),
		services: services.Lister(), pods: pods.Informer().GetIndexer(), nodes: nodes.Lister(), slices: slices.Informer().GetIndexer(),
		written:  util.NewEndpointSliceTracker(),
		topology: topologycache.NewTopologyCache(),
		triggers: util.NewTriggerTimeTracker(),
	}
	s.reconciler = endpointslice.NewReconciler(env.Client, s.nodes, perSlice, s.written, s.topology, env.Events, managedBy,
		endpointslice.WithPreferSameTrafficDistributionEnabled(true))
	controller.WatchKeys[*corev1.Service](env, services.Informer())
	controller.Watch(env, pods.Informer(), s.onPod)
	controller.Watch(env, slices.Informer(), s.onSlice)
	controller.Watch(env, nodes.Informer(), s.onNode)
	return s.sync, nil
}

// warnings drops what the library says below a warning: it remarks on every node that it has no zone.
type warnings struct{ slog.Handler }

// Enabled tells whether a record of the level is kept.
func (w warnings) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && w.Handler.Enabled(ctx, level)
}

// onPod wakes the services that select a pod, or did.
func (s *slicer) onPod(old, p *corev1.Pod) {
	services, err := ServicesOf(s.services, old, p)
	if err != nil {
		s.env.Log.Error("finding the services of a pod", "err", err)
	}
	for _, key := range services {
		s.env.Queue.Add(key)
	}
}

// ServicesOf gives the keys of the services whose endpoints may change with a pod; old is nil when p was added, p when old
// was deleted.
func ServicesOf(services corelisters.ServiceLister, old, p *corev1.Pod) ([]string, error) {
	var change *util.PodProjectionKey
	switch {
	case old == nil:
		change = &util.PodProjectionKey{Namespace: p.Namespace, Labels: p.Labels, PodChanged: true}
	case p == nil:
		change = &util.PodProjectionKey{Namespace: old.Namespace, Labels: old.Labels, PodChanged: true}
	default:
		change = util.GetPodUpdateProjectionKey(old, p)
	}
	if change == nil {
		return nil, nil
	}
	keys, err := util.GetServicesToUpdate(services, change)
	return keys.UnsortedList(), err
}

// onSlice wakes a service when somebody else changed one of its slices.
func (s *slicer) onSlice(old, slice *discoveryv1.EndpointSlice) {
	switch {
	case old == nil:
		if s.reconciler.ManagedByController(slice) && s.written.ShouldSync(slice) {
			s.wakeOwner(slice)
		}
	case slice == nil:
		// A deletion of its own was expected; the tracker forgets the slice in any case.
		if s.reconciler.ManagedByController(old) && s.written.Has(old) && !s.written.HandleDeletion(old) {
			s.wakeOwner(old)
		}
	case old.Labels[discoveryv1.LabelServiceName] != slice.Labels[discoveryv1.LabelServiceName]:
		s.wakeOwner(old)
		s.wakeOwner(slice)
	case s.reconciler.ManagedByChanged(old, slice) || s.reconciler.ManagedByController(slice) && s.written.ShouldSync(slice):
		s.wakeOwner(slice)
	}
}

func (s *slicer) wakeOwner(slice *discoveryv1.EndpointSlice) {
	if key, err := endpointslice.ServiceControllerKey(slice); err == nil {
		s.env.Queue.Add(key)
	}
}

// onNode keeps the topology, and wakes the services whose zones don't fit it any more.
func (s *slicer) onNode(old, n *corev1.Node) {
	if old != nil && n != nil && sameTopology(old, n) {
		return
	}
	nodes, err := s.nodes.List(labels.Everything())
	if err != nil {
		s.env.Log.Error("listing nodes", "err", err)
		return
	}
	s.topology.SetNodes(s.log, nodes)
	for _, key := range s.topology.GetOverloadedServices() {
		s.env.Queue.Add(key)
	}
}

// sameTopology tells whether two states of a node are the same for the placement of endpoints.
func sameTopology(a, b *corev1.Node) bool {
	return labels.Equals(a.Labels, b.Labels) && ready(a) == ready(b) &&
		equality.Semantic.DeepEqual(a.Status.Allocatable.Cpu(), b.Status.Allocatable.Cpu())
}

func ready(n *corev1.Node) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// sync brings a service's slices up to date.
func (s *slicer) sync(_ context.Context, key string) error {
	namespace, name := controller.SplitKey(key)
	service, err := s.services.Services(namespace).Get(name)
	if apierrors.IsNotFound(err) {
		// The slices are deleted by the garbage collector.
		s.triggers.DeleteService(namespace, name)
		s.reconciler.DeleteService(namespace, name)
		s.written.DeleteService(namespace, name)
		return nil
	}
	if err != nil {
		return err
	}
	if service.Spec.Type == corev1.ServiceTypeExternalName || service.Spec.Selector == nil {
		return nil // Its endpoints, if any, are somebody else's.
	}
	pods, err := client.Select[*corev1.Pod](s.pods, cache.NamespaceIndex, namespace, labels.Set(service.Spec.Selector).AsSelectorPreValidated())
	if err != nil {
		return fmt.Errorf("listing pods: %w", err)
	}
	all, err := OfService(s.slices, namespace, name, managedBy)
	if err != nil {
		return err
	}
	present := make([]*discoveryv1.EndpointSlice, 0, len(all))
	for _, slice := range all {
		if slice.DeletionTimestamp == nil {
			present = append(present, slice)
		}
	}
	if s.written.StaleSlices(service, present) {
		return controller.ErrStale
	}
	trigger := s.triggers.ComputeEndpointLastChangeTriggerTime(namespace, service, pods)
	if err := s.reconciler.Reconcile(s.log, service, pods, present, trigger); err != nil {
		s.env.Events.Eventf(service, corev1.EventTypeWarning, "FailedToUpdateEndpointSlices",
			"Error updating Endpoint Slices for Service %s/%s: %v", namespace, name, err)
		return err
	}
	return nil
}
