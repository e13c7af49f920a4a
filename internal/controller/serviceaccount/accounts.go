// Package serviceaccount keeps what every namespace needs for its pods to talk to the API: the service account "default",
// the config map kube-root-ca.crt, and, for those who still ask for them, secrets that hold a token.
//
// What flows in are namespaces, service accounts, config maps and secrets; what flows out are the objects that are missing.
package serviceaccount

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	corelisters "k8s.io/client-go/listers/core/v1"

	"github.com/proa-k8s/proa/internal/controller"
)

var (
	namespacesResource = corev1.SchemeGroupVersion.WithResource("namespaces")
	accountsResource   = corev1.SchemeGroupVersion.WithResource("serviceaccounts")
	configMapsResource = corev1.SchemeGroupVersion.WithResource("configmaps")
	secretsResource    = corev1.SchemeGroupVersion.WithResource("secrets")
)

// defaultAccount is the account of pods that name none.
const defaultAccount = "default"

// NewAccounts declares the controller that makes the account "default" in every namespace.
func NewAccounts() controller.Controller {
	return controller.Controller{
		Name:   "service-account",
		Reads:  []schema.GroupVersionResource{namespacesResource, accountsResource},
		Writes: []rbacv1.PolicyRule{controller.Rule("", []string{"serviceaccounts"}, "create")},
		Setup: func(env *controller.Env) (controller.Sync, error) {
			namespaces := env.Informers.Core().V1().Namespaces()
			accounts := env.Informers.Core().V1().ServiceAccounts()
			watchActive(env)
			controller.Watch(env, accounts.Informer(), func(old, a *corev1.ServiceAccount) {
				if a == nil && old.Name == defaultAccount {
					env.Queue.Add(old.Namespace)
				}
			})
			lister := accounts.Lister()
			return func(ctx context.Context, name string) error {
				if _, err := lister.ServiceAccounts(name).Get(defaultAccount); !apierrors.IsNotFound(err) {
					return err
				}
				return inActive(namespaces.Lister(), name, func() error {
					_, err := env.Client.CoreV1().ServiceAccounts(name).Create(ctx, &corev1.ServiceAccount{
						ObjectMeta: metav1.ObjectMeta{Name: defaultAccount, Namespace: name},
					}, metav1.CreateOptions{})
					return err
				})
			}, nil
		},
	}
}

// watchActive puts namespaces into the queue when they become active.
func watchActive(env *controller.Env) {
	controller.Watch(env, env.Informers.Core().V1().Namespaces().Informer(), func(old, ns *corev1.Namespace) {
		if ns != nil && (old == nil || old.Status.Phase != ns.Status.Phase) {
			env.Queue.Add(ns.Name)
		}
	})
}

// inActive calls create if the namespace is there and not being deleted. It doesn't matter if somebody else was faster, or
// the namespace ends.
func inActive(namespaces corelisters.NamespaceLister, name string, create func() error) error {
	ns, err := namespaces.Get(name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if ns.DeletionTimestamp != nil || ns.Status.Phase == corev1.NamespaceTerminating {
		return nil
	}
	err = create()
	if apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err) || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return nil
	}
	return err
}
