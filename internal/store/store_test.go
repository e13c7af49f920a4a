package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/proa-k8s/proa/internal/store/etcd"
)

// testEtcd starts an etcd for one test.
func testEtcd(t testing.TB) *etcd.Server {
	t.Helper()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	s, err := etcd.Start(t.Context(), etcd.Config{Dir: t.TempDir(), Logger: log, UnsafeNoFsync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func openStore(t testing.TB, e *etcd.Server, o Options) *Store {
	t.Helper()
	s, err := Open(t.Context(), e.Client(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func testStore(t testing.TB) *Store {
	e := testEtcd(t)
	return openStore(t, e, Options{Rev: e.Rev})
}

func encodeProtobuf(obj runtime.Object) ([]byte, error) {
	info, _ := runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), runtime.ContentTypeProtobuf)
	return runtime.Encode(scheme.Codecs.EncoderForVersion(info.Serializer, corev1.SchemeGroupVersion), obj)
}

func decodeAny(data []byte) (runtime.Object, error) {
	return runtime.Decode(scheme.Codecs.UniversalDeserializer(), data)
}

var podResource = Resource{
	Prefix: "pods", Namespaced: true, Encode: encodeProtobuf, Decode: decodeAny,
	Fields: func(obj runtime.Object) fields.Set {
		p := obj.(*corev1.Pod)
		return fields.Set{
			"metadata.name": p.Name, "metadata.namespace": p.Namespace,
			"spec.nodeName": p.Spec.NodeName, "status.phase": string(p.Status.Phase),
		}
	},
}

var nodeResource = Resource{
	Prefix: "minions", Encode: encodeProtobuf, Decode: decodeAny,
	Fields: func(obj runtime.Object) fields.Set { return fields.Set{"metadata.name": obj.(*corev1.Node).Name} },
}

var widgetResource = Resource{
	Prefix: "example.com/widgets", Namespaced: true,
	Encode: func(obj runtime.Object) ([]byte, error) { return obj.(*unstructured.Unstructured).MarshalJSON() },
	Decode: func(data []byte) (runtime.Object, error) {
		u := &unstructured.Unstructured{}
		return u, u.UnmarshalJSON(data)
	},
	Fields: func(obj runtime.Object) fields.Set {
		u := obj.(*unstructured.Unstructured)
		return fields.Set{"metadata.name": u.GetName(), "metadata.namespace": u.GetNamespace()}
	},
}

func newPod(namespace, name string, labels ...string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{}}}
	for i := 0; i+1 < len(labels); i += 2 {
		p.Labels[labels[i]] = labels[i+1]
	}
	p.Spec.Containers = []corev1.Container{{Name: "c", Image: "image"}}
	return p
}

func mustCreate(t testing.TB, c *Cache, p *corev1.Pod) *Object {
	t.Helper()
	o, err := c.Create(t.Context(), p.Namespace, p.Name, p, nil)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// changePod makes an UpdateFunc of a function that changes a copy.
func changePod(change func(*corev1.Pod)) UpdateFunc {
	return func(cur *Object) (runtime.Object, []Op, error) {
		obj, err := cur.Decoded()
		if err != nil {
			return nil, nil, err
		}
		p := obj.(*corev1.Pod).DeepCopy()
		if p.Labels == nil { // an empty map is read back as none
			p.Labels = map[string]string{}
		}
		change(p)
		return p, nil, nil
	}
}

func mustUpdate(t testing.TB, c *Cache, namespace, name string, change func(*corev1.Pod)) *Object {
	t.Helper()
	o, err := c.Update(t.Context(), namespace, name, changePod(change))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func mustDelete(t testing.TB, c *Cache, namespace, name string) *Object {
	t.Helper()
	o, err := c.Delete(t.Context(), namespace, name, nil)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func mustList(t testing.TB, c *Cache, o ListOptions) *List {
	t.Helper()
	l, err := c.List(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func keys(objects []*Object) []string {
	out := make([]string, len(objects))
	for i, o := range objects {
		out[i] = o.Key
	}
	return out
}

// next waits for n events of a watch, and fails if they don't come.
func next(t testing.TB, w *Watch, n int) []Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var out []Event
	for len(out) < n {
		events, err := w.Next(ctx)
		if err != nil {
			t.Fatalf("after %d of %d events: %v", len(out), n, err)
		}
		out = append(out, events...)
	}
	if len(out) > n {
		t.Fatalf("%d events, want %d: %s", len(out), n, describe(out))
	}
	return out
}

func describe(events []Event) string {
	s := ""
	for _, e := range events {
		if e.Object == nil {
			s += fmt.Sprintf("%s ", [...]string{"ADDED", "MODIFIED", "DELETED", "BOOKMARK", "END"}[e.Type])
			continue
		}
		s += fmt.Sprintf("%s %s ", [...]string{"ADDED", "MODIFIED", "DELETED"}[e.Type], e.Object.Key)
	}
	return s
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error is %v, want %v", err, want)
	}
}
