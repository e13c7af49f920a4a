package batch

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/proa-k8s/proa/internal/api"
)

const (
	maxPolicyRules     = 20
	maxRulePatterns    = 20
	maxRuleExitCodes   = 255
	maxSucceededLength = 64 * 1024
)

// validateFailurePolicy checks what is to be done about pods that fail (KEP-3329).
func validateFailurePolicy(spec *batchv1.JobSpec, path *field.Path) field.ErrorList {
	policy := spec.PodFailurePolicy
	if policy == nil {
		return nil
	}
	var errs field.ErrorList
	path = path.Child("rules")
	if n := len(policy.Rules); n > maxPolicyRules {
		errs = append(errs, field.TooMany(path, n, maxPolicyRules))
	}
	containers := sets.Set[string]{}
	for _, c := range spec.Template.Spec.Containers {
		containers.Insert(c.Name)
	}
	for _, c := range spec.Template.Spec.InitContainers {
		containers.Insert(c.Name)
	}
	for i := range policy.Rules {
		rule, at := &policy.Rules[i], path.Index(i)
		errs = append(errs, api.ValidateEnum(at.Child("action"), rule.Action, batchv1.PodFailurePolicyActionCount,
			batchv1.PodFailurePolicyActionFailIndex, batchv1.PodFailurePolicyActionFailJob, batchv1.PodFailurePolicyActionIgnore)...)
		if rule.Action == batchv1.PodFailurePolicyActionFailIndex && spec.BackoffLimitPerIndex == nil {
			errs = append(errs, field.Invalid(at.Child("action"), rule.Action, "requires the backoffLimitPerIndex to be set"))
		}
		if rule.OnExitCodes != nil {
			errs = append(errs, validateExitCodes(rule.OnExitCodes, at.Child("onExitCodes"), containers)...)
		}
		errs = append(errs, validatePatterns(rule.OnPodConditions, at.Child("onPodConditions"))...)
		switch {
		case rule.OnExitCodes != nil && len(rule.OnPodConditions) > 0:
			errs = append(errs, field.Invalid(at, field.OmitValueType{}, "specifying both OnExitCodes and OnPodConditions is not supported"))
		case rule.OnExitCodes == nil && len(rule.OnPodConditions) == 0:
			errs = append(errs, field.Invalid(at, field.OmitValueType{}, "specifying one of OnExitCodes and OnPodConditions is required"))
		}
	}
	return errs
}

func validateExitCodes(r *batchv1.PodFailurePolicyOnExitCodesRequirement, path *field.Path, containers sets.Set[string]) field.ErrorList {
	errs := api.ValidateEnum(path.Child("operator"), r.Operator,
		batchv1.PodFailurePolicyOnExitCodesOpIn, batchv1.PodFailurePolicyOnExitCodesOpNotIn)
	if r.ContainerName != nil && !containers.Has(*r.ContainerName) {
		errs = append(errs, field.Invalid(path.Child("containerName"), *r.ContainerName,
			"must be one of the container or initContainer names in the pod template"))
	}
	path = path.Child("values")
	if n := len(r.Values); n == 0 {
		errs = append(errs, field.Invalid(path, r.Values, "at least one value is required"))
	} else if n > maxRuleExitCodes {
		errs = append(errs, field.TooMany(path, n, maxRuleExitCodes))
	}
	ordered := true
	seen := sets.Set[int32]{}
	for i, code := range r.Values {
		if r.Operator == batchv1.PodFailurePolicyOnExitCodesOpIn && code == 0 {
			errs = append(errs, field.Invalid(path.Index(i), code, "must not be 0 for the In operator"))
		}
		if seen.Has(code) {
			errs = append(errs, field.Duplicate(path.Index(i), code))
		}
		seen.Insert(code)
		ordered = ordered && (i == 0 || r.Values[i-1] <= code)
	}
	if !ordered {
		errs = append(errs, field.Invalid(path, r.Values, "must be ordered"))
	}
	return errs
}

func validatePatterns(patterns []batchv1.PodFailurePolicyOnPodConditionsPattern, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if n := len(patterns); n > maxRulePatterns {
		errs = append(errs, field.TooMany(path, n, maxRulePatterns))
	}
	for i, p := range patterns {
		if p.Type == "" {
			errs = append(errs, field.Required(path.Index(i).Child("type"), ""))
		} else {
			errs = append(errs, api.InvalidAll(path.Index(i).Child("type"), p.Type, validation.IsQualifiedName(string(p.Type)))...)
		}
		errs = append(errs, api.ValidateEnum(path.Index(i).Child("status"), p.Status,
			corev1.ConditionFalse, corev1.ConditionTrue, corev1.ConditionUnknown)...)
	}
	return errs
}

// validateReplacement: with a policy for failures a pod must have failed before it is replaced (KEP-3939).
func validateReplacement(spec *batchv1.JobSpec, path *field.Path) field.ErrorList {
	if spec.PodReplacementPolicy == nil {
		return nil
	}
	if spec.PodFailurePolicy != nil {
		return api.ValidateEnum(path, *spec.PodReplacementPolicy, batchv1.Failed)
	}
	return api.ValidateEnum(path, *spec.PodReplacementPolicy, batchv1.Failed, batchv1.TerminatingOrFailed)
}

// validateSuccessPolicy checks when an indexed job has succeeded before all indexes have (KEP-3998).
func validateSuccessPolicy(spec *batchv1.JobSpec, path *field.Path) field.ErrorList {
	policy := spec.SuccessPolicy
	if policy == nil {
		return nil
	}
	var errs field.ErrorList
	if !indexed(spec) {
		return field.ErrorList{field.Invalid(path, *policy, "requires indexed completion mode")}
	}
	path = path.Child("rules")
	if n := len(policy.Rules); n == 0 {
		errs = append(errs, field.Required(path, "at least one rules must be specified when the successPolicy is specified"))
	} else if n > maxPolicyRules {
		errs = append(errs, field.TooMany(path, n, maxPolicyRules))
	}
	completions := ptr.Deref(spec.Completions, 0)
	for i := range policy.Rules {
		errs = append(errs, validateSuccessRule(&policy.Rules[i], completions, path.Index(i))...)
	}
	return errs
}

func validateSuccessRule(rule *batchv1.SuccessPolicyRule, completions int32, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if rule.SucceededCount == nil && rule.SucceededIndexes == nil {
		errs = append(errs, field.Required(path, "at least one of succeededCount or succeededIndexes must be specified"))
	}
	total := completions
	if indexes := rule.SucceededIndexes; indexes != nil {
		at := path.Child("succeededIndexes")
		if len(*indexes) > maxSucceededLength {
			errs = append(errs, field.TooLong(at, *indexes, maxSucceededLength))
		}
		n, err := countIndexes(*indexes, completions)
		if err != nil {
			errs = append(errs, field.Invalid(at, *indexes, fmt.Sprintf("error parsing succeededIndexes: %s", err)))
		}
		total = n
	}
	if count := rule.SucceededCount; count != nil {
		at := path.Child("succeededCount")
		errs = append(errs, api.ValidateNonNegative(at, *count)...)
		switch {
		case *count > completions:
			errs = append(errs, field.Invalid(at, *count,
				fmt.Sprintf("must be less than or equal to %d (the number of specified completions)", completions)))
		case rule.SucceededIndexes != nil && *count > total:
			errs = append(errs, field.Invalid(at, *count,
				fmt.Sprintf("must be less than or equal to %d (the number of indexes in the specified succeededIndexes field)", total)))
		}
	}
	return errs
}

// countIndexes counts the indexes in a list like "0,2-4": rising, and below completions.
func countIndexes(list string, completions int32) (int32, error) {
	if list == "" {
		return 0, nil
	}
	var total int32
	last := int64(-1)
	number := func(s string) (int64, error) {
		n, err := strconv.ParseInt(s, 10, 32)
		if err != nil {
			return 0, fmt.Errorf("cannot convert string to integer for index: %q", s)
		}
		if n >= int64(completions) || n < 0 {
			return 0, fmt.Errorf("too large index: %q", s)
		}
		return n, nil
	}
	for part := range strings.SplitSeq(list, ",") {
		from, to, isRange := strings.Cut(part, "-")
		first, err := number(from)
		if err != nil {
			return 0, err
		}
		end := first
		if isRange {
			if end, err = number(to); err != nil {
				return 0, err
			}
			if end <= first {
				return 0, fmt.Errorf("non-increasing order, previous: %d, current: %d", first, end)
			}
		}
		if first <= last {
			return 0, fmt.Errorf("non-increasing order, previous: %d, current: %d", last, first)
		}
		last = end
		total += int32(end-first) + 1
	}
	return total, nil
}

// validateJobStatus checks what the job's controller writes.
func validateJobStatus(_ context.Context, job, old *batchv1.Job) field.ErrorList {
	s, path := &job.Status, field.NewPath("status")
	errs := api.ValidateNonNegative(path.Child("active"), s.Active)
	errs = append(errs, api.ValidateNonNegative(path.Child("succeeded"), s.Succeeded)...)
	errs = append(errs, api.ValidateNonNegative(path.Child("failed"), s.Failed)...)
	if s.Ready != nil {
		errs = append(errs, api.ValidateNonNegative(path.Child("ready"), *s.Ready)...)
		if *s.Ready > s.Active && *s.Ready != ptr.Deref(old.Status.Ready, -1) {
			errs = append(errs, field.Invalid(path.Child("ready"), *s.Ready, "more ready pods than active"))
		}
	}
	if s.Terminating != nil {
		errs = append(errs, api.ValidateNonNegative(path.Child("terminating"), *s.Terminating)...)
	}
	if u := s.UncountedTerminatedPods; u != nil {
		seen := sets.Set[string]{}
		check := func(name string, list []string) {
			for i, uid := range list {
				at := path.Child("uncountedTerminatedPods", name).Index(i)
				if uid == "" {
					errs = append(errs, field.Invalid(at, uid, "must not be empty"))
				} else if seen.Has(uid) {
					errs = append(errs, field.Duplicate(at, uid))
				}
				seen.Insert(uid)
			}
		}
		check("succeeded", asStrings(u.Succeeded))
		check("failed", asStrings(u.Failed))
	}
	return append(errs, validateJobConditions(job, old, path)...)
}

// validateJobConditions: a job ends once, one way.
func validateJobConditions(job, old *batchv1.Job, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	is, was := trueConditions(job), trueConditions(old)
	if is.HasAll(batchv1.JobComplete, batchv1.JobFailed) {
		errs = append(errs, field.Invalid(path.Child("conditions"), field.OmitValueType{},
			"cannot set Complete=True and Failed=true conditions"))
	}
	for _, end := range []batchv1.JobConditionType{batchv1.JobComplete, batchv1.JobFailed} {
		if was.Has(end) && !is.Has(end) {
			errs = append(errs, field.Invalid(path.Child("conditions"), field.OmitValueType{},
				fmt.Sprintf("cannot disable the terminal %s=True condition", end)))
		}
	}
	if job.Status.CompletionTime != nil && !is.Has(batchv1.JobComplete) && old.Status.CompletionTime == nil {
		errs = append(errs, field.Invalid(path.Child("completionTime"), job.Status.CompletionTime,
			"cannot set completionTime when there is no Complete=True condition"))
	}
	return errs
}

func trueConditions(job *batchv1.Job) sets.Set[batchv1.JobConditionType] {
	set := sets.Set[batchv1.JobConditionType]{}
	for _, c := range job.Status.Conditions {
		if c.Status == corev1.ConditionTrue {
			set.Insert(c.Type)
		}
	}
	return set
}

func asStrings[T ~string](list []T) []string {
	out := make([]string, len(list))
	for i := range list {
		out[i] = string(list[i])
	}
	return out
}
