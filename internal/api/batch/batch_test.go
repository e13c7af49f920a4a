package batch

import (
	"context"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	batchv1beta1 "k8s.io/api/batch/v1beta1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/randfill"
	"sigs.k8s.io/yaml"

	"github.com/proa-k8s/proa/internal/api"
)

const template = "template: {spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}"

func create[T runtime.Object](t *testing.T, r *api.Resource, text string) (T, []string) {
	t.Helper()
	obj := r.New().(T)
	if err := yaml.UnmarshalStrict([]byte(text), obj); err != nil {
		t.Fatalf("the test's own YAML: %v\n%s", err, text)
	}
	any(obj).(metav1.Object).SetName("j")
	any(obj).(metav1.Object).SetUID("u")
	r.Default(obj)
	r.PrepareCreate(context.Background(), obj)
	return obj, messages(r.Validate(context.Background(), obj))
}

func messages(errs field.ErrorList) []string {
	var out []string
	for _, err := range errs {
		out = append(out, err.Error())
	}
	return out
}

func check(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.EqualFunc(got, want, func(g, w string) bool {
		prefix, cut := strings.CutSuffix(w, "...")
		return g == w || cut && strings.HasPrefix(g, prefix)
	}) {
		t.Errorf("errors:\n  %s\nwant:\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func TestJobValidation(t *testing.T) {
	tests := []struct {
		name, spec string
		want       []string
	}{
		{"minimal", template, nil},
		{"restarted always", "template: {spec: {containers: [{name: c, image: i}]}}", []string{
			`spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"`}},
		{"negative", "{parallelism: -1, " + template + "}", []string{
			"spec.parallelism: Invalid value: -1: must be greater than or equal to 0"}},
		{"selector of the user's", "{selector: {matchLabels: {a: b}}, " + template + "}", []string{
			"spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\",\"batch.kubernetes.io/controller-uid\":\"u\"}}: `selector` not auto-generated",
			"spec.template.metadata.labels: Invalid value: ..."}},
		{"manual selector", "{manualSelector: true, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}}", nil},
		{"indexed without completions", "{completionMode: Indexed, parallelism: 2, " + template + "}", []string{
			"spec.completions: Required value: when completion mode is Indexed"}},
		{"mode", "{completionMode: Random, " + template + "}", []string{
			`spec.completionMode: Unsupported value: "Random": supported values: "NonIndexed", "Indexed"`}},
		{"limit per index", "{backoffLimitPerIndex: 1, " + template + "}", []string{
			"spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode"}},
		{"failure policy", "{podFailurePolicy: {rules: [{action: Ignore, onPodConditions: [{type: DisruptionTarget}]}, {action: FailJob, onExitCodes: {operator: In, values: [1, 2]}}]}, " + template + "}", nil},
		{"failure policy with restarts", "{podFailurePolicy: {rules: []}, template: {spec: {restartPolicy: OnFailure, containers: [{name: c, image: i}]}}}", []string{
			`spec.template.spec.restartPolicy: Invalid value: "OnFailure": only "Never" is supported when podFailurePolicy is specified`}},
		{"failure rule without reason", "{podFailurePolicy: {rules: [{action: Count}]}, " + template + "}", []string{
			"spec.podFailurePolicy.rules[0]: Invalid value: specifying one of OnExitCodes and OnPodConditions is required"}},
		{"exit codes", "{podFailurePolicy: {rules: [{action: Count, onExitCodes: {containerName: x, operator: In, values: [2, 0]}}]}, " + template + "}", []string{
			`spec.podFailurePolicy.rules[0].onExitCodes.containerName: Invalid value: "x": must be one of the container or initContainer names in the pod template`,
			"spec.podFailurePolicy.rules[0].onExitCodes.values[1]: Invalid value: 0: must not be 0 for the In operator",
			"spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [2,0]: must be ordered"}},
		{"success policy", "{completionMode: Indexed, completions: 4, successPolicy: {rules: [{succeededIndexes: '0,2-3', succeededCount: 2}]}, " + template + "}", nil},
		{"success policy with bad indexes", "{completionMode: Indexed, completions: 4, successPolicy: {rules: [{succeededIndexes: '2-1'}, {succeededCount: 5}, {}]}, " + template + "}", []string{
			`spec.successPolicy.rules[0].succeededIndexes: Invalid value: "2-1": error parsing succeededIndexes: non-increasing order, previous: 2, current: 1`,
			"spec.successPolicy.rules[1].succeededCount: Invalid value: 5: must be less than or equal to 4 (the number of specified completions)",
			"spec.successPolicy.rules[2]: Required value: at least one of succeededCount or succeededIndexes must be specified"}},
		{"managed by", "{managedBy: me, " + template + "}", []string{
			`spec.managedBy: Invalid value: "me": must be a domain-prefixed path (such as "acme.io/foo")`}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, got := create[*batchv1.Job](t, Job(), "spec: "+wrapped(test.spec))
			check(t, got, test.want...)
		})
	}
}

// wrapped makes a flow mapping of one key, if it isn't one.
func wrapped(s string) string {
	if strings.HasPrefix(s, "{") {
		return s
	}
	return "{" + s + "}"
}

func TestJobDefaultsAndSelector(t *testing.T) {
	job, _ := create[*batchv1.Job](t, Job(), "spec: {"+template+"}")
	s := job.Spec
	if *s.Completions != 1 || *s.Parallelism != 1 || *s.BackoffLimit != 6 || *s.CompletionMode != batchv1.NonIndexedCompletion ||
		*s.Suspend || *s.PodReplacementPolicy != batchv1.TerminatingOrFailed {
		t.Errorf("defaults %+v", s)
	}
	want := map[string]string{"job-name": "j", "batch.kubernetes.io/job-name": "j", "controller-uid": "u", "batch.kubernetes.io/controller-uid": "u"}
	if !reflect.DeepEqual(s.Template.Labels, want) || !reflect.DeepEqual(s.Selector.MatchLabels, map[string]string{"batch.kubernetes.io/controller-uid": "u"}) {
		t.Errorf("labels %v, selector %v", s.Template.Labels, s.Selector)
	}
	queue, _ := create[*batchv1.Job](t, Job(), "spec: {parallelism: 3, "+template+"}")
	if queue.Spec.Completions != nil {
		t.Error("a work queue got a number of completions")
	}
}

func TestJobUpdate(t *testing.T) {
	suspended := func(j *batchv1.Job) { j.Spec.Suspend = ptr.To(true) }
	indexed := func(j *batchv1.Job) {
		j.Spec.CompletionMode, j.Spec.Completions, j.Spec.Parallelism = ptr.To(batchv1.IndexedCompletion), ptr.To[int32](3), ptr.To[int32](3)
	}
	tests := []struct {
		name        string
		old, change func(*batchv1.Job)
		want        []string
	}{
		{"parallelism", nil, func(j *batchv1.Job) { j.Spec.Parallelism = ptr.To[int32](9) }, nil},
		{"completions", nil, func(j *batchv1.Job) { j.Spec.Completions = ptr.To[int32](9) }, []string{
			"spec.completions: Invalid value: 9: field is immutable"}},
		{"indexed, with parallelism", indexed, func(j *batchv1.Job) { j.Spec.Completions, j.Spec.Parallelism = ptr.To[int32](4), ptr.To[int32](4) }, nil},
		{"indexed, alone", indexed, func(j *batchv1.Job) { j.Spec.Completions = ptr.To[int32](4) }, []string{
			"spec.completions: Invalid value: 4: can only be modified in tandem with parallelism"}},
		{"image", nil, func(j *batchv1.Job) { j.Spec.Template.Spec.Containers[0].Image = "x" }, []string{
			"spec.template: Invalid value: ..."}},
		{"node selector", nil, func(j *batchv1.Job) { j.Spec.Template.Spec.NodeSelector = map[string]string{"a": "b"} }, []string{
			"spec.template: Invalid value: ..."}},
		{"node selector while suspended", suspended, func(j *batchv1.Job) { j.Spec.Template.Spec.NodeSelector = map[string]string{"a": "b"} }, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			old, _ := create[*batchv1.Job](t, Job(), "spec: {"+template+"}")
			if test.old != nil {
				test.old(old)
			}
			job, before := old.DeepCopy(), old.DeepCopy()
			test.change(job)
			prepareJobUpdate(context.Background(), job, old)
			check(t, messages(validateJobUpdate(context.Background(), job, old)), test.want...)
			if job.Generation != old.Generation+1 || !equality.Semantic.DeepEqual(old, before) {
				t.Errorf("generation %d after %d", job.Generation, old.Generation)
			}
		})
	}
}

func TestJobStatus(t *testing.T) {
	old, _ := create[*batchv1.Job](t, Job(), "spec: {"+template+"}")
	complete := batchv1.JobCondition{Type: batchv1.JobComplete, Status: corev1.ConditionTrue}
	failed := batchv1.JobCondition{Type: batchv1.JobFailed, Status: corev1.ConditionTrue}
	both := old.DeepCopy()
	both.Status.Active = -1
	both.Status.Conditions = []batchv1.JobCondition{complete, failed}
	check(t, messages(validateJobStatus(context.Background(), both, old)),
		"status.active: Invalid value: -1: must be greater than or equal to 0",
		"status.conditions: Invalid value: cannot set Complete=True and Failed=true conditions")
	done := old.DeepCopy()
	done.Status.Conditions = []batchv1.JobCondition{complete}
	check(t, messages(validateJobStatus(context.Background(), old, done)),
		"status.conditions: Invalid value: cannot disable the terminal Complete=True condition")
}

func TestJobRow(t *testing.T) {
	job, _ := create[*batchv1.Job](t, Job(), "spec: {completions: 2, "+template+"}")
	start := metav1.NewTime(time.Now().Add(-time.Hour))
	job.Status = batchv1.JobStatus{Succeeded: 2, StartTime: &start, CompletionTime: ptr.To(metav1.NewTime(start.Add(90 * time.Second))),
		Conditions: []batchv1.JobCondition{{Type: batchv1.JobComplete, Status: corev1.ConditionTrue}}}
	r := Job()
	want := []any{"j", "Complete", "2/2", "90s", "<unknown>", "c", "i", "batch.kubernetes.io/controller-uid=u"}
	if row := r.Row(job); !slices.Equal(row, want) || len(row) != len(r.Columns) {
		t.Errorf("row %v, want %v", row, want)
	}
	job.Spec.Completions, job.Spec.Parallelism, job.Status = nil, ptr.To[int32](3), batchv1.JobStatus{Succeeded: 1}
	if row := r.Row(job); row[1] != "Running" || row[2] != "1/1 of 3" || row[3] != "" {
		t.Errorf("row %v", row)
	}
}

func TestCronJob(t *testing.T) {
	r := CronJob()
	with := func(s string) string { return "spec: {" + s + ", jobTemplate: {spec: {" + template + "}}}" }
	for _, test := range []struct {
		name, yaml string
		want       []string
	}{
		{"every minute", with("schedule: '*/1 * * * *'"), nil},
		{"descriptor, zone", with("schedule: '@daily', timeZone: Europe/Berlin"), nil},
		{"no schedule", with("suspend: true"), []string{"spec.schedule: Required value"}},
		{"four fields", with("schedule: '* * * *'"), []string{
			`spec.schedule: Invalid value: "* * * *": expected exactly 5 fields, found 4: [* * * *]`}},
		{"zone in the schedule", with("schedule: 'TZ=UTC 0 * * * *'"), []string{
			`spec.schedule: Invalid value: "TZ=UTC 0 * * * *": cannot use TZ or CRON_TZ in schedule, use timeZone field instead`}},
		{"nothing but a zone", with("schedule: 'TZ=UTC'"), []string{
			`spec.schedule: Invalid value: "TZ=UTC": expected a schedule after the time zone`,
			`spec.schedule: Invalid value: "TZ=UTC": cannot use TZ or CRON_TZ in schedule, use timeZone field instead`}},
		{"unknown zone", with("schedule: '0 * * * *', timeZone: Mars/Base"), []string{
			`spec.timeZone: Invalid value: "Mars/Base": unknown time zone Mars/Base`}},
		{"policy", with("schedule: '0 * * * *', concurrencyPolicy: Maybe"), []string{
			`spec.concurrencyPolicy: Unsupported value: "Maybe": supported values: "Allow", "Forbid", "Replace"`}},
		{"selector", "spec: {schedule: '0 * * * *', jobTemplate: {spec: {selector: {}, " + template + "}}}", []string{
			"spec.jobTemplate.spec.selector: Invalid value: {}: `selector` will be auto-generated"}},
		{"always", "spec: {schedule: '0 * * * *', jobTemplate: {spec: {template: {spec: {containers: [{name: c, image: i}]}}}}}", []string{
			`spec.jobTemplate.spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, got := create[*batchv1.CronJob](t, r, test.yaml)
			check(t, got, test.want...)
		})
	}
	c, _ := create[*batchv1.CronJob](t, r, with("schedule: '*/1 * * * *'"))
	want := []any{"j", "*/1 * * * *", "<none>", "False", int64(0), "<none>", "<unknown>", "c", "i", "<none>"}
	if row := r.Row(c); !slices.Equal(row, want) || len(row) != len(r.Columns) {
		t.Errorf("row %v, want %v", row, want)
	}
	c.Name = strings.Repeat("x", 53)
	check(t, messages(validateCronJob(c, nil)), `metadata.name: Invalid value: "`+c.Name+`": must be no more than 52 characters`)
}

func FuzzBatch(f *testing.F) {
	for seed := int64(0); seed < 20; seed++ {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed int64) {
		filler := randfill.NewWithSeed(seed).NilChance(.5).NumElements(0, 2).MaxDepth(10).Funcs(
			func(_ *metav1.FieldsV1, _ randfill.Continue) {}, func(_ *metav1.TypeMeta, _ randfill.Continue) {})
		c, job := &batchv1.CronJob{}, &batchv1.Job{}
		filler.Fill(c)
		filler.Fill(job)
		beta, back := &batchv1beta1.CronJob{}, &batchv1.CronJob{}
		if err := cronJobToBeta(c, beta); err != nil {
			t.Fatal(err)
		}
		if err := cronJobFromBeta(beta, back); err != nil || !equality.Semantic.DeepEqual(c, back) {
			t.Error("a version loses something", err)
		}
		defaultJob(job)
		again := job.DeepCopy()
		defaultJob(again)
		if !equality.Semantic.DeepEqual(job, again) {
			t.Error("defaults of a job are not idempotent")
		}
		defaultCronJob(c)
		cron := c.DeepCopy()
		defaultCronJob(cron)
		if !equality.Semantic.DeepEqual(c, cron) {
			t.Error("defaults of a cron job are not idempotent")
		}
		prepareJobCreate(context.Background(), job)
		validateJob(context.Background(), job)
		validateJobUpdate(context.Background(), job, again)
		validateJobStatus(context.Background(), job, again)
		validateCronJob(c, nil)
		jobRow(job)
		cronJobRow(c)
	})
}
