package batch

import (
	"context"
	"fmt"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/proa-k8s/proa/internal/api"
	"github.com/proa-k8s/proa/internal/api/core"
)

// What an indexed job may have, so that its status stays small enough to be stored (KEP-3850).
const (
	maxIndexedParallelism = 100_000
	manyCompletions       = 100_000
	maxFailedOfMany       = 10_000
	maxManagedBy          = 63
)

func indexed(spec *batchv1.JobSpec) bool {
	return spec.CompletionMode != nil && *spec.CompletionMode == batchv1.IndexedCompletion
}

func validateJob(_ context.Context, job *batchv1.Job) field.ErrorList {
	path := field.NewPath("spec")
	errs := validateGeneratedSelector(job)
	errs = append(errs, validateJobSpec(&job.Spec, path, nil)...)
	if indexed(&job.Spec) && ptr.Deref(job.Spec.Completions, 0) > 0 {
		last := fmt.Sprintf("%s-%d", job.Name, *job.Spec.Completions-1)
		if messages := validation.IsDNS1123Label(last); len(messages) > 0 {
			errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), job.Name,
				fmt.Sprintf("will not able to create pod with invalid DNS label: %s", last)))
		}
	}
	return errs
}

// validateGeneratedSelector: unless the user says so, selector and labels are those that are generated.
func validateGeneratedSelector(job *batchv1.Job) field.ErrorList {
	if ptr.Deref(job.Spec.ManualSelector, false) || job.Spec.Selector == nil {
		return nil
	}
	var errs field.ErrorList
	if job.UID == "" {
		return field.ErrorList{field.Required(field.NewPath("metadata").Child("uid"), "")}
	}
	path := field.NewPath("spec")
	at := path.Child("template", "metadata", "labels")
	for _, want := range []struct{ key, value string }{
		{batchv1.JobNameLabel, job.Name}, {legacyJobNameLabel, job.Name},
		{batchv1.ControllerUidLabel, string(job.UID)}, {legacyControllerUIDLabel, string(job.UID)},
	} {
		if got := job.Spec.Template.Labels[want.key]; got != want.value {
			errs = append(errs, field.Invalid(at, job.Spec.Template.Labels, fmt.Sprintf("must be '%s'", want.value)))
		}
	}
	generated := &metav1.LabelSelector{MatchLabels: map[string]string{batchv1.ControllerUidLabel: string(job.UID)}}
	old := &metav1.LabelSelector{MatchLabels: map[string]string{legacyControllerUIDLabel: string(job.UID)}}
	if !equality.Semantic.DeepEqual(job.Spec.Selector, generated) && !equality.Semantic.DeepEqual(job.Spec.Selector, old) {
		errs = append(errs, field.Invalid(path.Child("selector"), job.Spec.Selector, "`selector` not auto-generated"))
	}
	return errs
}

// validateJobSpec checks a job's spec, with its selector.
func validateJobSpec(spec *batchv1.JobSpec, path *field.Path, old *corev1.PodTemplateSpec) field.ErrorList {
	errs := validateJobFields(spec, path, old)
	if spec.Selector == nil {
		return append(errs, field.Required(path.Child("selector"), ""))
	}
	errs = append(errs, metav1validation.ValidateLabelSelector(spec.Selector,
		metav1validation.LabelSelectorValidationOptions{}, path.Child("selector"))...)
	if selector, err := metav1.LabelSelectorAsSelector(spec.Selector); err == nil && !selector.Matches(labels.Set(spec.Template.Labels)) {
		errs = append(errs, field.Invalid(path.Child("template", "metadata", "labels"), spec.Template.Labels,
			"`selector` does not match template `labels`"))
	}
	return errs
}

// validateJobFields checks a job's spec but for its selector, which the template of a cron job has not got yet.
func validateJobFields(spec *batchv1.JobSpec, path *field.Path, old *corev1.PodTemplateSpec) field.ErrorList {
	var errs field.ErrorList
	for _, n := range []struct {
		name  string
		value *int32
	}{
		{"parallelism", spec.Parallelism}, {"completions", spec.Completions}, {"backoffLimit", spec.BackoffLimit},
		{"ttlSecondsAfterFinished", spec.TTLSecondsAfterFinished}, {"backoffLimitPerIndex", spec.BackoffLimitPerIndex},
		{"maxFailedIndexes", spec.MaxFailedIndexes},
	} {
		if n.value != nil {
			errs = append(errs, api.ValidateNonNegative(path.Child(n.name), *n.value)...)
		}
	}
	if spec.ActiveDeadlineSeconds != nil {
		errs = append(errs, api.ValidateNonNegative(path.Child("activeDeadlineSeconds"), *spec.ActiveDeadlineSeconds)...)
	}
	if spec.CompletionMode != nil {
		errs = append(errs, api.ValidateSupported(path.Child("completionMode"), *spec.CompletionMode,
			batchv1.NonIndexedCompletion, batchv1.IndexedCompletion)...)
	}
	if by := spec.ManagedBy; by != nil {
		errs = append(errs, validation.IsDomainPrefixedPath(path.Child("managedBy"), *by)...)
		if len(*by) > maxManagedBy {
			errs = append(errs, field.TooLong(path.Child("managedBy"), *by, maxManagedBy))
		}
	}
	errs = append(errs, validateIndexing(spec, path)...)
	errs = append(errs, validateFailurePolicy(spec, path.Child("podFailurePolicy"))...)
	errs = append(errs, validateSuccessPolicy(spec, path.Child("successPolicy"))...)
	errs = append(errs, validateReplacement(spec, path.Child("podReplacementPolicy"))...)
	return append(errs, validateJobTemplate(spec, path.Child("template"), old)...)
}

func validateIndexing(spec *batchv1.JobSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if !indexed(spec) {
		if spec.BackoffLimitPerIndex != nil {
			errs = append(errs, field.Invalid(path.Child("backoffLimitPerIndex"), *spec.BackoffLimitPerIndex, "requires indexed completion mode"))
		}
		if spec.MaxFailedIndexes != nil {
			errs = append(errs, field.Invalid(path.Child("maxFailedIndexes"), *spec.MaxFailedIndexes, "requires indexed completion mode"))
		}
		return errs
	}
	if spec.Completions == nil {
		errs = append(errs, field.Required(path.Child("completions"),
			fmt.Sprintf("when completion mode is %s", batchv1.IndexedCompletion)))
	}
	if p := spec.Parallelism; p != nil && *p > maxIndexedParallelism {
		errs = append(errs, field.Invalid(path.Child("parallelism"), *p,
			fmt.Sprintf("must be less than or equal to %d when completion mode is %s", maxIndexedParallelism, batchv1.IndexedCompletion)))
	}
	completions, failed := ptr.Deref(spec.Completions, 0), spec.MaxFailedIndexes
	if failed != nil {
		if spec.Completions != nil && *failed > completions {
			errs = append(errs, field.Invalid(path.Child("maxFailedIndexes"), *failed, "must be less than or equal to completions"))
		}
		if spec.BackoffLimitPerIndex == nil {
			errs = append(errs, field.Required(path.Child("backoffLimitPerIndex"), "when maxFailedIndexes is specified"))
		}
	}
	if completions <= manyCompletions || spec.BackoffLimitPerIndex == nil {
		return errs
	}
	switch {
	case failed == nil:
		errs = append(errs, field.Required(path.Child("maxFailedIndexes"),
			fmt.Sprintf("must be specified when completions is above %d", manyCompletions)))
	case *failed > maxFailedOfMany:
		errs = append(errs, field.Invalid(path.Child("maxFailedIndexes"), *failed, fmt.Sprintf(
			"must be less than or equal to %d when completions are above %d and used with backoff limit per index", maxFailedOfMany, manyCompletions)))
	}
	if p := ptr.Deref(spec.Parallelism, 0); p > maxFailedOfMany {
		errs = append(errs, field.Invalid(path.Child("parallelism"), p, fmt.Sprintf(
			"must be less than or equal to %d when completions are above %d and used with backoff limit per index", maxFailedOfMany, manyCompletions)))
	}
	return errs
}

// validateJobTemplate: the pods of a job end, so they are not restarted always.
func validateJobTemplate(spec *batchv1.JobSpec, path *field.Path, old *corev1.PodTemplateSpec) field.ErrorList {
	var opts core.PodOptions
	if old != nil {
		opts.Old = &old.Spec
	}
	errs := core.ValidatePodTemplateSpec(&spec.Template, path, opts)
	at := path.Child("spec", "restartPolicy")
	switch policy := spec.Template.Spec.RestartPolicy; policy {
	case corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever:
		if spec.PodFailurePolicy != nil && policy != corev1.RestartPolicyNever {
			errs = append(errs, field.Invalid(at, policy,
				fmt.Sprintf("only %q is supported when podFailurePolicy is specified", corev1.RestartPolicyNever)))
		}
	case corev1.RestartPolicyAlways, "":
		errs = append(errs, field.Required(at, fmt.Sprintf("valid values: %q, %q", corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever)))
	default:
		errs = append(errs, field.NotSupported(at, policy, []corev1.RestartPolicy{corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever}))
	}
	return errs
}

// validateJobUpdate: what a job does can't change once it has begun.
func validateJobUpdate(_ context.Context, job, old *batchv1.Job) field.ErrorList {
	path := field.NewPath("spec")
	errs := validateGeneratedSelector(job)
	errs = append(errs, validateJobSpec(&job.Spec, path, &old.Spec.Template)...)
	immutable := func(name string, is, was any) {
		errs = append(errs, apivalidation.ValidateImmutableField(is, was, path.Child(name))...)
	}
	errs = append(errs, validateCompletionsUpdate(&job.Spec, &old.Spec, path)...)
	immutable("selector", job.Spec.Selector, old.Spec.Selector)
	errs = append(errs, validateTemplateUpdate(job, old, path.Child("template"))...)
	immutable("completionMode", job.Spec.CompletionMode, old.Spec.CompletionMode)
	immutable("podFailurePolicy", job.Spec.PodFailurePolicy, old.Spec.PodFailurePolicy)
	immutable("backoffLimitPerIndex", job.Spec.BackoffLimitPerIndex, old.Spec.BackoffLimitPerIndex)
	immutable("managedBy", job.Spec.ManagedBy, old.Spec.ManagedBy)
	immutable("successPolicy", job.Spec.SuccessPolicy, old.Spec.SuccessPolicy)
	return errs
}

// validateCompletionsUpdate: an indexed job can grow and shrink, with all its indexes at work (KEP-3715).
func validateCompletionsUpdate(spec, old *batchv1.JobSpec, path *field.Path) field.ErrorList {
	if indexed(spec) && spec.Completions != nil && old.Completions != nil {
		if *spec.Completions != *old.Completions && ptr.Deref(spec.Parallelism, 0) != *spec.Completions {
			return field.ErrorList{field.Invalid(path.Child("completions"), *spec.Completions, "can only be modified in tandem with parallelism")}
		}
		return nil
	}
	return apivalidation.ValidateImmutableField(spec.Completions, old.Completions, path.Child("completions"))
}

// validateTemplateUpdate: the template of a job is immutable, but for where its pods may run and what they request while it
// is suspended and has not started (KEP-2926, KEP-5440).
func validateTemplateUpdate(job, old *batchv1.Job, path *field.Path) field.ErrorList {
	was := &old.Spec.Template
	suspended := ptr.Deref(old.Spec.Suspend, false)
	if suspended && old.Status.StartTime == nil {
		was = was.DeepCopy()
		is := &job.Spec.Template
		was.Spec.NodeSelector = is.Spec.NodeSelector
		was.Spec.Tolerations = is.Spec.Tolerations
		was.Spec.SchedulingGates = is.Spec.SchedulingGates
		was.Annotations, was.Labels = is.Annotations, is.Labels
		was.Spec.Affinity = is.Spec.Affinity
		takeResources(was.Spec.Containers, is.Spec.Containers)
		takeResources(was.Spec.InitContainers, is.Spec.InitContainers)
	}
	return apivalidation.ValidateImmutableField(job.Spec.Template, *was, path)
}

func takeResources(to, from []corev1.Container) {
	for i := range min(len(to), len(from)) {
		to[i].Resources = from[i].Resources
	}
}
