package batch

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/proa-k8s/proa/internal/api"
	"github.com/proa-k8s/proa/internal/api/core"
)

// The labels of a job's pods from before labels had domains; they are still set.
const (
	legacyJobNameLabel       = "job-name"
	legacyControllerUIDLabel = "controller-uid"
)

const defaultBackoffLimit = 6

// Job describes jobs.
func Job() *api.Resource {
	kind := batchv1.SchemeGroupVersion.WithKind("Job")
	return api.Define[batchv1.Job, batchv1.JobList](batchv1.SchemeGroupVersion, api.Resource{
		Plural: "jobs", Singular: "job", Kind: "Job", Categories: []string{"all"}, Namespaced: true, Prefix: "jobs",
		Strategy: api.Typed[*batchv1.Job]{
			Default:        defaultJob,
			PrepareCreate:  prepareJobCreate,
			PrepareUpdate:  prepareJobUpdate,
			Validate:       validateJob,
			ValidateUpdate: validateJobUpdate,
			Warn:           warnJob,
			ResetFields:    api.Reset([]string{"batch/v1"}, fieldpath.MakePathOrDie("status")),
			// As it was before there was garbage collection.
			DefaultPropagation: metav1.DeletePropagationOrphan,
		}.Strategy(),
		Subresources: []api.Subresource{
			api.Status(kind, api.Typed[*batchv1.Job]{
				PrepareUpdate:  func(_ context.Context, job, old *batchv1.Job) { job.Spec = old.Spec },
				ValidateUpdate: validateJobStatus,
				ResetFields:    api.Reset([]string{"batch/v1"}, fieldpath.MakePathOrDie("spec")),
			}.Strategy()),
		},
		Columns:          jobColumns(),
		Row:              api.Row(jobRow),
		SelectableFields: []string{"status.successful"},
		Fields: api.Fields(func(job *batchv1.Job) fields.Set {
			return fields.Set{"status.successful": strconv.Itoa(int(job.Status.Succeeded))}
		}),
	})
}

func setDefault[T any](p **T, value T) {
	if *p == nil {
		v := value // a copy, so that nothing is allocated when there is nothing to set
		*p = &v
	}
}

func defaultJob(job *batchv1.Job) {
	spec := &job.Spec
	core.DefaultPodTemplateSpec(&spec.Template)
	// A job with parallelism alone is a work queue: it has no number of completions.
	if spec.Completions == nil && spec.Parallelism == nil {
		spec.Completions = ptr.To[int32](1)
	}
	setDefault(&spec.Parallelism, 1)
	if spec.BackoffLimit == nil {
		limit := int32(defaultBackoffLimit)
		if spec.BackoffLimitPerIndex != nil {
			limit = math.MaxInt32
		}
		spec.BackoffLimit = &limit
	}
	if len(job.Labels) == 0 && spec.Template.Labels != nil {
		job.Labels = spec.Template.Labels
	}
	setDefault(&spec.CompletionMode, batchv1.NonIndexedCompletion)
	setDefault(&spec.Suspend, false)
	setDefault(&spec.ManualSelector, false)
	replacement := batchv1.TerminatingOrFailed
	if spec.PodFailurePolicy != nil {
		replacement = batchv1.Failed
		defaultFailurePolicy(spec.PodFailurePolicy)
	}
	setDefault(&spec.PodReplacementPolicy, replacement)
}

func defaultFailurePolicy(p *batchv1.PodFailurePolicy) {
	for i := range p.Rules {
		for j := range p.Rules[i].OnPodConditions {
			if c := &p.Rules[i].OnPodConditions[j]; c.Status == "" {
				c.Status = corev1.ConditionTrue
			}
		}
	}
}

func prepareJobCreate(_ context.Context, job *batchv1.Job) {
	job.Status = batchv1.JobStatus{}
	job.Generation = 1
	dropOffFields(&job.Spec)
	if !ptr.Deref(job.Spec.ManualSelector, false) {
		generateSelector(job)
	}
}

// dropOffFields clears what belongs to features that are off unless an administrator turns them on (WorkloadWithJob).
func dropOffFields(spec *batchv1.JobSpec) {
	spec.Scheduling = nil
	core.PreparePodTemplate(&spec.Template)
}

// generateSelector makes the job select the pods that are made for it, by its UID. Labels that the user gave stay, and
// are refused by validation when they are different.
func generateSelector(job *batchv1.Job) {
	labels := make(map[string]string, len(job.Spec.Template.Labels)+4)
	for key, value := range job.Spec.Template.Labels {
		labels[key] = value
	}
	add := func(key, value string) {
		if _, ok := labels[key]; !ok {
			labels[key] = value
		}
	}
	add(legacyJobNameLabel, job.Name)
	add(batchv1.JobNameLabel, job.Name)
	add(legacyControllerUIDLabel, string(job.UID))
	add(batchv1.ControllerUidLabel, string(job.UID))
	job.Spec.Template.Labels = labels
	if job.Spec.Selector == nil {
		job.Spec.Selector = &metav1.LabelSelector{}
	}
	if _, ok := job.Spec.Selector.MatchLabels[batchv1.ControllerUidLabel]; !ok {
		match := map[string]string{batchv1.ControllerUidLabel: string(job.UID)}
		for key, value := range job.Spec.Selector.MatchLabels {
			match[key] = value
		}
		job.Spec.Selector.MatchLabels = match
	}
}

func prepareJobUpdate(_ context.Context, job, old *batchv1.Job) {
	job.Status = old.Status
	dropOffFields(&job.Spec)
	job.Generation = old.Generation
	if !equality.Semantic.DeepEqual(job.Spec, old.Spec) {
		job.Generation++
	}
}

func warnJob(_ context.Context, job, old *batchv1.Job) []string {
	var warnings []string
	path := field.NewPath("spec", "template")
	if old != nil {
		return core.WarnPodTemplate(&job.Spec.Template, &old.Spec.Template, path)
	}
	if messages := validation.IsDNS1123Label(job.Name); job.Name != "" && len(messages) > 0 {
		warnings = append(warnings, core.PodNamesWarning(messages))
	}
	if indexed(&job.Spec) && ptr.Deref(job.Spec.Completions, 0) > 100_000 && ptr.Deref(job.Spec.Parallelism, 0) > 10_000 {
		warnings = append(warnings, "In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than "+
			"10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail")
	}
	return append(warnings, core.WarnPodTemplate(&job.Spec.Template, nil, path)...)
}

func jobColumns() []metav1.TableColumnDefinition {
	spec, status := batchv1.JobSpec{}.SwaggerDoc(), batchv1.JobStatus{}.SwaggerDoc()
	return []metav1.TableColumnDefinition{
		api.NameColumn(),
		api.Column("Status", "string", "Status of the job."),
		api.Column("Completions", "string", status["succeeded"]),
		api.Column("Duration", "string", "Time required to complete the job."),
		api.AgeColumn(),
		api.WideColumn("Containers", "string", "Names of each container in the template."),
		api.WideColumn("Images", "string", "Images referenced by each container in the template."),
		api.WideColumn("Selector", "string", spec["selector"]),
	}
}

func jobRow(job *batchv1.Job) []any {
	names, images := core.ContainersCells(job.Spec.Template.Spec.Containers)
	return []any{job.Name, jobState(job), completionsCell(job), durationCell(job), api.Since(job.CreationTimestamp),
		names, images, api.SelectorCell(job.Spec.Selector)}
}

// jobState is the condition that tells most.
func jobState(job *batchv1.Job) string {
	has := func(t batchv1.JobConditionType) bool {
		return slices.ContainsFunc(job.Status.Conditions, func(c batchv1.JobCondition) bool {
			return c.Type == t && c.Status == corev1.ConditionTrue
		})
	}
	switch {
	case has(batchv1.JobComplete):
		return "Complete"
	case has(batchv1.JobFailed):
		return "Failed"
	case job.DeletionTimestamp != nil:
		return "Terminating"
	case has(batchv1.JobSuspended):
		return "Suspended"
	case has(batchv1.JobFailureTarget):
		return "FailureTarget"
	case has(batchv1.JobSuccessCriteriaMet):
		return "SuccessCriteriaMet"
	}
	return "Running"
}

func completionsCell(job *batchv1.Job) string {
	parallelism := ptr.Deref(job.Spec.Parallelism, 0)
	switch {
	case job.Spec.Completions != nil:
		return fmt.Sprintf("%d/%d", job.Status.Succeeded, *job.Spec.Completions)
	case parallelism > 1:
		return fmt.Sprintf("%d/1 of %d", job.Status.Succeeded, parallelism)
	}
	return fmt.Sprintf("%d/1", job.Status.Succeeded)
}

func durationCell(job *batchv1.Job) string {
	switch start, end := job.Status.StartTime, job.Status.CompletionTime; {
	case start == nil:
		return ""
	case end == nil:
		return duration.HumanDuration(time.Since(start.Time))
	default:
		return duration.HumanDuration(end.Sub(start.Time))
	}
}
