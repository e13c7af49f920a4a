package loadbalancer_test

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-k8s/proa/internal/controller/controllertest"
	"github.com/proa-k8s/proa/internal/network/loadbalancer"
)

func TestMain(m *testing.M) { controllertest.Main(m) }

func TestController(t *testing.T) {
	c, ctx := controllertest.Start(t, loadbalancer.New()), context.Background()
	n := c.Node(t, "node")
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.1"}}
	if _, err := c.Admin.CoreV1().Nodes().UpdateStatus(ctx, n, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	services := c.Admin.CoreV1().Services("default")
	get := func(name string) func(context.Context) (*corev1.Service, error) {
		return func(ctx context.Context) (*corev1.Service, error) {
			return services.Get(ctx, name, metav1.GetOptions{})
		}
	}
	create := func(name string) {
		t.Helper()
		s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{{Port: 80}}}}
		if _, err := services.Create(ctx, s, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	hasAddress := func(s *corev1.Service) bool {
		in := s.Status.LoadBalancer.Ingress
		return len(in) == 1 && in[0].IP == "192.0.2.1" && in[0].IPMode != nil && *in[0].IPMode == corev1.LoadBalancerIPModeVIP
	}
	create("a")
	controllertest.Wait(t, c, "an address", get("a"), hasAddress)

	// A node that gets another address takes its services with it.
	if n, err := c.Admin.CoreV1().Nodes().Get(ctx, "node", metav1.GetOptions{}); err != nil {
		t.Fatal(err)
	} else {
		n.Status.Addresses[0].Address = "192.0.2.3"
		if n, err = c.Admin.CoreV1().Nodes().UpdateStatus(ctx, n, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		controllertest.Wait(t, c, "the new address", get("a"), func(s *corev1.Service) bool {
			return len(s.Status.LoadBalancer.Ingress) == 1 && s.Status.LoadBalancer.Ingress[0].IP == "192.0.2.3"
		})
		n.Status.Addresses[0].Address = "192.0.2.1"
		if _, err = c.Admin.CoreV1().Nodes().UpdateStatus(ctx, n, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		controllertest.Wait(t, c, "the old address", get("a"), hasAddress)
	}

	create("b")
	controllertest.Wait(t, c, "an event about the conflict", func(ctx context.Context) (*corev1.EventList, error) {
		return c.Admin.CoreV1().Events("default").List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=b,reason=SyncLoadBalancerFailed"})
	}, func(l *corev1.EventList) bool { return len(l.Items) == 1 })
	if s, err := get("b")(ctx); err != nil || len(s.Status.LoadBalancer.Ingress) != 0 {
		t.Errorf("b has %v, %v", s.Status.LoadBalancer, err)
	}

	// When a is no load balancer any more, b gets its port.
	a, err := get("a")(ctx)
	if err != nil {
		t.Fatal(err)
	}
	a.Spec.Type, a.Spec.Ports[0].NodePort = corev1.ServiceTypeClusterIP, 0
	a.Spec.AllocateLoadBalancerNodePorts, a.Spec.ExternalTrafficPolicy = nil, ""
	if _, err := services.Update(ctx, a, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	controllertest.Wait(t, c, "no address", get("a"), func(s *corev1.Service) bool { return len(s.Status.LoadBalancer.Ingress) == 0 })
	controllertest.Wait(t, c, "the address", get("b"), hasAddress)
	for _, reason := range []string{"EnsuringLoadBalancer", "EnsuredLoadBalancer", "UpdatedLoadBalancer", "DeletingLoadBalancer", "DeletedLoadBalancer"} {
		controllertest.Wait(t, c, "the event "+reason, func(ctx context.Context) (*corev1.EventList, error) {
			return c.Admin.CoreV1().Events("default").List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=a,reason=" + reason})
		}, func(l *corev1.EventList) bool { return len(l.Items) > 0 })
	}
}
