package core

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/proa-k8s/proa/internal/api"
)

// PodTemplate describes podtemplates.
func PodTemplate() *api.Resource {
	return &api.Resource{
		Plural:     "podtemplates",
		Singular:   "podtemplate",
		Kind:       "PodTemplate",
		Namespaced: true,
		Prefix:     "podtemplates",
		Versions: []api.Version{{
			GroupVersion: corev1.SchemeGroupVersion,
			New:          func() runtime.Object { return &corev1.PodTemplate{} },
			NewList:      func() runtime.Object { return &corev1.PodTemplateList{} },
		}},
		Hub:     corev1.SchemeGroupVersion,
		New:     func() runtime.Object { return &corev1.PodTemplate{} },
		NewList: func() runtime.Object { return &corev1.PodTemplateList{} },
		Strategy: api.Strategy{
			Default: func(obj runtime.Object) { DefaultPodTemplateSpec(&obj.(*corev1.PodTemplate).Template) },
		},
	}
}
