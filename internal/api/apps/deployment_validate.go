package apps

import (
	"context"

	appsv1 "k8s.io/api/apps/v1"
	appsv1beta1 "k8s.io/api/apps/v1beta1"
	corev1 "k8s.io/api/core/v1"
	extensionsv1beta1 "k8s.io/api/extensions/v1beta1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/utils/ptr"

	"github.com/proa-k8s/proa/internal/api"
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
	errs := api.ValidateNonNegative(path.Child("replicas"), ptr.Deref(spec.Replicas, 1))
	errs = append(errs, validateSelector(spec.Selector, "deployment", path.Child("selector"))...)
	errs = append(errs, validateTemplate(&spec.Template, old, spec.Selector, path.Child("template"))...)
	errs = append(errs, validateDeploymentStrategy(&spec.Strategy, path.Child("strategy"))...)
	errs = append(errs, api.ValidateNonNegative(path.Child("minReadySeconds"), spec.MinReadySeconds)...)
	if limit := spec.RevisionHistoryLimit; limit != nil {
		errs = append(errs, api.ValidateNonNegative(path.Child("revisionHistoryLimit"), *limit)...)
	}
	if deadline := spec.ProgressDeadlineSeconds; deadline != nil {
		at := path.Child("progressDeadlineSeconds")
		errs = append(errs, api.ValidateNonNegative(at, *deadline)...)
		if *deadline <= spec.MinReadySeconds {
			errs = append(errs, field.Invalid(at, *deadline, "must be greater than minReadySeconds"))
		}
	}
	return errs
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
	errs := api.ValidateIntOrPercent(path.Child("maxUnavailable"), unavailable)
	errs = append(errs, api.ValidateIntOrPercent(path.Child("maxSurge"), surge)...)
	if intOrPercentValue(unavailable) == 0 && intOrPercentValue(surge) == 0 {
		errs = append(errs, field.Invalid(path.Child("maxUnavailable"), unavailable, "may not be 0 when `maxSurge` is 0"))
	}
	return append(errs, api.ValidateAtMostAll(path.Child("maxUnavailable"), unavailable)...)
}

func intOrPercentValue(value intstr.IntOrString) int {
	if percent, ok := api.PercentOf(value); ok {
		return percent
	}
	return value.IntValue()
}

func validateDeploymentStatusUpdate(_ context.Context, d, old *appsv1.Deployment) field.ErrorList {
	status, path := &d.Status, field.NewPath("status")
	errs := api.ValidateNonNegative(path.Child("observedGeneration"), status.ObservedGeneration)
	errs = append(errs, validateCounts(path, count{"replicas", status.Replicas},
		count{"updatedReplicas", status.UpdatedReplicas},
		count{"readyReplicas", status.ReadyReplicas},
		count{"availableReplicas", status.AvailableReplicas})...)
	errs = append(errs, api.ValidateNonNegative(path.Child("unavailableReplicas"), status.UnavailableReplicas)...)
	errs = append(errs, api.ValidateNonNegative(path.Child("terminatingReplicas"), ptr.Deref(status.TerminatingReplicas, 0))...)
	if status.AvailableReplicas > status.ReadyReplicas {
		errs = append(errs, field.Invalid(path.Child("availableReplicas"), status.AvailableReplicas, "cannot be greater than readyReplicas"))
	}
	if collisions := status.CollisionCount; collisions != nil {
		errs = append(errs, api.ValidateNonNegative(path.Child("collisionCount"), *collisions)...)
	}
	if ptr.Deref(status.CollisionCount, 0) < ptr.Deref(old.Status.CollisionCount, 0) {
		errs = append(errs, field.Invalid(path.Child("collisionCount"), ptr.Deref(status.CollisionCount, 0), "cannot be decremented"))
	}
	return errs
}
