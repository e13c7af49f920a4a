package apps

import (
	"context"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	appsv1beta1 "k8s.io/api/apps/v1beta1"
	appsv1beta2 "k8s.io/api/apps/v1beta2"
	extensionsv1beta1 "k8s.io/api/extensions/v1beta1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/randfill"
	"sigs.k8s.io/yaml"

	"github.com/proa-k8s/proa/internal/api"
)

const podTemplate = "template: {metadata: {labels: {app: x}}, spec: {containers: [{name: c, image: i}]}}"

// createFrom takes an object from YAML through defaults, preparation and validation.
func createFrom[T runtime.Object](t *testing.T, r *api.Resource, text string) (T, []string) {
	t.Helper()
	obj := r.New().(T)
	if err := yaml.UnmarshalStrict([]byte(text), obj); err != nil {
		t.Fatalf("the test's own YAML: %v\n%s", err, text)
	}
	if r.Default != nil {
		r.Default(obj)
	}
	if r.PrepareCreate != nil {
		r.PrepareCreate(context.Background(), obj)
	}
	return obj, errorTexts(r.Validate(context.Background(), obj))
}

func errorTexts(errs field.ErrorList) []string {
	var out []string
	for _, err := range errs {
		out = append(out, err.Error())
	}
	return out
}

func wantErrors(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("errors:\n  %s\nwant:\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func TestStatefulSetRules(t *testing.T) {
	r := StatefulSet()
	const selector = "selector: {matchLabels: {app: x}}, "
	for _, test := range []struct {
		name, spec string
		want       []string
	}{
		{"good", selector + podTemplate, nil},
		{"no selector", podTemplate, []string{"spec.selector: Required value",
			"spec.template.metadata.labels: Invalid value: {\"app\":\"x\"}: `selector` does not match template `labels`"}},
		{"other labels", "selector: {matchLabels: {app: y}}, " + podTemplate, []string{
			"spec.template.metadata.labels: Invalid value: {\"app\":\"x\"}: `selector` does not match template `labels`"}},
		{"policy", "podManagementPolicy: Any, " + selector + podTemplate, []string{
			`spec.podManagementPolicy: Invalid value: "Any": must be 'OrderedReady' or 'Parallel'`}},
		{"rolling update on delete", "updateStrategy: {type: OnDelete, rollingUpdate: {partition: 1}}, " + selector + podTemplate, []string{
			`spec.updateStrategy.rollingUpdate: Invalid value: {"partition":1}: only allowed for updateStrategy 'RollingUpdate'`}},
		{"partition", "updateStrategy: {rollingUpdate: {partition: -1, maxUnavailable: 0}}, " + selector + podTemplate, []string{
			"spec.updateStrategy.rollingUpdate.partition: Invalid value: -1: must be greater than or equal to 0",
			"spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: 0: cannot be 0"}},
		{"ordinals", "ordinals: {start: -1}, " + selector + podTemplate, []string{
			"spec.ordinals.start: Invalid value: -1: must be greater than or equal to 0"}},
		{"retention", "persistentVolumeClaimRetentionPolicy: {whenDeleted: Keep}, " + selector + podTemplate, []string{
			`spec.persistentVolumeClaimRetentionPolicy.whenDeleted: Unsupported value: "Keep": supported values: "Retain", "Delete"`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, got := createFrom[*appsv1.StatefulSet](t, r, "spec: {"+test.spec+"}")
			wantErrors(t, got, test.want...)
		})
	}
	old, _ := createFrom[*appsv1.StatefulSet](t, r, "metadata: {name: web}\nspec: {serviceName: web, "+selector+podTemplate+
		", volumeClaimTemplates: [{metadata: {name: v}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}]}")
	if old.Spec.VolumeClaimTemplates[0].Kind != "PersistentVolumeClaim" || old.Spec.VolumeClaimTemplates[0].Status.Phase != "Pending" ||
		*old.Spec.Replicas != 1 || *old.Spec.UpdateStrategy.RollingUpdate.Partition != 0 || old.Generation != 1 {
		t.Errorf("defaults %+v", old.Spec)
	}
	if row, want := r.Row(old), []any{"web", "0/1", "<unknown>", "c", "i"}; !slices.Equal(row, want) || len(row) != len(r.Columns) {
		t.Errorf("row %v, want %v", row, want)
	}
	grown := old.DeepCopy()
	grown.Spec.Replicas = ptr.To[int32](3)
	r.PrepareUpdate(context.Background(), grown, old)
	wantErrors(t, errorTexts(r.ValidateUpdate(context.Background(), grown, old)))
	if grown.Generation != 2 {
		t.Errorf("generation %d", grown.Generation)
	}
	renamed := old.DeepCopy()
	renamed.Spec.ServiceName = "other"
	wantErrors(t, errorTexts(r.ValidateUpdate(context.Background(), renamed, old)),
		"spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', "+
			"'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden")
	counted := old.DeepCopy()
	counted.Status.ReadyReplicas = 1
	wantErrors(t, errorTexts(validateStatefulSetStatus(context.Background(), counted, old)),
		"status.readyReplicas: Invalid value: 1: cannot be greater than status.replicas")
}

func TestDaemonSetRules(t *testing.T) {
	r := DaemonSet()
	const selector = "selector: {matchLabels: {app: x}}, "
	for _, test := range []struct {
		name, spec string
		want       []string
	}{
		{"good", selector + podTemplate, nil},
		{"empty selector", "selector: {}, " + podTemplate, []string{"spec.selector: Invalid value: {}: empty selector is invalid for daemonset"}},
		{"both", "updateStrategy: {rollingUpdate: {maxSurge: 1}}, " + selector + podTemplate, []string{
			"spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero"}},
		{"none", "updateStrategy: {rollingUpdate: {maxUnavailable: 0}}, " + selector + podTemplate, []string{
			"spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0"}},
		{"type", "updateStrategy: {type: Now}, " + selector + podTemplate, []string{
			`spec.updateStrategy.type: Unsupported value: "Now": supported values: "RollingUpdate", "OnDelete"`}},
		{"pods that end", selector + "template: {metadata: {labels: {app: x}}, spec: {restartPolicy: Never, activeDeadlineSeconds: 1, containers: [{name: c, image: i}]}}", []string{
			`spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"`,
			"spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in DaemonSet is not Supported"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, got := createFrom[*appsv1.DaemonSet](t, r, "spec: {"+test.spec+"}")
			wantErrors(t, got, test.want...)
		})
	}
	old, _ := createFrom[*appsv1.DaemonSet](t, r, "metadata: {name: d}\nspec: {"+selector+podTemplate+"}")
	d := old.DeepCopy()
	d.Spec.Template.Spec.Containers[0].Image = "j"
	r.PrepareUpdate(context.Background(), d, old)
	if templateGeneration(&old.ObjectMeta) != 1 || templateGeneration(&d.ObjectMeta) != 2 || d.Generation != 2 {
		t.Errorf("annotations %v, %v", old.Annotations, d.Annotations)
	}
	beta := &extensionsv1beta1.DaemonSet{}
	if err := daemonSetToExtensions(d, beta); err != nil || beta.Spec.TemplateGeneration != 2 || len(beta.Annotations) != 0 {
		t.Errorf("%v, %+v", err, beta)
	}
	want := []any{"d", int64(0), int64(0), int64(0), int64(0), int64(0), "<none>", "<unknown>", "c", "i", "app=x"}
	if row := r.Row(old); !slices.Equal(row, want) || len(row) != len(r.Columns) {
		t.Errorf("row %v, want %v", row, want)
	}
}

func TestControllerRevision(t *testing.T) {
	r := ControllerRevision()
	_, got := createFrom[*appsv1.ControllerRevision](t, r, "revision: -1")
	wantErrors(t, got, "data: Required value: data is mandatory", "revision: Invalid value: -1: must be greater than or equal to 0")
	old, got := createFrom[*appsv1.ControllerRevision](t, r, `{"metadata": {"name": "web-1", "ownerReferences": [
		{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "u", "controller": true}]}, "revision": 1, "data": {"a": 1}}`)
	wantErrors(t, got)
	if row := r.Row(old); !slices.Equal(row, []any{"web-1", "statefulset.apps/web", int64(1), "<unknown>"}) {
		t.Errorf("row %v", row)
	}
	changed := old.DeepCopy()
	changed.Data.Raw = []byte(`{"a":2}`)
	if errs := errorTexts(r.ValidateUpdate(context.Background(), changed, old)); len(errs) != 1 || !strings.HasSuffix(errs[0], "field is immutable") {
		t.Errorf("errors %q", errs)
	}
}

// FuzzSets: the versions of stateful and daemon sets lose nothing, and defaults are idempotent.
func FuzzSets(f *testing.F) {
	for seed := int64(0); seed < 20; seed++ {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed int64) {
		filler := randfill.NewWithSeed(seed).NilChance(.5).NumElements(1, 2).MaxDepth(9).Funcs(
			func(*metav1.FieldsV1, randfill.Continue) {},
			func(m *metav1.ObjectMeta, _ randfill.Continue) { m.Name = "n" },
			func(m *metav1.TypeMeta, _ randfill.Continue) {},
			func(tm *metav1.Time, c randfill.Continue) { *tm = metav1.Unix(c.Int63n(1e9), 0) },
			func(q *resource.Quantity, c randfill.Continue) {
				*q = *resource.NewQuantity(c.Int63n(1e6), resource.DecimalSI)
			},
		)
		set, daemon := &appsv1.StatefulSet{}, &appsv1.DaemonSet{}
		filler.Fill(set)
		filler.Fill(daemon)
		defaultStatefulSet(set)
		defaultDaemonSet(daemon)
		again, daemonAgain := set.DeepCopy(), daemon.DeepCopy()
		defaultStatefulSet(again)
		defaultDaemonSet(daemonAgain)
		if !apiequality.Semantic.DeepEqual(set, again) || !apiequality.Semantic.DeepEqual(daemon, daemonAgain) {
			t.Error("defaults are not idempotent")
		}
		roundTrip(t, set, &appsv1beta1.StatefulSet{}, &appsv1.StatefulSet{})
		roundTrip(t, set, &appsv1beta2.StatefulSet{}, &appsv1.StatefulSet{})
		roundTrip(t, daemon, &appsv1beta2.DaemonSet{}, &appsv1.DaemonSet{})
		validateStatefulSetSpec(&set.Spec, nil, field.NewPath("spec"))
		validateDaemonSetSpec(&daemon.Spec, nil, field.NewPath("spec"))
	})
}

func roundTrip[H, V runtime.Object](t *testing.T, in H, version V, back H) {
	t.Helper()
	if err := convertShape(in, version); err != nil {
		t.Fatal(err)
	}
	if err := convertShape(version, back); err != nil {
		t.Fatal(err)
	}
	if !apiequality.Semantic.DeepEqual(in, back) {
		t.Errorf("%T loses something", version)
	}
}
