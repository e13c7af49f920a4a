package store

import (
	"context"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
)

func TestCacheOf(t *testing.T) {
	pods, specs, widgets := &Cache{}, &Cache{}, &Cache{}
	caches := map[string]*Cache{"pods": pods, "services/specs": specs, "example.com/widgets": widgets}
	for key, want := range map[string]struct {
		c   *Cache
		key string
	}{
		"/registry/pods/ns/a":                 {pods, "ns/a"},
		"/registry/services/specs/ns/a":       {specs, "ns/a"},
		"/registry/services/endpoints/ns/a":   {nil, ""},
		"/registry/example.com/widgets/ns/w":  {widgets, "ns/w"},
		"/registry/example.com/widgetsx/ns/w": {nil, ""},
		"/registry/podsx/a":                   {nil, ""},
		"/registry/pods":                      {nil, ""},
		"/registry/":                          {nil, ""},
		"/":                                   {nil, ""},
	} {
		if c, k := cacheOf(caches, []byte(key)); c != want.c || k != want.key {
			t.Errorf("%s belongs to %p %q", key, c, k)
		}
	}
}

// lossyWatcher can end the store's watch of etcd as if the connection was lost, and hold back a new one.
type lossyWatcher struct {
	clientv3.Watcher
	lose  chan struct{} // closed to lose the watch
	renew chan struct{} // closed to let a new one start
}

func (w *lossyWatcher) Watch(ctx context.Context, key string, opts ...clientv3.OpOption) clientv3.WatchChan {
	select {
	case <-w.lose:
		<-w.renew
		return w.Watcher.Watch(ctx, key, opts...)
	default:
	}
	ctx, cancel := context.WithCancel(ctx)
	in, out := w.Watcher.Watch(ctx, key, opts...), make(chan clientv3.WatchResponse)
	go func() {
		defer close(out)
		defer cancel()
		for {
			select {
			case r, ok := <-in:
				if !ok {
					return
				}
				select {
				case <-w.lose: // what comes after the loss is lost, even if both are ready
					return
				default:
				}
				select {
				case out <- r:
				case <-ctx.Done():
					return
				}
			case <-w.lose:
				return
			}
		}
	}()
	return out
}

// TestLostWatch loses the watch, and changes the store meanwhile: watchers see what has become of it. If etcd still has
// the history they see all of it.
func TestLostWatch(t *testing.T) {
	for _, compacted := range []bool{false, true} {
		t.Run(map[bool]string{false: "history is there", true: "history is compacted"}[compacted], func(t *testing.T) {
			e := testEtcd(t)
			other := openStore(t, e, Options{Rev: e.Rev}).Register(podResource)
			for _, name := range []string{"changed", "deleted", "recreated", "same"} {
				mustCreate(t, other, newPod("ns", name))
			}
			client := *e.Client()
			lossy := &lossyWatcher{e.Client().Watcher, make(chan struct{}), make(chan struct{})}
			client.Watcher = lossy
			s, err := Open(t.Context(), &client, Options{Rev: e.Rev})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			c := s.Register(podResource)
			w := startWatch(t, c, WatchOptions{InitialEvents: true, Rev: -1})
			next(t, w, 5)
			before := s.fed.Load()

			close(lossy.lose)
			mustUpdate(t, other, "ns", "changed", func(p *corev1.Pod) { p.Labels["a"] = "b" })
			mustUpdate(t, other, "ns", "changed", func(p *corev1.Pod) { p.Labels["a"] = "c" })
			mustDelete(t, other, "ns", "recreated")
			mustCreate(t, other, newPod("ns", "recreated"))
			mustCreate(t, other, newPod("ns", "new"))
			rev := mustDelete(t, other, "ns", "deleted").Rev
			if compacted {
				if _, err := e.Client().Compact(t.Context(), rev); err != nil {
					t.Fatal(err)
				}
			}
			close(lossy.renew)
			want := []string{"MODIFIED ns/changed", "MODIFIED ns/changed", "DELETED ns/recreated", "ADDED ns/recreated", "ADDED ns/new", "DELETED ns/deleted"}
			if compacted {
				want = want[1:]
			}
			events := append([]Event(nil), wantEvents(t, w, want...)...)
			for i, e := range events {
				if e.Rev <= before || i > 0 && e.Rev < events[i-1].Rev {
					t.Errorf("event %d has revision %d", i, e.Rev)
				}
			}
			if got, err := c.Get(t.Context(), "ns", "changed", -1); err != nil || got.Labels().Get("a") != "c" {
				t.Errorf("got %v, %v", got, err)
			}
			mustCreate(t, c, newPod("ns", "later"))
			wantEvents(t, w, "ADDED ns/later")
			// A watch from before the loss misses nothing either.
			again := startWatch(t, c, WatchOptions{Rev: before})
			wantEvents(t, again, append(want, "ADDED ns/later")...)
		})
	}
}

// TestTransactionIsOneStep has one transaction change two resources and two objects of one: nobody sees a half of it.
func TestTransactionIsOneStep(t *testing.T) {
	e := testEtcd(t)
	s := openStore(t, e, Options{Rev: e.Rev})
	pods, nodes := s.Register(podResource), s.Register(nodeResource)
	for _, c := range []*Cache{pods, nodes} {
		if err := c.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	value, err := encodeProtobuf(newPod("ns", "b"))
	if err != nil {
		t.Fatal(err)
	}
	node, err := encodeProtobuf(&corev1.Node{})
	if err != nil {
		t.Fatal(err)
	}
	w := startWatch(t, pods, WatchOptions{Rev: -1})
	o, err := pods.Create(t.Context(), "ns", "a", newPod("ns", "a"), []Op{
		{Key: root + "minions/n", Value: node}, {Key: root + "pods/ns/b", Value: value},
	})
	if err != nil {
		t.Fatal(err)
	}
	wantEvents(t, w, "ADDED ns/a", "ADDED ns/b")
	if n, err := nodes.Get(t.Context(), "", "n", o.Rev); err != nil || n.Rev != o.Rev {
		t.Errorf("the node is %v, %v", n, err)
	}
	l := mustList(t, pods, ListOptions{Match: MatchExact, Rev: o.Rev})
	if len(l.Objects) != 2 || l.Objects[1].Rev != o.Rev {
		t.Errorf("list is %v", keys(l.Objects))
	}
}

func TestCompaction(t *testing.T) {
	e := testEtcd(t)
	s := openStore(t, e, Options{Rev: e.Rev, CompactEvery: 20 * time.Millisecond})
	c := s.Register(podResource)
	o := mustCreate(t, c, newPod("ns", "a"))
	mustUpdate(t, c, "ns", "a", func(p *corev1.Pod) { p.Labels["a"] = "b" })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	// The watch tells that the revision is gone.
	for {
		_, err := e.Client().Get(ctx, c.prefix, clientv3.WithRev(o.Rev))
		if err != nil {
			break
		}
	}
	if ctx.Err() != nil {
		t.Fatal("nothing was compacted")
	}
	if got := mustList(t, c, ListOptions{}); len(got.Objects) != 1 {
		t.Errorf("list is %v", keys(got.Objects))
	}
}

// TestBrokenObjects has rubbish in the store: what does not look at it works, what must fails for it, and it can be
// deleted.
func TestBrokenObjects(t *testing.T) {
	e := testEtcd(t)
	s := openStore(t, e, Options{Rev: e.Rev})
	c := s.Register(widgetResource)
	if _, err := e.Client().Put(t.Context(), root+"example.com/widgets/ns/bad", "{rubbish"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Create(t.Context(), "ns", "good", &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "example.com/v1", "kind": "Widget", "metadata": map[string]any{"name": "good"},
	}}, nil); err != nil {
		t.Fatal(err)
	}
	l := mustList(t, c, ListOptions{})
	if len(l.Objects) != 2 {
		t.Fatalf("list is %v", keys(l.Objects))
	}
	if _, err := l.Objects[0].Decoded(); err == nil {
		t.Error("rubbish was decoded")
	}
	if _, err := c.List(t.Context(), ListOptions{Fields: fields.OneTermEqualSelector("spec.x", "y")}); err == nil {
		t.Error("rubbish was selected by its fields")
	}
	if _, err := c.Delete(t.Context(), "ns", "bad", nil); err != nil {
		t.Error(err)
	}
}
