// Package node describes the kinds of node.k8s.io. What flows in are k8s.io/api/node/v1 objects; what flows out are
// verdicts and cells.
package node

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-k8s/proa/internal/api"
	"github.com/proa-k8s/proa/internal/api/core"
)

// RuntimeClass describes runtimeclasses.
func RuntimeClass() *api.Resource {
	return api.Define[nodev1.RuntimeClass, nodev1.RuntimeClassList](nodev1.SchemeGroupVersion, api.Resource{
		Plural: "runtimeclasses", Singular: "runtimeclass", Kind: "RuntimeClass",
		Prefix: "runtimeclasses",
		Strategy: api.Typed[*nodev1.RuntimeClass]{
			Default: func(class *nodev1.RuntimeClass) {
				if class.Overhead != nil {
					core.RoundQuantities(class.Overhead.PodFixed)
				}
			},
			Validate: validateRuntimeClass,
			ValidateUpdate: func(_ context.Context, class, old *nodev1.RuntimeClass) field.ErrorList {
				return apivalidation.ValidateImmutableField(class.Handler, old.Handler, field.NewPath("handler"))
			},
			DenyUnconditionalUpdate: true,
		}.Strategy(),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.Column("Handler", "string", nodev1.RuntimeClass{}.SwaggerDoc()["handler"]),
			api.AgeColumn(),
		},
		Row: api.Row(func(class *nodev1.RuntimeClass) []any {
			return []any{class.Name, class.Handler, api.Since(class.CreationTimestamp)}
		}),
	})
}

func validateRuntimeClass(_ context.Context, class *nodev1.RuntimeClass) field.ErrorList {
	errs := api.InvalidAll(field.NewPath("handler"), class.Handler, apivalidation.NameIsDNSLabel(class.Handler, false))
	if class.Overhead != nil {
		errs = append(errs, core.ValidateResourceRequirements(
			&corev1.ResourceRequirements{Limits: class.Overhead.PodFixed}, field.NewPath("overhead"))...)
	}
	if scheduling := class.Scheduling; scheduling != nil {
		path := field.NewPath("scheduling")
		errs = append(errs, metav1validation.ValidateLabels(scheduling.NodeSelector, path.Child("nodeSelector"))...)
		errs = append(errs, validateTolerations(scheduling.Tolerations, path.Child("tolerations"))...)
	}
	return errs
}

// validateTolerations checks each toleration, and that none is there twice.
func validateTolerations(tolerations []corev1.Toleration, path *field.Path) field.ErrorList {
	errs := core.ValidateTolerations(tolerations, path)
	for i := range tolerations {
		for j := range i {
			if tolerations[i].MatchToleration(&tolerations[j]) {
				duplicate := field.Duplicate(path.Index(i), tolerations[i])
				errs = append(errs, duplicate)
				break
			}
		}
	}
	return errs
}
