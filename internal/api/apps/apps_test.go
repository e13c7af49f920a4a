package apps

import (
	"context"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	appsv1beta1 "k8s.io/api/apps/v1beta1"
	extensionsv1beta1 "k8s.io/api/extensions/v1beta1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/request"
	"sigs.k8s.io/yaml"

	"github.com/proa-k8s/proa/internal/api"
	"github.com/proa-k8s/proa/internal/api/apitest"
)

const plain = `{metadata: {name: a, namespace: default}, spec: {selector: {matchLabels: {app: a}},
	template: {metadata: {labels: {app: a}}, spec: {containers: [{name: c, image: i}]}}}}`

// specCases are the rules that Deployments and ReplicaSets share.
var specCases = []apitest.Case{
	{Name: "good"},
	{Name: "no selector", Patch: `{spec: {selector: null}}`, Want: []string{"spec.selector: Required value",
		"spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template `labels`"}},
	{Name: "empty selector", Patch: `{spec: {selector: {matchLabels: null}}}`, Want: []string{`spec.selector: Invalid value: {}: empty selector is invalid for deployment`}},
	{Name: "other labels", Patch: `{spec: {template: {metadata: {labels: {app: b}}}}}`, Want: []string{
		"spec.template.metadata.labels: Invalid value: {\"app\":\"b\"}: `selector` does not match template `labels`"}},
	{Name: "negative", Patch: `{spec: {replicas: -1, minReadySeconds: -2}}`, Want: []string{
		"spec.replicas: Invalid value: -1: must be greater than or equal to 0", "spec.minReadySeconds: Invalid value: -2: must be greater than or equal to 0"}},
	{Name: "restart policy", Patch: `{spec: {template: {spec: {restartPolicy: Never}}}}`, Want: []string{
		`spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"`}},
	{Name: "deadline", Patch: `{spec: {template: {spec: {activeDeadlineSeconds: 5}}}}`, Want: []string{
		"spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported"}},
	{Name: "selector changes", Old: `{}`, Patch: `{spec: {selector: {matchLabels: {app: b}}, template: {metadata: {labels: {app: b}}}}}`, Want: []string{
		`spec.selector: Invalid value: {"matchLabels":{"app":"b"}}: field is immutable`}},
	{Name: "name is no label", Patch: `{metadata: {name: a.b}}`, Warn: []string{
		"metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [must not contain dots]"}},
}

func TestReplicaSet(t *testing.T) {
	apitest.Run(t, ReplicaSet(), plain, append(slices.Clone(specCases), []apitest.Case{
		{Name: "status", Old: `{}`, Subresource: "status", Patch: `{status: {replicas: 1, fullyLabeledReplicas: 2, readyReplicas: 1, availableReplicas: 2}}`, Want: []string{
			"status.fullyLabeledReplicas: Invalid value: 2: cannot be greater than status.replicas",
			"status.availableReplicas: Invalid value: 2: cannot be greater than status.replicas",
			"status.availableReplicas: Invalid value: 2: cannot be greater than readyReplicas"}},
	}...))
}

func TestDeployment(t *testing.T) {
	apitest.Run(t, Deployment(), plain, append(slices.Clone(specCases), []apitest.Case{
		{Name: "recreate", Patch: `{spec: {strategy: {type: Recreate}}}`},
		{Name: "recreate while rolling", Patch: `{spec: {strategy: {type: Recreate, rollingUpdate: {maxSurge: 1}}}}`, Want: []string{
			"spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"}},
		{Name: "unknown strategy", Patch: `{spec: {strategy: {type: Magic}}}`, Want: []string{
			`spec.strategy: Unsupported value: {"type":"Magic"}: supported values: "Recreate", "RollingUpdate"`}},
		{Name: "nothing may move", Patch: `{spec: {strategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 0%}}}}`, Want: []string{
			"spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0"}},
		{Name: "too much", Patch: `{spec: {strategy: {rollingUpdate: {maxSurge: 200%, maxUnavailable: 101%}}}}`, Want: []string{
			`spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "101%": must not be greater than 100%`}},
		{Name: "no percentages", Patch: `{spec: {strategy: {rollingUpdate: {maxSurge: -1, maxUnavailable: "5"}}}}`, Want: []string{
			"spec.strategy.rollingUpdate.maxSurge: Invalid value: -1: must be greater than or equal to 0",
			`spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "5": a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')`}},
		{Name: "progress", Patch: `{spec: {progressDeadlineSeconds: 5, minReadySeconds: 5, revisionHistoryLimit: -1}}`, Want: []string{
			"spec.progressDeadlineSeconds: Invalid value: 5: must be greater than minReadySeconds",
			"spec.revisionHistoryLimit: Invalid value: -1: must be greater than or equal to 0"}},
		{Name: "status", Old: `{status: {collisionCount: 2}}`, Subresource: "status", Patch: `{status: {replicas: 1, updatedReplicas: 2, collisionCount: 1, unavailableReplicas: -1}}`, Want: []string{
			"status.updatedReplicas: Invalid value: 2: cannot be greater than status.replicas",
			"status.unavailableReplicas: Invalid value: -1: must be greater than or equal to 0",
			"status.collisionCount: Invalid value: 1: cannot be decremented"}},
	}...))
}

func TestGeneration(t *testing.T) {
	r := Deployment()
	old := apitest.Decode(t, r, plain, `{metadata: {generation: 4}, status: {replicas: 3}}`).(*appsv1.Deployment)
	for _, tc := range []struct {
		patch       string
		subresource bool
		want        int64
	}{
		{`{metadata: {labels: {x: y}}}`, false, 4},
		{`{metadata: {annotations: {x: y}}}`, false, 5},
		{`{spec: {replicas: 5}}`, false, 5},
		{`{status: {replicas: 9}, spec: {replicas: 9}}`, true, 4},
	} {
		d := apitest.Decode(t, r, plain, tc.patch).(*appsv1.Deployment)
		d.Generation = old.Generation
		strategy := &r.Strategy
		if tc.subresource {
			strategy = r.Subresources[1].Strategy
		}
		apitest.Apply(strategy, d, old)
		if d.Generation != tc.want {
			t.Errorf("%s: generation %d, want %d", tc.patch, d.Generation, tc.want)
		}
		if !tc.subresource && d.Status.Replicas != 3 || tc.subresource && *d.Spec.Replicas != 1 {
			t.Errorf("%s: changed what is not its own", tc.patch)
		}
	}
	created := apitest.Decode(t, r, plain, `{status: {replicas: 9}}`).(*appsv1.Deployment)
	apitest.Apply(&r.Strategy, created, nil)
	if created.Generation != 1 || created.Status.Replicas != 0 {
		t.Errorf("created: %+v", created)
	}
}

// hub reads a manifest of any version as the API server does.
func hub(t *testing.T, r *api.Resource, gv schema.GroupVersion, manifest string) runtime.Object {
	t.Helper()
	for _, v := range r.Versions {
		if v.GroupVersion != gv {
			continue
		}
		obj, out := v.New(), r.New()
		if err := yaml.UnmarshalStrict([]byte(manifest), obj); err != nil {
			t.Fatal(err)
		}
		if v.Default != nil {
			v.Default(obj)
		}
		if err := v.ToHub(obj, out); err != nil {
			t.Fatal(err)
		}
		r.Default(out)
		return out
	}
	t.Fatalf("no version %s", gv)
	return nil
}

func TestOldVersions(t *testing.T) {
	bare := `{metadata: {name: kubia}, spec: {replicas: 3, template: {metadata: {name: kubia, labels: {app: kubia}}, spec: {containers: [{name: nodejs, image: luksa/kubia:v1}]}}}}`
	for _, tc := range []struct {
		gv                schema.GroupVersion
		surge             string
		history, deadline int32
	}{
		{appsv1beta1.SchemeGroupVersion, "25%", 2, 600},
		{extensionsv1beta1.SchemeGroupVersion, "1", math.MaxInt32, math.MaxInt32},
	} {
		d := hub(t, Deployment(), tc.gv, bare).(*appsv1.Deployment)
		if !maps.Equal(d.Spec.Selector.MatchLabels, map[string]string{"app": "kubia"}) || !maps.Equal(d.Labels, d.Spec.Selector.MatchLabels) {
			t.Errorf("%s: selector %v, labels %v", tc.gv, d.Spec.Selector, d.Labels)
		}
		d.Labels["x"] = "y"
		if len(d.Spec.Selector.MatchLabels) != 1 || len(d.Spec.Template.Labels) != 1 {
			t.Errorf("%s: labels, selector and template are one map", tc.gv)
		}
		if d.Spec.Strategy.RollingUpdate.MaxSurge.String() != tc.surge || *d.Spec.RevisionHistoryLimit != tc.history || *d.Spec.ProgressDeadlineSeconds != tc.deadline {
			t.Errorf("%s: defaults %+v", tc.gv, d.Spec)
		}
		if errs := validateDeployment(context.Background(), d); len(errs) > 0 {
			t.Errorf("%s: %v", tc.gv, errs)
		}
	}
	for _, v := range Deployment().Versions[1:] {
		if !strings.HasPrefix(v.Deprecated, v.GroupVersion.String()+" Deployment is deprecated in v1.") || !strings.HasSuffix(v.Deprecated, "use apps/v1 Deployment") {
			t.Errorf("%s warns %q", v.GroupVersion, v.Deprecated)
		}
	}
	rs := hub(t, ReplicaSet(), extensionsv1beta1.SchemeGroupVersion, bare).(*appsv1.ReplicaSet)
	if errs := ReplicaSet().Validate(context.Background(), rs); len(errs) > 0 {
		t.Error(errs)
	}

	rollback := hub(t, Deployment(), appsv1beta1.SchemeGroupVersion, strings.Replace(bare, "replicas: 3", "replicas: 3, rollbackTo: {revision: 7}", 1)).(*appsv1.Deployment)
	if rollback.Annotations[appsv1.DeprecatedRollbackTo] != "7" {
		t.Errorf("rollbackTo: %v", rollback.Annotations)
	}
}

func TestSelectorOfOldVersionMayChange(t *testing.T) {
	r := Deployment()
	old := apitest.Decode(t, r, plain, "")
	d := apitest.Decode(t, r, plain, `{spec: {selector: {matchLabels: {app: b}}, template: {metadata: {labels: {app: b}}}}}`)
	for version, errors := range map[string]int{"v1": 1, "v1beta2": 1, "v1beta1": 0} {
		ctx := request.WithRequestInfo(context.Background(), &request.RequestInfo{APIGroup: "apps", APIVersion: version})
		if errs := r.ValidateUpdate(ctx, d, old); len(errs) != errors {
			t.Errorf("%s: %v", version, errs)
		}
	}
}

func TestRowsAndScale(t *testing.T) {
	r := Deployment()
	d := apitest.Decode(t, r, plain, `{spec: {replicas: 3, template: {spec: {containers: [{name: c, image: i}, {name: d, image: j}]}}}, status: {replicas: 2, readyReplicas: 1, updatedReplicas: 2, availableReplicas: 1}}`).(*appsv1.Deployment)
	if got, want := deploymentRow(d), []any{"a", "1/3", int64(2), int64(1), "<unknown>", "c,d", "i,j", "app=a"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	scale := r.Subresources[0].Scale
	if spec, status, selector := scale.Get(d); spec != 3 || status != 2 || selector != "app=a" {
		t.Error(spec, status, selector)
	}
	scale.Set(d, 7)
	if *d.Spec.Replicas != 7 {
		t.Error(*d.Spec.Replicas)
	}
	rs := apitest.Decode(t, ReplicaSet(), plain, `{status: {replicas: 2, readyReplicas: 1}}`).(*appsv1.ReplicaSet)
	if got, want := replicaSetRow(rs), []any{"a", int64(1), int64(2), int64(1), "<unknown>", "c", "i", "app=a"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
