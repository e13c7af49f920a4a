package client

import (
	"fmt"
	"reflect"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/informers/admissionregistration"
	"k8s.io/client-go/informers/apiserverinternal"
	"k8s.io/client-go/informers/apps"
	"k8s.io/client-go/informers/autoscaling"
	"k8s.io/client-go/informers/batch"
	"k8s.io/client-go/informers/certificates"
	"k8s.io/client-go/informers/coordination"
	"k8s.io/client-go/informers/core"
	"k8s.io/client-go/informers/discovery"
	"k8s.io/client-go/informers/events"
	"k8s.io/client-go/informers/extensions"
	"k8s.io/client-go/informers/flowcontrol"
	"k8s.io/client-go/informers/internalinterfaces"
	"k8s.io/client-go/informers/lifecycle"
	"k8s.io/client-go/informers/networking"
	"k8s.io/client-go/informers/node"
	"k8s.io/client-go/informers/policy"
	"k8s.io/client-go/informers/rbac"
	"k8s.io/client-go/informers/resource"
	"k8s.io/client-go/informers/scheduling"
	"k8s.io/client-go/informers/storage"
	"k8s.io/client-go/informers/storagemigration"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/cache"

	"github.com/proa-k8s/proa/internal/api"
	"github.com/proa-k8s/proa/internal/store"
)

// Informers makes the factory of informers for everything in the process. The informers of the given resources' hub types
// are fed by the store's caches; those of other types, and all of them when st is nil, list and watch by clientset.
// Informers never resync. An informer exists from the moment that somebody asks for it.
func Informers(clientset kubernetes.Interface, st *store.Store, resources []*api.Resource) informers.SharedInformerFactory {
	f := &factory{
		SharedInformerFactory: informers.NewSharedInformerFactory(clientset, 0),
		caches:                make(map[reflect.Type]*store.Cache, len(resources)),
	}
	for _, r := range resources {
		if r.Prefix == "" || st == nil {
			continue
		}
		if c := st.Cache(r.Prefix); c != nil {
			f.caches[reflect.TypeOf(r.New())] = c
		}
	}
	return f
}

// Restrict gives a view of the factory that refuses, by panicking with the name of who asks, informers of types that
// allowed doesn't hold: it makes sure that declared inputs are the true ones. Informers are shared with the whole factory.
func Restrict(all informers.SharedInformerFactory, who string, allowed func(runtime.Object) bool) informers.SharedInformerFactory {
	return &factory{SharedInformerFactory: all, guard: func(obj runtime.Object) {
		if !allowed(obj) {
			panic(fmt.Sprintf("%s reads %T, which is not among its declared inputs", who, obj))
		}
	}}
}

// factory is a SharedInformerFactory around another, with its own way to make informers. The methods of the groups hand
// the group this factory instead of the inner one, so that all requests come through InformerFor.
type factory struct {
	informers.SharedInformerFactory
	caches map[reflect.Type]*store.Cache
	guard  func(runtime.Object)
}

// InformerFor gives the shared informer of obj's type and makes it if need be.
func (f *factory) InformerFor(obj runtime.Object, make internalinterfaces.NewInformerFunc) cache.SharedIndexInformer {
	if f.guard != nil {
		f.guard(obj)
	}
	if c := f.caches[reflect.TypeOf(obj)]; c != nil {
		make = cachedInformer(c, obj)
	}
	return f.SharedInformerFactory.InformerFor(obj, make)
}

// ForResource gives the informer of a resource that client-go has a type for.
func (f *factory) ForResource(gvr schema.GroupVersionResource) (informers.GenericInformer, error) {
	for kind := range scheme.Scheme.AllKnownTypes() {
		if kind.GroupVersion() != gvr.GroupVersion() {
			continue
		}
		if plural, _ := meta.UnsafeGuessKindToResource(kind); plural != gvr {
			continue
		}
		obj, err := scheme.Scheme.New(kind)
		if err != nil {
			return nil, err
		}
		if f.guard != nil {
			f.guard(obj)
		}
		if c := f.caches[reflect.TypeOf(obj)]; c != nil {
			f.SharedInformerFactory.InformerFor(obj, cachedInformer(c, obj))
		}
	}
	return f.SharedInformerFactory.ForResource(gvr)
}

func (f *factory) Admissionregistration() admissionregistration.Interface {
	return admissionregistration.New(f, metav1.NamespaceAll, nil)
}

func (f *factory) Internal() apiserverinternal.Interface {
	return apiserverinternal.New(f, metav1.NamespaceAll, nil)
}

func (f *factory) Apps() apps.Interface {
	return apps.New(f, metav1.NamespaceAll, nil)
}

func (f *factory) Autoscaling() autoscaling.Interface {
	return autoscaling.New(f, metav1.NamespaceAll, nil)
}

func (f *factory) Batch() batch.Interface {
	return batch.New(f, metav1.NamespaceAll, nil)
}

func (f *factory) Certificates() certificates.Interface {
	return certificates.New(f, metav1.NamespaceAll, nil)
}

func (f *factory) Coordination() coordination.Interface {
	return coordination.New(f, metav1.NamespaceAll, nil)
}

func (f *factory) Core() core.Interface {
	return core.New(f, metav1.NamespaceAll, nil)
}

func (f *factory) Discovery() discovery.Interface {
	return discovery.New(f, metav1.NamespaceAll, nil)
}

func (f *factory) Events() events.Interface {
	return events.New(f, metav1.NamespaceAll, nil)
}

func (f *factory) Extensions() extensions.Interface {
	return extensions.New(f, metav1.NamespaceAll, nil)
}

func (f *factory) Flowcontrol() flowcontrol.Interface {
	return flowcontrol.New(f, metav1.NamespaceAll, nil)
}

func (f *factory) Lifecycle() lifecycle.Interface {
	return lifecycle.New(f, metav1.NamespaceAll, nil)
}

func (f *factory) Networking() networking.Interface {
	return networking.New(f, metav1.NamespaceAll, nil)
}

func (f *factory) Node() node.Interface {
	return node.New(f, metav1.NamespaceAll, nil)
}

func (f *factory) Policy() policy.Interface {
	return policy.New(f, metav1.NamespaceAll, nil)
}

func (f *factory) Rbac() rbac.Interface {
	return rbac.New(f, metav1.NamespaceAll, nil)
}

func (f *factory) Resource() resource.Interface {
	return resource.New(f, metav1.NamespaceAll, nil)
}

func (f *factory) Scheduling() scheduling.Interface {
	return scheduling.New(f, metav1.NamespaceAll, nil)
}

func (f *factory) Storage() storage.Interface {
	return storage.New(f, metav1.NamespaceAll, nil)
}

func (f *factory) Storagemigration() storagemigration.Interface {
	return storagemigration.New(f, metav1.NamespaceAll, nil)
}
