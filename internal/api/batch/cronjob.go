package batch

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
	batchv1 "k8s.io/api/batch/v1"
	batchv1beta1 "k8s.io/api/batch/v1beta1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/proa-k8s/proa/internal/api"
	"github.com/proa-k8s/proa/internal/api/core"
)

// maxCronJobName leaves room for the time that is appended to it in the names of jobs.
const maxCronJobName = validation.DNS1035LabelMaxLength - 11

var cronJobVersions = []string{"batch/v1", "batch/v1beta1"}

// CronJob describes cronjobs.
func CronJob() *api.Resource {
	kind := batchv1.SchemeGroupVersion.WithKind("CronJob")
	return api.Define[batchv1.CronJob, batchv1.CronJobList](batchv1.SchemeGroupVersion, api.Resource{
		Plural: "cronjobs", Singular: "cronjob", Kind: "CronJob", ShortNames: []string{"cj"}, Categories: []string{"all"},
		Namespaced: true, Prefix: "cronjobs",
		Versions: api.OrphanByDefault(
			api.NewVersion[batchv1beta1.CronJob, batchv1beta1.CronJobList, batchv1.CronJob](
				batchv1beta1.SchemeGroupVersion, cronJobFromBeta, cronJobToBeta),
		),
		Strategy: api.Typed[*batchv1.CronJob]{
			Default: defaultCronJob,
			PrepareCreate: func(_ context.Context, c *batchv1.CronJob) {
				c.Status = batchv1.CronJobStatus{}
				c.Generation = 1
				dropOffFields(&c.Spec.JobTemplate.Spec)
			},
			PrepareUpdate: func(_ context.Context, c, old *batchv1.CronJob) {
				c.Status = old.Status
				dropOffFields(&c.Spec.JobTemplate.Spec)
				c.Generation = old.Generation
				if !equality.Semantic.DeepEqual(c.Spec, old.Spec) {
					c.Generation++
				}
			},
			Validate:       func(_ context.Context, c *batchv1.CronJob) field.ErrorList { return validateCronJob(c, nil) },
			ValidateUpdate: func(_ context.Context, c, old *batchv1.CronJob) field.ErrorList { return validateCronJob(c, old) },
			Warn:           warnCronJob,
			ResetFields:    api.Reset(cronJobVersions, fieldpath.MakePathOrDie("status")),
		}.Strategy(),
		Subresources: []api.Subresource{
			api.Status(kind, api.Typed[*batchv1.CronJob]{
				PrepareUpdate: func(_ context.Context, c, old *batchv1.CronJob) { c.Spec = old.Spec },
				ResetFields:   api.Reset(cronJobVersions, fieldpath.MakePathOrDie("spec")),
			}.Strategy()),
		},
		Columns: cronJobColumns(),
		Row:     api.Row(cronJobRow),
	})
}

func defaultCronJob(c *batchv1.CronJob) {
	spec := &c.Spec
	if spec.ConcurrencyPolicy == "" {
		spec.ConcurrencyPolicy = batchv1.AllowConcurrent
	}
	setDefault(&spec.Suspend, false)
	setDefault(&spec.SuccessfulJobsHistoryLimit, 3)
	setDefault(&spec.FailedJobsHistoryLimit, 1)
	job := &spec.JobTemplate.Spec
	core.DefaultPodTemplateSpec(&job.Template)
	if job.PodFailurePolicy != nil {
		defaultFailurePolicy(job.PodFailurePolicy)
	}
}

func validateCronJob(c, old *batchv1.CronJob) field.ErrorList {
	var errs field.ErrorList
	spec, path := &c.Spec, field.NewPath("spec")
	if old == nil && len(c.Name) > maxCronJobName {
		errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), c.Name, "must be no more than 52 characters"))
	}
	errs = append(errs, validateSchedule(c, old, path)...)
	if spec.StartingDeadlineSeconds != nil {
		errs = append(errs, api.ValidateNonNegative(path.Child("startingDeadlineSeconds"), *spec.StartingDeadlineSeconds)...)
	}
	errs = append(errs, api.ValidateEnum(path.Child("concurrencyPolicy"), spec.ConcurrencyPolicy,
		batchv1.AllowConcurrent, batchv1.ForbidConcurrent, batchv1.ReplaceConcurrent)...)
	if n := spec.SuccessfulJobsHistoryLimit; n != nil {
		errs = append(errs, api.ValidateNonNegative(path.Child("successfulJobsHistoryLimit"), *n)...)
	}
	if n := spec.FailedJobsHistoryLimit; n != nil {
		errs = append(errs, api.ValidateNonNegative(path.Child("failedJobsHistoryLimit"), *n)...)
	}
	return append(errs, validateJobTemplateSpec(c, old, path.Child("jobTemplate"))...)
}

// validateSchedule: the time zone has a field of its own (KEP-3140); what was stored with one in the schedule may stay.
func validateSchedule(c, old *batchv1.CronJob, path *field.Path) field.ErrorList {
	spec, at := &c.Spec, path.Child("schedule")
	if spec.Schedule == "" {
		return field.ErrorList{field.Required(at, "")}
	}
	var errs field.ErrorList
	if err := parseSchedule(spec.Schedule); err != nil {
		errs = append(errs, field.Invalid(at, spec.Schedule, err.Error()))
	}
	unchanged := old != nil && old.Spec.Schedule == spec.Schedule && old.Spec.TimeZone == nil && spec.TimeZone == nil
	if strings.Contains(spec.Schedule, "TZ") && !unchanged {
		detail := "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
		if spec.TimeZone != nil {
			detail = "cannot use both timeZone field and TZ or CRON_TZ in schedule"
		}
		errs = append(errs, field.Invalid(at, spec.Schedule, detail))
	}
	if spec.TimeZone == nil {
		return errs
	}
	zone, at := *spec.TimeZone, path.Child("timeZone")
	switch {
	case zone == "":
		errs = append(errs, field.Invalid(at, zone, "timeZone must be nil or non-empty string"))
	case strings.EqualFold(zone, "Local"):
		errs = append(errs, field.Invalid(at, zone, "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"))
	default:
		if _, err := time.LoadLocation(zone); err != nil {
			errs = append(errs, field.Invalid(at, zone, err.Error()))
		}
	}
	return errs
}

func parseSchedule(schedule string) error {
	// The parser takes for granted that something follows the zone.
	if strings.HasPrefix(schedule, "TZ=") || strings.HasPrefix(schedule, "CRON_TZ=") {
		if !strings.Contains(schedule, " ") {
			return errors.New("expected a schedule after the time zone")
		}
	}
	_, err := cron.ParseStandard(schedule)
	return err
}

// validateJobTemplateSpec: the selector of each job is generated when it is made.
func validateJobTemplateSpec(c, old *batchv1.CronJob, path *field.Path) field.ErrorList {
	template := &c.Spec.JobTemplate
	errs := apivalidation.ValidateAnnotations(template.Annotations, path.Child("metadata", "annotations"))
	errs = append(errs, metav1validation.ValidateLabels(template.Labels, path.Child("metadata", "labels"))...)
	if template.Spec.Selector != nil {
		errs = append(errs, field.Invalid(path.Child("spec", "selector"), template.Spec.Selector, "`selector` will be auto-generated"))
	}
	if ptr.Deref(template.Spec.ManualSelector, false) {
		errs = append(errs, field.NotSupported(path.Child("spec", "manualSelector"), true, []string{"nil", "false"}))
	}
	if old == nil {
		return append(errs, validateJobFields(&template.Spec, path.Child("spec"), nil)...)
	}
	return append(errs, validateJobFields(&template.Spec, path.Child("spec"), &old.Spec.JobTemplate.Spec.Template)...)
}

func warnCronJob(_ context.Context, c, old *batchv1.CronJob) []string {
	var warnings []string
	path := field.NewPath("spec", "jobTemplate", "spec", "template")
	if strings.Contains(c.Spec.Schedule, "TZ") {
		warnings = append(warnings, "CRON_TZ or TZ used in spec.schedule is not officially supported, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details")
	}
	if old != nil {
		return append(warnings, core.WarnPodTemplate(&c.Spec.JobTemplate.Spec.Template, &old.Spec.JobTemplate.Spec.Template, path)...)
	}
	if messages := validation.IsDNS1123Label(c.Name); c.Name != "" && len(messages) > 0 {
		warnings = append(warnings, core.PodNamesWarning(messages))
	}
	return append(warnings, core.WarnPodTemplate(&c.Spec.JobTemplate.Spec.Template, nil, path)...)
}

func cronJobColumns() []metav1.TableColumnDefinition {
	spec, status := batchv1.CronJobSpec{}.SwaggerDoc(), batchv1.CronJobStatus{}.SwaggerDoc()
	return []metav1.TableColumnDefinition{
		api.NameColumn(),
		api.Column("Schedule", "string", spec["schedule"]),
		api.Column("Timezone", "string", spec["timeZone"]),
		api.Column("Suspend", "boolean", spec["suspend"]),
		api.Column("Active", "integer", status["active"]),
		api.Column("Last Schedule", "string", status["lastScheduleTime"]),
		api.AgeColumn(),
		api.WideColumn("Containers", "string", "Names of each container in the template."),
		api.WideColumn("Images", "string", "Images referenced by each container in the template."),
		api.WideColumn("Selector", "string", batchv1.JobSpec{}.SwaggerDoc()["selector"]),
	}
}

func cronJobRow(c *batchv1.CronJob) []any {
	last := "<none>"
	if c.Status.LastScheduleTime != nil {
		last = api.Since(*c.Status.LastScheduleTime)
	}
	suspend := "<unset>"
	if s := c.Spec.Suspend; s != nil {
		suspend = map[bool]string{true: "True", false: "False"}[*s]
	}
	names, images := core.ContainersCells(c.Spec.JobTemplate.Spec.Template.Spec.Containers)
	return []any{c.Name, c.Spec.Schedule, ptr.Deref(c.Spec.TimeZone, "<none>"), suspend, int64(len(c.Status.Active)), last,
		api.Since(c.CreationTimestamp), names, images, api.SelectorCell(c.Spec.JobTemplate.Spec.Selector)}
}

// The versions of a cron job differ in nothing but names of Go types.

func cronJobFromBeta(in *batchv1beta1.CronJob, out *batchv1.CronJob) error {
	*out = batchv1.CronJob{
		ObjectMeta: in.ObjectMeta,
		Spec: batchv1.CronJobSpec{
			Schedule: in.Spec.Schedule, TimeZone: in.Spec.TimeZone, StartingDeadlineSeconds: in.Spec.StartingDeadlineSeconds,
			ConcurrencyPolicy: batchv1.ConcurrencyPolicy(in.Spec.ConcurrencyPolicy), Suspend: in.Spec.Suspend,
			JobTemplate:                batchv1.JobTemplateSpec(in.Spec.JobTemplate),
			SuccessfulJobsHistoryLimit: in.Spec.SuccessfulJobsHistoryLimit, FailedJobsHistoryLimit: in.Spec.FailedJobsHistoryLimit,
		},
		Status: batchv1.CronJobStatus(in.Status),
	}
	return nil
}

func cronJobToBeta(in *batchv1.CronJob, out *batchv1beta1.CronJob) error {
	*out = batchv1beta1.CronJob{
		ObjectMeta: in.ObjectMeta,
		Spec: batchv1beta1.CronJobSpec{
			Schedule: in.Spec.Schedule, TimeZone: in.Spec.TimeZone, StartingDeadlineSeconds: in.Spec.StartingDeadlineSeconds,
			ConcurrencyPolicy: batchv1beta1.ConcurrencyPolicy(in.Spec.ConcurrencyPolicy), Suspend: in.Spec.Suspend,
			JobTemplate:                batchv1beta1.JobTemplateSpec(in.Spec.JobTemplate),
			SuccessfulJobsHistoryLimit: in.Spec.SuccessfulJobsHistoryLimit, FailedJobsHistoryLimit: in.Spec.FailedJobsHistoryLimit,
		},
		Status: batchv1beta1.CronJobStatus(in.Status),
	}
	return nil
}
