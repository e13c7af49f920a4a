package core

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/proa-k8s/proa/internal/api"
)

// Pod describes pods.
func Pod() *api.Resource {
	return &api.Resource{
		Plural:     "pods",
		Singular:   "pod",
		Kind:       "Pod",
		ShortNames: []string{"po"},
		Categories: []string{"all"},
		Namespaced: true,
		Prefix:     "pods",
		Versions: []api.Version{{
			GroupVersion: corev1.SchemeGroupVersion,
			New:          func() runtime.Object { return &corev1.Pod{} },
			NewList:      func() runtime.Object { return &corev1.PodList{} },
		}},
		Hub:     corev1.SchemeGroupVersion,
		New:     func() runtime.Object { return &corev1.Pod{} },
		NewList: func() runtime.Object { return &corev1.PodList{} },
		Strategy: api.Strategy{
			Default: func(obj runtime.Object) { defaultPod(obj.(*corev1.Pod)) },
		},
	}
}
