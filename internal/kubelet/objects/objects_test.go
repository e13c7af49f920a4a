package objects

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

// source is one ConfigMap, or none, that can be listed and watched.
type source struct {
	mu      sync.Mutex
	object  *corev1.ConfigMap
	fail    int // lists that fail
	lists   int
	watches []*watch.FakeWatcher
}

func (s *source) reader() Reader {
	return Reader{
		List: func(context.Context, string, metav1.ListOptions) (runtime.Object, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.lists++
			if s.fail > 0 {
				s.fail--
				return nil, apierrors.NewForbidden(corev1.Resource("configmaps"), "a", errors.New("not yet known"))
			}
			list := &corev1.ConfigMapList{ListMeta: metav1.ListMeta{ResourceVersion: "1"}}
			if s.object != nil {
				list.Items = append(list.Items, *s.object)
			}
			return list, nil
		},
		Watch: func(ctx context.Context, _ string, _ metav1.ListOptions) (watch.Interface, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			w := watch.NewFake()
			s.watches = append(s.watches, w)
			return w, nil
		},
	}
}

func (s *source) watcher(t *testing.T) *watch.FakeWatcher {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		s.mu.Lock()
		n := len(s.watches)
		s.mu.Unlock()
		if n > 0 {
			return s.watches[n-1]
		}
	}
	t.Fatal("nobody watches")
	return nil
}

func object(version, value string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "n", ResourceVersion: version}, Data: map[string]string{"k": value}}
}

func TestCache(t *testing.T) {
	s := &source{object: object("1", "old"), fail: 2}
	changes := make(chan types.UID, 10)
	c := New[*corev1.ConfigMap]("configmap", s.reader(), func(uid types.UID) { changes <- uid })
	defer c.Close()
	got, err := c.Get(t.Context(), "pod", "n", "a")
	if err != nil || got.Data["k"] != "old" {
		t.Fatalf("got %v, %v", got, err)
	}
	w := s.watcher(t)
	w.Modify(object("2", "new"))
	if uid := <-changes; uid != "pod" {
		t.Errorf("%s was told of the change", uid)
	}
	if got, err := c.Get(t.Context(), "other", "n", "a"); err != nil || got.Data["k"] != "new" {
		t.Errorf("got %v, %v", got, err)
	}
	w.Delete(object("3", "new"))
	told := map[types.UID]bool{<-changes: true, <-changes: true}
	if !told["pod"] || !told["other"] {
		t.Errorf("%v were told of the deletion", told)
	}
	if _, err := c.Get(t.Context(), "pod", "n", "a"); !apierrors.IsNotFound(err) || err.Error() != `configmap "a" not found` {
		t.Errorf("after the deletion: %v", err)
	}
	s.mu.Lock()
	if s.lists != 3 || len(s.watches) != 1 {
		t.Errorf("%d lists and %d watches for one object", s.lists, len(s.watches))
	}
	s.mu.Unlock()
	c.Release("pod")
	if len(c.items) != 1 {
		t.Error("an object that a pod still refers to was dropped")
	}
	c.Release("other")
	if len(c.items) != 0 {
		t.Error("an object that nobody refers to was kept")
	}
}

func TestMissingAndClosed(t *testing.T) {
	s := &source{}
	c := New[*corev1.ConfigMap]("configmap", s.reader(), func(types.UID) {})
	if _, err := c.Get(t.Context(), "pod", "n", "a"); !apierrors.IsNotFound(err) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.mu.Lock()
	s.fail = 1000
	s.mu.Unlock()
	if _, err := c.Get(ctx, "pod", "n", "b"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	c.Close()
	if _, err := c.Get(t.Context(), "pod", "n", "c"); err == nil {
		t.Error("a closed cache answers")
	}
}
