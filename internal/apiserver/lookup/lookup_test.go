package lookup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/proa-k8s/proa/internal/api"
	"github.com/proa-k8s/proa/internal/api/core"
	"github.com/proa-k8s/proa/internal/apiserver/codec"
	"github.com/proa-k8s/proa/internal/store"
	"github.com/proa-k8s/proa/internal/store/etcd"
)

func testCache(t *testing.T) (*store.Cache, context.Context) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	server, err := etcd.Start(ctx, etcd.Config{Dir: t.TempDir(), UnsafeNoFsync: true, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	st, err := store.Open(ctx, server.Client(), store.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.Close)
	r := core.ConfigMap()
	c := st.Register(codec.NewTypes([]*api.Resource{r}).Stored(r))
	if err := c.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	return c, ctx
}

func put(t *testing.T, ctx context.Context, c *store.Cache, name, value string) {
	t.Helper()
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}, Data: map[string]string{"v": value}}
	_, err := c.Create(ctx, "ns", name, cm, nil)
	if errors.Is(err, store.ErrExists) {
		_, err = c.Update(ctx, "ns", name, func(*store.Object) (runtime.Object, []store.Op, error) { return cm, nil, nil })
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestGet(t *testing.T) {
	c, ctx := testCache(t)
	get, latest, list := Get[*corev1.ConfigMap](c), GetLatest[*corev1.ConfigMap](c), List[*corev1.ConfigMap](c)
	for _, g := range []Getter[*corev1.ConfigMap]{get, latest} {
		if _, err := g(ctx, "ns", "a"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("got %v", err)
		}
	}
	// What was created is found at once, every time.
	for i := range 50 {
		name := fmt.Sprint("cm", i)
		put(t, ctx, c, name, "x")
		for _, g := range []Getter[*corev1.ConfigMap]{get, latest} {
			if cm, err := g(ctx, "ns", name); err != nil || cm.Name != name || cm.ResourceVersion == "" {
				t.Fatalf("got %v %v", cm, err)
			}
		}
	}
	if all, err := list(ctx, "ns"); err != nil || len(all) != 50 {
		t.Errorf("got %d %v", len(all), err)
	}
	if all, err := list(ctx, "other"); err != nil || len(all) != 0 {
		t.Errorf("got %d %v", len(all), err)
	}
	if _, err := Get[*corev1.Secret](c)(ctx, "ns", "cm0"); err == nil {
		t.Error("a ConfigMap was taken for a Secret")
	}
	if Get[*corev1.Secret](nil) != nil || GetLatest[*corev1.Secret](nil) != nil || List[*corev1.Secret](nil) != nil {
		t.Error("something reads from no cache")
	}
}

// TestFollow keeps a map in step, from what is there at the start to the last change.
func TestFollow(t *testing.T) {
	c, ctx := testCache(t)
	put(t, ctx, c, "first", "1")
	put(t, ctx, c, "second", "1")
	following, stop := context.WithCancel(ctx)
	states, done := make(chan map[string]string), make(chan error)
	state := map[string]string{}
	tell := func() {
		select {
		case states <- maps.Clone(state):
		case <-following.Done():
		}
	}
	go func() {
		done <- Follow(following, slog.New(slog.DiscardHandler), c, Handler[*corev1.ConfigMap]{
			Replace: func(all []*corev1.ConfigMap) {
				clear(state)
				for _, cm := range all {
					state[cm.Name] = cm.Data["v"]
				}
				tell()
			},
			Set:    func(cm *corev1.ConfigMap) { state[cm.Name] = cm.Data["v"]; tell() },
			Delete: func(cm *corev1.ConfigMap) { delete(state, cm.Name); tell() },
		})
	}()
	expect := func(want map[string]string) {
		t.Helper()
		for {
			select {
			case got := <-states:
				if maps.Equal(got, want) {
					return
				}
			case <-ctx.Done():
				t.Fatalf("never became %v", want)
			}
		}
	}
	expect(map[string]string{"first": "1", "second": "1"})
	put(t, ctx, c, "third", "1")
	expect(map[string]string{"first": "1", "second": "1", "third": "1"})
	put(t, ctx, c, "third", "2")
	expect(map[string]string{"first": "1", "second": "1", "third": "2"})
	if _, err := c.Delete(ctx, "ns", "first", func(*store.Object) ([]store.Op, error) { return nil, nil }); err != nil {
		t.Fatal(err)
	}
	expect(map[string]string{"second": "1", "third": "2"})
	stop()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
	if names := slices.Sorted(maps.Keys(state)); !slices.Equal(names, []string{"second", "third"}) {
		t.Errorf("got %v", names)
	}
}

// TestFollowSlow writes faster than the handler takes it, by far more than a watcher's queue holds.
func TestFollowSlow(t *testing.T) {
	c, ctx := testCache(t)
	put(t, ctx, c, "cm", "0")
	following, stop := context.WithCancel(ctx)
	started, release, done := make(chan struct{}), make(chan struct{}), make(chan error)
	last := make(chan string, 1)
	go func() {
		see := func(cm *corev1.ConfigMap) {
			if cm.Data["v"] == "last" {
				last <- "last"
			}
		}
		done <- Follow(following, slog.New(slog.DiscardHandler), c, Handler[*corev1.ConfigMap]{
			Replace: func(all []*corev1.ConfigMap) {
				select {
				case <-started:
				default:
					close(started)
					<-release
				}
				for _, cm := range all {
					see(cm)
				}
			},
			Set: see,
		})
	}()
	<-started
	for i := range 3000 {
		put(t, ctx, c, "cm", fmt.Sprint(i))
	}
	put(t, ctx, c, "cm", "last")
	close(release)
	select {
	case <-last:
	case <-ctx.Done():
		t.Error("the last change was never seen")
	}
	stop()
	<-done
}
