package cluster

import (
	"context"
	"fmt"
	"net/netip"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/proa-k8s/proa/internal/apiserver"
	"github.com/proa-k8s/proa/internal/apiserver/admission"
	"github.com/proa-k8s/proa/internal/apiserver/auth/rbac"
	"github.com/proa-k8s/proa/internal/apiserver/lookup"
	"github.com/proa-k8s/proa/internal/apiserver/servicealloc"
	"github.com/proa-k8s/proa/internal/client"
	"github.com/proa-k8s/proa/internal/controller"
	"github.com/proa-k8s/proa/internal/controller/builtin"
	"github.com/proa-k8s/proa/internal/controller/nodeipam"
	"github.com/proa-k8s/proa/internal/store"
)

// policy is the default roles, those of the controllers included.
func (s *server) policy() *rbac.Policy {
	roles, bindings := controller.Roles(builtin.Controllers(builtin.Options{}))
	return rbac.DefaultPolicy(roles, bindings)
}

// getter and lister read a cache for admission; they are nil for a kind that is not served.
func getter[T runtime.Object](c *store.Cache) lookup.Getter[T] {
	if c == nil {
		return nil
	}
	return lookup.Get[T](c)
}

func lister[T runtime.Object](c *store.Cache) lookup.Lister[T] {
	if c == nil {
		return nil
	}
	return lookup.List[T](c)
}

func (s *server) makeAdmission() (*admission.Chain, error) {
	chain, err := admission.New(admission.Config{
		Log:              s.Log.With("component", "admission"),
		Namespaces:       getter[*corev1.Namespace](s.cache("namespaces")),
		NamespacesLatest: lookup.GetLatest[*corev1.Namespace](s.cache("namespaces")),
		ServiceAccounts:  getter[*corev1.ServiceAccount](s.cache("serviceaccounts")),
		Pods:             getter[*corev1.Pod](s.cache("pods")),
		PodList:          lister[*corev1.Pod](s.cache("pods")),
		Nodes:            getter[*corev1.Node](s.cache("minions")),
		LimitRanges:      lister[*corev1.LimitRange](s.cache("limitranges")),
		PriorityClasses:  getter[*schedulingv1.PriorityClass](s.cache("priorityclasses")),
		PriorityClassSet: lister[*schedulingv1.PriorityClass](s.cache("priorityclasses")),
		RuntimeClasses:   getter[*nodev1.RuntimeClass](s.cache("runtimeclasses")),
		StorageClasses:   lister[*storagev1.StorageClass](s.cache("storageclasses")),
		IngressClasses:   lister[*networkingv1.IngressClass](s.cache("ingressclasses")),
		CSIDrivers:       getter[*storagev1.CSIDriver](s.cache("csidrivers")),
		Authorizer:       s.auth.authz,
		ResourceFor:      s.resourceFor,
		Escalation:       rbac.NewEscalation(s.auth.rbac, s.auth.authz),
	})
	if err != nil {
		return nil, fmt.Errorf("setting up admission: %w", err)
	}
	return chain, nil
}

// resourceFor finds the resource of a kind in any version in which it is served.
func (s *server) resourceFor(kind schema.GroupVersionKind) (schema.GroupVersionResource, bool) {
	for _, r := range s.resources {
		if r.Kind != kind.Kind {
			continue
		}
		for _, v := range r.Versions {
			if v.GroupVersion == kind.GroupVersion() {
				return v.WithResource(r.Plural), true
			}
		}
	}
	return schema.GroupVersionResource{}, false
}

func (s *server) serviceCompanion(ctx context.Context) (apiserver.Companion, error) {
	ports, err := parsePortRange(s.ServiceNodePortRange)
	if err != nil {
		return nil, err
	}
	allocator, err := servicealloc.New(servicealloc.Config{
		Store:        s.store,
		Services:     s.cache("services/specs"),
		IPAddresses:  s.cache("ipaddresses"),
		ServiceCIDRs: s.cache("servicecidrs"),
		Ranges:       []netip.Prefix{s.net.serviceCIDR},
		NodePorts:    *ports,
	})
	if err != nil {
		return nil, fmt.Errorf("setting up the allocation of service addresses: %w", err)
	}
	if err := allocator.Adopt(ctx); err != nil {
		return nil, fmt.Errorf("checking the addresses of services: %w", err)
	}
	return allocator.Companion, nil
}

// stored describes the stored resources for the controllers that work on all kinds.
func (s *server) stored() *client.Resources {
	resources := &client.Resources{}
	resources.Set(client.Stored(s.store, s.resources))
	return resources
}

// startControllers starts the controllers, which end with ctx.
func (s *server) startControllers(ctx context.Context, group *errgroup.Group) error {
	manager, err := controller.NewManager(controller.Config{
		REST:       s.rest,
		Informers:  s.informers,
		Resources:  s.stored(),
		Registerer: s.registry,
		Log:        s.Log.With("component", "controllers"),
	}, builtin.Controllers(builtin.Options{
		RootCA: s.pki.CAPEM(),
		IssueToken: func(account *corev1.ServiceAccount, secret *corev1.Secret) (string, error) {
			return s.auth.tokens.Legacy(account, secret.Name)
		},
		NodeIPAM: nodeipam.Config{ClusterCIDRs: []netip.Prefix{s.net.clusterCIDR}, ServiceCIDRs: []netip.Prefix{s.net.serviceCIDR}},
	}))
	if err != nil {
		return fmt.Errorf("setting up the controllers: %w", err)
	}
	group.Go(func() error { return manager.Run(ctx) })
	return nil
}
