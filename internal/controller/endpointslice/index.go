package endpointslice

import (
	"fmt"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/tools/cache"

	"github.com/proa-k8s/proa/internal/client"
)

// byService is the name of the index that IndexByService adds.
const byService = "service"

// IndexByService adds to an informer of slices an index by their service: a namespace may have thousands of services, and each
// asks for its slices. It may be called more than once, before the informer is started.
func IndexByService(informer cache.SharedIndexInformer) error {
	if _, there := informer.GetIndexer().GetIndexers()[byService]; there {
		return nil
	}
	err := informer.AddIndexers(cache.Indexers{byService: func(obj any) ([]string, error) {
		if s, ok := obj.(*discoveryv1.EndpointSlice); ok && s.Labels[discoveryv1.LabelServiceName] != "" {
			return []string{s.Namespace + "/" + s.Labels[discoveryv1.LabelServiceName]}, nil
		}
		return nil, nil
	}})
	if err != nil {
		return fmt.Errorf("indexing slices by service: %w", err)
	}
	return nil
}

// OfService gives the slices of a service that the controller of that name manages, by the index.
func OfService(indexer cache.Indexer, namespace, service, managedBy string) ([]*discoveryv1.EndpointSlice, error) {
	selector := labels.SelectorFromSet(labels.Set{discoveryv1.LabelManagedBy: managedBy})
	list, err := client.Select[*discoveryv1.EndpointSlice](indexer, byService, namespace+"/"+service, selector)
	if err != nil {
		return nil, fmt.Errorf("listing the slices of service %s/%s: %w", namespace, service, err)
	}
	return list, nil
}
