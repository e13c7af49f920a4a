package claim

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"github.com/proa-k8s/proa/internal/client"
)

// byController is the name of the index that Index adds.
const byController = "controller"

// Index adds to an informer an index by the uid of the objects' controller; those that have none are found by namespace.
// It may be called more than once, before the informer is started.
func Index(informer cache.SharedIndexInformer) error {
	if _, there := informer.GetIndexer().GetIndexers()[byController]; there {
		return nil
	}
	err := informer.AddIndexers(cache.Indexers{byController: func(obj any) ([]string, error) {
		m, ok := obj.(metav1.Object)
		if !ok {
			return nil, nil
		}
		if ref := metav1.GetControllerOfNoCopy(m); ref != nil {
			return []string{string(ref.UID)}, nil
		}
		return []string{orphansOf(m.GetNamespace())}, nil
	}})
	if err != nil {
		return fmt.Errorf("indexing by controller: %w", err)
	}
	return nil
}

// owned is what a controller can own.
type owned interface {
	metav1.Object
	runtime.Object
}

func orphansOf(namespace string) string { return "orphans/" + namespace }

// Candidates gives what the controller with that uid owns, and what nobody owns in the namespace and the selector matches.
// The slice is the caller's.
func Candidates[T owned](indexer cache.Indexer, namespace string, controller types.UID, selector labels.Selector) ([]T, error) {
	mine, err := Owned[T](indexer, controller)
	if err != nil {
		return nil, err
	}
	orphans, err := client.Select[T](indexer, byController, orphansOf(namespace), selector)
	if err != nil {
		return nil, fmt.Errorf("listing orphans: %w", err)
	}
	return append(mine, orphans...), nil
}

// Owned gives what the controller with that uid owns. The slice is the caller's.
func Owned[T metav1.Object](indexer cache.Indexer, controller types.UID) ([]T, error) {
	objs, err := indexer.ByIndex(byController, string(controller))
	if err != nil {
		return nil, fmt.Errorf("listing what is owned: %w", err)
	}
	owned := make([]T, len(objs))
	for i, o := range objs {
		owned[i] = o.(T)
	}
	return owned, nil
}
