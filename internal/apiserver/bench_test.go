package apiserver_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"
)

// call runs a request through the server as code of this process does.
func (e *env) call(method, path, body, accept string, w http.ResponseWriter) {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.RemoteAddr = "127.0.0.1:1"
	if accept != "" {
		r.Header.Set("Accept", accept)
	}
	e.server.ServeHTTP(w, r.WithContext(apirequest.WithUser(r.Context(), &user.DefaultInfo{Name: "admin"})))
}

// discard is an answer that nobody reads.
type discard struct {
	header http.Header
	code   int
	size   int
}

func newDiscard() *discard { return &discard{header: http.Header{}} }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) WriteHeader(code int)        { d.code = code }
func (d *discard) Write(p []byte) (int, error) { d.size += len(p); return len(p), nil }
func (d *discard) Flush()                      {}

const protobufAccept = "application/vnd.kubernetes.protobuf"

func BenchmarkCreate(b *testing.B) {
	e := newEnv(b, nil)
	e.namespace("ns")
	value := strings.Repeat("0123456789abcdef", 250)
	b.ReportAllocs()
	for i := range b.N {
		w := newDiscard()
		e.call("POST", "/api/v1/namespaces/ns/configmaps", configMap("c"+strconv.Itoa(i), "a", value), "", w)
		if w.code != 201 {
			b.Fatal(w.code)
		}
	}
}

func BenchmarkCreateParallel(b *testing.B) {
	e := newEnv(b, nil)
	e.namespace("ns")
	value := strings.Repeat("0123456789abcdef", 250)
	b.SetParallelism(32)
	var mu sync.Mutex
	n := 0
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			mu.Lock()
			n++
			i := n
			mu.Unlock()
			w := newDiscard()
			e.call("POST", "/api/v1/namespaces/ns/configmaps", configMap("c"+strconv.Itoa(i), "a", value), "", w)
			if w.code != 201 {
				b.Error(w.code)
				return
			}
		}
	})
}

func BenchmarkGet(b *testing.B) {
	e := newEnv(b, nil)
	e.namespace("ns")
	e.must(201, "POST", "/api/v1/namespaces/ns/configmaps", configMap("x", "a", strings.Repeat("x", 4000)))
	for name, accept := range map[string]string{"json": "application/json", "protobuf": protobufAccept} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				w := newDiscard()
				e.call("GET", "/api/v1/namespaces/ns/configmaps/x?resourceVersion=0", "", accept, w)
				if w.code != 200 {
					b.Fatal(w.code)
				}
			}
		})
	}
}

func BenchmarkList(b *testing.B) {
	e := newEnv(b, nil)
	e.namespace("ns")
	value := strings.Repeat("0123456789abcdef", 250)
	const objects = 5000
	for i := range objects {
		e.call("POST", "/api/v1/namespaces/ns/configmaps", configMap("c"+strconv.Itoa(i), "a", value), "", newDiscard())
	}
	for name, accept := range map[string]string{
		"json": "application/json", "protobuf": protobufAccept,
		"table": "application/json;as=Table;v=v1;g=meta.k8s.io", "metadata": protobufAccept + ";as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				w := newDiscard()
				e.call("GET", "/api/v1/configmaps", "", accept, w)
				b.SetBytes(int64(w.size))
			}
		})
	}
}

// waiter is the answer to a watch: it counts events.
type waiter struct {
	discard
	events *sync.WaitGroup
	want   string
}

func (w *waiter) Write(p []byte) (int, error) {
	for range strings.Count(string(p), w.want) {
		w.events.Done()
	}
	return len(p), nil
}

// BenchmarkWatchFanOut is the time from an update until all of 1,000 watchers have it.
func BenchmarkWatchFanOut(b *testing.B) {
	for name, accept := range map[string]string{"json": "application/json", "protobuf": protobufAccept} {
		b.Run(name, func(b *testing.B) {
			e := newEnv(b, nil)
			e.namespace("ns")
			e.must(201, "POST", "/api/v1/namespaces/ns/configmaps", configMap("x", "n", "0"))
			const watchers = 1000
			var started, seen, ended sync.WaitGroup
			c, cancel := context.WithCancel(ctx)
			started.Add(watchers)
			for range watchers {
				ended.Go(func() {
					r := httptest.NewRequestWithContext(c, "GET", "/api/v1/configmaps?watch=1", nil)
					r.Header.Set("Accept", accept)
					w := &startedWaiter{waiter: waiter{discard: *newDiscard(), events: &seen, want: "tick"}, started: &started}
					e.server.ServeHTTP(w, r.WithContext(apirequest.WithUser(r.Context(), &user.DefaultInfo{Name: "admin"})))
				})
			}
			started.Wait()
			b.ResetTimer()
			for i := range b.N {
				seen.Add(watchers)
				w := newDiscard()
				e.call("PUT", "/api/v1/namespaces/ns/configmaps/x", configMap("x", "n", fmt.Sprintf("tick%d", i)), "", w)
				if w.code != 200 {
					b.Fatal(w.code)
				}
				seen.Wait()
			}
			b.StopTimer()
			cancel()
			ended.Wait()
		})
	}
}

// startedWaiter tells when it has its first event.
type startedWaiter struct {
	waiter
	started *sync.WaitGroup
	once    sync.Once
}

func (w *startedWaiter) Write(p []byte) (int, error) {
	w.once.Do(w.started.Done)
	return w.waiter.Write(p)
}

var (
	_ io.Writer = (*waiter)(nil)
	_           = metav1.NamespaceAll
)
