package scheduler_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// BenchmarkEndToEnd schedules 5,000 pods that exist, by an API server in the process, on 1,000 and 5,000 nodes: informers,
// decisions, bindings and events. Run it with -benchtime=1x.
func BenchmarkEndToEnd(b *testing.B) {
	for _, nodes := range []int{1000, 5000} {
		b.Run(fmt.Sprintf("nodes=%d", nodes), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				const pods = 5000
				c := start(b, nil)
				parallel(nodes, func(i int) { c.node(b, fmt.Sprintf("n%d", i), "32") })
				parallel(pods, func(i int) {
					c.create(b, pod(fmt.Sprintf("p%d", i), "100m", func(p *corev1.Pod) {
						p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "example.com/wait"}}
					}))
				})
				w, err := c.Admin.CoreV1().Pods("default").Watch(context.Background(), metav1.ListOptions{})
				if err != nil {
					b.Fatal(err)
				}
				// The gates fall one after the other, as fast as the API can be told.
				var opened sync.WaitGroup
				b.StartTimer()
				opened.Go(func() {
					parallel(pods, func(i int) { c.openGate(b, fmt.Sprintf("p%d", i)) })
				})
				for bound := 0; bound < pods; {
					e := <-w.ResultChan()
					if p, ok := e.Object.(*corev1.Pod); ok && e.Type == watch.Modified && p.Spec.NodeName != "" {
						bound++
					}
				}
				b.ReportMetric(float64(pods)/b.Elapsed().Seconds(), "pods/s")
				opened.Wait()
				w.Stop()
			}
		})
	}
}

func parallel(n int, do func(i int)) {
	var all sync.WaitGroup
	for worker := range 32 {
		all.Go(func() {
			for i := worker; i < n; i += 32 {
				do(i)
			}
		})
	}
	all.Wait()
}
