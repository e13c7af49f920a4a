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
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/proa-k8s/proa/internal/api"
	"github.com/proa-k8s/proa/internal/api/core"
)

// daemonSetVersions are the versions in which daemon sets are served.
var daemonSetVersions = []string{"apps/v1", "apps/v1beta2", "extensions/v1beta1"}

// DaemonSet describes daemonsets.
func DaemonSet() *api.Resource {
	kind := appsv1.SchemeGroupVersion.WithKind("DaemonSet")
	return api.Define[appsv1.DaemonSet, appsv1.DaemonSetList](appsv1.SchemeGroupVersion, api.Resource{
		Plural: "daemonsets", Singular: "daemonset", Kind: "DaemonSet", ShortNames: []string{"ds"},
		Categories: []string{"all"}, Namespaced: true, Prefix: "daemonsets",
		Versions: api.OrphanByDefault(daemonSetBetas()...),
		Strategy: api.Typed[*appsv1.DaemonSet]{
			Default: defaultDaemonSet,
			PrepareCreate: func(_ context.Context, d *appsv1.DaemonSet) {
				d.Status = appsv1.DaemonSetStatus{}
				core.PreparePodTemplate(&d.Spec.Template)
				d.Generation = 1
				setTemplateGeneration(&d.ObjectMeta, 1)
			},
			PrepareUpdate: prepareDaemonSetUpdate,
			Validate: func(_ context.Context, d *appsv1.DaemonSet) field.ErrorList {
				return validateDaemonSetSpec(&d.Spec, nil, field.NewPath("spec"))
			},
			ValidateUpdate: validateDaemonSetUpdate,
			Warn: func(_ context.Context, d, old *appsv1.DaemonSet) []string {
				if old == nil {
					return warnWorkload(d.Name, &d.Spec.Template, nil)
				}
				return warnWorkload(d.Name, &d.Spec.Template, &old.Spec.Template)
			},
			ResetFields: api.Reset(daemonSetVersions, fieldpath.MakePathOrDie("status")),
		}.Strategy(),
		Subresources: []api.Subresource{
			api.Status(kind, api.Typed[*appsv1.DaemonSet]{
				PrepareUpdate:  func(_ context.Context, d, old *appsv1.DaemonSet) { d.Spec = old.Spec },
				ValidateUpdate: validateDaemonSetStatus,
				ResetFields:    api.Reset(daemonSetVersions, fieldpath.MakePathOrDie("spec")),
			}.Strategy()),
		},
		Columns: daemonSetColumns(),
		Row:     api.Row(daemonSetRow),
	})
}

func daemonSetBetas() []api.Version {
	extensions := api.NewVersion[extensionsv1beta1.DaemonSet, extensionsv1beta1.DaemonSetList, appsv1.DaemonSet](
		extensionsv1beta1.SchemeGroupVersion, daemonSetFromExtensions, daemonSetToExtensions)
	extensions.Default = func(obj runtime.Object) {
		d := obj.(*extensionsv1beta1.DaemonSet)
		selectFromTemplate(&d.ObjectMeta, &d.Spec.Selector, &d.Spec.Template)
		if d.Spec.UpdateStrategy.Type == "" {
			d.Spec.UpdateStrategy.Type = extensionsv1beta1.OnDeleteDaemonSetStrategyType
		}
	}
	return []api.Version{
		api.NewVersion[appsv1beta2.DaemonSet, appsv1beta2.DaemonSetList, appsv1.DaemonSet](appsv1beta2.SchemeGroupVersion,
			convertShape[*appsv1beta2.DaemonSet, *appsv1.DaemonSet], convertShape[*appsv1.DaemonSet, *appsv1beta2.DaemonSet]),
		extensions,
	}
}

// The number of templates a daemon set has had is a field in extensions/v1beta1, and an annotation since.

func daemonSetFromExtensions(in *extensionsv1beta1.DaemonSet, out *appsv1.DaemonSet) error {
	if err := convertShape(in, out); err != nil {
		return err
	}
	if in.Spec.TemplateGeneration != 0 {
		setTemplateGeneration(&out.ObjectMeta, in.Spec.TemplateGeneration)
	}
	return nil
}

func daemonSetToExtensions(in *appsv1.DaemonSet, out *extensionsv1beta1.DaemonSet) error {
	if err := convertShape(in, out); err != nil {
		return err
	}
	out.Spec.TemplateGeneration = templateGeneration(&in.ObjectMeta)
	delete(out.Annotations, appsv1.DeprecatedTemplateGeneration)
	return nil
}

func templateGeneration(meta *metav1.ObjectMeta) int64 {
	n, err := strconv.ParseInt(meta.Annotations[appsv1.DeprecatedTemplateGeneration], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// setTemplateGeneration replaces the annotations, which may be shared with another object.
func setTemplateGeneration(meta *metav1.ObjectMeta, n int64) {
	annotations := make(map[string]string, len(meta.Annotations)+1)
	for key, value := range meta.Annotations {
		annotations[key] = value
	}
	annotations[appsv1.DeprecatedTemplateGeneration] = strconv.FormatInt(n, 10)
	meta.Annotations = annotations
}

func defaultDaemonSet(d *appsv1.DaemonSet) {
	core.DefaultPodTemplateSpec(&d.Spec.Template)
	strategy := &d.Spec.UpdateStrategy
	if strategy.Type == "" {
		strategy.Type = appsv1.RollingUpdateDaemonSetStrategyType
	}
	if strategy.Type == appsv1.RollingUpdateDaemonSetStrategyType {
		setIfNil(&strategy.RollingUpdate, appsv1.RollingUpdateDaemonSet{})
		setIfNil(&strategy.RollingUpdate.MaxUnavailable, intstr.FromInt32(1))
		setIfNil(&strategy.RollingUpdate.MaxSurge, intstr.FromInt32(0))
	}
	setIfNil(&d.Spec.RevisionHistoryLimit, 10)
}

func prepareDaemonSetUpdate(_ context.Context, d, old *appsv1.DaemonSet) {
	d.Status = old.Status
	core.PreparePodTemplate(&d.Spec.Template)
	templates := templateGeneration(&old.ObjectMeta)
	if !apiequality.Semantic.DeepEqual(d.Spec.Template, old.Spec.Template) {
		templates++
	}
	if templates > 0 {
		setTemplateGeneration(&d.ObjectMeta, templates)
	}
	d.Generation = old.Generation
	if !apiequality.Semantic.DeepEqual(d.Spec, old.Spec) {
		d.Generation++
	}
}

func validateDaemonSetSpec(spec *appsv1.DaemonSetSpec, old *corev1.PodTemplateSpec, path *field.Path) field.ErrorList {
	errs := validateSelector(spec.Selector, "daemonset", path.Child("selector"))
	errs = append(errs, validateTemplateOf("DaemonSet", &spec.Template, old, spec.Selector, path.Child("template"))...)
	errs = append(errs, api.ValidateNonNegative(path.Child("minReadySeconds"), spec.MinReadySeconds)...)
	errs = append(errs, validateDaemonSetStrategy(&spec.UpdateStrategy, path.Child("updateStrategy"))...)
	if limit := spec.RevisionHistoryLimit; limit != nil {
		errs = append(errs, api.ValidateNonNegative(path.Child("revisionHistoryLimit"), *limit)...)
	}
	return errs
}

func validateDaemonSetStrategy(s *appsv1.DaemonSetUpdateStrategy, path *field.Path) field.ErrorList {
	errs := api.ValidateSupported(path.Child("type"), s.Type,
		appsv1.RollingUpdateDaemonSetStrategyType, appsv1.OnDeleteDaemonSetStrategyType)
	if s.Type != appsv1.RollingUpdateDaemonSetStrategyType {
		return errs
	}
	path = path.Child("rollingUpdate")
	if s.RollingUpdate == nil || s.RollingUpdate.MaxUnavailable == nil || s.RollingUpdate.MaxSurge == nil {
		return append(errs, field.Required(path, ""))
	}
	unavailable, surge := *s.RollingUpdate.MaxUnavailable, *s.RollingUpdate.MaxSurge
	errs = append(errs, api.ValidateIntOrPercent(path.Child("maxUnavailable"), unavailable)...)
	errs = append(errs, api.ValidateAtMostAll(path.Child("maxUnavailable"), unavailable)...)
	errs = append(errs, api.ValidateIntOrPercent(path.Child("maxSurge"), surge)...)
	errs = append(errs, api.ValidateAtMostAll(path.Child("maxSurge"), surge)...)
	hasUnavailable, hasSurge := intOrPercentValue(unavailable) != 0, intOrPercentValue(surge) != 0
	switch {
	case hasUnavailable && hasSurge:
		errs = append(errs, field.Invalid(path.Child("maxSurge"), surge, "may not be set when maxUnavailable is non-zero"))
	case !hasUnavailable && !hasSurge:
		errs = append(errs, field.Required(path.Child("maxUnavailable"), "cannot be 0 when maxSurge is 0"))
	}
	return errs
}

func validateDaemonSetUpdate(ctx context.Context, d, old *appsv1.DaemonSet) field.ErrorList {
	errs := validateDaemonSetSpec(&d.Spec, &old.Spec.Template, field.NewPath("spec"))
	if !selectorMayChange(ctx) {
		errs = append(errs, apivalidation.ValidateImmutableField(d.Spec.Selector, old.Spec.Selector, field.NewPath("spec", "selector"))...)
	}
	return errs
}

func validateDaemonSetStatus(_ context.Context, d, old *appsv1.DaemonSet) field.ErrorList {
	s, path := &d.Status, field.NewPath("status")
	var errs field.ErrorList
	for _, c := range []count{
		{"currentNumberScheduled", s.CurrentNumberScheduled}, {"numberMisscheduled", s.NumberMisscheduled},
		{"desiredNumberScheduled", s.DesiredNumberScheduled}, {"numberReady", s.NumberReady},
		{"updatedNumberScheduled", s.UpdatedNumberScheduled}, {"numberAvailable", s.NumberAvailable},
		{"numberUnavailable", s.NumberUnavailable},
	} {
		errs = append(errs, api.ValidateNonNegative(path.Child(c.name), c.value)...)
	}
	errs = append(errs, api.ValidateNonNegative(path.Child("observedGeneration"), s.ObservedGeneration)...)
	return append(errs, validateCollisions(s.CollisionCount, old.Status.CollisionCount, path)...)
}

func daemonSetColumns() []metav1.TableColumnDefinition {
	spec, status := appsv1.DaemonSetSpec{}.SwaggerDoc(), appsv1.DaemonSetStatus{}.SwaggerDoc()
	columns := []metav1.TableColumnDefinition{
		api.NameColumn(),
		api.Column("Desired", "integer", status["desiredNumberScheduled"]),
		api.Column("Current", "integer", status["currentNumberScheduled"]),
		api.Column("Ready", "integer", status["numberReady"]),
		api.Column("Up-to-date", "integer", status["updatedNumberScheduled"]),
		api.Column("Available", "integer", status["numberAvailable"]),
		api.Column("Node Selector", "string", corev1.PodSpec{}.SwaggerDoc()["nodeSelector"]),
		api.AgeColumn(),
	}
	columns = append(columns, templateColumns()...)
	return append(columns, api.WideColumn("Selector", "string", spec["selector"]))
}

func daemonSetRow(d *appsv1.DaemonSet) []any {
	names, images := templateCells(&d.Spec.Template)
	s := &d.Status
	nodes := "<none>"
	if len(d.Spec.Template.Spec.NodeSelector) > 0 {
		nodes = labels.FormatLabels(d.Spec.Template.Spec.NodeSelector)
	}
	return []any{
		d.Name, int64(s.DesiredNumberScheduled), int64(s.CurrentNumberScheduled), int64(s.NumberReady),
		int64(s.UpdatedNumberScheduled), int64(s.NumberAvailable), nodes, api.Since(d.CreationTimestamp), names, images,
		api.SelectorCell(d.Spec.Selector),
	}
}
