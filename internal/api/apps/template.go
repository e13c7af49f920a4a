package apps

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-k8s/proa/internal/api"
	"github.com/proa-k8s/proa/internal/api/core"
)

// selectFromTemplate is how the beta versions default what v1 requires: the selector, and the object's own labels, are
// the labels of the template.
func selectFromTemplate(meta *metav1.ObjectMeta, selector **metav1.LabelSelector, template *corev1.PodTemplateSpec) {
	if template.Labels == nil {
		return
	}
	if *selector == nil {
		*selector = &metav1.LabelSelector{MatchLabels: maps.Clone(template.Labels)}
	}
	if len(meta.Labels) == 0 {
		meta.Labels = maps.Clone(template.Labels)
	}
}

// validateSelector checks the selector of a workload; kind is what upstream calls it in its text.
func validateSelector(selector *metav1.LabelSelector, kind string, path *field.Path) field.ErrorList {
	if selector == nil {
		return field.ErrorList{field.Required(path, "")}
	}
	errs := metav1validation.ValidateLabelSelector(selector, metav1validation.LabelSelectorValidationOptions{}, path)
	if len(selector.MatchLabels)+len(selector.MatchExpressions) == 0 {
		errs = append(errs, field.Invalid(path, selector, "empty selector is invalid for "+kind))
	}
	return errs
}

// validateTemplate is validateTemplateOf for replica sets, and for deployments, which make them.
func validateTemplate(template, old *corev1.PodTemplateSpec, selector *metav1.LabelSelector, path *field.Path) field.ErrorList {
	return validateTemplateOf("ReplicaSet", template, old, selector, path)
}

// validateTemplateOf checks the template of pods that are kept running, and that the selector selects them. old is the
// template that is replaced, nil on creation.
func validateTemplateOf(kind string, template, old *corev1.PodTemplateSpec, selector *metav1.LabelSelector, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	parsed, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		return field.ErrorList{field.Invalid(field.NewPath("spec", "selector"), selector, "invalid label selector")}
	}
	if !parsed.Empty() && !parsed.Matches(labels.Set(template.Labels)) {
		errs = append(errs, field.Invalid(path.Child("metadata", "labels"), template.Labels,
			"`selector` does not match template `labels`"))
	}
	var options core.PodOptions
	if old != nil {
		options.Old = &old.Spec
	}
	errs = append(errs, core.ValidatePodTemplateSpec(template, path, options)...)
	if policy := template.Spec.RestartPolicy; policy != corev1.RestartPolicyAlways {
		errs = append(errs, field.NotSupported(path.Child("spec", "restartPolicy"), policy,
			[]corev1.RestartPolicy{corev1.RestartPolicyAlways}))
	}
	if template.Spec.ActiveDeadlineSeconds != nil {
		errs = append(errs, field.Forbidden(path.Child("spec", "activeDeadlineSeconds"),
			"activeDeadlineSeconds in "+kind+" is not Supported"))
	}
	return errs
}

// templateColumns are the columns that -o wide shows of the template's containers.
func templateColumns() []metav1.TableColumnDefinition {
	return []metav1.TableColumnDefinition{
		api.WideColumn("Containers", "string", "Names of each container in the template."),
		api.WideColumn("Images", "string", "Images referenced by each container in the template."),
	}
}

// templateCells are the cells of templateColumns.
func templateCells(template *corev1.PodTemplateSpec) (names, images string) {
	return core.ContainersCells(template.Spec.Containers)
}

// selectorString is the serialized selector of a scale subresource; what can't be parsed selects nothing.
func selectorString(selector *metav1.LabelSelector) string {
	parsed, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		return ""
	}
	return parsed.String()
}

// count is a number of replicas by its name in a status.
type count struct {
	name  string
	value int32
}

// validateCounts checks that all counts of a status are not negative and not greater than limit, the first of them.
func validateCounts(path *field.Path, limit count, counts ...count) field.ErrorList {
	errs := api.ValidateNonNegative(path.Child(limit.name), limit.value)
	for _, c := range counts {
		errs = append(errs, api.ValidateNonNegative(path.Child(c.name), c.value)...)
		if c.value > limit.value {
			errs = append(errs, field.Invalid(path.Child(c.name), c.value, "cannot be greater than status."+limit.name))
		}
	}
	return errs
}

// warnWorkload warns of what is unwise in a workload and its template; old is nil on creation.
func warnWorkload(name string, template, old *corev1.PodTemplateSpec) []string {
	var warnings []string
	if old == nil {
		if msgs := validation.IsDNS1123Label(name); len(msgs) > 0 {
			warnings = append(warnings, core.PodNamesWarning(msgs))
		}
	}
	return append(warnings, core.WarnPodTemplate(template, old, field.NewPath("spec", "template"))...)
}
