package core

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// TestDefaultsOfStoredPods: every pod that is read from the store gets its defaults again, which must cost nothing.
func TestDefaultsOfStoredPods(t *testing.T) {
	pod := podFromYAML(t, "{containers: [{name: c, image: i, resources: {limits: {cpu: 1}}, ports: [{containerPort: 80}]}], volumes: [{name: v, secret: {secretName: s}}]}")
	if allocs := testing.AllocsPerRun(10, func() { defaultPod(pod) }); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func BenchmarkPodCreate(b *testing.B) {
	pod := newPod(func(p *corev1.Pod) {
		p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "A", Value: "b"}}
		p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{"cpu": resource.MustParse("1"), "memory": resource.MustParse("1Gi")}
	})
	b.ReportAllocs()
	for b.Loop() {
		preparePodCreate(context.Background(), pod)
		if errs := validatePodCreate(context.Background(), pod); len(errs) > 0 {
			b.Fatal(errs)
		}
		warnPod(context.Background(), pod, nil)
	}
}
