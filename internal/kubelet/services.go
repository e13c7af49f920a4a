package kubelet

import (
	"context"
	"errors"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"k8s.io/client-go/informers"
	listersv1 "k8s.io/client-go/listers/core/v1"
)

// serviceSource knows the services of the cluster, for the environment of containers.
type serviceSource struct {
	informer cache.SharedIndexInformer
	lister   listersv1.ServiceLister
	factory  informers.SharedInformerFactory
	synced   chan struct{}
}

// newServiceSource watches services until ctx is done. Of each no more is kept than environments need.
func newServiceSource(ctx context.Context, client kubernetes.Interface, wg *sync.WaitGroup) *serviceSource {
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(func(o any) (any, error) {
		s, ok := o.(*corev1.Service)
		if !ok {
			return o, nil
		}
		return &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: s.Name, Namespace: s.Namespace, UID: s.UID, ResourceVersion: s.ResourceVersion},
			Spec:       corev1.ServiceSpec{ClusterIP: s.Spec.ClusterIP, Ports: s.Spec.Ports},
		}, nil
	}))
	services := factory.Core().V1().Services()
	s := &serviceSource{informer: services.Informer(), lister: services.Lister(), factory: factory, synced: make(chan struct{})}
	factory.Start(ctx.Done())
	wg.Go(func() {
		if cache.WaitForCacheSync(ctx.Done(), s.informer.HasSynced) {
			close(s.synced)
		}
	})
	return s
}

// wait returns when the services have been read.
func (s *serviceSource) wait(ctx context.Context) error {
	select {
	case <-s.synced:
		return nil
	case <-ctx.Done():
		return errors.New("services have not yet been read at least once, cannot construct envvars")
	}
}

// of returns the services of a namespace and default/kubernetes.
func (s *serviceSource) of(namespace string) []*corev1.Service {
	var list []*corev1.Service
	index, err := s.informer.GetIndexer().ByIndex(cache.NamespaceIndex, namespace)
	if err == nil {
		for _, o := range index {
			list = append(list, o.(*corev1.Service))
		}
	}
	if namespace != metav1.NamespaceDefault {
		if master, err := s.lister.Services(metav1.NamespaceDefault).Get("kubernetes"); err == nil {
			list = append(list, master)
		}
	}
	return list
}

func (s *serviceSource) close() { s.factory.Shutdown() }
