package client_test

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"

	"github.com/proa-k8s/proa/internal/api"
	"github.com/proa-k8s/proa/internal/api/core"
	"github.com/proa-k8s/proa/internal/apiserver"
	"github.com/proa-k8s/proa/internal/client"
	"github.com/proa-k8s/proa/internal/store"
	"github.com/proa-k8s/proa/internal/store/etcd"
)

// caches opens a store with config maps and namespaces.
func caches(t *testing.T) (*store.Store, []*api.Resource) {
	t.Helper()
	ctx, quiet := context.Background(), slog.New(slog.DiscardHandler)
	db, err := etcd.Start(ctx, etcd.Config{Dir: t.TempDir(), Logger: quiet, UnsafeNoFsync: true})
	if err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(ctx, db.Client(), store.Options{Logger: quiet, Rev: db.Rev, CompactEvery: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		st.Close()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	resources := []*api.Resource{core.ConfigMap(), core.Namespace()}
	apiserver.RegisterCaches(st, resources)
	return st, resources
}

func create(t *testing.T, c *store.Cache, m *corev1.ConfigMap) {
	t.Helper()
	if _, err := c.Create(t.Context(), m.Namespace, m.Name, m, nil); err != nil {
		t.Fatal(err)
	}
}

func configMap(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
		Namespace: "default", Name: name, UID: "uid-of-" + "x", Labels: map[string]string{"a": "b"},
		Annotations:     map[string]string{"big": "annotation"},
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Secret", Name: "owner", UID: "u"}},
		Finalizers:      []string{"example.com/f"},
		ManagedFields:   []metav1.ManagedFieldsEntry{{Manager: "m", Operation: metav1.ManagedFieldsOperationUpdate}},
	}}
}

// Informers show what the cache has, before and after they start, and their objects are the cache's own.
func TestInformers(t *testing.T) {
	st, resources := caches(t)
	c := st.Cache("configmaps")
	create(t, c, configMap("first"))
	f := client.Informers(fake.NewClientset(), st, resources)
	informer := f.Core().V1().ConfigMaps()
	events := make(chan string, 10)
	revisions := make(chan string, 10)
	_, err := informer.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { events <- "added " + obj.(*corev1.ConfigMap).Name },
		UpdateFunc: func(_, obj any) { events <- "updated " + obj.(*corev1.ConfigMap).Name },
		DeleteFunc: func(obj any) {
			events <- "deleted " + obj.(*corev1.ConfigMap).Name
			revisions <- obj.(*corev1.ConfigMap).ResourceVersion
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	f.StartWithContext(ctx)
	defer f.Shutdown()
	defer cancel()
	expect := func(want string) {
		t.Helper()
		if got := <-events; got != want {
			t.Fatalf("event %q, want %q", got, want)
		}
	}
	expect("added first")
	create(t, c, configMap("second"))
	expect("added second")
	got, err := informer.Lister().ConfigMaps("default").Get("second")
	if err != nil {
		t.Fatal(err)
	}
	stored, err := c.Get(t.Context(), "default", "second", 0)
	if err != nil {
		t.Fatal(err)
	}
	if own, err := stored.Decoded(); err != nil || own != runtime.Object(got) {
		t.Errorf("the lister's object is a copy (%v)", err)
	}
	_, err = c.Update(t.Context(), "default", "first", func(cur *store.Object) (runtime.Object, []store.Op, error) {
		obj, err := cur.Decoded()
		if err != nil {
			return nil, nil, err
		}
		m := obj.(*corev1.ConfigMap).DeepCopy()
		m.Data = map[string]string{"k": "v"}
		return m, nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	expect("updated first")
	gone, err := c.Delete(t.Context(), "default", "second", func(*store.Object) ([]store.Op, error) { return nil, nil })
	if err != nil {
		t.Fatal(err)
	}
	expect("deleted second")
	if rev := <-revisions; rev == got.ResourceVersion || gone.Rev == 0 {
		t.Errorf("the deleted object has revision %s, the one it was created at", rev)
	}
	generic, err := f.ForResource(corev1.SchemeGroupVersion.WithResource("configmaps"))
	if err != nil || generic.Informer().GetIndexer() != informer.Informer().GetIndexer() {
		t.Errorf("ForResource gives another informer (%v)", err)
	}
}

func TestRestrict(t *testing.T) {
	st, resources := caches(t)
	f := client.Informers(fake.NewClientset(), st, resources)
	r := client.Restrict(f, "controller x", func(obj runtime.Object) bool {
		_, ok := obj.(*corev1.ConfigMap)
		return ok
	})
	if r.Core().V1().ConfigMaps().Informer().GetIndexer() != f.Core().V1().ConfigMaps().Informer().GetIndexer() {
		t.Error("the informer is not shared")
	}
	defer func() {
		if p := recover(); p != "controller x reads *v1.Namespace, which is not among its declared inputs" {
			t.Errorf("panicked with %v", p)
		}
	}()
	r.Core().V1().Namespaces().Informer()
}

func TestWatchMetadata(t *testing.T) {
	st, _ := caches(t)
	c := st.Cache("configmaps")
	create(t, c, configMap("first"))
	ctx, cancel := context.WithCancel(t.Context())
	events := make(chan string, 10)
	var all sync.WaitGroup
	all.Go(func() {
		err := client.WatchMetadata(ctx, c, func(m *metav1.ObjectMeta, deleted bool) {
			switch {
			case m.Annotations != nil || m.ManagedFields != nil:
				t.Errorf("bulk was decoded: %+v", m)
			case m.OwnerReferences[0].UID != "u" || m.Labels["a"] != "b" || !slices.Equal(m.Finalizers, []string{"example.com/f"}) || m.ResourceVersion == "":
				t.Errorf("metadata is %+v", m)
			}
			if deleted {
				events <- "deleted " + m.Name
			} else {
				events <- m.Name
			}
		}, func() { events <- "synced" })
		if ctx.Err() == nil {
			t.Errorf("the watch ended: %v", err)
		}
	})
	defer all.Wait()
	defer cancel()
	for i, want := range []string{"first", "synced", "second", "deleted second"} {
		switch i {
		case 2:
			create(t, c, configMap("second"))
		case 3:
			if _, err := c.Delete(t.Context(), "default", "second", func(*store.Object) ([]store.Op, error) { return nil, nil }); err != nil {
				t.Fatal(err)
			}
		}
		if got := <-events; got != want {
			t.Fatalf("event %q, want %q", got, want)
		}
	}
}
