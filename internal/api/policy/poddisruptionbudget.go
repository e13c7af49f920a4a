// Package policy describes the kinds of the group policy. What flows in are k8s.io/api/policy/v1 objects; what flows out
// are verdicts and cells.
package policy

import (
	"context"

	policyv1 "k8s.io/api/policy/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/proa-k8s/proa/internal/api"
)

// PodDisruptionBudget describes poddisruptionbudgets.
func PodDisruptionBudget() *api.Resource {
	return api.Define[policyv1.PodDisruptionBudget, policyv1.PodDisruptionBudgetList](policyv1.SchemeGroupVersion, api.Resource{
		Plural: "poddisruptionbudgets", Singular: "poddisruptionbudget", Kind: "PodDisruptionBudget", ShortNames: []string{"pdb"},
		Namespaced: true,
		Prefix:     "poddisruptionbudgets",
		Strategy: api.Typed[*policyv1.PodDisruptionBudget]{
			PrepareCreate: func(_ context.Context, pdb *policyv1.PodDisruptionBudget) {
				pdb.Status = policyv1.PodDisruptionBudgetStatus{}
				pdb.Generation = 1
			},
			PrepareUpdate: func(_ context.Context, pdb, old *policyv1.PodDisruptionBudget) {
				pdb.Status = old.Status
				if !apiequality.Semantic.DeepEqual(pdb.Spec, old.Spec) {
					pdb.Generation = old.Generation + 1
				}
			},
			Validate: func(_ context.Context, pdb *policyv1.PodDisruptionBudget) field.ErrorList {
				return validateSpec(&pdb.Spec)
			},
			ValidateUpdate: func(_ context.Context, pdb, _ *policyv1.PodDisruptionBudget) field.ErrorList {
				return validateSpec(&pdb.Spec)
			},
			DenyUnconditionalUpdate: true,
			ResetFields:             api.Reset([]string{"policy/v1"}, fieldpath.MakePathOrDie("status")),
		}.Strategy(),
		Subresources: []api.Subresource{
			api.Status(policyv1.SchemeGroupVersion.WithKind("PodDisruptionBudget"), api.Typed[*policyv1.PodDisruptionBudget]{
				PrepareUpdate:  func(_ context.Context, pdb, old *policyv1.PodDisruptionBudget) { pdb.Spec = old.Spec },
				ValidateUpdate: validateStatusUpdate,
				ResetFields:    api.Reset([]string{"policy/v1"}, fieldpath.MakePathOrDie("spec")),
			}.Strategy()),
		},
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.Column("Min Available", "string", "The minimum number of pods that must be available."),
			api.Column("Max Unavailable", "string", "The maximum number of pods that may be unavailable."),
			api.Column("Allowed Disruptions", "integer", "Calculated number of pods that may be disrupted at this time."),
			api.AgeColumn(),
		},
		Row: api.Row(func(pdb *policyv1.PodDisruptionBudget) []any {
			return []any{
				pdb.Name, budgetCell(pdb.Spec.MinAvailable), budgetCell(pdb.Spec.MaxUnavailable),
				int64(pdb.Status.DisruptionsAllowed), api.Since(pdb.CreationTimestamp),
			}
		}),
	})
}

func budgetCell(value *intstr.IntOrString) string {
	if value == nil {
		return "N/A"
	}
	return value.String()
}

func validateSpec(spec *policyv1.PodDisruptionBudgetSpec) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("spec")
	if spec.MinAvailable != nil && spec.MaxUnavailable != nil {
		errs = append(errs, field.Invalid(path, *spec, "minAvailable and maxUnavailable cannot be both set"))
	}
	for name, value := range map[string]*intstr.IntOrString{"minAvailable": spec.MinAvailable, "maxUnavailable": spec.MaxUnavailable} {
		if value != nil {
			errs = append(errs, api.ValidateIntOrPercent(path.Child(name), *value)...)
			errs = append(errs, api.ValidateAtMostAll(path.Child(name), *value)...)
		}
	}
	errs = append(errs, metav1validation.ValidateLabelSelector(spec.Selector, metav1validation.LabelSelectorValidationOptions{}, path.Child("selector"))...)
	if policy := spec.UnhealthyPodEvictionPolicy; policy != nil {
		errs = append(errs, api.ValidateSupported(path.Child("unhealthyPodEvictionPolicy"), *policy,
			policyv1.AlwaysAllow, policyv1.IfHealthyBudget)...)
	}
	return errs
}

func validateStatusUpdate(_ context.Context, pdb, _ *policyv1.PodDisruptionBudget) field.ErrorList {
	path, status := field.NewPath("status"), &pdb.Status
	errs := metav1validation.ValidateConditions(status.Conditions, path.Child("conditions"))
	errs = append(errs, api.ValidateNonNegative(path.Child("disruptionsAllowed"), status.DisruptionsAllowed)...)
	errs = append(errs, api.ValidateNonNegative(path.Child("currentHealthy"), status.CurrentHealthy)...)
	errs = append(errs, api.ValidateNonNegative(path.Child("desiredHealthy"), status.DesiredHealthy)...)
	return append(errs, api.ValidateNonNegative(path.Child("expectedPods"), status.ExpectedPods)...)
}
