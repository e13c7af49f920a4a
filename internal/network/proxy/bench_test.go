package proxy

import (
	"context"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// manyServices makes a world in which there are services.
func manyServices(b *testing.B, n int) *world {
	w := newWorld(b) // the goroutine of b is in its namespace: no sub-benchmarks from here on
	for i := range n {
		svc := service(fmt.Sprintf("other-%d", i), corev1.ProtocolTCP, nil, fmt.Sprintf("10.96.%d.%d", 1+i/250, i%250))
		w.p.objects.setService(nameOf(svc), svc)
		w.p.objects.setSlice(nil, slice(svc, fmt.Sprintf("10.244.3.%d", 2+i%200), fmt.Sprintf("10.244.4.%d", 2+i%200)))
	}
	w.p.sync(context.Background())
	return w
}

// BenchmarkNewService measures the time from the events to the kernel for a service that comes and goes, with many others.
func BenchmarkNewService(b *testing.B) {
	for _, others := range []int{0, 1000, 5000} {
		b.Run(fmt.Sprint(others), func(b *testing.B) {
			w := manyServices(b, others)
			svc := service("new", corev1.ProtocolTCP, nil, "10.96.0.7")
			endpoints := slice(svc, "10.244.3.11", "10.244.3.12")
			b.ReportAllocs()
			for b.Loop() {
				w.put(svc, endpoints)
				w.remove(svc)
			}
		})
	}
}

// BenchmarkStart measures the replacement of all tables.
func BenchmarkStart(b *testing.B) {
	for _, services := range []int{1000, 5000} {
		b.Run(fmt.Sprint(services), func(b *testing.B) {
			w := manyServices(b, services)
			for b.Loop() {
				must(b, w.p.kernel.replace(w.p.ledger.everything()))
			}
		})
	}
}

// BenchmarkSharedEndpoint measures the ledger's part in a service that comes and goes, when others have the same endpoint.
func BenchmarkSharedEndpoint(b *testing.B) {
	for _, others := range []int{1, 5000} {
		b.Run(fmt.Sprint(others), func(b *testing.B) {
			l := newLedger()
			set := func(name string, endpoints ...string) {
				svc := service(name, corev1.ProtocolTCP, nil, "10.96.0.7")
				r := rules{}
				if endpoints != nil {
					r = rulesFor(svc, []*discoveryv1.EndpointSlice{slice(svc, endpoints...)}, node1)
				}
				l.begin()
				l.replace(nameOf(svc), r)
				l.commit()
			}
			for i := range others {
				set(fmt.Sprintf("other-%d", i), "10.244.3.11")
			}
			b.ReportAllocs()
			for b.Loop() {
				set("new", "10.244.3.11")
				set("new")
			}
		})
	}
}
