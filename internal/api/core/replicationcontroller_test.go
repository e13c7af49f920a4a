package core

import (
	"context"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/proa-k8s/proa/internal/api"
)

// create takes an object from YAML through defaults, preparation and validation.
func create[T runtime.Object](t *testing.T, r *api.Resource, text string) (obj T, errs []string) {
	t.Helper()
	obj = r.New().(T)
	if err := yaml.UnmarshalStrict([]byte(text), obj); err != nil {
		t.Fatalf("the test's own YAML: %v\n%s", err, text)
	}
	r.Default(obj)
	if r.PrepareCreate != nil {
		r.PrepareCreate(context.Background(), obj)
	}
	return obj, messages(r.Validate(context.Background(), obj))
}

// verdict is a test of what is wrong with an object.
type verdict struct {
	name, yaml string
	want       []string
}

func checkVerdicts[T runtime.Object](t *testing.T, r *api.Resource, tests []verdict) {
	t.Helper()
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			obj, got := create[T](t, r, test.yaml)
			if !slices.Equal(got, test.want) {
				t.Errorf("errors %q\nwant   %q", got, test.want)
			}
			if row := r.Row(obj); len(row) != len(r.Columns) {
				t.Errorf("%d cells for %d columns", len(row), len(r.Columns))
			}
		})
	}
}

func TestReplicationController(t *testing.T) {
	r := ReplicationController()
	const template = "template: {metadata: {labels: {app: nginx}}, spec: {containers: [{name: nginx, image: nginx}]}}"
	checkVerdicts[*corev1.ReplicationController](t, r, []verdict{
		{"selector from the template", "spec: {replicas: 2, " + template + "}", nil},
		{"nothing", "spec: {}", []string{"spec.selector: Required value", "spec.template: Required value"}},
		{"negative", "spec: {replicas: -1, " + template + "}", []string{
			"spec.replicas: Invalid value: -1: must be greater than or equal to 0"}},
		{"other labels", "spec: {selector: {app: web}, " + template + "}", []string{
			"spec.template.metadata.labels: Invalid value: {\"app\":\"nginx\"}: `selector` does not match template `labels`"}},
		{"pods that end", "spec: {template: {metadata: {labels: {a: b}}, spec: {restartPolicy: Never, activeDeadlineSeconds: 1, containers: [{name: c, image: i}]}}}", []string{
			`spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"`,
			"spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicationController is not Supported"}},
	})
	rc, _ := create[*corev1.ReplicationController](t, r, "metadata: {name: my-nginx}\nspec: {replicas: 2, "+template+"}")
	want := []any{"my-nginx", int64(2), int64(0), int64(0), "<unknown>", "nginx", "nginx", "app=nginx"}
	if row := r.Row(rc); !slices.Equal(row, want) {
		t.Errorf("row %v, want %v", row, want)
	}
	if rc.Generation != 1 || rc.Labels["app"] != "nginx" || r.DefaultPropagation != metav1.DeletePropagationOrphan {
		t.Errorf("%+v", rc.ObjectMeta)
	}
	scale := r.Subresources[0].Scale
	scale.Set(rc, 5)
	if n, _, selector := scale.Get(rc); n != 5 || selector != "app=nginx" {
		t.Errorf("scale: %d, %q", n, selector)
	}
}

func TestLimitRange(t *testing.T) {
	r := LimitRange()
	checkVerdicts[*corev1.LimitRange](t, r, []verdict{
		{"good", "spec: {limits: [{type: Container, max: {cpu: 2}, min: {cpu: 1}}]}", nil},
		{"min above max", "spec: {limits: [{type: Pod, max: {cpu: 1}, min: {cpu: 2}}]}", []string{
			`spec.limits[0].min[cpu]: Invalid value: "2": min value 2 is greater than max value 1`}},
		{"default above max", "spec: {limits: [{type: Container, max: {cpu: 1}, default: {cpu: 2}}]}", []string{
			`spec.limits[0].defaultRequest[cpu]: Invalid value: "2": default request value 2 is greater than max value 1`,
			`spec.limits[0].default[cpu]: Invalid value: "2": default value 2 is greater than max value 1`}},
		{"default of pods", "spec: {limits: [{type: Pod, default: {cpu: 1}}]}", []string{
			"spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'"}},
		{"claims", "spec: {limits: [{type: PersistentVolumeClaim}]}", []string{
			"spec.limits[0].limits: Required value: either minimum or maximum storage value is required, but neither was provided"}},
		{"ratio", "spec: {limits: [{type: Pod, maxLimitRequestRatio: {cpu: 500m}}]}", []string{
			`spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: "500m": ratio 500m is less than 1`}},
		{"type", "spec: {limits: [{type: Node}]}", []string{
			`spec.limits[0].type: Invalid value: "Node": must be a standard limit type or fully qualified`}},
		{"twice", "spec: {limits: [{type: Pod}, {type: Pod}]}", []string{`spec.limits[1].type: Duplicate value: "Pod"`}},
		{"resource", "spec: {limits: [{type: Pod, max: {speed: 1}}]}", []string{
			`spec.limits[0].max[speed]: Invalid value: "speed": must be a standard resource type or fully qualified`,
			`spec.limits[0].max[speed]: Invalid value: "speed": must be a standard resource for containers`}},
	})
	limits, _ := create[*corev1.LimitRange](t, r, "spec: {limits: [{type: Container, max: {cpu: 2}, min: {memory: 1Gi}}]}")
	item := limits.Spec.Limits[0]
	if item.Default.Cpu().String() != "2" || item.DefaultRequest.Cpu().String() != "2" || item.DefaultRequest.Memory().String() != "1Gi" {
		t.Errorf("defaults %+v", item)
	}
}

func TestResourceQuota(t *testing.T) {
	r := ResourceQuota()
	checkVerdicts[*corev1.ResourceQuota](t, r, []verdict{
		{"good", "spec: {hard: {pods: 4, requests.cpu: 1, limits.memory: 1Gi, count/deployments.apps: 2, requests.example.com/gpu: 1, gold.storageclass.storage.k8s.io/requests.storage: 1Gi}}", nil},
		{"unknown", "spec: {hard: {speed: 1}}", []string{
			`spec.hard[speed]: Invalid value: "speed": must be a standard resource type or fully qualified`,
			`spec.hard[speed]: Invalid value: "speed": must be a standard resource for quota`}},
		{"parts of pods", "spec: {hard: {pods: 500m}}", []string{`spec.hard[pods]: Invalid value: "500m": must be an integer`}},
		{"negative", "spec: {hard: {cpu: '-1'}}", []string{`spec.hard[cpu]: Invalid value: "-1": must be greater than or equal to 0`}},
		{"scope", "spec: {scopes: [Best]}", []string{`spec.scopes: Invalid value: ["Best"]: unsupported scope`}},
		{"scope and resource", "spec: {hard: {cpu: 1}, scopes: [BestEffort]}", []string{
			`spec.scopes: Invalid value: ["BestEffort"]: unsupported scope applied to resource`}},
		{"conflict", "spec: {hard: {pods: 1}, scopes: [BestEffort, NotBestEffort]}", []string{
			`spec.scopes: Invalid value: ["BestEffort","NotBestEffort"]: conflicting scopes`}},
		{"selector", "spec: {scopeSelector: {matchExpressions: [{scopeName: PriorityClass, operator: In}]}}", []string{
			"spec.scopeSelector.matchExpressions.values: Required value: must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"}},
		{"operator", "spec: {scopeSelector: {matchExpressions: [{scopeName: BestEffort, operator: DoesNotExist}]}}", []string{
			`spec.scopeSelector.matchExpressions.operator: Invalid value: "DoesNotExist": must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ` +
				`ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity`}},
		{"conflict of selectors", "spec: {scopeSelector: {matchExpressions: [{scopeName: BestEffort, operator: Exists}, {scopeName: NotBestEffort, operator: Exists}]}}", []string{
			`spec.scopeSelector.matchExpressions: Invalid value: null: conflicting scopes`}},
	})
	quota, _ := create[*corev1.ResourceQuota](t, r, "metadata: {name: q}\nspec: {scopes: [Terminating]}")
	changed := quota.DeepCopy()
	changed.Spec.ScopeSelector = &corev1.ScopeSelector{}
	checkErrors(t, r.ValidateUpdate(context.Background(), changed, quota))
	changed.Spec.Scopes = nil
	checkErrors(t, r.ValidateUpdate(context.Background(), changed, quota), "spec.scopes: Invalid value: null: field is immutable")
	quota.Status = corev1.ResourceQuotaStatus{
		Hard: corev1.ResourceList{"pods": *resourceOf("4"), "requests.cpu": *resourceOf("1"), "limits.cpu": *resourceOf("2")},
		Used: corev1.ResourceList{"pods": *resourceOf("1"), "requests.cpu": *resourceOf("500m"), "limits.cpu": *resourceOf("0")},
	}
	if row := r.Row(quota); !slices.Equal(row, []any{"q", "pods: 1/4, requests.cpu: 500m/1", "limits.cpu: 0/2", "<unknown>"}) {
		t.Errorf("row %v", row)
	}
}
