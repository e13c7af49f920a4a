package apps

import (
	"context"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	appsv1beta2 "k8s.io/api/apps/v1beta2"
	corev1 "k8s.io/api/core/v1"
	extensionsv1beta1 "k8s.io/api/extensions/v1beta1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/proa-k8s/proa/internal/api"
	"github.com/proa-k8s/proa/internal/api/core"
)

// replicaSetVersions are the versions in which replica sets are served.
var replicaSetVersions = []string{"apps/v1", "apps/v1beta2", "extensions/v1beta1"}

// ReplicaSet describes replicasets.
func ReplicaSet() *api.Resource {
	kind := appsv1.SchemeGroupVersion.WithKind("ReplicaSet")
	extensions := api.NewVersion[extensionsv1beta1.ReplicaSet, extensionsv1beta1.ReplicaSetList, appsv1.ReplicaSet](
		extensionsv1beta1.SchemeGroupVersion, convertShape[*extensionsv1beta1.ReplicaSet, *appsv1.ReplicaSet], convertShape[*appsv1.ReplicaSet, *extensionsv1beta1.ReplicaSet])
	extensions.Default = func(obj runtime.Object) {
		rs := obj.(*extensionsv1beta1.ReplicaSet)
		selectFromTemplate(&rs.ObjectMeta, &rs.Spec.Selector, &rs.Spec.Template)
	}
	return api.Define[appsv1.ReplicaSet, appsv1.ReplicaSetList](appsv1.SchemeGroupVersion, api.Resource{
		Plural: "replicasets", Singular: "replicaset", Kind: "ReplicaSet", ShortNames: []string{"rs"},
		Categories: []string{"all"},
		Namespaced: true,
		Prefix:     "replicasets",
		Versions: api.OrphanByDefault(
			api.NewVersion[appsv1beta2.ReplicaSet, appsv1beta2.ReplicaSetList, appsv1.ReplicaSet](
				appsv1beta2.SchemeGroupVersion, convertShape[*appsv1beta2.ReplicaSet, *appsv1.ReplicaSet], convertShape[*appsv1.ReplicaSet, *appsv1beta2.ReplicaSet]),
			extensions,
		),
		Strategy: api.Typed[*appsv1.ReplicaSet]{
			Default: func(rs *appsv1.ReplicaSet) {
				core.DefaultPodTemplateSpec(&rs.Spec.Template)
				setIfNil(&rs.Spec.Replicas, 1)
			},
			PrepareCreate: func(_ context.Context, rs *appsv1.ReplicaSet) {
				rs.Status = appsv1.ReplicaSetStatus{}
				rs.Generation = 1
				core.PreparePodTemplate(&rs.Spec.Template)
			},
			PrepareUpdate: func(_ context.Context, rs, old *appsv1.ReplicaSet) {
				rs.Status = old.Status
				core.PreparePodTemplate(&rs.Spec.Template)
				if !apiequality.Semantic.DeepEqual(rs.Spec, old.Spec) {
					rs.Generation = old.Generation + 1
				}
			},
			Validate: func(_ context.Context, rs *appsv1.ReplicaSet) field.ErrorList {
				return validateReplicaSetSpec(&rs.Spec, nil, field.NewPath("spec"))
			},
			ValidateUpdate: validateReplicaSetUpdate,
			Warn: func(_ context.Context, rs, old *appsv1.ReplicaSet) []string {
				if old == nil {
					return warnWorkload(rs.Name, &rs.Spec.Template, nil)
				}
				if old.Generation == rs.Generation {
					return nil
				}
				return warnWorkload(rs.Name, &rs.Spec.Template, &old.Spec.Template)
			},
			ResetFields: api.Reset(replicaSetVersions, fieldpath.MakePathOrDie("status")),
		}.Strategy(),
		Subresources: []api.Subresource{
			api.ScaleOf(func(rs *appsv1.ReplicaSet) (int32, int32, string) {
				return ptr.Deref(rs.Spec.Replicas, 1), rs.Status.Replicas, selectorString(rs.Spec.Selector)
			}, func(rs *appsv1.ReplicaSet, replicas int32) { rs.Spec.Replicas = &replicas }),
			api.Status(kind, api.Typed[*appsv1.ReplicaSet]{
				PrepareUpdate:  func(_ context.Context, rs, old *appsv1.ReplicaSet) { rs.Spec = old.Spec },
				ValidateUpdate: validateReplicaSetStatusUpdate,
				ResetFields:    api.Reset(replicaSetVersions, fieldpath.MakePathOrDie("spec")),
			}.Strategy()),
		},
		Columns:          replicaSetColumns(),
		Row:              api.Row(replicaSetRow),
		SelectableFields: []string{"status.replicas"},
		Fields: api.Fields(func(rs *appsv1.ReplicaSet) fields.Set {
			return fields.Set{"status.replicas": strconv.Itoa(int(rs.Status.Replicas))}
		}),
	})
}

func replicaSetColumns() []metav1.TableColumnDefinition {
	spec, status := appsv1.ReplicaSetSpec{}.SwaggerDoc(), appsv1.ReplicaSetStatus{}.SwaggerDoc()
	columns := []metav1.TableColumnDefinition{
		api.NameColumn(),
		api.Column("Desired", "integer", spec["replicas"]),
		api.Column("Current", "integer", status["replicas"]),
		api.Column("Ready", "integer", status["readyReplicas"]),
		api.AgeColumn(),
	}
	columns = append(columns, templateColumns()...)
	return append(columns, api.WideColumn("Selector", "string", spec["selector"]))
}

func replicaSetRow(rs *appsv1.ReplicaSet) []any {
	names, images := templateCells(&rs.Spec.Template)
	return []any{
		rs.Name, int64(ptr.Deref(rs.Spec.Replicas, 1)), int64(rs.Status.Replicas), int64(rs.Status.ReadyReplicas),
		api.Since(rs.CreationTimestamp), names, images, api.SelectorCell(rs.Spec.Selector),
	}
}

func validateReplicaSetSpec(spec *appsv1.ReplicaSetSpec, old *corev1.PodTemplateSpec, path *field.Path) field.ErrorList {
	errs := api.ValidateNonNegative(path.Child("replicas"), ptr.Deref(spec.Replicas, 1))
	errs = append(errs, api.ValidateNonNegative(path.Child("minReadySeconds"), spec.MinReadySeconds)...)
	errs = append(errs, validateSelector(spec.Selector, "deployment", path.Child("selector"))...)
	return append(errs, validateTemplate(&spec.Template, old, spec.Selector, path.Child("template"))...)
}

func validateReplicaSetUpdate(ctx context.Context, rs, old *appsv1.ReplicaSet) field.ErrorList {
	errs := validateReplicaSetSpec(&rs.Spec, &old.Spec.Template, field.NewPath("spec"))
	if !selectorMayChange(ctx) {
		errs = append(errs, apivalidation.ValidateImmutableField(rs.Spec.Selector, old.Spec.Selector, field.NewPath("spec", "selector"))...)
	}
	return errs
}

func validateReplicaSetStatusUpdate(_ context.Context, rs, _ *appsv1.ReplicaSet) field.ErrorList {
	status, path := &rs.Status, field.NewPath("status")
	errs := validateCounts(path, count{"replicas", status.Replicas},
		count{"fullyLabeledReplicas", status.FullyLabeledReplicas},
		count{"readyReplicas", status.ReadyReplicas},
		count{"availableReplicas", status.AvailableReplicas})
	errs = append(errs, api.ValidateNonNegative(path.Child("terminatingReplicas"), ptr.Deref(status.TerminatingReplicas, 0))...)
	errs = append(errs, api.ValidateNonNegative(path.Child("observedGeneration"), status.ObservedGeneration)...)
	if status.AvailableReplicas > status.ReadyReplicas {
		errs = append(errs, field.Invalid(path.Child("availableReplicas"), status.AvailableReplicas, "cannot be greater than readyReplicas"))
	}
	return errs
}
