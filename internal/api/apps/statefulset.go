package apps

import (
	"context"
	"fmt"
	"math"

	appsv1 "k8s.io/api/apps/v1"
	appsv1beta1 "k8s.io/api/apps/v1beta1"
	appsv1beta2 "k8s.io/api/apps/v1beta2"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/proa-k8s/proa/internal/api"
	"github.com/proa-k8s/proa/internal/api/core"
)

// statefulSetVersions are the versions in which stateful sets are served.
var statefulSetVersions = []string{"apps/v1", "apps/v1beta2", "apps/v1beta1"}

// StatefulSet describes statefulsets.
func StatefulSet() *api.Resource {
	kind := appsv1.SchemeGroupVersion.WithKind("StatefulSet")
	return api.Define[appsv1.StatefulSet, appsv1.StatefulSetList](appsv1.SchemeGroupVersion, api.Resource{
		Plural: "statefulsets", Singular: "statefulset", Kind: "StatefulSet", ShortNames: []string{"sts"},
		Categories: []string{"all"}, Namespaced: true, Prefix: "statefulsets",
		Versions: api.OrphanByDefault(statefulSetBetas()...),
		Strategy: api.Typed[*appsv1.StatefulSet]{
			Default: defaultStatefulSet,
			PrepareCreate: func(_ context.Context, s *appsv1.StatefulSet) {
				s.Status = appsv1.StatefulSetStatus{}
				s.Generation = 1
				core.PreparePodTemplate(&s.Spec.Template)
			},
			PrepareUpdate: func(_ context.Context, s, old *appsv1.StatefulSet) {
				s.Status = old.Status
				core.PreparePodTemplate(&s.Spec.Template)
				s.Generation = old.Generation
				if !apiequality.Semantic.DeepEqual(s.Spec, old.Spec) {
					s.Generation++
				}
			},
			Validate: func(_ context.Context, s *appsv1.StatefulSet) field.ErrorList {
				return validateStatefulSetSpec(&s.Spec, nil, field.NewPath("spec"))
			},
			ValidateUpdate: validateStatefulSetUpdate,
			Warn:           warnStatefulSet,
			// The name is a part of the pods' hostnames.
			ValidateName: apivalidation.NameIsDNSLabel,
			ResetFields:  api.Reset(statefulSetVersions, fieldpath.MakePathOrDie("status")),
		}.Strategy(),
		Subresources: []api.Subresource{
			api.ScaleOf(func(s *appsv1.StatefulSet) (int32, int32, string) {
				return ptr.Deref(s.Spec.Replicas, 1), s.Status.Replicas, selectorString(s.Spec.Selector)
			}, func(s *appsv1.StatefulSet, replicas int32) { s.Spec.Replicas = &replicas }),
			api.Status(kind, api.Typed[*appsv1.StatefulSet]{
				PrepareUpdate:  func(_ context.Context, s, old *appsv1.StatefulSet) { s.Spec = old.Spec },
				ValidateUpdate: validateStatefulSetStatus,
				ResetFields:    api.Reset(statefulSetVersions, fieldpath.MakePathOrDie("spec")),
			}.Strategy()),
		},
		Columns: append([]metav1.TableColumnDefinition{
			api.NameColumn(),
			api.Column("Ready", "string", "Number of the pod with ready state"),
			api.AgeColumn(),
		}, templateColumns()...),
		Row: api.Row(func(s *appsv1.StatefulSet) []any {
			names, images := templateCells(&s.Spec.Template)
			return []any{s.Name, fmt.Sprintf("%d/%d", s.Status.ReadyReplicas, ptr.Deref(s.Spec.Replicas, 1)),
				api.Since(s.CreationTimestamp), names, images}
		}),
	})
}

func statefulSetBetas() []api.Version {
	v1beta1 := api.NewVersion[appsv1beta1.StatefulSet, appsv1beta1.StatefulSetList, appsv1.StatefulSet](appsv1beta1.SchemeGroupVersion,
		convertShape[*appsv1beta1.StatefulSet, *appsv1.StatefulSet], convertShape[*appsv1.StatefulSet, *appsv1beta1.StatefulSet])
	v1beta1.Default = func(obj runtime.Object) {
		s := obj.(*appsv1beta1.StatefulSet)
		selectFromTemplate(&s.ObjectMeta, &s.Spec.Selector, &s.Spec.Template)
		if s.Spec.UpdateStrategy.Type == "" {
			s.Spec.UpdateStrategy.Type = appsv1beta1.OnDeleteStatefulSetStrategyType
		}
	}
	return []api.Version{
		api.NewVersion[appsv1beta2.StatefulSet, appsv1beta2.StatefulSetList, appsv1.StatefulSet](appsv1beta2.SchemeGroupVersion,
			convertShape[*appsv1beta2.StatefulSet, *appsv1.StatefulSet], convertShape[*appsv1.StatefulSet, *appsv1beta2.StatefulSet]),
		v1beta1,
	}
}

func defaultStatefulSet(s *appsv1.StatefulSet) {
	spec := &s.Spec
	core.DefaultPodTemplateSpec(&spec.Template)
	if spec.PodManagementPolicy == "" {
		spec.PodManagementPolicy = appsv1.OrderedReadyPodManagement
	}
	if spec.UpdateStrategy.Type == "" {
		spec.UpdateStrategy.Type = appsv1.RollingUpdateStatefulSetStrategyType
	}
	if spec.UpdateStrategy.Type == appsv1.RollingUpdateStatefulSetStrategyType {
		setIfNil(&spec.UpdateStrategy.RollingUpdate, appsv1.RollingUpdateStatefulSetStrategy{})
		setIfNil(&spec.UpdateStrategy.RollingUpdate.Partition, 0)
		setIfNil(&spec.UpdateStrategy.RollingUpdate.MaxUnavailable, intstr.FromInt32(1))
	}
	setIfNil(&spec.PersistentVolumeClaimRetentionPolicy, appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{})
	for _, p := range []*appsv1.PersistentVolumeClaimRetentionPolicyType{
		&spec.PersistentVolumeClaimRetentionPolicy.WhenDeleted, &spec.PersistentVolumeClaimRetentionPolicy.WhenScaled,
	} {
		if *p == "" {
			*p = appsv1.RetainPersistentVolumeClaimRetentionPolicyType
		}
	}
	setIfNil(&spec.Replicas, 1)
	setIfNil(&spec.RevisionHistoryLimit, 10)
	for i := range spec.VolumeClaimTemplates {
		claim := &spec.VolumeClaimTemplates[i]
		// The kind is what it is, said or not.
		claim.APIVersion, claim.Kind = "v1", "PersistentVolumeClaim"
		core.DefaultPersistentVolumeClaimSpec(&claim.Spec)
		if claim.Status.Phase == "" {
			claim.Status.Phase = corev1.ClaimPending
		}
	}
}

func validateStatefulSetSpec(spec *appsv1.StatefulSetSpec, old *corev1.PodTemplateSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch spec.PodManagementPolicy {
	case appsv1.OrderedReadyPodManagement, appsv1.ParallelPodManagement:
	case "":
		errs = append(errs, field.Required(path.Child("podManagementPolicy"), ""))
	default:
		errs = append(errs, field.Invalid(path.Child("podManagementPolicy"), spec.PodManagementPolicy,
			fmt.Sprintf("must be '%s' or '%s'", appsv1.OrderedReadyPodManagement, appsv1.ParallelPodManagement)))
	}
	errs = append(errs, validateStatefulSetStrategy(&spec.UpdateStrategy, path.Child("updateStrategy"))...)
	if p := spec.PersistentVolumeClaimRetentionPolicy; p != nil {
		at := path.Child("persistentVolumeClaimRetentionPolicy")
		supported := []appsv1.PersistentVolumeClaimRetentionPolicyType{
			appsv1.RetainPersistentVolumeClaimRetentionPolicyType, appsv1.DeletePersistentVolumeClaimRetentionPolicyType,
		}
		errs = append(errs, api.ValidateEnum(at.Child("whenDeleted"), p.WhenDeleted, supported...)...)
		errs = append(errs, api.ValidateEnum(at.Child("whenScaled"), p.WhenScaled, supported...)...)
	}
	errs = append(errs, api.ValidateNonNegative(path.Child("replicas"), ptr.Deref(spec.Replicas, 1))...)
	errs = append(errs, api.ValidateNonNegative(path.Child("minReadySeconds"), spec.MinReadySeconds)...)
	if spec.Ordinals != nil {
		errs = append(errs, validateOrdinals(spec, path.Child("ordinals", "start"))...)
	}
	if spec.ServiceName != "" {
		errs = append(errs, api.InvalidAll(path.Child("serviceName"), spec.ServiceName, validation.IsDNS1123Subdomain(spec.ServiceName))...)
	}
	errs = append(errs, validateSelector(spec.Selector, "statefulset", path.Child("selector"))...)
	return append(errs, validateTemplateOf("StatefulSet", &spec.Template, old, spec.Selector, path.Child("template"))...)
}

// validateOrdinals: the last ordinal must be a number that pods can be named with.
func validateOrdinals(spec *appsv1.StatefulSetSpec, path *field.Path) field.ErrorList {
	start := spec.Ordinals.Start
	if errs := api.ValidateNonNegative(path, start); len(errs) > 0 {
		return errs
	}
	if replicas := ptr.Deref(spec.Replicas, 1); int64(start)+int64(replicas)-1 > math.MaxInt32 {
		return field.ErrorList{field.Invalid(path, start, "the last ordinal must fit into 32 bits")}
	}
	return nil
}

func validateStatefulSetStrategy(s *appsv1.StatefulSetUpdateStrategy, path *field.Path) field.ErrorList {
	switch s.Type {
	case "":
		return field.ErrorList{field.Required(path, "")}
	case appsv1.OnDeleteStatefulSetStrategyType:
		if s.RollingUpdate != nil {
			return field.ErrorList{field.Invalid(path.Child("rollingUpdate"), s.RollingUpdate,
				fmt.Sprintf("only allowed for updateStrategy '%s'", appsv1.RollingUpdateStatefulSetStrategyType))}
		}
		return nil
	case appsv1.RollingUpdateStatefulSetStrategyType:
	default:
		return field.ErrorList{field.Invalid(path, s, fmt.Sprintf("must be '%s' or '%s'",
			appsv1.RollingUpdateStatefulSetStrategyType, appsv1.OnDeleteStatefulSetStrategyType))}
	}
	if s.RollingUpdate == nil {
		return nil
	}
	path = path.Child("rollingUpdate")
	errs := api.ValidateNonNegative(path.Child("partition"), ptr.Deref(s.RollingUpdate.Partition, 0))
	if m := s.RollingUpdate.MaxUnavailable; m != nil {
		at := path.Child("maxUnavailable")
		errs = append(errs, api.ValidateIntOrPercent(at, *m)...)
		if intOrPercentValue(*m) == 0 {
			errs = append(errs, field.Invalid(at, *m, "cannot be 0"))
		}
		errs = append(errs, api.ValidateAtMostAll(at, *m)...)
	}
	return errs
}

// validateStatefulSetUpdate: what makes the identity of the pods and their claims is immutable.
func validateStatefulSetUpdate(_ context.Context, s, old *appsv1.StatefulSet) field.ErrorList {
	path := field.NewPath("spec")
	errs := validateStatefulSetSpec(&s.Spec, &old.Spec.Template, path)
	frozen := s.Spec.DeepCopy()
	frozen.Replicas = old.Spec.Replicas
	frozen.Template = old.Spec.Template
	frozen.UpdateStrategy = old.Spec.UpdateStrategy
	frozen.MinReadySeconds = old.Spec.MinReadySeconds
	frozen.Ordinals = old.Spec.Ordinals
	frozen.RevisionHistoryLimit = old.Spec.RevisionHistoryLimit
	frozen.PersistentVolumeClaimRetentionPolicy = old.Spec.PersistentVolumeClaimRetentionPolicy
	if !apiequality.Semantic.DeepEqual(frozen, &old.Spec) {
		errs = append(errs, field.Forbidden(path, "updates to statefulset spec for fields other than 'replicas', 'ordinals', "+
			"'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"))
	}
	return errs
}

func validateStatefulSetStatus(_ context.Context, s, old *appsv1.StatefulSet) field.ErrorList {
	status, path := &s.Status, field.NewPath("status")
	errs := validateCounts(path, count{"replicas", status.Replicas},
		count{"readyReplicas", status.ReadyReplicas}, count{"currentReplicas", status.CurrentReplicas},
		count{"updatedReplicas", status.UpdatedReplicas}, count{"availableReplicas", status.AvailableReplicas})
	errs = append(errs, api.ValidateNonNegative(path.Child("observedGeneration"), status.ObservedGeneration)...)
	if status.AvailableReplicas > status.ReadyReplicas {
		errs = append(errs, field.Invalid(path.Child("availableReplicas"), status.AvailableReplicas, "cannot be greater than status.readyReplicas"))
	}
	return append(errs, validateCollisions(status.CollisionCount, old.Status.CollisionCount, path)...)
}

// validateCollisions: the count of collisions is a part of names, and only grows.
func validateCollisions(is, was *int32, path *field.Path) field.ErrorList {
	at := path.Child("collisionCount")
	if is != nil {
		if errs := api.ValidateNonNegative(at, *is); len(errs) > 0 {
			return errs
		}
	}
	if was != nil && ptr.Deref(is, 0) < *was {
		return field.ErrorList{field.Invalid(at, ptr.Deref(is, 0), "cannot be decremented")}
	}
	return nil
}

func warnStatefulSet(_ context.Context, s, old *appsv1.StatefulSet) []string {
	var warnings []string
	path := field.NewPath("spec")
	if s.Spec.RevisionHistoryLimit != nil && *s.Spec.RevisionHistoryLimit < 0 {
		warnings = append(warnings, "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended")
	}
	var before *corev1.PodTemplateSpec
	if old != nil {
		before = &old.Spec.Template
	}
	return append(warnings, core.WarnPodTemplate(&s.Spec.Template, before, path.Child("template"))...)
}
