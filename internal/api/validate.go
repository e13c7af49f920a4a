package api

import (
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// InvalidAll makes an error about value of each message, as apimachinery's validation functions give them.
func InvalidAll(path *field.Path, value any, messages []string) field.ErrorList {
	var errs field.ErrorList
	for _, msg := range messages {
		errs = append(errs, field.Invalid(path, value, msg))
	}
	return errs
}

// ValidatePathSegmentName is the rule for names of objects that may be anything which fits into a path; it is a
// Strategy's ValidateName. As the stem of a generated name, "." and ".." are good.
func ValidatePathSegmentName(name string, prefix bool) []string {
	if prefix && (name == "." || name == "..") {
		return nil
	}
	return content.IsPathSegmentName(name)
}

// ValidateFinalizerName checks a finalizer of a namespace: a qualified name with a domain, or one of the standard ones.
func ValidateFinalizerName(name string, path *field.Path) field.ErrorList {
	return append(InvalidAll(path, name, validation.IsQualifiedName(name)), ValidateStandardFinalizer(name, path)...)
}

// ValidateStandardFinalizer refuses a finalizer without a domain that is not one of the standard ones.
func ValidateStandardFinalizer(name string, path *field.Path) field.ErrorList {
	switch name {
	case string(corev1.FinalizerKubernetes), metav1.FinalizerOrphanDependents, metav1.FinalizerDeleteDependents:
		return nil
	}
	if strings.Contains(name, "/") {
		return nil
	}
	return field.ErrorList{field.Invalid(path, name, "name is neither a standard finalizer name nor is it fully qualified")}
}

// ValidateEnum demands one of the supported values.
func ValidateEnum[T ~string](path *field.Path, value T, supported ...T) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	return ValidateSupported(path, value, supported...)
}

// ValidateSupported is ValidateEnum for a field where the empty string is a value like any other.
func ValidateSupported[T ~string](path *field.Path, value T, supported ...T) field.ErrorList {
	if slices.Contains(supported, value) {
		return nil
	}
	return field.ErrorList{field.NotSupported(path, value, supported)}
}

// ValidateNonNegative demands a number that is not below zero.
func ValidateNonNegative[T ~int32 | ~int64](path *field.Path, value T) field.ErrorList {
	return apivalidation.ValidateNonnegativeField(int64(value), path)
}

// ValidateIntOrPercent demands a number that is not negative, or a percentage.
func ValidateIntOrPercent(path *field.Path, value intstr.IntOrString) field.ErrorList {
	if value.Type == intstr.Int {
		return ValidateNonNegative(path, value.IntVal)
	}
	return InvalidAll(path, value, validation.IsValidPercent(value.StrVal))
}

// ValidateAtMostAll refuses a percentage above 100.
func ValidateAtMostAll(path *field.Path, value intstr.IntOrString) field.ErrorList {
	if percent, ok := PercentOf(value); ok && percent > 100 {
		return field.ErrorList{field.Invalid(path, value, "must not be greater than 100%")}
	}
	return nil
}

// PercentOf returns the number of a percentage, and whether the value is one.
func PercentOf(value intstr.IntOrString) (int, bool) {
	number, ok := strings.CutSuffix(value.StrVal, "%")
	if value.Type != intstr.String || !ok {
		return 0, false
	}
	percent, err := strconv.Atoi(number)
	return percent, err == nil
}
