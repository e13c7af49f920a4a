package store

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

func TestCreateGetUpdateDelete(t *testing.T) {
	c := testStore(t).Register(podResource)
	ctx := t.Context()
	pod := newPod("ns", "a", "app", "x")
	created := mustCreate(t, c, pod)
	if _, err := c.Create(ctx, "ns", "a", newPod("ns", "a"), nil); !errors.Is(err, ErrExists) {
		t.Fatalf("creating twice: %v", err)
	}
	got, err := c.Get(ctx, "ns", "a", -1)
	if err != nil {
		t.Fatal(err)
	}
	if got != created {
		t.Error("the cache has another object than the writer got")
	}
	obj, err := got.Decoded()
	if err != nil {
		t.Fatal(err)
	}
	if obj != runtime.Object(pod) {
		t.Error("what was written was decoded again")
	}
	if pod.ResourceVersion != strconv.FormatInt(created.Rev, 10) {
		t.Errorf("resourceVersion is %q, want %d", pod.ResourceVersion, created.Rev)
	}
	if got.Labels().Get("app") != "x" || got.Namespace != "ns" || got.Name != "a" || got.Key != "ns/a" {
		t.Errorf("object is %+v", got)
	}

	same, err := c.Update(ctx, "ns", "a", changePod(func(*corev1.Pod) {}))
	if err != nil || same.Rev != created.Rev {
		t.Fatalf("an update that changes nothing wrote revision %v, %v", same, err)
	}
	updated := mustUpdate(t, c, "ns", "a", func(p *corev1.Pod) { p.Labels["app"] = "y" })
	if updated.Rev <= created.Rev || updated.Labels().Get("app") != "y" {
		t.Errorf("updated is %+v", updated)
	}
	deleted := mustDelete(t, c, "ns", "a")
	if deleted.Rev <= updated.Rev {
		t.Errorf("the deletion has revision %d after %d", deleted.Rev, updated.Rev)
	}
	last, err := deleted.Decoded()
	if err != nil {
		t.Fatal(err)
	}
	if m, _ := meta.Accessor(last); m.GetResourceVersion() != strconv.FormatInt(deleted.Rev, 10) {
		t.Errorf("the last state has resourceVersion %s", m.GetResourceVersion())
	}
	_, err = c.Get(ctx, "ns", "a", -1)
	wantErr(t, err, ErrNotFound)
	_, err = c.Update(ctx, "ns", "a", changePod(func(*corev1.Pod) {}))
	wantErr(t, err, ErrNotFound)
	_, err = c.Delete(ctx, "ns", "a", nil)
	wantErr(t, err, ErrNotFound)
	if n := len(c.pending.byKey); n != 0 {
		t.Errorf("%d writes were never taken over", n)
	}
}

func TestBadKeys(t *testing.T) {
	s := testStore(t)
	pods, nodes := s.Register(podResource), s.Register(nodeResource)
	for _, k := range [][2]string{{"", "a"}, {"ns", ""}, {"ns", "a/b"}, {"n/s", "a"}} {
		if _, err := pods.Create(t.Context(), k[0], k[1], newPod("ns", "a"), nil); err == nil {
			t.Errorf("a pod with key %q was written", k)
		}
	}
	for _, name := range []string{"", "a/b"} {
		if _, err := nodes.Create(t.Context(), "", name, &corev1.Node{}, nil); err == nil {
			t.Errorf("a node with name %q was written", name)
		}
	}
}

func TestTooLarge(t *testing.T) {
	c := testStore(t).Register(podResource)
	p := newPod("ns", "a")
	p.Annotations = map[string]string{"big": strings.Repeat("x", 2<<20)}
	_, err := c.Create(t.Context(), "ns", "a", p, nil)
	wantErr(t, err, ErrTooLarge)
	if n := len(c.pending.byKey); n != 0 {
		t.Errorf("%d failed writes are held", n)
	}
}

func TestJSONObjects(t *testing.T) {
	c := testStore(t).Register(widgetResource)
	u := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "example.com/v1", "kind": "Widget",
		"metadata": map[string]any{"name": "w", "namespace": "ns", "labels": map[string]any{"a": "b"}},
	}}
	o, err := c.Create(t.Context(), "ns", "w", u, nil)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(o.Value()), "resourceVersion") {
		t.Errorf("resourceVersion is stored: %s", o.Value())
	}
	if o.Labels().Get("a") != "b" {
		t.Errorf("labels are %v", o.Labels())
	}
	if l := mustList(t, c, ListOptions{}); len(l.Objects) != 1 || l.Objects[0].Key != "ns/w" {
		t.Errorf("list is %v", keys(l.Objects))
	}
}

// TestConcurrentUpdates lets many writers count up one label: none may get lost.
func TestConcurrentUpdates(t *testing.T) {
	e := testEtcd(t)
	// Two stores on one etcd, as two servers of a cluster: their caches lag behind each other.
	caches := []*Cache{
		openStore(t, e, Options{Rev: e.Rev}).Register(podResource),
		openStore(t, e, Options{}).Register(podResource),
	}
	mustCreate(t, caches[0], newPod("ns", "a", "n", "0"))
	const writers, each = 8, 25
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for range each {
				_, err := caches[i%2].Update(t.Context(), "ns", "a", changePod(func(p *corev1.Pod) {
					n, _ := strconv.Atoi(p.Labels["n"])
					p.Labels["n"] = strconv.Itoa(n + 1)
				}))
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, c := range caches {
		o, err := c.Get(t.Context(), "ns", "a", -1)
		if err != nil {
			t.Fatal(err)
		}
		if n := o.Labels().Get("n"); n != strconv.Itoa(writers*each) {
			t.Errorf("counted %s, want %d", n, writers*each)
		}
	}
}

// TestStaleError has an update fail on what the cache of another server still has: the error must not be believed.
func TestStaleError(t *testing.T) {
	e := testEtcd(t)
	a, b := openStore(t, e, Options{}).Register(podResource), openStore(t, e, Options{}).Register(podResource)
	mustCreate(t, a, newPod("ns", "a", "ok", "no"))
	if _, err := b.Get(t.Context(), "ns", "a", -1); err != nil {
		t.Fatal(err)
	}
	refuse := errors.New("not ok")
	for i := range 50 {
		mustUpdate(t, a, "ns", "a", func(p *corev1.Pod) { p.Labels["ok"] = "yes" })
		_, err := b.Update(t.Context(), "ns", "a", func(cur *Object) (runtime.Object, []Op, error) {
			if cur.Labels().Get("ok") != "yes" {
				return nil, nil, refuse
			}
			return changePod(func(p *corev1.Pod) { p.Labels["ok"] = "no" })(cur)
		})
		if err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
	}
	_, err := b.Update(t.Context(), "ns", "a", func(*Object) (runtime.Object, []Op, error) { return nil, nil, refuse })
	wantErr(t, err, refuse)
}

func TestCompanionOps(t *testing.T) {
	s := testStore(t)
	c := s.Register(podResource)
	ctx := t.Context()
	const ip = root + "ipaddresses/10.96.0.1"
	if _, err := c.Create(ctx, "ns", "a", newPod("ns", "a"), []Op{{Key: ip, Value: []byte("a")}}); err != nil {
		t.Fatal(err)
	}
	_, err := c.Create(ctx, "ns", "b", newPod("ns", "b"), []Op{{Key: ip, Value: []byte("b")}})
	wantErr(t, err, ErrGuard)
	_, err = c.Create(ctx, "ns", "a", newPod("ns", "a"), []Op{{Key: ip, Value: []byte("b")}})
	wantErr(t, err, ErrExists)
	_, err = c.Get(ctx, "ns", "b", -1)
	wantErr(t, err, ErrNotFound)

	resp, err := s.client.Get(ctx, ip)
	if err != nil || len(resp.Kvs) != 1 || string(resp.Kvs[0].Value) != "a" {
		t.Fatalf("the companion is %v, %v", resp, err)
	}
	rev := resp.Kvs[0].ModRevision
	// Nothing but a companion changes; a guard that fails once is tried again.
	tries := 0
	_, err = c.Update(ctx, "ns", "a", func(cur *Object) (runtime.Object, []Op, error) {
		obj, err := cur.Decoded()
		if tries++; tries == 1 {
			return obj, []Op{{Key: ip, Value: []byte("c"), ModRevision: 1}}, err
		}
		return obj, []Op{{Key: ip, Value: []byte("c"), ModRevision: rev}}, err
	})
	if err != nil || tries != 2 {
		t.Fatalf("after %d tries: %v", tries, err)
	}
	_, err = c.Delete(ctx, "ns", "a", func(*Object) ([]Op, error) { return []Op{{Key: ip, ModRevision: rev}}, nil })
	wantErr(t, err, ErrGuard)
	resp, _ = s.client.Get(ctx, ip)
	if _, err = c.Delete(ctx, "ns", "a", func(*Object) ([]Op, error) {
		return []Op{{Key: ip, ModRevision: resp.Kvs[0].ModRevision}}, nil
	}); err != nil {
		t.Fatal(err)
	}
	if resp, _ = s.client.Get(ctx, ip); len(resp.Kvs) != 0 {
		t.Error("the companion was not deleted")
	}
}

func TestDeleteChecks(t *testing.T) {
	c := testStore(t).Register(podResource)
	mustCreate(t, c, newPod("ns", "a"))
	refuse := errors.New("protected")
	_, err := c.Delete(t.Context(), "ns", "a", func(*Object) ([]Op, error) { return nil, refuse })
	wantErr(t, err, refuse)
	if _, err := c.Get(t.Context(), "ns", "a", -1); err != nil {
		t.Errorf("it was deleted nevertheless: %v", err)
	}
}

func TestLeasesAreShared(t *testing.T) {
	e := testEtcd(t)
	s := openStore(t, e, Options{Rev: e.Rev})
	r := podResource
	r.Prefix, r.TTL = "events", 3600
	c := s.Register(r)
	for _, name := range []string{"a", "b", "c"} {
		mustCreate(t, c, newPod("ns", name))
	}
	got, err := e.Client().Leases(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Leases) != 1 {
		t.Fatalf("%d leases for 3 objects", len(got.Leases))
	}
	ttl, err := e.Client().TimeToLive(t.Context(), got.Leases[0].ID)
	if err != nil || ttl.GrantedTTL != 3660 {
		t.Errorf("time to live is %v, %v", ttl.GrantedTTL, err)
	}
	// When the lease ends the objects are gone, and the watchers see it.
	w, err := c.Watch(t.Context(), WatchOptions{Rev: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if _, err := e.Client().Revoke(t.Context(), got.Leases[0].ID); err != nil {
		t.Fatal(err)
	}
	for _, ev := range next(t, w, 3) {
		if ev.Type != Deleted {
			t.Errorf("event is %s", describe([]Event{ev}))
		}
	}
	mustCreate(t, c, newPod("ns", "a")) // with a new lease
	if l := mustList(t, c, ListOptions{}); len(l.Objects) != 1 {
		t.Errorf("list is %v", keys(l.Objects))
	}
}

func TestCancelledWrite(t *testing.T) {
	c := testStore(t).Register(podResource)
	if err := c.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Create(ctx, "ns", "a", newPod("ns", "a"), nil); err == nil {
		t.Fatal("a write without time succeeded")
	}
	if n := len(c.pending.byKey); n != 0 {
		t.Errorf("%d failed writes are held", n)
	}
}
