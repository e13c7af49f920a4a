package admission

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilcache "k8s.io/apimachinery/pkg/util/cache"
	"k8s.io/apiserver/pkg/admission"

	"github.com/proa-k8s/proa/internal/store"
)

var (
	namespaces = corev1.Resource("namespaces")
	// localReviews tell nothing about namespaces, not even that they exist.
	localReviews = schema.GroupResource{Group: "authorization.k8s.io", Resource: "localsubjectaccessreviews"}
)

// distrust is how long after the deletion of a namespace the cache is not believed when it says that it is active.
const distrust = 30 * time.Second

// newNamespaceLifecycle refuses to create objects in namespaces that are missing or being deleted, and to delete the
// namespaces that the cluster can't be without.
func newNamespaceLifecycle(c *Config) *Plugin {
	if c.Namespaces == nil {
		return nil
	}
	deleted := utilcache.NewLRUExpireCache(100)
	return &Plugin{
		Applies: func(t Target) bool {
			return t.Is(namespaces, admission.Delete) ||
				t.GroupResource != namespaces && t.GroupResource != localReviews && t.Operation == admission.Create
		},
		Checks: true,
		Admit: func(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
			if a.GetResource().GroupResource() == namespaces {
				switch a.GetName() {
				case metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic:
					return apierrors.NewForbidden(namespaces, a.GetName(), errors.New("this namespace may not be deleted"))
				}
				deleted.Add(a.GetName(), true, distrust)
				return nil
			}
			name := a.GetNamespace()
			if name == "" {
				return nil
			}
			ns, err := c.Namespaces(ctx, "", name)
			if _, recently := deleted.Get(name); recently && err == nil && c.NamespacesLatest != nil && ns.Status.Phase != corev1.NamespaceTerminating {
				ns, err = c.NamespacesLatest(ctx, "", name)
			}
			switch {
			case errors.Is(err, store.ErrNotFound):
				return apierrors.NewNotFound(namespaces, name)
			case err != nil:
				return apierrors.NewInternalError(err)
			case ns.Status.Phase == corev1.NamespaceTerminating || ns.DeletionTimestamp != nil:
				return terminating(a, name)
			}
			return nil
		},
	}
}

func terminating(a admission.Attributes, namespace string) error {
	err := admission.NewForbidden(a, fmt.Errorf("unable to create new content in namespace %s because it is being terminated", namespace))
	var status *apierrors.StatusError
	if errors.As(err, &status) {
		status.ErrStatus.Details.Causes = append(status.ErrStatus.Details.Causes, metav1.StatusCause{
			Type:    corev1.NamespaceTerminatingCause,
			Message: fmt.Sprintf("namespace %s is being terminated", namespace),
			Field:   "metadata.namespace",
		})
	}
	return err
}
