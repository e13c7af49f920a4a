package core

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-k8s/proa/internal/api"
)

// ResourceQuota describes resourcequotas.
func ResourceQuota() *api.Resource {
	return api.Define[corev1.ResourceQuota, corev1.ResourceQuotaList](corev1.SchemeGroupVersion, api.Resource{
		Plural: "resourcequotas", Singular: "resourcequota", Kind: "ResourceQuota", ShortNames: []string{"quota"},
		Namespaced: true, Prefix: "resourcequotas", ReturnDeleted: true,
		Strategy: api.Typed[*corev1.ResourceQuota]{
			Default: func(q *corev1.ResourceQuota) {
				roundUp(q.Spec.Hard)
				roundUp(q.Status.Hard)
				roundUp(q.Status.Used)
			},
			PrepareCreate: func(_ context.Context, q *corev1.ResourceQuota) { q.Status = corev1.ResourceQuotaStatus{} },
			PrepareUpdate: func(_ context.Context, q, old *corev1.ResourceQuota) { q.Status = old.Status },
			Validate: func(_ context.Context, q *corev1.ResourceQuota) field.ErrorList {
				return append(validateQuotaSpec(&q.Spec), validateQuotaStatus(&q.Status)...)
			},
			ValidateUpdate: func(_ context.Context, q, old *corev1.ResourceQuota) field.ErrorList {
				errs := validateQuotaSpec(&q.Spec)
				if !sets.New(q.Spec.Scopes...).Equal(sets.New(old.Spec.Scopes...)) {
					errs = append(errs, field.Invalid(field.NewPath("spec", "scopes"), q.Spec.Scopes, "field is immutable"))
				}
				return errs
			},
			ResetFields: api.Reset([]string{"v1"}, statusPath),
		}.Strategy(),
		Subresources: []api.Subresource{
			api.Status(corev1.SchemeGroupVersion.WithKind("ResourceQuota"), api.Typed[*corev1.ResourceQuota]{
				PrepareUpdate: func(_ context.Context, q, old *corev1.ResourceQuota) { q.Spec = old.Spec },
				ValidateUpdate: func(_ context.Context, q, _ *corev1.ResourceQuota) field.ErrorList {
					return validateQuotaStatus(&q.Status)
				},
				ResetFields: api.Reset([]string{"v1"}, specPath),
			}.Strategy()),
		},
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.Column("Request", "string", "Request represents a minimum amount of cpu/memory that a container may consume."),
			api.Column("Limit", "string", "Limits control the maximum amount of cpu/memory that a container may use independent of contention on the node."),
			api.AgeColumn(),
		},
		Row: api.Row(quotaRow),
	})
}

func validateQuotaSpec(spec *corev1.ResourceQuotaSpec) field.ErrorList {
	path := field.NewPath("spec")
	errs := validateQuotaList(spec.Hard, path.Child("hard"))
	errs = append(errs, validateScopes(spec, path)...)
	if spec.ScopeSelector == nil {
		return errs
	}
	at := path.Child("scopeSelector", "matchExpressions")
	var scopes []corev1.ResourceQuotaScope
	for i := range spec.ScopeSelector.MatchExpressions {
		e := &spec.ScopeSelector.MatchExpressions[i]
		errs = append(errs, validateScopeExpression(spec, e, at)...)
		scopes = append(scopes, e.ScopeName)
	}
	return append(errs, validateScopePairs(scopes, spec.Scopes, at)...)
}

func validateQuotaStatus(status *corev1.ResourceQuotaStatus) field.ErrorList {
	path := field.NewPath("status")
	return append(validateQuotaList(status.Hard, path.Child("hard")), validateQuotaList(status.Used, path.Child("used"))...)
}

func validateQuotaList(list corev1.ResourceList, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, name := range sortedNames(list) {
		at := path.Key(string(name))
		errs = append(errs, validateQuotaName(name, at)...)
		errs = append(errs, resourceQuantity(name, list[name], at)...)
	}
	return errs
}

func validateQuotaName(name corev1.ResourceName, path *field.Path) field.ErrorList {
	errs := api.InvalidAll(path, name, validation.IsQualifiedName(string(name)))
	if len(errs) == 0 && !strings.Contains(string(name), "/") && !isStandardQuotaResource(name) {
		if !isStandardResource(name) {
			errs = append(errs, field.Invalid(path, name, "must be a standard resource type or fully qualified"))
		}
		errs = append(errs, field.Invalid(path, name, "must be a standard resource for quota"))
	}
	return errs
}

// podScopes are the scopes that select pods, and the resources they may be used with.
var (
	allScopes = sets.New(corev1.ResourceQuotaScopeTerminating, corev1.ResourceQuotaScopeNotTerminating,
		corev1.ResourceQuotaScopeBestEffort, corev1.ResourceQuotaScopeNotBestEffort,
		corev1.ResourceQuotaScopePriorityClass, corev1.ResourceQuotaScopeCrossNamespacePodAffinity,
		corev1.ResourceQuotaScopeVolumeAttributesClass)
	podResourcesInQuota = sets.New(corev1.ResourcePods, corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage,
		corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory, corev1.ResourceRequestsEphemeralStorage,
		corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory, corev1.ResourceLimitsEphemeralStorage)
)

// scopeApplies says whether a resource is counted among what the scope selects.
func scopeApplies(scope corev1.ResourceQuotaScope, name corev1.ResourceName) bool {
	switch scope {
	case corev1.ResourceQuotaScopeBestEffort:
		return name == corev1.ResourcePods
	case corev1.ResourceQuotaScopeVolumeAttributesClass:
		return name == corev1.ResourceRequestsStorage || name == corev1.ResourcePersistentVolumeClaims
	}
	rest, _ := cutRequests(name)
	return podResourcesInQuota.Has(name) || isHugePagesRequest(name) || IsExtendedResource(rest)
}

func validateScopes(spec *corev1.ResourceQuotaSpec, path *field.Path) field.ErrorList {
	if len(spec.Scopes) == 0 {
		return nil
	}
	var errs field.ErrorList
	at := path.Child("scopes")
	for _, scope := range spec.Scopes {
		errs = append(errs, validateScope(spec, scope, spec.Scopes, at)...)
	}
	return append(errs, validateScopePairs(spec.Scopes, spec.Scopes, at)...)
}

// validateScopePairs: a pod is one or the other, never both. value is what the errors show.
func validateScopePairs(scopes []corev1.ResourceQuotaScope, value any, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, pair := range [][2]corev1.ResourceQuotaScope{
		{corev1.ResourceQuotaScopeBestEffort, corev1.ResourceQuotaScopeNotBestEffort},
		{corev1.ResourceQuotaScopeTerminating, corev1.ResourceQuotaScopeNotTerminating},
	} {
		if slices.Contains(scopes, pair[0]) && slices.Contains(scopes, pair[1]) {
			errs = append(errs, field.Invalid(at, value, "conflicting scopes"))
		}
	}
	return errs
}

func validateScope(spec *corev1.ResourceQuotaSpec, scope corev1.ResourceQuotaScope, value any, at *field.Path) field.ErrorList {
	if !allScopes.Has(scope) {
		return field.ErrorList{field.Invalid(at, value, "unsupported scope")}
	}
	for _, name := range sortedNames(spec.Hard) {
		// A resource that isn't known may be anything.
		if isStandardQuotaResource(name) && !scopeApplies(scope, name) {
			return field.ErrorList{field.Invalid(at, value, "unsupported scope applied to resource")}
		}
	}
	return nil
}

func validateScopeExpression(spec *corev1.ResourceQuotaSpec, e *corev1.ScopedResourceSelectorRequirement, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if !allScopes.Has(e.ScopeName) {
		errs = append(errs, field.Invalid(path.Child("scopeName"), e.ScopeName, "unsupported scope"))
	} else {
		errs = append(errs, validateScope(spec, e.ScopeName, spec.ScopeSelector, path)...)
	}
	valued := e.ScopeName == corev1.ResourceQuotaScopePriorityClass || e.ScopeName == corev1.ResourceQuotaScopeVolumeAttributesClass
	if !valued && e.Operator != corev1.ScopeSelectorOpExists {
		errs = append(errs, field.Invalid(path.Child("operator"), e.Operator, "must be 'Exists' when scope is any of "+
			"ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, "+
			"ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity"))
	}
	switch e.Operator {
	case corev1.ScopeSelectorOpIn, corev1.ScopeSelectorOpNotIn:
		if len(e.Values) == 0 {
			errs = append(errs, field.Required(path.Child("values"),
				"must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"))
		}
	case corev1.ScopeSelectorOpExists, corev1.ScopeSelectorOpDoesNotExist:
		if len(e.Values) != 0 {
			errs = append(errs, field.Invalid(path.Child("values"), e.Values,
				"must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"))
		}
	default:
		errs = append(errs, field.Invalid(path.Child("operator"), e.Operator, "not a valid selector operator"))
	}
	return errs
}

func quotaRow(q *corev1.ResourceQuota) []any {
	var requests, limits []string
	for _, name := range sortedNames(q.Status.Hard) {
		used, hard := q.Status.Used[name], q.Status.Hard[name]
		cell := fmt.Sprintf("%s: %s/%s", name, used.String(), hard.String())
		if strings.HasPrefix(string(name), "limits.") {
			limits = append(limits, cell)
		} else {
			requests = append(requests, cell)
		}
	}
	return []any{q.Name, strings.Join(requests, ", "), strings.Join(limits, ", "), api.Since(q.CreationTimestamp)}
}
