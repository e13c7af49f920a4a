package proxy

import (
	"context"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/proa-k8s/proa/internal/controller/controllertest"
)

// TestRun runs the proxy against an API server.
func TestRun(t *testing.T) {
	cluster := controllertest.Start(t)
	w := newWorld(t)
	pod := w.pod(11)
	w.serve(pod, "tcp", ":8080", "a")
	ctx, cancel := context.WithCancel(context.Background())
	c := w.p.Config
	c.Client, c.NodeClient = cluster.Admin, cluster.Admin
	here, ended := w.here(), make(chan error)
	go func() { ended <- in(here, func() error { return Run(ctx, c) }) }()

	services, slices := cluster.Admin.CoreV1().Services("default"), cluster.Admin.DiscoveryV1().EndpointSlices("default")
	answers := func(svc *corev1.Service, want bool) {
		t.Helper()
		target := svc.Spec.ClusterIP + ":80"
		for deadline := time.Now().Add(10 * time.Second); ; {
			answer, err := ask(pod, "tcp", target)
			if (err == nil && strings.HasPrefix(answer, "a ")) == want {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: %q, %v; want an answer: %v", svc.Name, answer, err, want)
			}
		}
	}
	create := func(name, label string) *corev1.Service {
		t.Helper()
		labels := map[string]string{}
		if label != "" {
			labels[label] = ""
		}
		svc := service(name, corev1.ProtocolTCP, nil, "10.96.0.7")
		svc.Spec.ClusterIP, svc.Spec.ClusterIPs, svc.Labels = map[string]string{"mine": "10.96.0.7", "theirs": "10.96.0.8"}[name], nil, labels
		made, err := services.Create(ctx, svc, metav1.CreateOptions{})
		must(t, err)
		s := slice(svc, "10.244.3.11")
		for k := range labels {
			s.Labels[k] = ""
		}
		_, err = slices.Create(ctx, s, metav1.CreateOptions{})
		must(t, err)
		return made
	}
	theirs := create("theirs", "service.kubernetes.io/service-proxy-name")
	mine := create("mine", "")
	answers(mine, true)
	if answer, err := ask(pod, "tcp", theirs.Spec.ClusterIP+":80"); !refused(err) {
		t.Errorf("the service of another proxy: %q, %v", answer, err)
	}
	// An endpoint that is not ready, and is again.
	for _, ready := range []bool{false, true} {
		s, err := slices.Get(ctx, "mine-v4", metav1.GetOptions{})
		must(t, err)
		s.Endpoints[0].Conditions = discoveryv1.EndpointConditions{Ready: ptr.To(ready)}
		_, err = slices.Update(ctx, s, metav1.UpdateOptions{})
		must(t, err)
		answers(mine, ready)
	}
	must(t, services.Delete(ctx, "mine", metav1.DeleteOptions{}))
	answers(mine, false)
	cancel()
	select {
	case err := <-ended:
		must(t, err)
	case <-time.After(10 * time.Second):
		t.Fatal("Run doesn't return")
	}
}

func TestMirror(t *testing.T) {
	o := newObjects()
	o.unseen = 1
	m := &mirror[*corev1.Service]{o: o, current: map[types.NamespacedName]*corev1.Service{}, set: func(old, now *corev1.Service) {
		if now == nil {
			o.setService(nameOf(old), nil)
			return
		}
		o.setService(nameOf(now), now)
	}}
	if _, _, ok := o.take(); ok {
		t.Error("something is taken before everything is listed")
	}
	a, b := service("a", corev1.ProtocolTCP, nil, "10.96.0.1"), service("b", corev1.ProtocolTCP, nil, "10.96.0.2")
	must(t, m.Replace([]any{a.DeepCopy(), b.DeepCopy()}, ""))
	names := func() string {
		var all []string
		inputs, _, ok := o.take()
		for _, in := range inputs {
			name := in.name.Name
			if in.service == nil {
				name = "-" + name
			}
			all = append(all, name)
		}
		if !ok {
			return "not listed"
		}
		return strings.Join(all, " ")
	}
	for _, step := range []struct {
		do   func() error
		want string
	}{
		{func() error { return nil }, "a b"},
		{func() error { return nil }, ""},
		{func() error { return m.Update(a.DeepCopy()) }, "a"},
		{func() error { return m.Delete(a.DeepCopy()) }, "-a"},
		{func() error { return m.Delete(a.DeepCopy()) }, ""},
		{func() error { return m.Replace([]any{a.DeepCopy()}, "") }, "a -b"},
		{func() error { o.mu.Lock(); defer o.mu.Unlock(); o.setZone("z"); return nil }, "a"},
		{func() error { o.mu.Lock(); defer o.mu.Unlock(); o.setSlice(nil, slice(b, "10.0.0.1")); return nil }, "-b"},
	} {
		must(t, step.do())
		if got := names(); got != step.want {
			t.Errorf("got %q, want %q", got, step.want)
		}
	}
	if err := m.Add(&corev1.Pod{}); err == nil {
		t.Error("a pod is taken for a service")
	}
}
