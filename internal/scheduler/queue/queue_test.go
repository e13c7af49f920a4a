package queue

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/proa-k8s/proa/internal/scheduler/framework"
)

func newPod(name string, priority int32) *framework.Pod {
	return framework.NewPod(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}, Spec: corev1.PodSpec{Priority: &priority}})
}

// newQueue makes a queue in which pods with scheduling gates are gated.
func newQueue() *Queue {
	return New(func(p *corev1.Pod) *framework.Status {
		if len(p.Spec.SchedulingGates) > 0 {
			return &framework.Status{Code: framework.Gated}
		}
		return nil
	})
}

func pop(t *testing.T, q *Queue, now time.Time, want string) *Entry {
	t.Helper()
	e := q.Pop(now)
	got := ""
	if e != nil {
		got = e.Pod.Name
	}
	if got != want {
		t.Fatalf("got %q, want %q", got, want)
	}
	return e
}

var start = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

var cpu = &framework.Plugin{Name: "cpu", Events: framework.NodeAdded | framework.PodRemoved, Hint: func(_ *framework.Pod, e *framework.Event) bool {
	return e.Pod == nil || e.Pod.Name != "small"
}}

func TestOrder(t *testing.T) {
	q := newQueue()
	q.Add(newPod("old", 0), start)
	q.Add(newPod("new", 0), start.Add(time.Second))
	q.Add(newPod("important", 10), start.Add(2*time.Second))
	for _, want := range []string{"important", "old", "new", ""} {
		pop(t, q, start, want)
	}
}

func TestBackoff(t *testing.T) {
	q, now := newQueue(), start
	q.Add(newPod("a", 0), now)
	for _, want := range []time.Duration{1, 2, 4, 8, 10, 10} {
		e := pop(t, q, now, "a")
		q.Retry(e, now)
		if due := q.Next(); due != now.Add(want*time.Second) {
			t.Fatalf("after %d attempts due in %s, want %d s", e.Attempts, due.Sub(now), want)
		}
		pop(t, q, now.Add(want*time.Second-1), "")
		now = q.Next()
	}
}

func TestEventsWake(t *testing.T) {
	tests := map[string]struct {
		event framework.Event
		wakes bool
	}{
		"of the plugin":            {framework.Event{Kind: framework.NodeAdded}, true},
		"of others":                {framework.Event{Kind: framework.NodeTaints}, false},
		"that the hint finds good": {framework.Event{Kind: framework.PodRemoved, Pod: newPod("big", 0)}, true},
		"that the hint finds bad":  {framework.Event{Kind: framework.PodRemoved, Pod: newPod("small", 0)}, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			q := newQueue()
			q.Add(newPod("a", 0), start)
			q.Wait(pop(t, q, start, "a"), []*framework.Plugin{cpu}, start)
			pop(t, q, start, "")
			q.Event(&test.event, start)
			want := ""
			if test.wakes {
				want = "a"
			}
			pop(t, q, start, want)
		})
	}
}

// TestBackoffIsForTheBusy: a pod that was woken early is behind all others, but isn't left waiting when there are none.
func TestBackoffIsForTheBusy(t *testing.T) {
	q := newQueue()
	q.Add(newPod("failed", 5), start)
	q.Wait(pop(t, q, start, "failed"), []*framework.Plugin{cpu}, start)
	q.Event(&framework.Event{Kind: framework.NodeAdded}, start)
	q.Add(newPod("fresh", 0), start)
	if c := q.Counts(); c != (Counts{Active: 1, Backoff: 1}) {
		t.Errorf("%+v", c)
	}
	pop(t, q, start, "fresh")
	pop(t, q, start, "failed")
}

func TestNothingWaitsForever(t *testing.T) {
	q := newQueue()
	q.Add(newPod("a", 0), start)
	q.Wait(pop(t, q, start, "a"), []*framework.Plugin{cpu}, start)
	q.Add(newPod("b", 0), start)
	q.Wait(pop(t, q, start.Add(time.Minute), "b"), []*framework.Plugin{cpu}, start.Add(time.Minute))
	pop(t, q, start.Add(MaxWait-1), "")
	if q.Next() != start.Add(MaxWait) {
		t.Errorf("next at %s", q.Next())
	}
	pop(t, q, start.Add(MaxWait), "a")
	pop(t, q, start.Add(MaxWait), "")
	if q.Next() != start.Add(MaxWait+time.Minute) {
		t.Errorf("next at %s", q.Next())
	}
	pop(t, q, q.Next(), "b")
}

func TestGates(t *testing.T) {
	q := newQueue()
	p := newPod("a", 0)
	p.Pod.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "g"}}
	if e := q.Add(p, start); e.Gate == nil {
		t.Error("not gated")
	}
	pop(t, q, start, "")
	q.Event(&framework.Event{Kind: framework.AnyEvent}, start)
	pop(t, q, start.Add(2*MaxWait), "")
	q.Update(newPod("a", 0), nil, start)
	pop(t, q, start, "a")
}

func TestUpdate(t *testing.T) {
	q := newQueue()
	q.Add(newPod("a", 0), start)
	q.Add(newPod("b", 1), start)
	if !q.Update(newPod("a", 2), nil, start) || q.Update(newPod("c", 0), nil, start) {
		t.Error("who is in the queue?")
	}
	pop(t, q, start, "a")
	// A waiting pod wakes when it changed in what its plugins look at, not when its status did.
	e := pop(t, q, start, "b")
	own := &framework.Plugin{Name: "own", Events: framework.PodChanged}
	q.Wait(e, []*framework.Plugin{own}, start)
	same := newPod("b", 1)
	same.Pod.Status.Message = "new"
	q.Update(same, nil, start)
	pop(t, q, start, "")
	changed := newPod("b", 1)
	changed.Pod.Generation = 7
	q.Update(changed, nil, start)
	if e := pop(t, q, start, "b"); e.Pod != changed {
		t.Error("the pod is an old one")
	}
}

func TestRemove(t *testing.T) {
	q := newQueue()
	gated := newPod("gated", 0)
	gated.Pod.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "g"}}
	q.Add(newPod("failed", 0), start)
	q.Retry(pop(t, q, start, "failed"), start)
	q.Add(newPod("waiting", 0), start)
	q.Wait(pop(t, q, start, "waiting"), []*framework.Plugin{cpu}, start)
	q.Add(gated, start)
	q.Add(newPod("active", 0), start)
	if c := q.Counts(); c != (Counts{1, 1, 1, 1}) {
		t.Errorf("%+v", c)
	}
	for _, name := range []types.UID{"failed", "waiting", "gated", "active", "unknown"} {
		q.Remove(name)
	}
	if c := q.Counts(); c != (Counts{}) || len(q.entries) != 0 {
		t.Errorf("left: %+v", c)
	}
}

// TestHeap compares with sorting, while elements are taken out of the middle.
func TestHeap(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	h := heap{less: func(a, b *Entry) bool { return a.Attempts < b.Attempts }}
	var all []*Entry
	for i := range 500 {
		e := &Entry{Attempts: random.IntN(100), Pod: newPod(fmt.Sprint(i), 0)}
		h.push(e)
		all = append(all, e)
		if i%3 == 0 {
			gone := random.IntN(len(all))
			h.remove(all[gone].index)
			all = slices.Delete(all, gone, gone+1)
		}
	}
	slices.SortFunc(all, func(a, b *Entry) int { return a.Attempts - b.Attempts })
	for i, want := range all {
		if got := h.pop(); got.Attempts != want.Attempts {
			t.Fatalf("%d: got %d, want %d", i, got.Attempts, want.Attempts)
		}
	}
}
