package pods

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
)

// byNode is the name of the index that IndexByNode adds.
const byNode = "node"

// IndexByNode adds to a pod informer an index by the pods' nodes. It may be called more than once, before the informer is
// started.
func IndexByNode(informer cache.SharedIndexInformer) error {
	if _, there := informer.GetIndexer().GetIndexers()[byNode]; there {
		return nil
	}
	err := informer.AddIndexers(cache.Indexers{byNode: func(obj any) ([]string, error) {
		if p, ok := obj.(*corev1.Pod); ok && p.Spec.NodeName != "" {
			return []string{p.Spec.NodeName}, nil
		}
		return nil, nil
	}})
	if err != nil {
		return fmt.Errorf("indexing pods by node: %w", err)
	}
	return nil
}

// OnNode gives the pods that are bound to the node, by the index.
func OnNode(indexer cache.Indexer, node string) ([]*corev1.Pod, error) {
	objs, err := indexer.ByIndex(byNode, node)
	if err != nil {
		return nil, fmt.Errorf("listing the pods of node %s: %w", node, err)
	}
	list := make([]*corev1.Pod, len(objs))
	for i, o := range objs {
		list[i] = o.(*corev1.Pod)
	}
	return list, nil
}
