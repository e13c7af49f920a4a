package apiserver_test

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
)

var ctx = context.Background()

// TestLifeOfAnObject goes through all verbs with typed clients of JSON and protobuf, and the dynamic one.
func TestLifeOfAnObject(t *testing.T) {
	e := newEnv(t, nil)
	e.namespace("ns")
	for _, contentType := range []string{runtime.ContentTypeJSON, runtime.ContentTypeProtobuf} {
		t.Run(contentType, func(t *testing.T) {
			config := rest.CopyConfig(e.config)
			config.ContentType = contentType
			client := kubernetes.NewForConfigOrDie(config).CoreV1().ConfigMaps("ns")
			made, err := client.Create(ctx, &corev1.ConfigMap{
				ObjectMeta: metav1.ObjectMeta{GenerateName: "made-", Labels: map[string]string{"a": "b"}},
				Data:       map[string]string{"k": "<v>"}, BinaryData: map[string][]byte{"b": {0, 1}},
			}, metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(made.Name, "made-") || len(made.Name) != 10 || made.UID == "" || made.ResourceVersion == "" ||
				made.CreationTimestamp.IsZero() || made.Namespace != "ns" || made.Data["k"] != "<v>" {
				t.Fatalf("made %+v", made)
			}
			got, err := client.Get(ctx, made.Name, metav1.GetOptions{})
			if err != nil || !reflect.DeepEqual(got, made) {
				t.Fatalf("got %+v, %v; made %+v", got, err, made)
			}
			same, err := client.Update(ctx, got, metav1.UpdateOptions{})
			if err != nil || same.ResourceVersion != made.ResourceVersion {
				t.Fatalf("an update of nothing gave revision %s after %s, %v", same.ResourceVersion, made.ResourceVersion, err)
			}
			got.Data["k"] = "w"
			got.ManagedFields = nil // clients that don't know them must not lose them
			next, err := client.Update(ctx, got, metav1.UpdateOptions{})
			if err != nil || next.ResourceVersion == made.ResourceVersion || next.Data["k"] != "w" || len(next.ManagedFields) == 0 {
				t.Fatalf("updated %+v, %v", next, err)
			}
			if _, err := client.Update(ctx, got, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
				t.Fatalf("a stale update: %v", err)
			}
			list, err := client.List(ctx, metav1.ListOptions{LabelSelector: "a=b"})
			if err != nil || len(list.Items) != 1 || !reflect.DeepEqual(&list.Items[0], next) || list.ResourceVersion == "" {
				t.Fatalf("listed %+v, %v", list, err)
			}
			if err := client.Delete(ctx, made.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(made.UID))}); err != nil {
				t.Fatal(err)
			}
			if _, err := client.Get(ctx, made.Name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
				t.Fatalf("after its deletion: %v", err)
			}
		})
	}
	gvr := corev1.SchemeGroupVersion.WithResource("configmaps")
	d := dynamic.NewForConfigOrDie(e.config).Resource(gvr).Namespace("ns")
	u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "u"}}}
	if _, err := d.Create(ctx, u, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	p, err := metadata.NewForConfigOrDie(e.config).Resource(gvr).Namespace("ns").Get(ctx, "u", metav1.GetOptions{})
	if err != nil || p.Name != "u" || p.UID == "" {
		t.Fatalf("metadata %+v, %v", p, err)
	}
	pl, err := metadata.NewForConfigOrDie(e.config).Resource(gvr).List(ctx, metav1.ListOptions{})
	if err != nil || len(pl.Items) != 1 || pl.Items[0].UID != p.UID || pl.Items[0].ResourceVersion != p.ResourceVersion {
		t.Fatalf("metadata %+v, %v", pl, err)
	}
	if err := d.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	if l, err := d.List(ctx, metav1.ListOptions{}); err != nil || len(l.Items) != 0 {
		t.Fatalf("left %+v, %v", l, err)
	}
}

// TestDryRun wants that nothing is written, and everything answered.
func TestDryRun(t *testing.T) {
	e := newEnv(t, nil)
	e.namespace("ns")
	const maps = "/api/v1/namespaces/ns/configmaps"
	var made metav1.PartialObjectMetadata
	e.must(201, "POST", maps+"?dryRun=All", configMap("x")).json(t, &made)
	if made.UID == "" || made.ResourceVersion != "" {
		t.Errorf("made %+v", made)
	}
	e.must(404, "GET", maps+"/x", "")
	e.must(201, "POST", maps, configMap("x", "a", "1"))
	e.must(409, "POST", maps+"?dryRun=All", configMap("x"))
	var cm corev1.ConfigMap
	e.must(200, "PUT", maps+"/x?dryRun=All", configMap("x", "a", "2")).json(t, &cm)
	if cm.Data["a"] != "2" {
		t.Errorf("updated %+v", cm)
	}
	e.must(200, "PATCH", maps+"/x?dryRun=All", `{"data":{"a":"3"}}`, "Content-Type: application/merge-patch+json").json(t, &cm)
	if cm.Data["a"] != "3" {
		t.Errorf("patched %+v", cm)
	}
	e.must(201, "PATCH", maps+"/other?dryRun=All&fieldManager=m", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: other}\n", "Content-Type: application/apply-patch+yaml")
	e.must(200, "DELETE", maps+"/x?dryRun=All", "")
	e.must(200, "DELETE", maps+"?dryRun=All", "")
	e.must(404, "GET", maps+"/other", "")
	e.must(200, "GET", maps+"/x", "").json(t, &cm)
	if cm.Data["a"] != "1" {
		t.Errorf("stored %+v", cm)
	}
}

func TestPatches(t *testing.T) {
	e := newEnv(t, nil)
	e.namespace("ns")
	client := e.client.CoreV1().ConfigMaps("ns")
	if _, err := client.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "x", Finalizers: []string{"example.com/a"}}, Data: map[string]string{"a": "1", "b": "2"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		kind  types.PatchType
		patch string
		want  map[string]string
		final []string
	}{
		{types.JSONPatchType, `[{"op":"test","path":"/data/a","value":"1"},{"op":"replace","path":"/data/a","value":"json"}]`, map[string]string{"a": "json", "b": "2"}, []string{"example.com/a"}},
		{types.MergePatchType, `{"data":{"a":"merge","b":null}}`, map[string]string{"a": "merge"}, []string{"example.com/a"}},
		{types.StrategicMergePatchType, `{"data":{"b":"strategic"},"metadata":{"finalizers":["example.com/b"]}}`, map[string]string{"a": "merge", "b": "strategic"}, []string{"example.com/b", "example.com/a"}},
		{types.StrategicMergePatchType, `{"data":{"$patch":"replace","c":"3"},"metadata":{"finalizers":null}}`, map[string]string{"c": "3"}, nil},
	} {
		cm, err := client.Patch(ctx, "x", tc.kind, []byte(tc.patch), metav1.PatchOptions{})
		if err != nil || !reflect.DeepEqual(cm.Data, tc.want) || !reflect.DeepEqual(cm.Finalizers, tc.final) {
			t.Errorf("%s %s: %v %v, %v", tc.kind, tc.patch, cm.Data, cm.Finalizers, err)
		}
		again, err := client.Patch(ctx, "x", types.MergePatchType, []byte(`{}`), metav1.PatchOptions{})
		if err != nil || again.ResourceVersion != cm.ResourceVersion {
			t.Errorf("a patch of nothing: revision %s after %s, %v", again.ResourceVersion, cm.ResourceVersion, err)
		}
	}
}

func TestManagedFieldsAndApply(t *testing.T) {
	e := newEnv(t, nil)
	e.namespace("ns")
	client := e.client.CoreV1().ConfigMaps("ns")
	made, err := client.Apply(ctx, applycorev1.ConfigMap("x", "ns").WithData(map[string]string{"a": "1", "b": "1"}), metav1.ApplyOptions{FieldManager: "one"})
	if err != nil {
		t.Fatal(err)
	}
	if m := made.ManagedFields; len(m) != 1 || m[0].Manager != "one" || m[0].Operation != "Apply" || m[0].APIVersion != "v1" ||
		m[0].FieldsV1.GetRawString() != `{"f:data":{"f:a":{},"f:b":{}}}` || m[0].Time.Nanosecond() != 0 {
		t.Fatalf("managed fields %+v", m)
	}
	again, err := client.Apply(ctx, applycorev1.ConfigMap("x", "ns").WithData(map[string]string{"a": "1", "b": "1"}), metav1.ApplyOptions{FieldManager: "one"})
	if err != nil || again.ResourceVersion != made.ResourceVersion {
		t.Fatalf("applied again: revision %s after %s, %v", again.ResourceVersion, made.ResourceVersion, err)
	}
	_, err = client.Apply(ctx, applycorev1.ConfigMap("x", "ns").WithData(map[string]string{"a": "2"}), metav1.ApplyOptions{FieldManager: "two"})
	var status apierrors.APIStatus
	if !apierrors.IsConflict(err) {
		t.Fatalf("a conflict: %v", err)
	}
	status, _ = err.(apierrors.APIStatus)
	want := []metav1.StatusCause{{Type: metav1.CauseTypeFieldManagerConflict, Message: `conflict with "one"`, Field: ".data.a"}}
	if s := status.Status(); s.Message != `Apply failed with 1 conflict: conflict with "one": .data.a` || !reflect.DeepEqual(s.Details.Causes, want) {
		t.Fatalf("conflict %+v", s)
	}
	forced, err := client.Apply(ctx, applycorev1.ConfigMap("x", "ns").WithData(map[string]string{"a": "2"}), metav1.ApplyOptions{FieldManager: "two", Force: true})
	if err != nil || forced.Data["a"] != "2" || forced.Data["b"] != "1" || len(forced.ManagedFields) != 2 {
		t.Fatalf("forced %+v, %v", forced, err)
	}
	less, err := client.Apply(ctx, applycorev1.ConfigMap("x", "ns").WithData(map[string]string{}), metav1.ApplyOptions{FieldManager: "one"})
	if err != nil || !reflect.DeepEqual(less.Data, map[string]string{"a": "2"}) {
		t.Fatalf("no longer applied: %+v, %v", less, err)
	}
	// An update is recorded under the user agent, or the manager that it names; and not at all where it changes nothing.
	less.Data["c"] = "3"
	updated, err := client.Update(ctx, less, metav1.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var found bool
	for _, m := range updated.ManagedFields {
		found = found || m.Manager == "tester" && m.Operation == "Update" && m.FieldsV1.GetRawString() == `{"f:data":{"f:c":{}}}`
	}
	if !found {
		t.Errorf("managed fields %+v", updated.ManagedFields)
	}
	updated.ManagedFields = []metav1.ManagedFieldsEntry{{}}
	reset, err := client.Update(ctx, updated, metav1.UpdateOptions{})
	if err != nil || len(reset.ManagedFields) != 0 {
		t.Errorf("reset %+v, %v", reset.ManagedFields, err)
	}
}

func TestApplyErrors(t *testing.T) {
	e := newEnv(t, nil)
	e.namespace("ns")
	const path = "/api/v1/namespaces/ns/configmaps/x?fieldManager=m"
	apply := "Content-Type: application/apply-patch+yaml"
	for body, want := range map[string]struct {
		code    int
		message string
	}{
		"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, managedFields: [{}]}\n":  {400, "metadata.managedFields must be nil"},
		"apiVersion: v2\nkind: ConfigMap\nmetadata: {name: x}\n":                       {400, "invalid object type: /v2, Kind=ConfigMap"},
		"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, uid: u}\n":               {409, `Operation cannot be fulfilled on configmaps "x": uid mismatch: the provided object specified uid u, and no existing object was found`},
		"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: z}\n":                       {400, "the name of the object (z) does not match the name on the URL (x)"},
		"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndat: {}\n":              {500, "failed to create typed patch object (/x; /v1, Kind=ConfigMap): .dat: field not declared in schema"},
		"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: {a: b}\ndata: {}": {400, ""},
		"a: [": {400, ""},
	} {
		a := e.do("PATCH", path+"&fieldValidation=Strict", body, apply)
		if s := a.status(t); a.StatusCode != want.code || want.message != "" && s.Message != want.message {
			t.Errorf("%q: %d %s", body, a.StatusCode, s.Message)
		}
	}
	e.must(403, "PATCH", path, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n", apply, "Authorization: Bearer updater")
}

// TestDeletion wants finalizers, propagation policies and namespaces treated as they should.
func TestDeletion(t *testing.T) {
	e := newEnv(t, nil)
	e.namespace("ns")
	const maps = "/api/v1/namespaces/ns/configmaps"
	e.must(201, "POST", maps, configMap("plain"))
	s := e.must(200, "DELETE", maps+"/plain", "").status(t)
	if s.Status != "Success" || s.Details == nil || s.Details.Name != "plain" || s.Details.Kind != "configmaps" || s.Details.UID == "" {
		t.Errorf("the answer to a deletion: %+v", s)
	}
	for policy, finalizer := range map[string]string{"Orphan": "orphan", "Foreground": "foregroundDeletion"} {
		e.must(201, "POST", maps, configMap(strings.ToLower(policy)))
		path := maps + "/" + strings.ToLower(policy)
		var cm corev1.ConfigMap
		e.must(200, "DELETE", path, `{"kind":"DeleteOptions","apiVersion":"v1","propagationPolicy":"`+policy+`"}`, "Content-Type: application/json").json(t, &cm)
		if cm.DeletionTimestamp == nil || len(cm.Finalizers) != 1 || cm.Finalizers[0] != finalizer || *cm.DeletionGracePeriodSeconds != 0 {
			t.Errorf("%s: %+v", policy, cm.ObjectMeta)
		}
		rev := cm.ResourceVersion
		e.must(200, "DELETE", path, "").json(t, &cm)
		if cm.ResourceVersion != rev {
			t.Errorf("deleted twice: revision %s after %s", cm.ResourceVersion, rev)
		}
		a := e.must(422, "PATCH", path, `{"metadata":{"finalizers":["example.com/new"]}}`, "Content-Type: application/merge-patch+json")
		if !strings.Contains(a.status(t).Message, `metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{"example.com/new"}`) {
			t.Errorf("a new finalizer: %s", a.body)
		}
		a = e.must(409, "POST", maps, configMap(strings.ToLower(policy)))
		if want := fmt.Sprintf(`object is being deleted: configmaps %q already exists`, strings.ToLower(policy)); a.status(t).Message != want {
			t.Errorf("created again: %s", a.body)
		}
		e.must(200, "PATCH", path, `{"metadata":{"finalizers":null}}`, "Content-Type: application/merge-patch+json")
		e.must(404, "GET", path, "")
	}
	namespaces := e.client.CoreV1().Namespaces()
	if err := namespaces.Delete(ctx, "ns", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	ns, err := namespaces.Get(ctx, "ns", metav1.GetOptions{})
	if err != nil || ns.DeletionTimestamp == nil || ns.Status.Phase != corev1.NamespaceTerminating {
		t.Fatalf("a deleted namespace: %+v, %v", ns, err)
	}
	ns.Spec.Finalizers = nil
	if _, err := namespaces.Finalize(ctx, ns, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := namespaces.Get(ctx, "ns", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("a finalized namespace: %v", err)
	}
}

// TestStatus wants that each endpoint changes its own part.
func TestStatus(t *testing.T) {
	e := newEnv(t, nil)
	ns, err := e.client.CoreV1().Namespaces().Get(ctx, e.namespace("ns"), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ns.Status.Conditions = []corev1.NamespaceCondition{{Type: "Test", Status: "True"}}
	ns.Labels["x"] = "y"
	main, err := e.client.CoreV1().Namespaces().Update(ctx, ns, metav1.UpdateOptions{})
	if err != nil || len(main.Status.Conditions) != 0 || main.Labels["x"] != "y" {
		t.Fatalf("updated %+v, %v", main, err)
	}
	main.Status.Conditions, main.Spec.Finalizers = ns.Status.Conditions, nil
	status, err := e.client.CoreV1().Namespaces().UpdateStatus(ctx, main, metav1.UpdateOptions{FieldManager: "s"})
	if err != nil || len(status.Status.Conditions) != 1 || len(status.Spec.Finalizers) != 1 {
		t.Fatalf("updated %+v, %v", status, err)
	}
	var found bool
	for _, m := range status.ManagedFields {
		found = found || m.Manager == "s" && m.Subresource == "status"
		if m.Manager == "tester" && strings.Contains(m.FieldsV1.GetRawString(), "f:status") {
			t.Errorf("the main resource manages status: %s", m.FieldsV1.GetRawString())
		}
	}
	if !found {
		t.Errorf("managed fields %+v", status.ManagedFields)
	}
}

func TestWarnings(t *testing.T) {
	e := newEnv(t, nil)
	e.namespace("ns")
	a := e.must(201, "POST", "/api/v1/namespaces/ns/configmaps",
		`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x","nam":1},"dat":{},"dat":{}}`)
	got, _ := json.Marshal(a.Header["Warning"])
	if string(got) != `["299 - \"unknown field \\\"metadata.nam\\\"\"","299 - \"unknown field \\\"dat\\\"\""]` &&
		!strings.Contains(string(got), `unknown field`) {
		t.Errorf("warnings %s", got)
	}
	if len(a.Header["Warning"]) < 2 {
		t.Errorf("warnings %s", got)
	}
	a = e.must(201, "POST", "/api/v1/namespaces/ns/configmaps?fieldValidation=Ignore", `{"metadata":{"name":"y"},"dat":{}}`)
	if len(a.Header["Warning"]) != 0 {
		t.Errorf("warnings %s", a.Header["Warning"])
	}
	ref := `{"apiVersion":"v1","kind":"Pod","name":"p","uid":"1"}`
	a = e.must(201, "POST", "/api/v1/namespaces/ns/configmaps", `{"metadata":{"name":"z","ownerReferences":[`+ref+`,`+ref+`]}}`)
	if len(a.Header["Warning"]) != 1 || !strings.Contains(a.Header["Warning"][0], ".metadata.ownerReferences contains duplicate entries") {
		t.Errorf("warnings %s", a.Header["Warning"])
	}
}
