package core

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/proa-k8s/proa/internal/api"
)

// Binding describes bindings, the legacy way to put the pod of metadata.name on a node; the other is its subresource
// binding. They are never stored.
func Binding() *api.Resource {
	return api.DefineVirtual[corev1.Binding](corev1.SchemeGroupVersion, api.Resource{
		Plural: "bindings", Singular: "binding", Kind: "Binding", Namespaced: true,
	})
}
