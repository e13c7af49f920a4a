package core

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-k8s/proa/internal/api"
)

// PodTemplate describes podtemplates.
func PodTemplate() *api.Resource {
	path := field.NewPath("template")
	return api.Define[corev1.PodTemplate, corev1.PodTemplateList](corev1.SchemeGroupVersion, api.Resource{
		Plural: "podtemplates", Singular: "podtemplate", Kind: "PodTemplate", Namespaced: true, Prefix: "podtemplates", ReturnDeleted: true,
		Strategy: api.Typed[*corev1.PodTemplate]{
			Default: func(t *corev1.PodTemplate) { DefaultPodTemplateSpec(&t.Template) },
			PrepareCreate: func(_ context.Context, t *corev1.PodTemplate) {
				t.Generation = 1
				PreparePodTemplate(&t.Template)
			},
			PrepareUpdate: func(_ context.Context, t, old *corev1.PodTemplate) {
				PreparePodTemplate(&t.Template)
				t.Generation = old.Generation
				if !equalTemplates(&t.Template, &old.Template) {
					t.Generation++
				}
			},
			Validate: func(_ context.Context, t *corev1.PodTemplate) field.ErrorList {
				return ValidatePodTemplateSpec(&t.Template, path, PodOptions{})
			},
			ValidateUpdate: func(_ context.Context, t, old *corev1.PodTemplate) field.ErrorList {
				return ValidatePodTemplateSpec(&t.Template, path, PodOptions{Old: &old.Template.Spec})
			},
			Warn: func(_ context.Context, t, old *corev1.PodTemplate) []string {
				if old == nil {
					return WarnPodTemplate(&t.Template, nil, path)
				}
				return WarnPodTemplate(&t.Template, &old.Template, path)
			},
		}.Strategy(),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.Column("Containers", "string", "Names of each container in the template."),
			api.Column("Images", "string", "Images referenced by each container in the template."),
			api.Column("Pod Labels", "string", "The labels for the pod template."),
		},
		Row: api.Row(func(t *corev1.PodTemplate) []any {
			names, images := ContainersCells(t.Template.Spec.Containers)
			return []any{t.Name, names, images, api.LabelsCell(t.Template.Labels)}
		}),
	})
}
