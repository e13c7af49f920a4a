//lint:file-ignore SA1019 Endpoints are deprecated, and written as long as Kubernetes writes them.

// Package endpoints keeps the Endpoints of services that have a selector, for clients that don't read EndpointSlices yet.
//
// What flows in are services, pods and Endpoints; what flows out is one Endpoints object per service.
package endpoints

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	slicelib "k8s.io/endpointslice"
	endpointslicelib "k8s.io/endpointslice/util"
	netutils "k8s.io/utils/net"

	"github.com/proa-k8s/proa/internal/api/core"
	"github.com/proa-k8s/proa/internal/client"
	"github.com/proa-k8s/proa/internal/controller"
	"github.com/proa-k8s/proa/internal/controller/endpointslice"
)

const (
	// managedBy is the label on the Endpoints of this controller, and its value.
	managedByLabel = "endpoints.kubernetes.io/managed-by"
	managedBy      = "endpoint-controller"
)

// settle is how long changes of pods are gathered, so that a burst is one write. Proxies follow EndpointSlices, which don't wait.
const settle = 10 * time.Millisecond

// New declares the controller.
func New() controller.Controller {
	return controller.Controller{
		Name: "endpoint",
		Reads: []schema.GroupVersionResource{
			corev1.SchemeGroupVersion.WithResource("services"),
			corev1.SchemeGroupVersion.WithResource("pods"),
			corev1.SchemeGroupVersion.WithResource("endpoints"),
		},
		Writes: []rbacv1.PolicyRule{
			controller.Rule("", []string{"endpoints"}, "create", "delete", "update"),
			controller.Rule("", []string{"endpoints/restricted"}, "create"),
		},
		Workers: 5,
		Setup:   setup,
	}
}

type endpoints struct {
	env       *controller.Env
	services  corelisters.ServiceLister
	pods      cache.Indexer
	endpoints corelisters.EndpointsLister
	triggers  *endpointslicelib.TriggerTimeTracker
}

func setup(env *controller.Env) (controller.Sync, error) {
	services := env.Informers.Core().V1().Services()
	pods := env.Informers.Core().V1().Pods()
	present := env.Informers.Core().V1().Endpoints()
	e := &endpoints{
		env: env, services: services.Lister(), pods: pods.Informer().GetIndexer(), endpoints: present.Lister(),
		triggers: endpointslicelib.NewTriggerTimeTracker(),
	}
	controller.WatchKeys[*corev1.Service](env, services.Informer())
	controller.Watch(env, pods.Informer(), func(old, p *corev1.Pod) {
		keys, err := endpointslice.ServicesOf(e.services, old, p)
		if err != nil {
			env.Log.Error("finding the services of a pod", "err", err)
		}
		for _, key := range keys {
			env.Queue.AddAfter(key, settle)
		}
	})
	// What is there at the start belongs to services that may be gone; what is deleted later must be made again.
	controller.Watch(env, present.Informer(), func(old, obj *corev1.Endpoints) {
		switch {
		case old == nil:
			if obj.Labels[managedByLabel] == managedBy {
				env.Queue.Add(controller.Key(obj))
			}
		case obj == nil:
			env.Queue.Add(controller.Key(old))
		}
	})
	return e.sync, nil
}

func (e *endpoints) sync(ctx context.Context, key string) error {
	namespace, name := controller.SplitKey(key)
	api := e.env.Client.CoreV1().Endpoints(namespace)
	present, err := e.endpoints.Endpoints(namespace).Get(name)
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	exists := err == nil
	service, err := e.services.Services(namespace).Get(name)
	if apierrors.IsNotFound(err) {
		e.triggers.DeleteService(namespace, name)
		if !exists || present.Labels[managedByLabel] != managedBy {
			return nil
		}
		err := api.Delete(ctx, name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(present.UID))})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	}
	if err != nil {
		return err
	}
	if service.Spec.Type == corev1.ServiceTypeExternalName || service.Spec.Selector == nil {
		return nil
	}
	pods, err := client.Select[*corev1.Pod](e.pods, cache.NamespaceIndex, namespace, labels.Set(service.Spec.Selector).AsSelectorPreValidated())
	if err != nil {
		return fmt.Errorf("listing pods: %w", err)
	}
	if !exists {
		present = &corev1.Endpoints{}
	}
	wanted := Compute(service, pods, present)
	trigger := e.triggers.ComputeEndpointLastChangeTriggerTime(namespace, service, pods)
	if exists && upToDate(present, wanted) {
		return nil
	}
	setTrigger(wanted, trigger)
	if !exists {
		_, err = api.Create(ctx, wanted, metav1.CreateOptions{})
	} else {
		_, err = api.Update(ctx, wanted, metav1.UpdateOptions{})
	}
	switch {
	case err == nil, apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return nil
	case apierrors.IsAlreadyExists(err):
		return controller.ErrStale
	case apierrors.IsConflict(err):
		return err
	case exists:
		e.env.Events.Eventf(wanted, corev1.EventTypeWarning, "FailedToUpdateEndpoint", "Failed to update endpoint %v/%v: %v", namespace, name, err)
	default:
		e.env.Events.Eventf(wanted, corev1.EventTypeWarning, "FailedToCreateEndpoint", "Failed to create endpoint for service %v/%v: %v", namespace, name, err)
	}
	return err
}

func setTrigger(e *corev1.Endpoints, t time.Time) {
	if t.IsZero() {
		delete(e.Annotations, corev1.EndpointsLastChangeTriggerTime)
		return
	}
	if e.Annotations == nil {
		e.Annotations = make(map[string]string)
	}
	e.Annotations[corev1.EndpointsLastChangeTriggerTime] = t.UTC().Format(time.RFC3339Nano)
}

// upToDate tells whether nothing but the time of the last change could differ.
func upToDate(a, b *corev1.Endpoints) bool {
	return maps.Equal(a.Labels, b.Labels) && equality.Semantic.DeepEqual(a.Subsets, b.Subsets) &&
		a.Annotations[corev1.EndpointsOverCapacity] == b.Annotations[corev1.EndpointsOverCapacity]
}

// capacity is how many addresses an Endpoints object has at most.
const capacity = 1000

// Compute gives the Endpoints of a service that selects these pods; metadata that others set on the present object is kept.
func Compute(service *corev1.Service, pods []*corev1.Pod, present *corev1.Endpoints) *corev1.Endpoints {
	out := &corev1.Endpoints{ObjectMeta: *present.ObjectMeta.DeepCopy()}
	out.Name, out.Namespace = service.Name, service.Namespace
	out.Labels = maps.Clone(service.Labels)
	if out.Labels == nil {
		out.Labels = make(map[string]string)
	}
	if service.Spec.ClusterIP == corev1.ClusterIPNone {
		out.Labels[corev1.IsHeadlessService] = ""
	} else {
		delete(out.Labels, corev1.IsHeadlessService)
	}
	out.Labels[managedByLabel] = managedBy

	var subsets []corev1.EndpointSubset
	for _, p := range pods {
		subsets = append(subsets, subsetsOf(service, p)...)
	}
	out.Subsets = core.RepackSubsets(subsets)
	if truncate(out) {
		if out.Annotations == nil {
			out.Annotations = make(map[string]string)
		}
		out.Annotations[corev1.EndpointsOverCapacity] = "truncated"
	} else {
		delete(out.Annotations, corev1.EndpointsOverCapacity)
	}
	return out
}

// subsetsOf gives what a pod contributes: its address, under each port that it has.
func subsetsOf(service *corev1.Service, p *corev1.Pod) []corev1.EndpointSubset {
	tolerant := service.Spec.PublishNotReadyAddresses
	if !endpointslicelib.ShouldPodBeInEndpoints(p, tolerant) {
		return nil
	}
	address := corev1.EndpointAddress{
		IP:       addressFor(service, p),
		NodeName: &p.Spec.NodeName,
		TargetRef: &corev1.ObjectReference{
			Kind: "Pod", Namespace: p.Namespace, Name: p.Name, UID: p.UID,
		},
	}
	if address.IP == "" {
		return nil
	}
	if endpointslicelib.ShouldSetHostname(p, service) {
		address.Hostname = p.Spec.Hostname
	}
	var ports []corev1.EndpointPort
	for _, port := range service.Spec.Ports {
		number, err := slicelib.FindPort(p, &port)
		if err != nil {
			continue
		}
		ports = append(ports, corev1.EndpointPort{Name: port.Name, Port: int32(number), Protocol: port.Protocol, AppProtocol: port.AppProtocol})
	}
	if len(ports) == 0 && (len(service.Spec.Ports) > 0 || service.Spec.ClusterIP != corev1.ClusterIPNone) {
		return nil
	}
	subset := corev1.EndpointSubset{Ports: ports}
	if tolerant || endpointslicelib.IsPodReady(p) {
		subset.Addresses = []corev1.EndpointAddress{address}
	} else {
		subset.NotReadyAddresses = []corev1.EndpointAddress{address}
	}
	return []corev1.EndpointSubset{subset}
}

// addressFor gives the pod's address of the service's first IP family; empty if it has none.
func addressFor(service *corev1.Service, p *corev1.Pod) string {
	family := corev1.IPv4Protocol
	if len(service.Spec.IPFamilies) > 0 {
		family = service.Spec.IPFamilies[0]
	}
	for _, ip := range p.Status.PodIPs {
		if netutils.IsIPv6String(ip.IP) == (family == corev1.IPv6Protocol) {
			return ip.IP
		}
	}
	return ""
}

// truncate cuts the addresses to the capacity, those that are not ready first, in proportion over the subsets.
func truncate(e *corev1.Endpoints) bool {
	ready, unready := 0, 0
	for _, s := range e.Subsets {
		ready += len(s.Addresses)
		unready += len(s.NotReadyAddresses)
	}
	if ready+unready <= capacity {
		return false
	}
	readyLeft := min(ready, capacity)
	unreadyLeft := capacity - readyLeft
	for i := range e.Subsets {
		s := &e.Subsets[i]
		n := min(len(s.Addresses), readyLeft)
		s.Addresses, readyLeft = s.Addresses[:n], readyLeft-n
		n = min(len(s.NotReadyAddresses), unreadyLeft)
		s.NotReadyAddresses, unreadyLeft = s.NotReadyAddresses[:n], unreadyLeft-n
	}
	e.Subsets = slices.DeleteFunc(e.Subsets, func(s corev1.EndpointSubset) bool {
		return len(s.Addresses)+len(s.NotReadyAddresses) == 0
	})
	return true
}
