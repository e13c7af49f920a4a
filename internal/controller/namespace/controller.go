// Package namespace empties namespaces that are being deleted, and then lets them go.
//
// What flows in are namespaces, and what is in them, of all resources that the server has; what flows out are deletions
// of collections, the conditions of the namespace that tell what is still there, and its finalization. Pods go first, so
// that nothing they rely on (policies, secrets) goes while they run (KEP-5080).
package namespace

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/utils/ptr"

	"github.com/proa-k8s/proa/internal/client"
	"github.com/proa-k8s/proa/internal/controller"
	"github.com/proa-k8s/proa/internal/store"
)

var podsResource = corev1.SchemeGroupVersion.WithResource("pods")

// New declares the controller.
func New() controller.Controller {
	return controller.Controller{
		Name:  "namespace",
		Reads: []schema.GroupVersionResource{corev1.SchemeGroupVersion.WithResource("namespaces")},
		Writes: []rbacv1.PolicyRule{
			controller.Rule("", []string{"namespaces"}, "delete"),
			controller.Rule("", []string{"namespaces/finalize", "namespaces/status"}, "update"),
			controller.Rule("*", []string{"*"}, "delete", "deletecollection", "get", "list"),
		},
		Workers: 5,
		Setup:   setup,
	}
}

type emptier struct {
	env        *controller.Env
	namespaces corelisters.NamespaceLister
	metadata   metadata.Interface
	follower   *follower
}

func setup(env *controller.Env) (controller.Sync, error) {
	m, err := metadata.NewForConfig(env.REST)
	if err != nil {
		return nil, fmt.Errorf("making a metadata client: %w", err)
	}
	informer := env.Informers.Core().V1().Namespaces()
	e := &emptier{env: env, namespaces: informer.Lister(), metadata: m, follower: newFollower(env.Queue.Add)}
	env.Go(e.follower.run)
	controller.Watch(env, informer.Informer(), func(_, ns *corev1.Namespace) {
		if ns != nil && ns.DeletionTimestamp != nil {
			env.Queue.Add(ns.Name)
		}
	})
	return e.sync, nil
}

func (e *emptier) sync(ctx context.Context, name string) error {
	ns, err := e.namespaces.Get(name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if ns.DeletionTimestamp == nil || !slices.Contains(ns.Spec.Finalizers, corev1.FinalizerKubernetes) {
		return nil
	}
	found, err := e.empty(ctx, name)
	if err != nil {
		return err
	}
	if found.isEmpty() {
		return e.finalize(ctx, ns)
	}
	if err := e.report(ctx, ns, found); err != nil {
		return err
	}
	return controller.ErrStale
}

// empty deletes what is in the namespace, and says what remains: things with finalizers, pods that end.
func (e *emptier) empty(ctx context.Context, name string) (content, error) {
	resources, _ := e.env.Resources.Get()
	pods := slices.IndexFunc(resources, func(r client.Resource) bool { return r.GroupVersionResource == podsResource })
	var found content
	var rev int64 // what the first list saw, all others must have seen
	if pods >= 0 {
		if err := e.emptyOf(ctx, name, resources[pods], &rev, &found); err != nil {
			return found, err
		}
		if !found.isEmpty() {
			return found, nil
		}
	}
	for i, r := range resources {
		if i == pods || !r.Namespaced || !r.Verbs.HasAll("list", "delete") {
			continue
		}
		if err := e.emptyOf(ctx, name, r, &rev, &found); err != nil {
			return found, err
		}
	}
	return found, nil
}

// emptyOf deletes what is in the namespace of one resource.
func (e *emptier) emptyOf(ctx context.Context, name string, r client.Resource, rev *int64, found *content) error {
	there, err := e.list(ctx, name, r, rev)
	if err != nil || len(there) == 0 {
		return err
	}
	api := e.metadata.Resource(r.GroupVersionResource).Namespace(name)
	options := metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationBackground)}
	if r.Verbs.Has("deletecollection") {
		err = api.DeleteCollection(ctx, options, metav1.ListOptions{})
	} else {
		for _, o := range there {
			if err = api.Delete(ctx, o.Name, options); err != nil && !apierrors.IsNotFound(err) {
				break
			}
		}
	}
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsMethodNotSupported(err) {
		found.fail(r, err)
	}
	var now int64
	if there, err = e.list(ctx, name, r, &now); err != nil || len(there) == 0 {
		return err
	}
	e.follower.follow(r, name, now)
	return found.add(r, there)
}

// list gives what is in the namespace of one resource: as new as rev, or as the store when rev is 0. It raises rev to the
// revision of the list.
func (e *emptier) list(ctx context.Context, name string, r client.Resource, rev *int64) ([]*store.Object, error) {
	options := store.ListOptions{Namespace: name}
	if *rev > 0 {
		options.Match, options.Rev = store.MatchNotOlder, *rev
	}
	list, err := r.Cache.List(ctx, options)
	if err != nil {
		return nil, fmt.Errorf("listing %s in namespace %s: %w", r.Resource, name, err)
	}
	*rev = max(*rev, list.Rev)
	return list.Objects, nil
}

// finalize removes the finalizer, upon which the server deletes the namespace.
func (e *emptier) finalize(ctx context.Context, ns *corev1.Namespace) error {
	ns = ns.DeepCopy()
	ns.Spec.Finalizers = slices.DeleteFunc(ns.Spec.Finalizers, func(f corev1.FinalizerName) bool { return f == corev1.FinalizerKubernetes })
	_, err := e.env.Client.CoreV1().Namespaces().Finalize(ctx, ns, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// report writes the conditions that say what remains, if they changed.
func (e *emptier) report(ctx context.Context, ns *corev1.Namespace, found content) error {
	updated := ns.DeepCopy()
	updated.Status.Phase = corev1.NamespaceTerminating
	if !found.describe(&updated.Status, e.env.Clock.Now()) && ns.Status.Phase == corev1.NamespaceTerminating {
		return nil
	}
	_, err := e.env.Client.CoreV1().Namespaces().UpdateStatus(ctx, updated, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
