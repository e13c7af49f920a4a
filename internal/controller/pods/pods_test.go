package pods_test

import (
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/proa-k8s/proa/internal/controller/pods"
)

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// running makes a ready pod on a node; options change it.
func running(name string, options ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), CreationTimestamp: metav1.NewTime(now.Add(-time.Hour))}}
	p.Spec.NodeName = "n-" + name
	p.Status.Phase = corev1.PodRunning
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now.Add(-time.Hour))}}
	for _, o := range options {
		o(p)
	}
	return p
}

func TestSurplus(t *testing.T) {
	onNode := func(n string) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Spec.NodeName = n } }
	phase := func(f corev1.PodPhase) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Status.Phase = f } }
	unready := func(p *corev1.Pod) { p.Status.Conditions[0].Status = corev1.ConditionFalse }
	cost := func(c string) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Annotations = map[string]string{corev1.PodDeletionCost: c} }
	}
	readyFor := func(d time.Duration) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Status.Conditions[0].LastTransitionTime = metav1.NewTime(now.Add(-d)) }
	}
	created := func(d time.Duration) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.CreationTimestamp = metav1.NewTime(now.Add(-d)) }
	}
	restarts := func(n int32) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Status.ContainerStatuses = []corev1.ContainerStatus{{RestartCount: n}} }
	}
	for name, test := range map[string]struct {
		first, second *corev1.Pod
		neighbours    []*corev1.Pod
	}{
		"without a node first":             {running("b", onNode("")), running("a"), nil},
		"pending before running":           {running("b", phase(corev1.PodPending)), running("a"), nil},
		"unknown before running":           {running("b", phase(corev1.PodUnknown)), running("a"), nil},
		"not ready before ready":           {running("b", unready), running("a"), nil},
		"cheap before dear":                {running("b", cost("-5")), running("a"), nil},
		"an invalid cost is none":          {running("b", cost("x"), readyFor(time.Second)), running("a", cost("01")), nil},
		"not ready before cheap":           {running("b", unready), running("a", cost("-5")), nil},
		"crowded nodes first":              {running("b", onNode("x")), running("a"), []*corev1.Pod{running("c", onNode("x")), running("d", onNode("x"))}},
		"ready for a shorter time":         {running("b", readyFor(time.Minute)), running("a"), nil},
		"equal magnitudes by uid":          {running("a", readyFor(65*time.Minute)), running("b"), nil},
		"more restarts":                    {running("b", restarts(3)), running("a", restarts(2)), nil},
		"younger":                          {running("b", created(time.Minute)), running("a"), nil},
		"a node counts before age":         {running("b", onNode("x")), running("a", readyFor(time.Second)), []*corev1.Pod{running("c", onNode("x")), running("d", onNode("x"))}},
		"ended neighbours crowd no node":   {running("b", readyFor(time.Minute)), running("a", onNode("x")), []*corev1.Pod{running("c", onNode("x"), phase(corev1.PodFailed))}},
		"restarts count less than the age": {running("b", readyFor(time.Second)), running("a", restarts(9)), nil},
	} {
		t.Run(name, func(t *testing.T) {
			for _, order := range [][]*corev1.Pod{{test.first, test.second}, {test.second, test.first}} {
				got := pods.Surplus(order, test.neighbours, 1, now)
				if len(got) != 1 || got[0] != test.first {
					t.Errorf("got %s", got[0].Name)
				}
			}
		})
	}
}

func TestAvailability(t *testing.T) {
	p := running("a")
	for _, test := range []struct {
		min  int32
		want bool
		in   time.Duration
	}{{0, true, 0}, {3600, true, 0}, {3660, false, time.Minute}} {
		if got, in := pods.Availability(p, test.min, now); got != test.want || in != test.in {
			t.Errorf("%d s: %v in %v, want %v in %v", test.min, got, in, test.want, test.in)
		}
	}
	p.Status.Conditions = nil
	if got, in := pods.Availability(p, 10, now); got || in != 0 {
		t.Errorf("a pod that isn't ready is available: %v in %v", got, in)
	}
}

func TestSlowStart(t *testing.T) {
	var calls atomic.Int32
	n, err := pods.SlowStart(10, func(int) error { calls.Add(1); return nil })
	if n != 10 || err != nil || calls.Load() != 10 {
		t.Errorf("%d succeeded of %d, %v", n, calls.Load(), err)
	}
	calls.Store(0)
	quota := errors.New("exceeded quota")
	n, err = pods.SlowStart(100, func(i int) error {
		calls.Add(1)
		if i >= 2 {
			return quota
		}
		return nil
	})
	// 1, then 2 of which one fails.
	if n != 2 || err != quota || calls.Load() != 3 {
		t.Errorf("%d succeeded of %d, %v", n, calls.Load(), err)
	}
}

func TestExpectations(t *testing.T) {
	clock := clocktesting.NewFakePassiveClock(now)
	e := pods.NewExpectations(clock)
	satisfied := func(want bool, when string) {
		t.Helper()
		if e.Satisfied("k") != want {
			t.Errorf("satisfied is %v %s", !want, when)
		}
	}
	satisfied(true, "at first")
	e.Created("k", 1) // Nothing is expected: no harm.
	e.Expect("k", 2)
	satisfied(false, "with two creations pending")
	e.Created("k", 1)
	satisfied(false, "with one pending")
	e.Created("k", 1)
	satisfied(true, "after both")
	e.Expect("k", 0, "a", "b")
	e.Deleted("k", "a")
	e.Deleted("k", "a")
	satisfied(false, "when one deletion was seen twice")
	e.Deleted("k", "b")
	satisfied(true, "after both deletions")
	e.Expect("k", 1)
	clock.SetTime(now.Add(6 * time.Minute))
	satisfied(true, "after the patience is over")
	e.Expect("k", 1)
	e.Forget("k")
	satisfied(true, "after it was forgotten")
}

func TestFromTemplate(t *testing.T) {
	template := &corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{
		Name: "ignored", Labels: map[string]string{"a": "b"}, Annotations: map[string]string{"c": "d"}, Finalizers: []string{"e/f"},
	}}
	p := pods.FromTemplate(template, "set", &metav1.OwnerReference{Name: "set"})
	if p.GenerateName != "set-" || p.Name != "" || p.Labels["a"] != "b" || p.Annotations["c"] != "d" || !slices.Equal(p.Finalizers, []string{"e/f"}) || len(p.OwnerReferences) != 1 {
		t.Errorf("made %+v", p.ObjectMeta)
	}
	p.Labels["a"] = "changed"
	if template.Labels["a"] != "b" {
		t.Error("the template was changed")
	}
}
