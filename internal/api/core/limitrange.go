package core

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-k8s/proa/internal/api"
)

// LimitRange describes limitranges.
func LimitRange() *api.Resource {
	return api.Define[corev1.LimitRange, corev1.LimitRangeList](corev1.SchemeGroupVersion, api.Resource{
		Plural: "limitranges", Singular: "limitrange", Kind: "LimitRange", ShortNames: []string{"limits"},
		Namespaced: true, Prefix: "limitranges",
		Strategy: api.Typed[*corev1.LimitRange]{
			Default: func(r *corev1.LimitRange) {
				for i := range r.Spec.Limits {
					defaultLimit(&r.Spec.Limits[i])
				}
			},
			Validate:       func(_ context.Context, r *corev1.LimitRange) field.ErrorList { return validateLimits(r.Spec.Limits) },
			ValidateUpdate: func(_ context.Context, r, _ *corev1.LimitRange) field.ErrorList { return validateLimits(r.Spec.Limits) },
		}.Strategy(),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			{Name: "Created At", Type: "date", Description: metav1.ObjectMeta{}.SwaggerDoc()["creationTimestamp"]},
		},
		Row: api.Row(func(r *corev1.LimitRange) []any {
			return []any{r.Name, r.CreationTimestamp.UTC().Format(time.RFC3339)}
		}),
	})
}

// defaultLimit completes the limits of containers: the default limit is the maximum, the default request is the default limit,
// or else the minimum.
func defaultLimit(item *corev1.LimitRangeItem) {
	for _, list := range []corev1.ResourceList{item.Max, item.Min, item.Default, item.DefaultRequest, item.MaxLimitRequestRatio} {
		roundUp(list)
	}
	if item.Type != corev1.LimitTypeContainer {
		return
	}
	if item.Default == nil {
		item.Default = corev1.ResourceList{}
	}
	if item.DefaultRequest == nil {
		item.DefaultRequest = corev1.ResourceList{}
	}
	complete := func(list, from corev1.ResourceList) {
		for name, q := range from {
			setMissing(&list, name, q)
		}
	}
	complete(item.Default, item.Max)
	complete(item.DefaultRequest, item.Default)
	complete(item.DefaultRequest, item.Min)
}

func validateLimits(items []corev1.LimitRangeItem) field.ErrorList {
	var errs field.ErrorList
	seen := sets.Set[corev1.LimitType]{}
	for i := range items {
		item, path := &items[i], field.NewPath("spec", "limits").Index(i)
		errs = append(errs, validateLimitType(item.Type, path.Child("type"))...)
		if seen.Has(item.Type) {
			errs = append(errs, field.Duplicate(path.Child("type"), item.Type))
		}
		seen.Insert(item.Type)
		errs = append(errs, validateLimit(item, path)...)
	}
	return errs
}

func validateLimitType(t corev1.LimitType, path *field.Path) field.ErrorList {
	errs := api.InvalidAll(path, t, validation.IsQualifiedName(string(t)))
	switch t {
	case corev1.LimitTypePod, corev1.LimitTypeContainer, corev1.LimitTypePersistentVolumeClaim:
	default:
		if len(errs) == 0 && !strings.Contains(string(t), "/") {
			errs = append(errs, field.Invalid(path, t, "must be a standard limit type or fully qualified"))
		}
	}
	return errs
}

func validateLimit(item *corev1.LimitRangeItem, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	names := sets.Set[corev1.ResourceName]{}
	for _, list := range []struct {
		name string
		list corev1.ResourceList
	}{
		{"max", item.Max}, {"min", item.Min}, {"default", item.Default}, {"defaultRequest", item.DefaultRequest},
		{"maxLimitRequestRatio", item.MaxLimitRequestRatio},
	} {
		if item.Type == corev1.LimitTypePod && strings.HasPrefix(list.name, "default") {
			if len(list.list) > 0 {
				errs = append(errs, field.Forbidden(path.Child(list.name), "may not be specified when `type` is 'Pod'"))
			}
			continue
		}
		for _, name := range sortedNames(list.list) {
			errs = append(errs, limitResourceName(item.Type, name, path.Child(list.name).Key(string(name)))...)
			names.Insert(name)
		}
	}
	if item.Type == corev1.LimitTypePersistentVolumeClaim {
		_, hasMin := item.Min[corev1.ResourceStorage]
		_, hasMax := item.Max[corev1.ResourceStorage]
		if !hasMin && !hasMax {
			errs = append(errs, field.Required(path.Child("limits"), "either minimum or maximum storage value is required, but neither was provided"))
		}
	}
	for _, name := range sets.List(names) {
		errs = append(errs, validateLimitOrder(item, name, path)...)
	}
	return errs
}

func limitResourceName(t corev1.LimitType, name corev1.ResourceName, path *field.Path) field.ErrorList {
	switch t {
	case corev1.LimitTypePod, corev1.LimitTypeContainer:
		return containerResourceName(name, path)
	}
	errs := api.InvalidAll(path, name, validation.IsQualifiedName(string(name)))
	if len(errs) == 0 && !strings.Contains(string(name), "/") && !isStandardResource(name) {
		errs = append(errs, field.Invalid(path, name, "must be a standard resource type or fully qualified"))
	}
	return errs
}

// validateLimitOrder: minimum ≤ default request ≤ default limit ≤ maximum, as far as they are given.
func validateLimitOrder(item *corev1.LimitRangeItem, name corev1.ResourceName, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	k := string(name)
	type bound struct {
		q    quantity
		ok   bool
		what string
	}
	get := func(list corev1.ResourceList, what string) bound {
		q, ok := list[name]
		return bound{q, ok, what}
	}
	low, high := get(item.Min, "min"), get(item.Max, "max")
	limit, request := get(item.Default, "default"), get(item.DefaultRequest, "default request")
	ordered := func(at *field.Path, value, small, big bound, bigName string) {
		if small.ok && big.ok && small.q.Cmp(big.q) > 0 {
			errs = append(errs, field.Invalid(at.Key(k), value.q.String(), fmt.Sprintf("%s value %s is greater than %s value %s",
				small.what, small.q.String(), bigName, big.q.String())))
		}
	}
	ordered(path.Child("min"), low, low, high, "max")
	ordered(path.Child("defaultRequest"), request, low, request, "default request")
	ordered(path.Child("defaultRequest"), request, request, high, "max")
	ordered(path.Child("defaultRequest"), request, request, limit, "default limit")
	ordered(path.Child("default"), limit, low, limit, "default")
	ordered(path.Child("default"), limit, limit, high, "max")
	if ratio, ok := item.MaxLimitRequestRatio[name]; ok {
		at := path.Child("maxLimitRequestRatio").Key(k)
		if ratio.MilliValue() < 1000 {
			errs = append(errs, field.Invalid(at, ratio.String(), fmt.Sprintf("ratio %s is less than 1", ratio.String())))
		}
		if low.ok && high.ok && low.q.Sign() > 0 {
			if most := high.q.AsApproximateFloat64() / low.q.AsApproximateFloat64(); ratio.AsApproximateFloat64() > most {
				errs = append(errs, field.Invalid(at, ratio.String(), fmt.Sprintf("ratio %s is greater than max/min = %f", ratio.String(), most)))
			}
		}
	}
	if !isOvercommitable(name) && limit.ok && request.ok && limit.q.Cmp(request.q) != 0 {
		errs = append(errs, field.Invalid(path.Child("defaultRequest").Key(k), request.q.String(),
			fmt.Sprintf("default value %s must equal to defaultRequest value %s in %s", limit.q.String(), request.q.String(), k)))
	}
	return errs
}
