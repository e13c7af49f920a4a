package store

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/proa-k8s/proa/internal/store/etcd"
)

// bigPod is a pod of about 4 KB in JSON, as real ones are.
func bigPod(namespace, name string, i int) *corev1.Pod {
	p := newPod(namespace, name, "app", fmt.Sprintf("app-%d", i%100), "pod-template-hash", "6d4cf56db6", "tier", "backend")
	p.UID = "0a1b2c3d-0000-4000-8000-000000000000"
	p.CreationTimestamp = metav1.NewTime(time.Unix(1700000000, 0))
	p.Spec.NodeName = fmt.Sprintf("node-%d", i%1000)
	for _, n := range []string{"main", "sidecar"} {
		c := corev1.Container{
			Name: n, Image: "registry.example.com/team/" + n + ":v1.2.3", Command: []string{"/bin/server", "--port=8080"},
			Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}},
			Resources: corev1.ResourceRequirements{
				Requests: corev1.ResourceList{"cpu": resource.MustParse("100m"), "memory": resource.MustParse("128Mi")},
				Limits:   corev1.ResourceList{"cpu": resource.MustParse("500m"), "memory": resource.MustParse("256Mi")},
			},
			VolumeMounts: []corev1.VolumeMount{{Name: "token", MountPath: "/var/run/secrets/kubernetes.io/serviceaccount", ReadOnly: true}},
		}
		for e := range 8 {
			c.Env = append(c.Env, corev1.EnvVar{Name: fmt.Sprintf("VARIABLE_%d", e), Value: "some-value-" + strconv.Itoa(e)})
		}
		p.Spec.Containers = append(p.Spec.Containers, c)
	}
	p.Annotations = map[string]string{"note": strings.Repeat("n", 800)}
	p.ManagedFields = []metav1.ManagedFieldsEntry{{
		Manager: "bench", Operation: "Update", APIVersion: "v1", FieldsType: "FieldsV1",
		FieldsV1: metav1.NewFieldsV1(`{"f:metadata":{"f:labels":{` + strings.Repeat(`"f:x":{},`, 80) + `"f:app":{}}}}`),
	}}
	return p
}

// benchStore is on a disk that is synced.
func benchStore(b *testing.B) *Store {
	b.Helper()
	e, err := etcd.Start(b.Context(), etcd.Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { e.Close() })
	return openStore(b, e, Options{Rev: e.Rev})
}

func fillPods(b *testing.B, c *Cache, n, namespaces int) {
	b.Helper()
	var wg sync.WaitGroup
	var next atomic.Int64
	for range 64 {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				ns, name := fmt.Sprintf("ns-%d", i%namespaces), fmt.Sprintf("pod-%05d", i)
				if _, err := c.Create(context.Background(), ns, name, bigPod(ns, name, i), nil); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkCreate(b *testing.B) {
	for _, clients := range []int{1, 64} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			c := benchStore(b).Register(podResource)
			var n atomic.Int64
			b.SetParallelism(clients / min(clients, runtime.GOMAXPROCS(0)))
			b.ReportAllocs()
			create := func() {
				i := int(n.Add(1))
				name := fmt.Sprintf("pod-%07d", i)
				if _, err := c.Create(context.Background(), "ns", name, bigPod("ns", name, i), nil); err != nil {
					b.Error(err)
				}
			}
			b.ResetTimer()
			if clients == 1 {
				for b.Loop() {
					create()
				}
				return
			}
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					create()
				}
			})
		})
	}
}

const benchPods = 30000

func BenchmarkList(b *testing.B) {
	c := benchStore(b).Register(podResource)
	fillPods(b, c, benchPods, 20)
	for name, o := range map[string]ListOptions{
		"all":          {},
		"by label":     {Labels: labels.SelectorFromSet(labels.Set{"app": "app-7"})},
		"by labels":    {Labels: sel(b, "app,tier=backend,app!=app-7")},
		"by node":      {Fields: fields.OneTermEqualSelector("spec.nodeName", "node-7")},
		"by namespace": {Namespace: "ns-7"},
		"by name":      {Namespace: "ns-7", Fields: fields.OneTermEqualSelector("metadata.name", "pod-00007")},
		"first 500":    {Limit: 500},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.List(b.Context(), o); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("search by label", func(b *testing.B) { // without an index
		m := newMatcher(true, "", labels.SelectorFromSet(labels.Set{"app": "app-7"}), nil)
		for b.Loop() {
			q := &query{m: m, limit: benchPods}
			if err := q.scan(c.snapshot()); err != nil || len(q.objects) != benchPods/100 {
				b.Fatal(err, len(q.objects))
			}
		}
	})
}

// BenchmarkSelect is a list by label in a namespace that holds everything.
func BenchmarkSelect(b *testing.B) {
	c := benchStore(b).Register(podResource)
	fillPods(b, c, benchPods, 1)
	selector := labels.SelectorFromSet(labels.Set{"app": "app-7"})
	for b.Loop() {
		if l, err := c.List(b.Context(), ListOptions{Namespace: "ns-0", Labels: selector}); err != nil || len(l.Objects) != benchPods/100 {
			b.Fatal(err, len(l.Objects))
		}
	}
}

// BenchmarkFanOut measures from the begin of an update until the last of 1,000 watchers has it.
func BenchmarkFanOut(b *testing.B) {
	const watchers = 1000
	for name, options := range map[string]func(i int) WatchOptions{
		"all": func(int) WatchOptions { return WatchOptions{Rev: -1} },
		"labels": func(int) WatchOptions {
			return WatchOptions{Rev: -1, Labels: labels.SelectorFromSet(labels.Set{"app": "app-1"})}
		},
		"one of the nodes": func(i int) WatchOptions {
			return WatchOptions{Rev: -1, Fields: fields.OneTermEqualSelector("spec.nodeName", fmt.Sprintf("node-%d", i))}
		},
	} {
		b.Run(name, func(b *testing.B) {
			c := benchStore(b).Register(podResource)
			mustCreate(b, c, bigPod("ns", "a", 1))
			var got sync.WaitGroup
			var readers sync.WaitGroup
			var stops []func()
			for i := range watchers {
				w := startWatch(b, c, options(i))
				readers.Go(func() {
					for {
						events, err := w.Next(context.Background())
						if err != nil {
							return
						}
						got.Add(-len(events))
					}
				})
				stops = append(stops, w.Stop)
			}
			defer readers.Wait()
			defer func() {
				for _, stop := range stops {
					stop()
				}
			}()
			seen := watchers
			if name == "one of the nodes" {
				seen = 1
			}
			i := 0
			for b.Loop() {
				i++
				got.Add(seen)
				mustUpdate(b, c, "ns", "a", func(p *corev1.Pod) { p.Annotations["i"] = strconv.Itoa(i) })
				got.Wait()
			}
		})
	}
}

// BenchmarkMemory reports what 30,000 pods cost, in the heap and in the process, and what is left after they are gone.
func BenchmarkMemory(b *testing.B) {
	for b.Loop() {
		c := benchStore(b).Register(podResource)
		if err := c.WaitReady(b.Context()); err != nil {
			b.Fatal(err)
		}
		heap0, anon0 := memory(b)
		fillPods(b, c, benchPods, 20)
		heap1, anon1 := memory(b)
		b.ReportMetric(float64(heap1-heap0)/benchPods, "heapB/pod")
		b.ReportMetric(float64(anon1-anon0)/(1<<20), "anonMB")
		var stored int
		l := mustList(b, c, ListOptions{})
		for _, o := range l.Objects {
			stored += len(o.Value())
		}
		b.ReportMetric(float64(stored)/benchPods, "storedB/pod")
		var wg sync.WaitGroup
		for part := range 64 {
			wg.Go(func() {
				for i := part; i < len(l.Objects); i += 64 {
					if _, err := c.Delete(context.Background(), l.Objects[i].Namespace, l.Objects[i].Name, nil); err != nil {
						b.Error(err)
					}
				}
			})
		}
		wg.Wait()
		l = nil
		heap2, anon2 := memory(b)
		b.ReportMetric(float64(heap2-heap0)/(1<<20), "heapMBafter")
		b.ReportMetric(float64(anon2-anon0)/(1<<20), "anonMBafter")
	}
}

// memory returns the bytes of live heap and of anonymous memory of the process.
func memory(b *testing.B) (heap, anon int) {
	b.Helper()
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Skip(err)
	}
	for _, line := range strings.Split(string(status), "\n") {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kb, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				b.Fatal(err)
			}
			anon = kb << 10
		}
	}
	return int(m.HeapAlloc), anon
}

func BenchmarkReadLabels(b *testing.B) {
	protobuf, err := encodeProtobuf(bigPod("ns", "a", 1))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := readLabels(protobuf); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGet(b *testing.B) {
	c := benchStore(b).Register(podResource)
	mustCreate(b, c, bigPod("ns", "a", 1))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Get(b.Context(), "ns", "a", -1); err != nil {
			b.Fatal(err)
		}
	}
}
