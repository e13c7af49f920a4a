package apps

import (
	"context"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	appsv1beta1 "k8s.io/api/apps/v1beta1"
	corev1 "k8s.io/api/core/v1"
	extensionsv1beta1 "k8s.io/api/extensions/v1beta1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/utils/ptr"
)

func validateDeployment(_ context.Context, d *appsv1.Deployment) field.ErrorList {
	return validateDeploymentSpec(&d.Spec, nil, field.NewPath("spec"))
}

func validateDeploymentUpdate(ctx context.Context, d, old *appsv1.Deployment) field.ErrorList {
	errs := validateDeploymentSpec(&d.Spec, &old.Spec.Template, field.NewPath("spec"))
	if !selectorMayChange(ctx) {
		errs = append(errs, apivalidation.ValidateImmutableField(d.Spec.Selector, old.Spec.Selector, field.NewPath("spec", "selector"))...)
	}
	return errs
}

// selectorMayChange says whether the request is made in a version from before selectors became immutable.
func selectorMayChange(ctx context.Context) bool {
	info, ok := request.RequestInfoFrom(ctx)
	if !ok {
		return false
	}
	switch (schema.GroupVersion{Group: info.APIGroup, Version: info.APIVersion}) {
	case appsv1beta1.SchemeGroupVersion, extensionsv1beta1.SchemeGroupVersion:
		return true
	}
	return false
}

func validateDeploymentSpec(spec *appsv1.DeploymentSpec, old *corev1.PodTemplateSpec, path *field.Path) field.ErrorList {
	errs := validateNonNegative(int64(ptr.Deref(spec.Replicas, 1)), path.Child("replicas"))
	errs = append(errs, validateSelector(spec.Selector, "deployment", path.Child("selector"))...)
	errs = append(errs, validateTemplate(&spec.Template, old, spec.Selector, path.Child("template"))...)
	errs = append(errs, validateDeploymentStrategy(&spec.Strategy, path.Child("strategy"))...)
	errs = append(errs, validateNonNegative(int64(spec.MinReadySeconds), path.Child("minReadySeconds"))...)
	if limit := spec.RevisionHistoryLimit; limit != nil {
		errs = append(errs, validateNonNegative(int64(*limit), path.Child("revisionHistoryLimit"))...)
	}
	if deadline := spec.ProgressDeadlineSeconds; deadline != nil {
		at := path.Child("progressDeadlineSeconds")
		errs = append(errs, validateNonNegative(int64(*deadline), at)...)
		if *deadline <= spec.MinReadySeconds {
			errs = append(errs, field.Invalid(at, *deadline, "must be greater than minReadySeconds"))
		}
	}
	return errs
}

func validateNonNegative(value int64, path *field.Path) field.ErrorList {
	return apivalidation.ValidateNonnegativeField(value, path)
}

func validateDeploymentStrategy(strategy *appsv1.DeploymentStrategy, path *field.Path) field.ErrorList {
	rolling := path.Child("rollingUpdate")
	switch strategy.Type {
	case appsv1.RecreateDeploymentStrategyType:
		if strategy.RollingUpdate != nil {
			return field.ErrorList{field.Forbidden(rolling, "may not be specified when strategy `type` is 'Recreate'")}
		}
		return nil
	case appsv1.RollingUpdateDeploymentStrategyType:
		if strategy.RollingUpdate == nil {
			return field.ErrorList{field.Required(rolling, "this should be defaulted and never be nil")}
		}
		return validateRollingUpdate(strategy.RollingUpdate, rolling)
	}
	return field.ErrorList{field.NotSupported(path, *strategy, []appsv1.DeploymentStrategyType{
		appsv1.RecreateDeploymentStrategyType, appsv1.RollingUpdateDeploymentStrategyType,
	})}
}

func validateRollingUpdate(rolling *appsv1.RollingUpdateDeployment, path *field.Path) field.ErrorList {
	unavailable, surge := ptr.Deref(rolling.MaxUnavailable, intstr.IntOrString{}), ptr.Deref(rolling.MaxSurge, intstr.IntOrString{})
	errs := validateIntOrPercent(unavailable, path.Child("maxUnavailable"))
	errs = append(errs, validateIntOrPercent(surge, path.Child("maxSurge"))...)
	if intOrPercentValue(unavailable) == 0 && intOrPercentValue(surge) == 0 {
		errs = append(errs, field.Invalid(path.Child("maxUnavailable"), unavailable, "may not be 0 when `maxSurge` is 0"))
	}
	return append(errs, validateAtMostAll(unavailable, path.Child("maxUnavailable"))...)
}

// validateIntOrPercent demands a number that is not negative, or a percentage.
func validateIntOrPercent(value intstr.IntOrString, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if value.Type == intstr.Int {
		return validateNonNegative(int64(value.IntValue()), path)
	}
	for _, msg := range validation.IsValidPercent(value.StrVal) {
		errs = append(errs, field.Invalid(path, value, msg))
	}
	return errs
}

func percentOf(value intstr.IntOrString) (int, bool) {
	number, ok := strings.CutSuffix(value.StrVal, "%")
	if value.Type != intstr.String || !ok {
		return 0, false
	}
	percent, err := strconv.Atoi(number)
	return percent, err == nil
}

func intOrPercentValue(value intstr.IntOrString) int {
	if percent, ok := percentOf(value); ok {
		return percent
	}
	return value.IntValue()
}

func validateAtMostAll(value intstr.IntOrString, path *field.Path) field.ErrorList {
	if percent, ok := percentOf(value); ok && percent > 100 {
		return field.ErrorList{field.Invalid(path, value, "must not be greater than 100%")}
	}
	return nil
}

func validateDeploymentStatusUpdate(_ context.Context, d, old *appsv1.Deployment) field.ErrorList {
	status, path := &d.Status, field.NewPath("status")
	errs := validateNonNegative(status.ObservedGeneration, path.Child("observedGeneration"))
	errs = append(errs, validateCounts(path, count{"replicas", status.Replicas},
		count{"updatedReplicas", status.UpdatedReplicas},
		count{"readyReplicas", status.ReadyReplicas},
		count{"availableReplicas", status.AvailableReplicas})...)
	errs = append(errs, validateNonNegative(int64(status.UnavailableReplicas), path.Child("unavailableReplicas"))...)
	errs = append(errs, validateNonNegative(int64(ptr.Deref(status.TerminatingReplicas, 0)), path.Child("terminatingReplicas"))...)
	if status.AvailableReplicas > status.ReadyReplicas {
		errs = append(errs, field.Invalid(path.Child("availableReplicas"), status.AvailableReplicas, "cannot be greater than readyReplicas"))
	}
	if collisions := status.CollisionCount; collisions != nil {
		errs = append(errs, validateNonNegative(int64(*collisions), path.Child("collisionCount"))...)
	}
	if ptr.Deref(status.CollisionCount, 0) < ptr.Deref(old.Status.CollisionCount, 0) {
		errs = append(errs, field.Invalid(path.Child("collisionCount"), ptr.Deref(status.CollisionCount, 0), "cannot be decremented"))
	}
	return errs
}
