package core

import (
	"context"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/proa-k8s/proa/internal/api"
)

// ReplicationController describes replicationcontrollers.
func ReplicationController() *api.Resource {
	spec, status := corev1.ReplicationControllerSpec{}.SwaggerDoc(), corev1.ReplicationControllerStatus{}.SwaggerDoc()
	return api.Define[corev1.ReplicationController, corev1.ReplicationControllerList](corev1.SchemeGroupVersion, api.Resource{
		Plural: "replicationcontrollers", Singular: "replicationcontroller", Kind: "ReplicationController",
		ShortNames: []string{"rc"}, Categories: []string{"all"}, Namespaced: true, Prefix: "controllers",
		Strategy: api.Typed[*corev1.ReplicationController]{
			Default:        defaultReplicationController,
			PrepareCreate:  prepareControllerCreate,
			PrepareUpdate:  prepareControllerUpdate,
			Validate:       validateReplicationController,
			ValidateUpdate: validateControllerUpdate,
			Warn:           warnReplicationController,
			ResetFields:    api.Reset([]string{"v1"}, statusPath),
			// As it was before there was garbage collection.
			DefaultPropagation: metav1.DeletePropagationOrphan,
		}.Strategy(),
		Subresources: []api.Subresource{
			api.ScaleOf(func(rc *corev1.ReplicationController) (int32, int32, string) {
				return ptr.Deref(rc.Spec.Replicas, 1), rc.Status.Replicas, labels.SelectorFromSet(rc.Spec.Selector).String()
			}, func(rc *corev1.ReplicationController, replicas int32) { rc.Spec.Replicas = &replicas }),
			api.Status(corev1.SchemeGroupVersion.WithKind("ReplicationController"), api.Typed[*corev1.ReplicationController]{
				PrepareUpdate:  func(_ context.Context, rc, old *corev1.ReplicationController) { rc.Spec = old.Spec },
				ValidateUpdate: validateControllerStatus,
				ResetFields:    api.Reset([]string{"v1"}, specPath),
			}.Strategy()),
		},
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.Column("Desired", "integer", spec["replicas"]),
			api.Column("Current", "integer", status["replicas"]),
			api.Column("Ready", "integer", status["readyReplicas"]),
			api.AgeColumn(),
			api.WideColumn("Containers", "string", "Names of each container in the template."),
			api.WideColumn("Images", "string", "Images referenced by each container in the template."),
			api.WideColumn("Selector", "string", spec["selector"]),
		},
		Row:              api.Row(controllerRow),
		SelectableFields: []string{"status.replicas"},
		Fields: api.Fields(func(rc *corev1.ReplicationController) fields.Set {
			return fields.Set{"status.replicas": strconv.Itoa(int(rc.Status.Replicas))}
		}),
	})
}

// defaultReplicationController: the selector, and the controller's own labels, are the labels of the template.
func defaultReplicationController(rc *corev1.ReplicationController) {
	setDefault(&rc.Spec.Replicas, 1)
	if rc.Spec.Template == nil {
		return
	}
	DefaultPodTemplateSpec(rc.Spec.Template)
	if rc.Spec.Template.Labels == nil {
		return
	}
	if len(rc.Spec.Selector) == 0 {
		rc.Spec.Selector = rc.Spec.Template.Labels
	}
	if len(rc.Labels) == 0 {
		rc.Labels = rc.Spec.Template.Labels
	}
}

func prepareControllerCreate(_ context.Context, rc *corev1.ReplicationController) {
	rc.Status = corev1.ReplicationControllerStatus{}
	rc.Generation = 1
	if rc.Spec.Template != nil {
		PreparePodTemplate(rc.Spec.Template)
	}
}

func prepareControllerUpdate(_ context.Context, rc, old *corev1.ReplicationController) {
	rc.Status = old.Status
	if rc.Spec.Template != nil {
		PreparePodTemplate(rc.Spec.Template)
	}
	rc.Generation = old.Generation
	if !equality.Semantic.DeepEqual(rc.Spec, old.Spec) {
		rc.Generation++
	}
}

func validateReplicationController(_ context.Context, rc *corev1.ReplicationController) field.ErrorList {
	return validateControllerSpec(&rc.Spec, nil)
}

func validateControllerUpdate(_ context.Context, rc, old *corev1.ReplicationController) field.ErrorList {
	return validateControllerSpec(&rc.Spec, old.Spec.Template)
}

func validateControllerSpec(spec *corev1.ReplicationControllerSpec, old *corev1.PodTemplateSpec) field.ErrorList {
	path := field.NewPath("spec")
	errs := api.ValidateNonNegative(path.Child("minReadySeconds"), spec.MinReadySeconds)
	if len(spec.Selector) == 0 {
		errs = append(errs, field.Required(path.Child("selector"), ""))
	}
	errs = append(errs, api.ValidateNonNegative(path.Child("replicas"), ptr.Deref(spec.Replicas, 1))...)
	path = path.Child("template")
	if spec.Template == nil {
		return append(errs, field.Required(path, ""))
	}
	selector := labels.Set(spec.Selector).AsSelectorPreValidated()
	if !selector.Empty() && !selector.Matches(labels.Set(spec.Template.Labels)) {
		errs = append(errs, field.Invalid(path.Child("metadata", "labels"), spec.Template.Labels,
			"`selector` does not match template `labels`"))
	}
	var opts PodOptions
	if old != nil {
		opts.Old = &old.Spec
	}
	errs = append(errs, ValidatePodTemplateSpec(spec.Template, path, opts)...)
	errs = append(errs, api.ValidateSupported(path.Child("spec", "restartPolicy"), spec.Template.Spec.RestartPolicy, corev1.RestartPolicyAlways)...)
	if spec.Template.Spec.ActiveDeadlineSeconds != nil {
		errs = append(errs, field.Forbidden(path.Child("spec", "activeDeadlineSeconds"),
			"activeDeadlineSeconds in ReplicationController is not Supported"))
	}
	return errs
}

func validateControllerStatus(_ context.Context, rc, _ *corev1.ReplicationController) field.ErrorList {
	s, path := &rc.Status, field.NewPath("status")
	errs := api.ValidateNonNegative(path.Child("replicas"), s.Replicas)
	errs = append(errs, api.ValidateNonNegative(path.Child("observedGeneration"), s.ObservedGeneration)...)
	for _, c := range []struct {
		name  string
		value int32
	}{
		{"fullyLabeledReplicas", s.FullyLabeledReplicas}, {"readyReplicas", s.ReadyReplicas}, {"availableReplicas", s.AvailableReplicas},
	} {
		errs = append(errs, api.ValidateNonNegative(path.Child(c.name), c.value)...)
		if c.value > s.Replicas {
			errs = append(errs, field.Invalid(path.Child(c.name), c.value, "cannot be greater than status.replicas"))
		}
	}
	if s.AvailableReplicas > s.ReadyReplicas {
		errs = append(errs, field.Invalid(path.Child("availableReplicas"), s.AvailableReplicas, "cannot be greater than readyReplicas"))
	}
	return errs
}

func warnReplicationController(_ context.Context, rc, old *corev1.ReplicationController) []string {
	var warnings []string
	if messages := validation.IsDNS1123Label(rc.Name); old == nil && rc.Name != "" && len(messages) > 0 {
		warnings = append(warnings, PodNamesWarning(messages))
	}
	if rc.Spec.Template == nil {
		return warnings
	}
	var before *corev1.PodTemplateSpec
	if old != nil {
		before = old.Spec.Template
	}
	return append(warnings, WarnPodTemplate(rc.Spec.Template, before, field.NewPath("spec", "template"))...)
}

func controllerRow(rc *corev1.ReplicationController) []any {
	var names, images string
	if rc.Spec.Template != nil {
		names, images = ContainersCells(rc.Spec.Template.Spec.Containers)
	}
	return []any{
		rc.Name, int64(ptr.Deref(rc.Spec.Replicas, 1)), int64(rc.Status.Replicas), int64(rc.Status.ReadyReplicas),
		api.Since(rc.CreationTimestamp), names, images, api.LabelsCell(rc.Spec.Selector),
	}
}
