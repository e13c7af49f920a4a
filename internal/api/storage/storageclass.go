// Package storage describes the kinds of storage.k8s.io. What flows in are k8s.io/api/storage/v1 objects; what flows out
// are defaults, verdicts and cells.
package storage

import (
	"context"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/proa-k8s/proa/internal/api"
)

// The limits of a class's parameters: bytes of all together, and how many.
const (
	maxParametersSize = 256 * 1024
	maxParameters     = 512
)

// The annotations that make a class the default.
const (
	isDefaultClass     = "storageclass.kubernetes.io/is-default-class"
	betaIsDefaultClass = "storageclass.beta.kubernetes.io/is-default-class"
)

// StorageClass describes storageclasses.
func StorageClass() *api.Resource {
	doc := storagev1.StorageClass{}.SwaggerDoc()
	return api.Define[storagev1.StorageClass, storagev1.StorageClassList](storagev1.SchemeGroupVersion, api.Resource{
		Plural: "storageclasses", Singular: "storageclass", Kind: "StorageClass", ShortNames: []string{"sc"},
		Prefix: "storageclasses",
		Strategy: api.Typed[*storagev1.StorageClass]{
			Default: func(class *storagev1.StorageClass) {
				if class.ReclaimPolicy == nil {
					class.ReclaimPolicy = ptr.To(corev1.PersistentVolumeReclaimDelete)
				}
				if class.VolumeBindingMode == nil {
					class.VolumeBindingMode = ptr.To(storagev1.VolumeBindingImmediate)
				}
			},
			Validate:       func(_ context.Context, class *storagev1.StorageClass) field.ErrorList { return validateClass(class) },
			ValidateUpdate: validateClassUpdate,
		}.Strategy(),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.Column("Provisioner", "string", doc["provisioner"]),
			api.Column("ReclaimPolicy", "string", doc["reclaimPolicy"]),
			api.Column("VolumeBindingMode", "string", doc["volumeBindingMode"]),
			api.Column("AllowVolumeExpansion", "string", doc["allowVolumeExpansion"]),
			api.AgeColumn(),
		},
		Row: api.Row(func(class *storagev1.StorageClass) []any {
			name := class.Name
			if class.Annotations[isDefaultClass] == "true" || class.Annotations[betaIsDefaultClass] == "true" {
				name += " (default)"
			}
			return []any{
				name, class.Provisioner, string(ptr.Deref(class.ReclaimPolicy, corev1.PersistentVolumeReclaimDelete)),
				string(ptr.Deref(class.VolumeBindingMode, storagev1.VolumeBindingImmediate)),
				ptr.Deref(class.AllowVolumeExpansion, false), api.Since(class.CreationTimestamp),
			}
		}),
	})
}

func validateClass(class *storagev1.StorageClass) field.ErrorList {
	errs := validateProvisioner(class.Provisioner, field.NewPath("provisioner"))
	errs = append(errs, validateParameters(class.Parameters, field.NewPath("parameters"))...)
	if class.ReclaimPolicy != nil {
		errs = append(errs, api.ValidateSupported(field.NewPath("reclaimPolicy"), *class.ReclaimPolicy,
			corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRetain)...)
	}
	mode := field.NewPath("volumeBindingMode")
	if class.VolumeBindingMode == nil {
		errs = append(errs, field.Required(mode, ""))
	} else {
		errs = append(errs, api.ValidateSupported(mode, *class.VolumeBindingMode,
			storagev1.VolumeBindingImmediate, storagev1.VolumeBindingWaitForFirstConsumer)...)
	}
	return append(errs, validateTopologies(class.AllowedTopologies, field.NewPath("allowedTopologies"))...)
}

func validateProvisioner(provisioner string, at *field.Path) field.ErrorList {
	if provisioner == "" {
		return field.ErrorList{field.Required(at, "")}
	}
	return api.InvalidAll(at, provisioner, validation.IsQualifiedName(strings.ToLower(provisioner)))
}

func validateParameters(parameters map[string]string, at *field.Path) field.ErrorList {
	if len(parameters) > maxParameters {
		return field.ErrorList{field.TooLong(at, "Provisioner Parameters exceeded max allowed", maxParameters)}
	}
	var errs field.ErrorList
	size := 0
	for key, value := range parameters {
		if key == "" {
			errs = append(errs, field.Invalid(at, key, "field can not be empty."))
		}
		size += len(key) + len(value)
	}
	if size > maxParametersSize {
		errs = append(errs, field.TooLong(at, "", maxParametersSize))
	}
	return errs
}

func validateTopologies(terms []corev1.TopologySelectorTerm, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, term := range terms {
		keys := sets.New[string]()
		for j, expression := range term.MatchLabelExpressions {
			where := at.Index(i).Child("matchLabelExpressions").Index(j)
			errs = append(errs, metav1validation.ValidateLabelName(expression.Key, where.Child("key"))...)
			if keys.Has(expression.Key) {
				errs = append(errs, field.Duplicate(where.Child("key"), expression.Key))
			}
			keys.Insert(expression.Key)
			if len(expression.Values) == 0 {
				errs = append(errs, field.Required(where.Child("values"), ""))
			}
			values := sets.New[string]()
			for k, value := range expression.Values {
				if values.Has(value) {
					errs = append(errs, field.Duplicate(where.Child("values").Index(k), value))
				}
				values.Insert(value)
			}
		}
	}
	return errs
}

func validateClassUpdate(_ context.Context, class, old *storagev1.StorageClass) field.ErrorList {
	errs := validateClass(class)
	for _, f := range []struct {
		name     string
		now, was any
	}{
		{"provisioner", class.Provisioner, old.Provisioner},
		{"parameters", class.Parameters, old.Parameters},
		{"reclaimPolicy", class.ReclaimPolicy, old.ReclaimPolicy},
		{"volumeBindingMode", class.VolumeBindingMode, old.VolumeBindingMode},
	} {
		errs = append(errs, apivalidation.ValidateImmutableField(f.now, f.was, field.NewPath(f.name))...)
	}
	return errs
}
