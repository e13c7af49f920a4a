package serviceaccount

import (
	"context"
	"maps"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/proa-k8s/proa/internal/controller"
)

const (
	rootCAName        = "kube-root-ca.crt"
	rootCAKey         = "ca.crt"
	rootCADescription = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. " +
		"No other usage is guaranteed across distributions of Kubernetes clusters."
)

// NewRootCA declares the controller that publishes the authority of the API server's certificate, in PEM, to every
// namespace.
func NewRootCA(ca []byte) controller.Controller {
	return controller.Controller{
		Name:   "root-ca-cert-publisher",
		Reads:  []schema.GroupVersionResource{namespacesResource, configMapsResource},
		Writes: []rbacv1.PolicyRule{controller.Rule("", []string{"configmaps"}, "create", "update")},
		Setup: func(env *controller.Env) (controller.Sync, error) {
			namespaces := env.Informers.Core().V1().Namespaces()
			maps := env.Informers.Core().V1().ConfigMaps()
			watchActive(env)
			controller.Watch(env, maps.Informer(), func(old, m *corev1.ConfigMap) {
				if m == nil {
					m = old
				} else if old == nil {
					return // Its namespace comes as well.
				}
				if m.Name == rootCAName {
					env.Queue.Add(m.Namespace)
				}
			})
			lister := maps.Lister()
			return func(ctx context.Context, name string) error {
				present, err := lister.ConfigMaps(name).Get(rootCAName)
				if err != nil && !apierrors.IsNotFound(err) {
					return err
				}
				if err != nil {
					present = nil
				}
				wanted := rootCA(name, present, ca)
				if wanted == nil {
					return nil
				}
				return inActive(namespaces.Lister(), name, func() error {
					api := env.Client.CoreV1().ConfigMaps(name)
					if present == nil {
						_, err = api.Create(ctx, wanted, metav1.CreateOptions{})
					} else {
						_, err = api.Update(ctx, wanted, metav1.UpdateOptions{})
					}
					return err
				})
			}, nil
		},
	}
}

// rootCA gives the config map as it shall be written, or nil if present is good.
func rootCA(namespace string, present *corev1.ConfigMap, ca []byte) *corev1.ConfigMap {
	data := map[string]string{rootCAKey: string(ca)}
	switch {
	case present == nil:
		return &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{
				Name: rootCAName, Namespace: namespace,
				Annotations: map[string]string{"kubernetes.io/description": rootCADescription},
			},
			Data: data,
		}
	case maps.Equal(present.Data, data) && present.Annotations["kubernetes.io/description"] == rootCADescription:
		return nil
	}
	wanted := present.DeepCopy()
	wanted.Data = data
	if wanted.Annotations == nil {
		wanted.Annotations = make(map[string]string)
	}
	wanted.Annotations["kubernetes.io/description"] = rootCADescription
	return wanted
}
