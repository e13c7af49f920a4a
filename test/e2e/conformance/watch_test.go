package conformance

import (
	"fmt"
	"strconv"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

func configMap(name string, labels map[string]string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
}

// [sig-api-machinery] Watchers should observe add, update, and delete watch notifications on configmaps;
// should observe an object deletion if it stops meeting the requirements of the selector.
func TestWatchSelector(t *testing.T) {
	ns := namespace(t)
	api, ctx := client.CoreV1().ConfigMaps(ns), t.Context()
	watchFor := func(selector string) watch.Interface {
		w, err := api.Watch(ctx, metav1.ListOptions{LabelSelector: selector})
		must(t, err)
		t.Cleanup(w.Stop)
		return w
	}
	a, b, both := watchFor("is=a"), watchFor("is=b"), watchFor("is in (a, b)")
	_, err := api.Create(ctx, configMap("one", map[string]string{"is": "a"}), metav1.CreateOptions{})
	must(t, err)
	expect(t, a, "ADDED one")
	_, err = api.Patch(ctx, "one", types.MergePatchType, []byte(`{"data":{"x":"1"}}`), metav1.PatchOptions{})
	must(t, err)
	expect(t, a, "MODIFIED one")
	_, err = api.Patch(ctx, "one", types.MergePatchType, []byte(`{"metadata":{"labels":{"is":"b"}}}`), metav1.PatchOptions{})
	must(t, err)
	expect(t, a, "DELETED one")
	expect(t, b, "ADDED one")
	must(t, api.Delete(ctx, "one", metav1.DeleteOptions{}))
	expect(t, b, "DELETED one")
	expect(t, both, "ADDED one", "MODIFIED one", "MODIFIED one", "DELETED one")
}

// [sig-api-machinery] Watchers should be able to start watching from a specific resource version; should be able to restart
// watching from the last resource version observed by the previous watch; should receive events on concurrent watches in
// same order.
func TestWatchFromRevision(t *testing.T) {
	ns := namespace(t)
	api, ctx := client.CoreV1().ConfigMaps(ns), t.Context()
	revisions := []string{}
	for i := range 8 {
		made, err := api.Create(ctx, configMap(fmt.Sprintf("c%d", i), map[string]string{"own": ns}), metav1.CreateOptions{})
		must(t, err)
		revisions = append(revisions, made.ResourceVersion)
	}
	must(t, api.Delete(ctx, "c3", metav1.DeleteOptions{}))
	for i, rev := range revisions {
		w, err := api.Watch(ctx, metav1.ListOptions{ResourceVersion: rev, LabelSelector: "own=" + ns})
		must(t, err)
		want := []string{}
		for k := i + 1; k < len(revisions); k++ {
			want = append(want, fmt.Sprintf("ADDED c%d", k))
		}
		expect(t, w, append(want, "DELETED c3")...)
		w.Stop()
	}
	if _, err := api.Watch(ctx, metav1.ListOptions{ResourceVersion: "x"}); err == nil {
		t.Error("a watch from revision x is accepted")
	} else {
		errorSays(t, "revision x", err, 400, `resourceVersion: Invalid value: "x": strconv.ParseUint: parsing "x": invalid syntax`)
	}
	w, err := api.Watch(ctx, metav1.ListOptions{ResourceVersion: "1"})
	must(t, err)
	defer w.Stop()
	if e := <-w.ResultChan(); e.Type != watch.Error && e.Type != watch.Added {
		t.Errorf("a watch from revision 1 begins with %+v", e)
	} else if e.Type == watch.Error && !apierrors.IsResourceExpired(apierrors.FromObject(e.Object)) {
		t.Errorf("a watch from revision 1 gets %+v", e.Object)
	}
}

// [sig-api-machinery] Servers with support for API chunking.
func TestChunks(t *testing.T) {
	ns := namespace(t)
	api, ctx := client.CoreV1().PodTemplates(ns), t.Context()
	const count = 40
	for i := range count {
		tmpl := &corev1.PodTemplate{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("template-%04d", i)}}
		tmpl.Template.Spec.Containers = []corev1.Container{{Name: "c", Image: "i"}}
		_, err := api.Create(ctx, tmpl, metav1.CreateOptions{})
		must(t, err)
	}
	whole, err := api.List(ctx, metav1.ListOptions{})
	must(t, err)
	for _, limit := range []int64{1, 7, 13, count, count + 1} {
		options, seen, revision := metav1.ListOptions{Limit: limit}, 0, ""
		for {
			part, err := api.List(ctx, options)
			must(t, err)
			if revision == "" {
				revision = part.ResourceVersion
			}
			if part.ResourceVersion != revision {
				t.Errorf("the revision of a chunk is %s, not %s", part.ResourceVersion, revision)
			}
			for _, o := range part.Items {
				if want := whole.Items[seen].Name; o.Name != want {
					t.Errorf("got %s, want %s", o.Name, want)
				}
				seen++
			}
			if left := part.RemainingItemCount; part.Continue != "" && (left == nil || *left != int64(count-seen)) {
				t.Errorf("remaining %v after %d", left, seen)
			}
			if part.Continue == "" {
				break
			}
			options.Continue = part.Continue
		}
		if seen != count {
			t.Errorf("by %d: %d objects", limit, seen)
		}
	}
	_, err = api.List(ctx, metav1.ListOptions{Limit: 3, Continue: "garbage"})
	errorSays(t, "an invalid continue token", err, 400, "continue key is not valid")
	first, err := api.List(ctx, metav1.ListOptions{Limit: 3})
	must(t, err)
	_, err = api.List(ctx, metav1.ListOptions{Limit: 3, Continue: first.Continue, ResourceVersion: first.ResourceVersion})
	errorSays(t, "a continue token with a revision", err, 400, "specifying resource version is not allowed when using continue")
}

// Initial events as a stream: KEP-3157.
func TestStreamingList(t *testing.T) {
	ns := namespace(t)
	api, ctx := client.CoreV1().Secrets(ns), t.Context()
	for i := range 3 {
		_, err := api.Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: strconv.Itoa(i)}}, metav1.CreateOptions{})
		must(t, err)
	}
	yes := true
	w, err := api.Watch(ctx, metav1.ListOptions{SendInitialEvents: &yes, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan, AllowWatchBookmarks: true})
	must(t, err)
	defer w.Stop()
	expect(t, w, "ADDED 0", "ADDED 1", "ADDED 2")
	e := <-w.ResultChan()
	if m, ok := e.Object.(metav1.Object); e.Type != watch.Bookmark || !ok || m.GetAnnotations()[metav1.InitialEventsAnnotationKey] != "true" {
		t.Errorf("the initial events end with %+v", e)
	}
	_, err = api.Watch(ctx, metav1.ListOptions{SendInitialEvents: &yes})
	errorSays(t, "without a match", err, 422, `ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan`)
}
