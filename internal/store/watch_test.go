package store

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
)

func startWatch(t testing.TB, c *Cache, o WatchOptions) *Watch {
	t.Helper()
	w, err := c.Watch(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	return w
}

func wantEvents(t testing.TB, w *Watch, want ...string) []Event {
	t.Helper()
	events := next(t, w, len(want))
	for i, e := range events {
		if got := describe([]Event{e}); got != want[i]+" " {
			t.Errorf("event %d is %q, want %q", i, got, want[i])
		}
	}
	return events
}

func TestWatchTransitions(t *testing.T) {
	c := testStore(t).Register(podResource)
	all := startWatch(t, c, WatchOptions{Rev: -1})
	labelled := startWatch(t, c, WatchOptions{Rev: -1, Labels: sel(t, "app=x")})
	onNode := startWatch(t, c, WatchOptions{Rev: -1, Fields: fields.OneTermEqualSelector("spec.nodeName", "n")})
	named := startWatch(t, c, WatchOptions{Rev: -1, Namespace: "ns", Fields: fields.OneTermEqualSelector("metadata.name", "a")})
	elsewhere := startWatch(t, c, WatchOptions{Rev: -1, Namespace: "other"})

	mustCreate(t, c, newPod("ns", "a", "app", "x"))
	mustUpdate(t, c, "ns", "a", func(p *corev1.Pod) { p.Spec.NodeName = "n" })
	mustUpdate(t, c, "ns", "a", func(p *corev1.Pod) { p.Labels["app"] = "y" })
	mustUpdate(t, c, "ns", "a", func(p *corev1.Pod) { p.Labels["app"] = "x" })
	gone := mustDelete(t, c, "ns", "a")
	mustCreate(t, c, newPod("other", "b"))

	wantEvents(t, all, "ADDED ns/a", "MODIFIED ns/a", "MODIFIED ns/a", "MODIFIED ns/a", "DELETED ns/a", "ADDED other/b")
	events := wantEvents(t, labelled, "ADDED ns/a", "MODIFIED ns/a", "DELETED ns/a", "ADDED ns/a", "DELETED ns/a")
	// Who ceases to match is seen in its last matching state, at the revision of the change.
	left := events[2].Object
	if left.Labels().Get("app") != "x" || left.Rev != events[2].Rev || left.Rev <= events[1].Rev {
		t.Errorf("left: %+v", left)
	}
	obj, err := left.Decoded()
	if err != nil {
		t.Fatal(err)
	}
	if m, _ := meta.Accessor(obj); m.GetResourceVersion() != fmt.Sprint(left.Rev) || m.GetLabels()["app"] != "x" {
		t.Errorf("left: %+v", obj)
	}
	if last := events[4]; last.Rev != gone.Rev || last.Object.Rev != gone.Rev {
		t.Errorf("the deletion is seen at %d, and was at %d", last.Rev, gone.Rev)
	}
	wantEvents(t, onNode, "ADDED ns/a", "MODIFIED ns/a", "MODIFIED ns/a", "DELETED ns/a")
	wantEvents(t, named, "ADDED ns/a", "MODIFIED ns/a", "MODIFIED ns/a", "MODIFIED ns/a", "DELETED ns/a")
	wantEvents(t, elsewhere, "ADDED other/b")
}

// TestWatchMovesBetweenValues has an object change from one watched value of a field to another.
func TestWatchMovesBetweenValues(t *testing.T) {
	c := testStore(t).Register(podResource)
	watchNode := func(name string) *Watch {
		return startWatch(t, c, WatchOptions{Rev: -1, Fields: fields.OneTermEqualSelector("spec.nodeName", name)})
	}
	none, one, two := watchNode(""), watchNode("one"), watchNode("two")
	mustCreate(t, c, newPod("ns", "a"))
	mustUpdate(t, c, "ns", "a", func(p *corev1.Pod) { p.Spec.NodeName = "one" })
	mustUpdate(t, c, "ns", "a", func(p *corev1.Pod) { p.Spec.NodeName = "two" })
	mustDelete(t, c, "ns", "a")
	wantEvents(t, none, "ADDED ns/a", "DELETED ns/a")
	wantEvents(t, one, "ADDED ns/a", "DELETED ns/a")
	wantEvents(t, two, "ADDED ns/a", "DELETED ns/a")
}

func TestWatchStarts(t *testing.T) {
	t.Parallel() // it waits for a time-out
	s := testStore(t)
	// So that the cache begins at a revision that is not the first.
	if _, err := s.Register(nodeResource).Create(t.Context(), "", "n", &corev1.Node{}, nil); err != nil {
		t.Fatal(err)
	}
	c := s.Register(podResource)
	if err := c.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	a := mustCreate(t, c, newPod("ns", "a"))
	b := mustCreate(t, c, newPod("ns", "b"))
	after := startWatch(t, c, WatchOptions{Rev: a.Rev})
	state := startWatch(t, c, WatchOptions{})
	streaming := startWatch(t, c, WatchOptions{Rev: -1, InitialEvents: true})
	notOlder := startWatch(t, c, WatchOptions{Rev: b.Rev, InitialEvents: true, Namespace: "none"})
	future := startWatch(t, c, WatchOptions{Rev: b.Rev + 1})
	mustCreate(t, c, newPod("ns", "c"))
	mustCreate(t, c, newPod("ns", "d"))
	wantEvents(t, after, "ADDED ns/b", "ADDED ns/c", "ADDED ns/d")
	wantEvents(t, state, "ADDED ns/a", "ADDED ns/b", "ADDED ns/c", "ADDED ns/d")
	if end := wantEvents(t, streaming, "ADDED ns/a", "ADDED ns/b", "END", "ADDED ns/c", "ADDED ns/d")[2]; end.Rev < b.Rev {
		t.Errorf("the end of the initial events is at %d", end.Rev)
	}
	wantEvents(t, notOlder, "END")
	wantEvents(t, future, "ADDED ns/d")

	_, err := c.Watch(t.Context(), WatchOptions{Rev: 1})
	wantErr(t, err, ErrExpired)
	_, err = c.Watch(t.Context(), WatchOptions{Rev: b.Rev + 1000, InitialEvents: true})
	wantErr(t, err, ErrFuture)
}

func TestWatchEnds(t *testing.T) {
	s := testStore(t)
	c := s.Register(podResource)
	stopped := startWatch(t, c, WatchOptions{Rev: -1})
	stopped.Stop()
	_, err := stopped.Next(t.Context())
	wantErr(t, err, ErrStopped)

	w := startWatch(t, c, WatchOptions{Rev: -1})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = w.Next(ctx)
	wantErr(t, err, context.Canceled)

	s.Unregister("pods")
	_, err = w.Next(t.Context())
	wantErr(t, err, ErrStopped)
	_, err = c.Watch(t.Context(), WatchOptions{Rev: -1})
	wantErr(t, err, ErrStopped)

	again := startWatch(t, s.Register(podResource), WatchOptions{Rev: -1})
	s.Close()
	_, err = again.Next(t.Context())
	wantErr(t, err, ErrStopped)
}

// TestSlowWatcher leaves one watcher without a reader: it is ended after what fits into its queue, and nobody else
// notices.
func TestSlowWatcher(t *testing.T) {
	c := testStore(t).Register(podResource)
	if err := c.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	slow, fast := startWatch(t, c, WatchOptions{Rev: -1}), startWatch(t, c, WatchOptions{Rev: -1})
	o := mustCreate(t, c, newPod("ns", "a"))
	next(t, fast, 1)
	base := o.Rev
	for i := range maxQueue + 10 {
		c.apply([]change{{key: "ns/a", value: o.Value(), rev: base + 1 + int64(i)}})
		next(t, fast, 1)
	}
	n := 0
	for {
		events, err := slow.Next(t.Context())
		if err != nil {
			wantErr(t, err, ErrStopped)
			break
		}
		n += len(events)
	}
	if n != maxQueue {
		t.Errorf("the slow watcher got %d events before it was ended, want %d", n, maxQueue)
	}
}

func TestBookmarks(t *testing.T) {
	e := testEtcd(t)
	s := openStore(t, e, Options{Rev: e.Rev, BookmarkEvery: 20 * time.Millisecond})
	pods, nodes := s.Register(podResource), s.Register(nodeResource)
	w := startWatch(t, pods, WatchOptions{Rev: -1, Bookmarks: true})
	plain := startWatch(t, pods, WatchOptions{Rev: -1})
	node, err := nodes.Create(t.Context(), "", "n", &corev1.Node{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	// What happens to another resource moves the bookmark on.
	for {
		ev := next(t, w, 1)[0]
		if ev.Type != Bookmark || ev.Object != nil {
			t.Fatalf("event is %s", describe([]Event{ev}))
		}
		if ev.Rev >= node.Rev {
			break
		}
	}
	mustCreate(t, pods, newPod("ns", "a"))
	wantEvents(t, plain, "ADDED ns/a")
}

// TestWatchOrder has several writers and several watchers, started at different events: all see the same in the same
// order.
func TestWatchOrder(t *testing.T) {
	c := testStore(t).Register(podResource)
	first := startWatch(t, c, WatchOptions{Rev: -1})
	const writers, each = 4, 50
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			name := fmt.Sprintf("p%d", i)
			if _, err := c.Create(context.Background(), "ns", name, newPod("ns", name), nil); err != nil {
				t.Error(err)
			}
			for n := range each - 1 {
				_, err := c.Update(context.Background(), "ns", name, func(cur *Object) (runtime.Object, []Op, error) {
					return changePod(func(p *corev1.Pod) { p.Labels["n"] = fmt.Sprint(n) })(cur)
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all := append([]Event(nil), next(t, first, writers*each)...)
	wg.Wait()
	for i, e := range all {
		if i > 0 && e.Rev <= all[i-1].Rev {
			t.Fatalf("revision %d after %d", e.Rev, all[i-1].Rev)
		}
		w := startWatch(t, c, WatchOptions{Rev: e.Rev})
		if i+1 < len(all) {
			for j, got := range next(t, w, len(all)-i-1) {
				if want := all[i+1+j]; got != want {
					t.Fatalf("watch from event %d: event %d is %v, want %v", i, j, got, want)
				}
			}
		}
		w.Stop()
	}
}
