package e2e

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// [sig-instrumentation] Events API should ensure that an event can be fetched, patched, deleted, and listed; should delete a
// collection of events. Both groups show the same events.
func TestEventsAPI(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	ctx, api := t.Context(), s.client.EventsV1().Events(s.namespace)
	selector := metav1.ListOptions{LabelSelector: "testevent-set=true"}
	event := func(name string) *eventsv1.Event {
		e, err := api.Create(ctx, &eventsv1.Event{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"testevent-set": "true"}},
			Regarding:  corev1.ObjectReference{Namespace: s.namespace, Kind: "Pod", Name: "p"},
			EventTime:  metav1.NowMicro(), ReportingController: "test-controller", ReportingInstance: "test-node", Action: "Do", Reason: "Test", Type: "Normal", Note: "This is " + name,
		}, metav1.CreateOptions{})
		must(t, err)
		return e
	}
	event("one")
	for _, ns := range []string{"", s.namespace} {
		list, err := s.client.EventsV1().Events(ns).List(ctx, metav1.ListOptions{FieldSelector: "reportingController=test-controller", LabelSelector: selector.LabelSelector})
		must(t, err)
		if len(list.Items) != 1 || list.Items[0].Name != "one" {
			t.Errorf("in %q there are %+v", ns, list.Items)
		}
	}
	e, err := api.Patch(ctx, "one", types.StrategicMergePatchType, []byte(`{"series":{"count":123,"lastObservedTime":"2030-05-31T18:57:37.000000Z"}}`), metav1.PatchOptions{})
	must(t, err)
	if e.Series == nil || e.Series.Count != 123 {
		t.Errorf("patched %+v", e)
	}
	e.Series = &eventsv1.EventSeries{Count: 100, LastObservedTime: metav1.MicroTime{Time: time.Unix(1505828956, 0)}}
	_, err = api.Update(ctx, e, metav1.UpdateOptions{})
	must(t, err)
	e, err = api.Get(ctx, "one", metav1.GetOptions{})
	must(t, err)
	if e.Series.Count != 100 || e.Series.LastObservedTime.Unix() != 1505828956 {
		t.Errorf("updated %+v", e.Series)
	}
	old, err := s.client.CoreV1().Events(s.namespace).Get(ctx, "one", metav1.GetOptions{})
	must(t, err)
	if old.Message != "This is one" || old.InvolvedObject.Name != "p" || old.Series.Count != 100 {
		t.Errorf("in the core group it is %+v", old)
	}
	must(t, api.Delete(ctx, "one", metav1.DeleteOptions{}))
	for n := range 3 {
		event(fmt.Sprint("set-", n))
	}
	must(t, api.DeleteCollection(ctx, metav1.DeleteOptions{}, selector))
	if list, err := api.List(ctx, selector); err != nil || len(list.Items) != 0 {
		t.Errorf("left %+v, %v", list.Items, err)
	}
}

// [sig-instrumentation] Events should manage the lifecycle of an event; should delete a collection of events.
func TestCoreEvents(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	ctx, api := t.Context(), s.client.CoreV1().Events(s.namespace)
	event := func(name string) {
		_, err := api.Create(ctx, &corev1.Event{
			ObjectMeta:     metav1.ObjectMeta{Name: name, Labels: map[string]string{"testevent-constant": s.namespace}},
			InvolvedObject: corev1.ObjectReference{Namespace: s.namespace, Kind: "Pod", Name: "p"}, Reason: "Test", Type: "Normal", Message: "This is a test event", Count: 1,
		}, metav1.CreateOptions{})
		must(t, err)
	}
	event("one")
	selector := metav1.ListOptions{LabelSelector: "testevent-constant=" + s.namespace}
	list, err := s.client.CoreV1().Events("").List(ctx, selector)
	must(t, err)
	if len(list.Items) != 1 || list.Items[0].Name != "one" {
		t.Fatalf("events %+v", list.Items)
	}
	e, err := api.Patch(ctx, "one", types.StrategicMergePatchType, []byte(`{"message":"This is a test event - patched"}`), metav1.PatchOptions{})
	must(t, err)
	e.Series = &corev1.EventSeries{Count: 100, LastObservedTime: metav1.MicroTime{Time: time.Unix(1505828956, 0)}}
	_, err = api.Update(ctx, e, metav1.UpdateOptions{})
	must(t, err)
	e, err = api.Get(ctx, "one", metav1.GetOptions{})
	must(t, err)
	if e.Message != "This is a test event - patched" || e.Series.Count != 100 {
		t.Errorf("event %+v", e)
	}
	must(t, api.Delete(ctx, "one", metav1.DeleteOptions{}))
	if _, err := api.Get(ctx, "one", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("after its deletion: %v", err)
	}
	event("two")
	event("three")
	must(t, api.DeleteCollection(ctx, metav1.DeleteOptions{}, selector))
	if list, err := api.List(ctx, selector); err != nil || len(list.Items) != 0 {
		t.Errorf("left %+v, %v", list.Items, err)
	}
}
