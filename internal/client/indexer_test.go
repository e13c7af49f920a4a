package client

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/cache"

	"github.com/proa-k8s/proa/internal/store"
	"github.com/proa-k8s/proa/internal/store/etcd"
)

// maps of a store, with a count of how often one was decoded.
type configMaps struct {
	*store.Cache
	decoded *atomic.Int64
}

func testMaps(t *testing.T) configMaps {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	db, err := etcd.Start(t.Context(), etcd.Config{Dir: t.TempDir(), Logger: quiet, UnsafeNoFsync: true})
	if err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(t.Context(), db.Client(), store.Options{Logger: quiet, Rev: db.Rev, CompactEvery: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		st.Close()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	decoded := new(atomic.Int64)
	info, _ := kruntime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), kruntime.ContentTypeProtobuf)
	return configMaps{st.Register(store.Resource{
		Prefix: "configmaps", Namespaced: true,
		Encode: func(obj kruntime.Object) ([]byte, error) {
			return kruntime.Encode(scheme.Codecs.EncoderForVersion(info.Serializer, corev1.SchemeGroupVersion), obj)
		},
		Decode: func(data []byte) (kruntime.Object, error) {
			decoded.Add(1)
			return kruntime.Decode(scheme.Codecs.UniversalDeserializer(), data)
		},
		Fields: func(kruntime.Object) fields.Set { return nil },
	}), decoded}
}

func (c configMaps) create(t *testing.T, namespace, name, app, data string) {
	t.Helper()
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"app": app}}, Data: map[string]string{"k": data}}
	if _, err := c.Create(t.Context(), namespace, name, m, nil); err != nil {
		t.Fatal(err)
	}
}

func (c configMaps) update(t *testing.T, name, data string) {
	t.Helper()
	_, err := c.Update(t.Context(), "default", name, func(cur *store.Object) (kruntime.Object, []store.Op, error) {
		obj, err := cur.Decoded()
		if err != nil {
			return nil, nil, err
		}
		m := obj.(*corev1.ConfigMap).DeepCopy()
		m.Data = map[string]string{"k": data}
		return m, nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (c configMaps) remove(t *testing.T, name string) {
	t.Helper()
	if _, err := c.Delete(t.Context(), "default", name, nil); err != nil {
		t.Fatal(err)
	}
}

// forget has the decoded objects that nobody holds collected.
func (c configMaps) forget() {
	runtime.GC()
	c.decoded.Store(0)
}

// start runs an informer until the test ends.
func start(t *testing.T, i *informer) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { i.RunWithContext(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	<-i.Done()
}

// recorder writes down what a handler is told.
type recorder chan string

func (r recorder) OnAdd(obj any, initial bool) {
	r <- fmt.Sprintf("add %s initial=%t", describe(obj), initial)
}
func (r recorder) OnUpdate(old, obj any) { r <- "update " + describe(old) + " to " + describe(obj) }
func (r recorder) OnDelete(obj any)      { r <- "delete " + describe(obj) }

func describe(obj any) string {
	if lost, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		return "lost " + lost.Key + " " + describe(lost.Obj)
	}
	m := obj.(*corev1.ConfigMap)
	return m.Name + "=" + m.Data["k"]
}

func (r recorder) expect(t *testing.T, want ...string) {
	t.Helper()
	got := make([]string, 0, len(want))
	for range want {
		got = append(got, <-r)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Fatalf("told %q, want %q", got, want)
	}
}

func TestHandlersThatComeLateAndLeave(t *testing.T) {
	c := testMaps(t)
	c.create(t, "default", "a", "x", "1")
	i := newInformer(c.Cache, &corev1.ConfigMap{})
	early, late := make(recorder, 10), make(recorder, 10)
	first, err := i.AddEventHandler(early)
	if err != nil {
		t.Fatal(err)
	}
	if first.HasSynced() || i.HasSynced() || i.IsStopped() {
		t.Error("synced, or stopped, before it was started")
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var running sync.WaitGroup
	running.Go(func() { i.RunWithContext(ctx) })
	<-first.HasSyncedChecker().Done()
	early.expect(t, "add a=1 initial=true")
	c.create(t, "default", "b", "x", "1")
	early.expect(t, "add b=1 initial=false")

	second, err := i.AddEventHandler(late)
	if err != nil {
		t.Fatal(err)
	}
	<-second.HasSyncedChecker().Done()
	late.expect(t, "add a=1 initial=true", "add b=1 initial=true")
	if err := cache.ShutDownEventHandler(i, first); err != nil {
		t.Fatal(err)
	}
	if err := i.RemoveEventHandler(first); err != nil {
		t.Errorf("removing it again: %v", err)
	}
	c.update(t, "a", "2")
	late.expect(t, "update a=1 to a=2")
	c.remove(t, "a")
	late.expect(t, "delete a=2")
	if len(early) > 0 {
		t.Errorf("a handler that is gone was told %q", <-early)
	}
	cancel()
	running.Wait()
	if _, err := i.AddEventHandler(late); err == nil || !i.IsStopped() {
		t.Error("a stopped informer takes a handler")
	}
	if err := cache.ShutDownEventHandler(i, second); err != nil {
		t.Error(err)
	}
}

// An informer that has missed events finds out what has changed, and says so.
func TestInformerCatchesUp(t *testing.T) {
	c := testMaps(t)
	for _, name := range []string{"same", "changed", "gone"} {
		c.create(t, "default", name, "x", "1")
	}
	i := newInformer(c.Cache, &corev1.ConfigMap{})
	r := make(recorder, 10)
	if _, err := i.AddEventHandler(r); err != nil {
		t.Fatal(err)
	}
	start(t, i)
	r.expect(t, "add same=1 initial=true", "add changed=1 initial=true", "add gone=1 initial=true")

	i.events.Lock() // it sees none of what follows, as if its watch had ended
	c.update(t, "changed", "2")
	c.remove(t, "gone")
	c.create(t, "default", "new", "x", "1")
	list, err := c.List(t.Context(), store.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	i.events.Unlock()
	state := map[string]struct{}{}
	var events []store.Event
	for _, o := range list.Objects {
		events = append(events, store.Event{Type: store.Added, Object: o, Rev: o.Rev})
	}
	i.take(append(events, store.Event{Type: store.InitialEnd, Rev: list.Rev}), &state)
	// Its own watch goes on too: what is told must be told once.
	c.create(t, "default", "end", "x", "1")
	var told []string
	for s := ""; !strings.HasPrefix(s, "add end"); {
		s = <-r
		told = append(told, s)
	}
	slices.Sort(told)
	byWatch := []string{"add end=1 initial=false", "add new=1 initial=false", "delete gone=1", "update changed=1 to changed=2"}
	byState := slices.Clone(byWatch)
	byState[2] = "delete lost default/gone gone=1"
	if !slices.Equal(told, byWatch) && !slices.Equal(told, byState) {
		t.Errorf("told %q", told)
	}
}

// What is deleted while no watch runs is told with its last known state.
func TestInformerTellsOfLostObjects(t *testing.T) {
	c := testMaps(t)
	c.create(t, "default", "stays", "x", "1")
	c.create(t, "default", "goes", "x", "1")
	i := newInformer(c.Cache, &corev1.ConfigMap{})
	state := map[string]struct{}{}
	list, err := c.List(t.Context(), store.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range list.Objects {
		i.set(o)
	}
	r := make(recorder, 10)
	l, err := i.AddEventHandler(r)
	if err != nil {
		t.Fatal(err)
	}
	i.running.Go(l.(*listener).run)
	defer i.running.Wait()
	defer l.(*listener).stop()
	r.expect(t, "add stays=1 initial=true", "add goes=1 initial=true")
	state["default/stays"] = struct{}{}
	i.dropAllBut(state)
	r.expect(t, "delete lost default/goes goes=1")
	if got := i.indexer.ListKeys(); !slices.Equal(got, []string{"default/stays"}) {
		t.Errorf("keys are %q", got)
	}
}

func byData(obj any) ([]string, error) { return []string{obj.(*corev1.ConfigMap).Data["k"]}, nil }

func keysOf(objs []any) []string {
	var keys []string
	for _, o := range objs {
		keys = append(keys, o.(*corev1.ConfigMap).Name)
	}
	slices.Sort(keys)
	return keys
}

func TestIndexes(t *testing.T) {
	c := testMaps(t)
	i := newInformer(c.Cache, &corev1.ConfigMap{})
	if err := i.AddIndexers(cache.Indexers{"data": byData}); err != nil {
		t.Fatal(err)
	}
	if err := i.AddIndexers(cache.Indexers{"data": byData}); err == nil {
		t.Error("an index was added twice")
	}
	r := make(recorder, 10)
	if _, err := i.AddEventHandler(r); err != nil {
		t.Fatal(err)
	}
	start(t, i)
	c.create(t, "default", "a", "x", "1")
	c.create(t, "default", "b", "x", "1")
	c.create(t, "other", "c", "x", "2")
	for range 3 {
		<-r
	}
	x := i.GetIndexer()
	check := func(index, value string, want ...string) {
		t.Helper()
		objs, err := x.ByIndex(index, value)
		if got := keysOf(objs); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s=%s gives %q, %v, want %q", index, value, got, err, want)
		}
	}
	check("data", "1", "a", "b")
	check("data", "2", "c")
	check(cache.NamespaceIndex, "default", "a", "b")
	c.update(t, "b", "2")
	<-r
	check("data", "1", "a")
	check("data", "2", "b", "c")
	c.remove(t, "a")
	<-r
	check("data", "1")
	if got := x.ListIndexFuncValues("data"); !slices.Equal(got, []string{"2"}) {
		t.Errorf("values are %q", got)
	}
	if err := i.AddIndexers(cache.Indexers{"late": byData}); err != nil {
		t.Fatal(err)
	}
	check("late", "2", "b", "c")
	if got := slices.Sorted(maps.Keys(x.GetIndexers())); !slices.Equal(got, []string{"data", "late", "namespace"}) {
		t.Errorf("indexers are %q", got)
	}
	if _, err := x.ByIndex("none", ""); err == nil || err.Error() != "Index with name none does not exist" {
		t.Errorf("an index that isn't there gives %v", err)
	}
	same, err := x.Index("data", &corev1.ConfigMap{Data: map[string]string{"k": "2"}})
	if got := keysOf(same); err != nil || !slices.Equal(got, []string{"b", "c"}) {
		t.Errorf("of the same value are %q, %v", got, err)
	}
	list, err := c.List(t.Context(), store.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := i.LastSyncResourceVersion(), fmt.Sprint(list.Rev); got != want {
		t.Errorf("the last revision is %s, want %s", got, want)
	}
}

// What is put by hand is there until it is replaced, as in client-go's indexer.
func TestIndexerByHand(t *testing.T) {
	x := newIndexer()
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "a"}}
	if err := x.Add(m); err != nil {
		t.Fatal(err)
	}
	if got, ok, err := x.Get(m); got != any(m) || !ok || err != nil {
		t.Errorf("got %v, %t, %v", got, ok, err)
	}
	if err := x.Replace([]any{&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "b"}}}, "7"); err != nil {
		t.Fatal(err)
	}
	if got := x.ListKeys(); !slices.Equal(got, []string{"n/b"}) || x.LastStoreSyncResourceVersion() != "7" {
		t.Errorf("keys are %q at %s", got, x.LastStoreSyncResourceVersion())
	}
	if err := x.Delete(cache.DeletedFinalStateUnknown{Key: "n/b"}); err != nil || len(x.List()) != 0 {
		t.Errorf("%v, and %d are left", err, len(x.List()))
	}
}

// Informers don't hold what is not used, and don't decode what nobody asks for.
func TestInformerDecodesOnDemand(t *testing.T) {
	c := testMaps(t)
	c.create(t, "default", "a", "x", "1")
	c.create(t, "default", "b", "y", "1")
	c.forget()
	i := newInformer(c.Cache, &corev1.ConfigMap{})
	start(t, i)
	if n := c.decoded.Load(); n != 0 {
		t.Errorf("%d objects were decoded that nobody asked for", n)
	}
	selector := labels.SelectorFromSet(labels.Set{"app": "y"})
	got, err := Select[*corev1.ConfigMap](i.GetIndexer(), cache.NamespaceIndex, "default", selector)
	if err != nil || len(got) != 1 || got[0].Name != "b" || c.decoded.Load() != 1 {
		t.Errorf("selected %v, %v with %d objects decoded", got, err, c.decoded.Load())
	}
	got = nil
	c.forget()
	again, _, err := i.GetIndexer().GetByKey("default/b") // it was used, and is kept
	if err != nil || again.(*corev1.ConfigMap).Name != "b" || c.decoded.Load() != 0 {
		t.Errorf("%v; an object in use was decoded %d times", err, c.decoded.Load())
	}
	plain := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
	for _, o := range i.GetStore().List() {
		if err := plain.Add(o); err != nil {
			t.Fatal(err)
		}
	}
	same, err := Select[*corev1.ConfigMap](plain, cache.NamespaceIndex, "default", selector)
	if err != nil || len(same) != 1 || any(same[0]) != again {
		t.Errorf("of another indexer %v, %v are selected", same, err)
	}
}

// Of many objects only those are kept decoded that are used.
func TestHot(t *testing.T) {
	c := testMaps(t)
	i := newInformer(c.Cache, &corev1.ConfigMap{})
	const size = hotBytes / 8
	for n := range 20 {
		c.create(t, "default", fmt.Sprint(n), "x", strings.Repeat("x", size))
	}
	start(t, i)
	for n := range 20 {
		for _, name := range []string{"0", fmt.Sprint(n)} {
			if _, ok, err := i.GetStore().GetByKey("default/" + name); !ok || err != nil {
				t.Fatal(ok, err)
			}
		}
	}
	h := &i.indexer.hot
	h.mu.Lock()
	kept, total := map[string]bool{}, 0
	for e := h.queue.Front(); e != nil; e = e.Next() {
		it := e.Value.(*item)
		kept[it.key] = true
		total += it.weight()
	}
	if h.size != total || total > hotBytes || len(kept) < 6 || !kept["default/0"] || !kept["default/19"] {
		t.Errorf("%d bytes (noted as %d) are kept of %v", total, h.size, kept)
	}
	h.mu.Unlock()

	r := make(recorder, 40)
	if _, err := i.AddEventHandler(r); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		<-r
	}
	for n := range 20 {
		c.remove(t, fmt.Sprint(n))
		<-r
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.size != 0 || h.queue.Len() != 0 {
		t.Errorf("%d bytes of %d deleted objects are kept", h.size, h.queue.Len())
	}
}

func TestTransform(t *testing.T) {
	c := testMaps(t)
	c.create(t, "default", "a", "x", "1")
	i := newInformer(c.Cache, &corev1.ConfigMap{})
	err := i.SetTransform(func(obj any) (any, error) {
		obj.(*corev1.ConfigMap).Data["k"] += " changed"
		return obj, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	r := make(recorder, 10)
	if _, err := i.AddEventHandler(r); err != nil {
		t.Fatal(err)
	}
	start(t, i)
	r.expect(t, "add a=1 changed initial=true")
	c.update(t, "a", "2")
	r.expect(t, "update a=1 changed to a=2 changed")
	c.remove(t, "a")
	r.expect(t, "delete a=2 changed")
	if err := i.SetTransform(nil); err == nil {
		t.Error("a running informer takes a transformation")
	}
}
