package core

import (
	"context"
	"reflect"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-k8s/proa/internal/api"
)

const immutableWhenSet = "field is immutable when `immutable` is set"

// ConfigMap describes configmaps.
func ConfigMap() *api.Resource {
	return api.Define[corev1.ConfigMap, corev1.ConfigMapList](corev1.SchemeGroupVersion, api.Resource{
		Plural: "configmaps", Singular: "configmap", Kind: "ConfigMap", ShortNames: []string{"cm"},
		Namespaced: true,
		Prefix:     "configmaps",
		Strategy: api.Typed[*corev1.ConfigMap]{
			Validate:       func(_ context.Context, cm *corev1.ConfigMap) field.ErrorList { return validateConfigMap(cm) },
			ValidateUpdate: validateConfigMapUpdate,
		}.Strategy(),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.Column("Data", "string", corev1.ConfigMap{}.SwaggerDoc()["data"]),
			api.AgeColumn(),
		},
		Row: api.Row(func(cm *corev1.ConfigMap) []any {
			return []any{cm.Name, int64(len(cm.Data) + len(cm.BinaryData)), api.Since(cm.CreationTimestamp)}
		}),
	})
}

func validateConfigMap(cm *corev1.ConfigMap) field.ErrorList {
	var errs field.ErrorList
	size := 0
	for key, value := range cm.Data {
		path := field.NewPath("data").Key(key)
		errs = append(errs, validateConfigKey(key, path)...)
		if _, ok := cm.BinaryData[key]; ok {
			errs = append(errs, field.Invalid(path, key, "duplicate of key present in binaryData"))
		}
		size += len(value)
	}
	for key, value := range cm.BinaryData {
		errs = append(errs, validateConfigKey(key, field.NewPath("binaryData").Key(key))...)
		size += len(value)
	}
	if size > corev1.MaxSecretSize {
		errs = append(errs, field.TooLong(field.NewPath(""), "", corev1.MaxSecretSize))
	}
	return errs
}

// validateConfigKey checks a key of a ConfigMap's or Secret's data, which becomes a file name.
func validateConfigKey(key string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, msg := range validation.IsConfigMapKey(key) {
		errs = append(errs, field.Invalid(path, key, msg))
	}
	return errs
}

func validateConfigMapUpdate(_ context.Context, cm, old *corev1.ConfigMap) field.ErrorList {
	var errs field.ErrorList
	if isTrue(old.Immutable) {
		if !isTrue(cm.Immutable) {
			errs = append(errs, field.Forbidden(field.NewPath("immutable"), immutableWhenSet))
		}
		if !reflect.DeepEqual(cm.Data, old.Data) {
			errs = append(errs, field.Forbidden(field.NewPath("data"), immutableWhenSet))
		}
		if !reflect.DeepEqual(cm.BinaryData, old.BinaryData) {
			errs = append(errs, field.Forbidden(field.NewPath("binaryData"), immutableWhenSet))
		}
	}
	return append(errs, validateConfigMap(cm)...)
}

func isTrue(b *bool) bool { return b != nil && *b }
