package proxy

import (
	"context"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// BenchmarkNewService measures the time from the event to the kernel, with many other services.
func BenchmarkNewService(b *testing.B) {
	for _, others := range []int{0, 1000, 5000} {
		b.Run(fmt.Sprint(others), func(b *testing.B) {
			w := newWorld(b)
			for i := range others {
				svc := service(fmt.Sprintf("other-%d", i), corev1.ProtocolTCP, nil, fmt.Sprintf("10.96.%d.%d", 1+i/250, i%250))
				w.p.objects.setService(nameOf(svc), svc)
				w.p.objects.setSlice(nil, slice(svc, fmt.Sprintf("10.244.3.%d", 2+i%200), fmt.Sprintf("10.244.4.%d", 2+i%200)))
			}
			w.p.sync(context.Background())
			b.Run("change", func(b *testing.B) {
				b.ReportAllocs()
				svc := service("new", corev1.ProtocolTCP, nil, "10.96.0.7")
				endpoints := slice(svc, "10.244.3.11", "10.244.3.12")
				for b.Loop() {
					w.put(svc, endpoints)
					w.remove(svc)
				}
			})
			b.Run("start", func(b *testing.B) {
				for b.Loop() {
					must(b, w.p.kernel.replace(w.p.ledger.everything()))
				}
			})
		})
	}
}
