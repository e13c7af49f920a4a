package apiserver_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
)

func TestPaging(t *testing.T) {
	e := newEnv(t, nil)
	e.namespace("ns")
	client := e.client.CoreV1().ConfigMaps("ns")
	for i := range 10 {
		e.must(201, "POST", "/api/v1/namespaces/ns/configmaps", configMap(fmt.Sprintf("c%d", i)))
	}
	first, err := client.List(ctx, metav1.ListOptions{Limit: 4})
	if err != nil || len(first.Items) != 4 || first.Continue == "" || first.RemainingItemCount == nil || *first.RemainingItemCount != 6 {
		t.Fatalf("the first page: %+v, %v", first, err)
	}
	if err := client.Delete(ctx, "c7", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	var names []string
	rev := first.ResourceVersion
	for next := first.Continue; next != ""; {
		page, err := client.List(ctx, metav1.ListOptions{Limit: 4, Continue: next})
		if err != nil || page.ResourceVersion != rev {
			t.Fatalf("a page at %s: %+v, %v", rev, page, err)
		}
		for _, c := range page.Items {
			names = append(names, c.Name)
		}
		next = page.Continue
	}
	if strings.Join(names, " ") != "c4 c5 c6 c7 c8 c9" {
		t.Errorf("the rest is %v", names)
	}
	exact, err := client.List(ctx, metav1.ListOptions{ResourceVersion: rev, ResourceVersionMatch: metav1.ResourceVersionMatchExact})
	if err != nil || len(exact.Items) != 10 {
		t.Errorf("%d objects at %s, %v", len(exact.Items), rev, err)
	}
	_, err = client.List(ctx, metav1.ListOptions{Continue: first.Continue, ResourceVersion: "5"})
	if !apierrors.IsBadRequest(err) {
		t.Errorf("a token with a revision: %v", err)
	}
	if l, err := client.List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=c3"}); err != nil || len(l.Items) != 1 {
		t.Errorf("by name: %+v, %v", l, err)
	}
}

// A continue token whose state is compacted away is answered with one that goes on in the latest state.
func TestPagingAfterCompaction(t *testing.T) {
	e := newEnv(t, nil)
	e.namespace("ns")
	client := e.client.CoreV1().ConfigMaps("ns")
	var rev int64
	for i := range 6 {
		c, err := client.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("c%d", i)}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if rev, err = strconv.ParseInt(c.ResourceVersion, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := e.etcd.Compact(ctx, rev); err != nil {
		t.Fatal(err)
	}
	old := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"v":"meta.k8s.io/v1","rv":%d,"start":"ns/c2\u0000"}`, rev-2))
	_, err := client.List(ctx, metav1.ListOptions{Limit: 2, Continue: old})
	if !apierrors.IsResourceExpired(err) || !strings.Contains(err.Error(), "The provided continue parameter is too old to display a consistent list result.") {
		t.Fatalf("an expired token: %v", err)
	}
	next := err.(apierrors.APIStatus).Status().ListMeta.Continue
	var names []string
	for next != "" {
		page, err := client.List(ctx, metav1.ListOptions{Limit: 2, Continue: next})
		if err != nil {
			t.Fatal(err)
		}
		if page.ResourceVersion == "" || page.ResourceVersion == "0" {
			t.Errorf("a page has revision %q", page.ResourceVersion)
		}
		for _, c := range page.Items {
			names = append(names, c.Name)
		}
		next = page.Continue
	}
	if strings.Join(names, " ") != "c3 c4 c5" {
		t.Errorf("the rest is %v", names)
	}
}

func TestTables(t *testing.T) {
	e := newEnv(t, nil)
	e.namespace("ns")
	e.must(201, "POST", "/api/v1/namespaces/ns/configmaps", configMap("x", "a", "1", "b", "2"))
	accept := "Accept: application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
	for _, path := range []string{"/api/v1/namespaces/ns/configmaps", "/api/v1/namespaces/ns/configmaps/x"} {
		var table metav1.Table
		e.must(200, "GET", path, "", accept).json(t, &table)
		if table.Kind != "Table" || table.APIVersion != "meta.k8s.io/v1" || len(table.ColumnDefinitions) != 3 || len(table.Rows) != 1 ||
			table.ResourceVersion == "" || fmt.Sprint(table.Rows[0].Cells[:2]) != "[x 2]" {
			t.Fatalf("%s: %+v", path, table)
		}
		var object metav1.PartialObjectMetadata
		if err := json.Unmarshal(table.Rows[0].Object.Raw, &object); err != nil || object.Kind != "PartialObjectMetadata" || object.Name != "x" {
			t.Errorf("%s: %s", path, table.Rows[0].Object.Raw)
		}
	}
	var table metav1.Table
	e.must(200, "GET", "/api/v1/namespaces/ns/configmaps?includeObject=None", "", accept).json(t, &table)
	if table.Rows[0].Object.Raw != nil && string(table.Rows[0].Object.Raw) != "null" {
		t.Errorf("%s", table.Rows[0].Object.Raw)
	}
	e.must(406, "GET", "/api/v1/namespaces/ns/configmaps/x", "", "Accept: application/json;as=Table;v=v9;g=meta.k8s.io")
	a := e.must(200, "GET", "/api/v1/namespaces/ns/configmaps", "", "Accept: application/yaml")
	if !strings.Contains(string(a.body), "kind: ConfigMapList") || a.Header.Get("Content-Type") != "application/yaml" {
		t.Errorf("%s", a.body)
	}
	a = e.must(200, "GET", "/api/v1/namespaces/ns/configmaps?pretty=1", "")
	if !strings.Contains(string(a.body), "\n  \"kind\": \"ConfigMapList\"") {
		t.Errorf("%s", a.body)
	}
	var list struct {
		Items []map[string]any
	}
	a.json(t, &list)
	if list.Items[0]["kind"] != nil || list.Items[0]["metadata"] == nil {
		t.Errorf("an item is %v", list.Items[0])
	}
}

// next waits for an event.
func next(t testing.TB, w watch.Interface) watch.Event {
	t.Helper()
	select {
	case ev, ok := <-w.ResultChan():
		if !ok {
			t.Fatal("the watch has ended")
		}
		return ev
	case <-time.After(10 * time.Second):
		t.Fatal("no event")
	}
	panic("unreachable")
}

// rev is an object's revision.
func rev(t testing.TB, obj runtime.Object) int64 {
	t.Helper()
	n, err := strconv.ParseInt(obj.(metav1.Object).GetResourceVersion(), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestWatch(t *testing.T) {
	e := newEnv(t, nil)
	e.namespace("ns")
	for _, contentType := range []string{runtime.ContentTypeJSON, runtime.ContentTypeProtobuf} {
		t.Run(contentType, func(t *testing.T) {
			config := rest.CopyConfig(e.config)
			config.ContentType = contentType
			client := kubernetes.NewForConfigOrDie(config).CoreV1().ConfigMaps("ns")
			made, err := client.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "x", Labels: map[string]string{"l": "1"}}}, metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			w, err := client.Watch(ctx, metav1.ListOptions{ResourceVersion: made.ResourceVersion, LabelSelector: "l=1", AllowWatchBookmarks: true})
			if err != nil {
				t.Fatal(err)
			}
			defer w.Stop()
			made.Data = map[string]string{"a": "<b>"}
			updated, err := client.Update(ctx, made, metav1.UpdateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			ev := next(t, w)
			for ev.Type == watch.Bookmark {
				ev = next(t, w)
			}
			if cm := ev.Object.(*corev1.ConfigMap); ev.Type != watch.Modified || cm.Data["a"] != "<b>" || cm.ResourceVersion != updated.ResourceVersion || cm.UID != made.UID {
				t.Fatalf("event %s %+v", ev.Type, cm)
			}
			if ev := next(t, w); ev.Type != watch.Bookmark || rev(t, ev.Object) < rev(t, updated) {
				t.Fatalf("event %s %+v", ev.Type, ev.Object)
			}
			updated.Labels = nil
			unlabelled, err := client.Update(ctx, updated, metav1.UpdateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for ev = next(t, w); ev.Type == watch.Bookmark; ev = next(t, w) {
			}
			if cm := ev.Object.(*corev1.ConfigMap); ev.Type != watch.Deleted || cm.ResourceVersion != unlabelled.ResourceVersion {
				t.Fatalf("event %s %s %+v, want revision %s", ev.Type, cm.ResourceVersion, cm.Labels, unlabelled.ResourceVersion)
			}
			all, err := client.Watch(ctx, metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer all.Stop()
			if ev := next(t, all); ev.Type != watch.Added || ev.Object.(*corev1.ConfigMap).Name != "x" {
				t.Fatalf("event %s %+v", ev.Type, ev.Object)
			}
			if err := client.Delete(ctx, "x", metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			if ev := next(t, all); ev.Type != watch.Deleted || rev(t, ev.Object) <= rev(t, unlabelled) {
				t.Fatalf("event %s %+v", ev.Type, ev.Object)
			}
		})
	}
}

// TestStreamingList wants the initial events ended by the annotated bookmark.
func TestStreamingList(t *testing.T) {
	e := newEnv(t, nil)
	e.namespace("ns")
	e.must(201, "POST", "/api/v1/namespaces/ns/configmaps", configMap("x"))
	yes := true
	w, err := e.client.CoreV1().ConfigMaps("ns").Watch(ctx, metav1.ListOptions{
		SendInitialEvents: &yes, AllowWatchBookmarks: true, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if ev := next(t, w); ev.Type != watch.Added {
		t.Fatalf("event %+v", ev)
	}
	ev := next(t, w)
	if cm := ev.Object.(*corev1.ConfigMap); ev.Type != watch.Bookmark || cm.Annotations[metav1.InitialEventsAnnotationKey] != "true" || cm.ResourceVersion == "" {
		t.Fatalf("event %+v", ev)
	}
}

// lines reads a raw watch.
func (e *env) lines(t *testing.T, path string, headers ...string) (*http.Response, func() map[string]any) {
	t.Helper()
	c, cancel := context.WithTimeout(ctx, 20*time.Second)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(c, "GET", e.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer admin")
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	scanner := bufio.NewScanner(resp.Body)
	scanner.Buffer(nil, 1<<20)
	return resp, func() map[string]any {
		t.Helper()
		if !scanner.Scan() {
			t.Fatalf("the watch has ended: %v", scanner.Err())
		}
		var ev map[string]any
		if err := json.Unmarshal(scanner.Bytes(), &ev); err != nil {
			t.Fatalf("%v in %s", err, scanner.Bytes())
		}
		return ev
	}
}

func TestWatchForms(t *testing.T) {
	e := newEnv(t, nil)
	e.namespace("ns")
	e.must(201, "POST", "/api/v1/namespaces/ns/configmaps", configMap("x", "a", "1"))
	e.must(201, "POST", "/api/v1/namespaces/ns/configmaps", configMap("y", "a", "1"))
	_, line := e.lines(t, "/api/v1/namespaces/ns/configmaps?watch=1", "Accept: application/json;as=Table;v=v1;g=meta.k8s.io")
	first, second := line()["object"].(map[string]any), line()["object"].(map[string]any)
	if first["kind"] != "Table" || first["columnDefinitions"] == nil || second["columnDefinitions"] != nil || len(second["rows"].([]any)) != 1 {
		t.Errorf("tables %v, %v", first, second)
	}
	_, line = e.lines(t, "/api/v1/watch/namespaces/ns/configmaps/y")
	if ev := line(); ev["type"] != "ADDED" || ev["object"].(map[string]any)["metadata"].(map[string]any)["name"] != "y" {
		t.Errorf("the deprecated watch of one object: %v", ev)
	}
	resp, line := e.lines(t, "/api/v1/namespaces/ns/configmaps?watch=1&resourceVersion=1", "Accept: application/json;stream=watch")
	if ev := line(); ev["type"] == "ERROR" {
		if status := ev["object"].(map[string]any); resp.StatusCode != 200 || status["code"] != 410.0 || status["reason"] != "Expired" {
			t.Errorf("an expired revision: %v", ev)
		}
	}
	w, err := metadata.NewForConfigOrDie(e.config).Resource(corev1.SchemeGroupVersion.WithResource("configmaps")).Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if ev := next(t, w); ev.Type != watch.Added || ev.Object.(*metav1.PartialObjectMetadata).Name != "x" {
		t.Errorf("event %+v", ev)
	}
	ended, err := e.client.CoreV1().ConfigMaps("ns").Watch(ctx, metav1.ListOptions{TimeoutSeconds: new(int64(1))})
	if err != nil {
		t.Fatal(err)
	}
	next(t, ended)
	next(t, ended)
	if ev, ok := <-ended.ResultChan(); ok {
		t.Errorf("event %+v after the time is up", ev)
	}
}
