package disruption

import (
	"context"
	"errors"
	"fmt"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	appslisters "k8s.io/client-go/listers/apps/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"github.com/proa-k8s/proa/internal/client"
	"github.com/proa-k8s/proa/internal/controller"
	"github.com/proa-k8s/proa/internal/store"
)

// scales knows how many pods controllers want.
type scales struct {
	env         *controller.Env
	rcs         corelisters.ReplicationControllerLister
	sets        appslisters.ReplicaSetLister
	deployments appslisters.DeploymentLister
	stateful    appslisters.StatefulSetLister
}

func newScales(env *controller.Env) scales {
	apps := env.Informers.Apps().V1()
	return scales{
		env: env, rcs: env.Informers.Core().V1().ReplicationControllers().Lister(),
		sets: apps.ReplicaSets().Lister(), deployments: apps.Deployments().Lister(), stateful: apps.StatefulSets().Lister(),
	}
}

// watchSize wakes the budgets of a namespace when the size of something in it changes that may control pods.
func watchSize[T controller.Object](d *disruption, informer cache.SharedIndexInformer, size func(T) *int32) {
	var none T
	controller.Watch(d.env, informer, func(old, obj T) {
		if old == none || obj == none || ptr.Equal(size(old), size(obj)) {
			return // The first and the last are told by its pods.
		}
		all, err := d.budgets.PodDisruptionBudgets(obj.GetNamespace()).List(labels.Everything())
		if err != nil {
			d.env.Log.Error("listing disruption budgets", "err", err)
		}
		for _, b := range all {
			d.env.Queue.AddAfter(controller.Key(b), settle)
		}
	})
}

// sum adds the sizes of all that control the pods. unmanaged are the pods that nothing controls.
func (s *scales) sum(ctx context.Context, protected []*corev1.Pod) (total int32, unmanaged []string, err error) {
	counted := make(map[types.UID]bool)
	owners := make(map[types.UID]bool)
	for _, p := range protected {
		owner := metav1.GetControllerOfNoCopy(p)
		if owner == nil {
			unmanaged = append(unmanaged, p.Name)
			continue
		}
		if owners[owner.UID] {
			continue
		}
		uid, size, err := s.of(ctx, p.Namespace, owner)
		switch {
		case err != nil:
			return 0, nil, err
		case uid == "":
			return 0, nil, fmt.Errorf("found no controllers for pod %q", p.Name)
		case !counted[uid]:
			total += size
		}
		owners[owner.UID], counted[uid] = true, true
	}
	return total, unmanaged, nil
}

// of gives who decides on the size that an owner of pods has, and the size; uid is empty when the owner is gone.
func (s *scales) of(ctx context.Context, namespace string, owner *metav1.OwnerReference) (uid types.UID, size int32, err error) {
	gv, err := schema.ParseGroupVersion(owner.APIVersion)
	if err != nil {
		return "", 0, err
	}
	switch kind := gv.WithKind(owner.Kind).GroupKind(); kind {
	case schema.GroupKind{Kind: "ReplicationController"}:
		rc, err := s.rcs.ReplicationControllers(namespace).Get(owner.Name)
		return sized(owner, rc, err, func() *int32 { return rc.Spec.Replicas })
	case schema.GroupKind{Group: "apps", Kind: "StatefulSet"}:
		set, err := s.stateful.StatefulSets(namespace).Get(owner.Name)
		return sized(owner, set, err, func() *int32 { return set.Spec.Replicas })
	case schema.GroupKind{Group: "apps", Kind: "ReplicaSet"}:
		set, err := s.sets.ReplicaSets(namespace).Get(owner.Name)
		if err == nil && set.UID == owner.UID {
			above := metav1.GetControllerOfNoCopy(set)
			if above != nil && above.Kind == "Deployment" {
				d, err := s.deployments.Deployments(namespace).Get(above.Name)
				return sized(above, d, err, func() *int32 { return d.Spec.Replicas })
			}
		}
		return sized(owner, set, err, func() *int32 { return set.Spec.Replicas })
	default:
		return s.other(ctx, namespace, owner, kind)
	}
}

// sized gives an owner's size if obj, which was found by its name, is the owner.
func sized(owner *metav1.OwnerReference, obj metav1.Object, err error, replicas func() *int32) (types.UID, int32, error) {
	switch {
	case apierrors.IsNotFound(err):
		return "", 0, nil
	case err != nil:
		return "", 0, err
	case obj.GetUID() != owner.UID:
		return "", 0, nil
	}
	return owner.UID, ptr.Deref(replicas(), 1), nil
}

// other asks the API for the scale of an owner of any kind, custom ones included.
func (s *scales) other(ctx context.Context, namespace string, owner *metav1.OwnerReference, kind schema.GroupKind) (types.UID, int32, error) {
	r, ok := s.env.Resources.Find(kind)
	if !ok {
		return "", 0, fmt.Errorf("no matches for kind %q in version %q", owner.Kind, owner.APIVersion)
	}
	present, err := r.Cache.Get(ctx, namespace, owner.Name, 0)
	if errors.Is(err, store.ErrNotFound) {
		return "", 0, nil
	}
	if err != nil {
		return "", 0, fmt.Errorf("reading %s %s: %w", owner.Kind, owner.Name, err)
	}
	if meta, err := client.Metadata(present); err != nil || meta.UID != owner.UID {
		return "", 0, err
	}
	prefix := "/apis/" + r.Group
	if r.Group == "" {
		prefix = "/api"
	}
	var scale autoscalingv1.Scale
	err = s.env.Client.AutoscalingV1().RESTClient().Get().
		AbsPath(prefix, r.Version, "namespaces", namespace, r.Resource, owner.Name, "scale").Do(ctx).Into(&scale)
	if apierrors.IsNotFound(err) {
		return "", 0, fmt.Errorf("%v does not implement the scale subresource", r.GroupVersionResource.GroupResource())
	}
	if err != nil {
		return "", 0, fmt.Errorf("reading the scale of %s %s: %w", owner.Kind, owner.Name, err)
	}
	return scale.UID, scale.Spec.Replicas, nil
}
