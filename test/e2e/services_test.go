//lint:file-ignore SA1019 Endpoints are deprecated, and served as long as Kubernetes serves them.

package e2e

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// What the conformance tests of Services demand of traffic. Three pods serve all of them, and a fourth asks.
func TestServices(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	backends := []*corev1.Pod{testPod("b1", map[string]string{"app": "backend"}), testPod("b2", map[string]string{"app": "backend"}), testPod("b3", map[string]string{"app": "backend"})}
	pods := s.run(append(backends, testPod("client", nil))...)
	c := serviceTest{session: s, asker: pods[3].Status.PodIP, backends: []string{"b1", "b2", "b3"}}
	_, c.node = s.node()
	for name, test := range map[string]func(serviceTest){
		"ClusterIP to ExternalName": serviceTest.toExternalName,
		"ExternalName to ClusterIP": serviceTest.fromExternalName,
		"NodePort":                  serviceTest.nodePort,
		"affinity":                  serviceTest.affinity,
		"protocols":                 serviceTest.protocols,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sub := c
			sub.session = s.sub(t)
			test(sub)
		})
	}
}

type serviceTest struct {
	*session
	asker    string // address of the pod that asks
	node     string
	backends []string
}

func (s serviceTest) spec(kind corev1.ServiceType) corev1.ServiceSpec {
	return corev1.ServiceSpec{Type: kind, Selector: map[string]string{"app": "backend"}, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}}}
}

func (s serviceTest) change(name string, change func(*corev1.Service)) *corev1.Service {
	s.t.Helper()
	api := s.client.CoreV1().Services(s.namespace)
	return update(s.t, func() (*corev1.Service, error) { return api.Get(s.t.Context(), name, metav1.GetOptions{}) }, change,
		func(svc *corev1.Service) (*corev1.Service, error) {
			return api.Update(s.t.Context(), svc, metav1.UpdateOptions{})
		})
}

// answers checks that the service is reached by its name and its address, and by its node port if it has one.
func (s serviceTest) answers(svc *corev1.Service) {
	s.t.Helper()
	s.reaches(s.asker, "http", svc.Name, 80, s.backends...)
	s.reaches(s.asker, "http", svc.Spec.ClusterIP, 80, s.backends...)
	if port := svc.Spec.Ports[0].NodePort; port != 0 {
		s.reaches(s.asker, "http", s.node, int(port), s.backends...)
		if _, body, err := get("http://" + s.node + ":" + nodePort(svc) + "/hostname"); err != nil || !slices.Contains(s.backends, body) {
			s.t.Errorf("the node port on the node itself: %s %v", body, err)
		}
	}
}

// [sig-network] Services should be able to change the type from ClusterIP to ExternalName; from NodePort to ExternalName.
func (s serviceTest) toExternalName() {
	for _, kind := range []corev1.ServiceType{corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort} {
		target := s.service("target-"+strings.ToLower(string(kind)), s.spec(corev1.ServiceTypeClusterIP))
		svc := s.service("was-"+strings.ToLower(string(kind)), s.spec(kind))
		if svc.Spec.ClusterIP == "" || (kind == corev1.ServiceTypeNodePort) != (svc.Spec.Ports[0].NodePort != 0) {
			s.t.Errorf("created %+v", svc.Spec)
		}
		s.answers(svc)
		host := target.Name + "." + s.namespace + ".svc.cluster.local"
		was := svc.Spec
		svc = s.change(svc.Name, func(svc *corev1.Service) {
			svc.Spec.Type, svc.Spec.ExternalName = corev1.ServiceTypeExternalName, host
			svc.Spec.ClusterIP, svc.Spec.ClusterIPs, svc.Spec.Ports[0].NodePort = "", nil, 0
		})
		if svc.Spec.ClusterIP != "" || svc.Spec.Ports[0].NodePort != 0 {
			s.t.Errorf("changed to %+v", svc.Spec)
		}
		s.unreachable(s.asker, "http", was.ClusterIP, 80)
		s.eventually("the name leads to the target", func() error {
			out, err := dig(s.asker, "A "+svc.Name)
			if err == nil && (!strings.Contains(out, "CNAME "+host+".") || !strings.Contains(out, "A "+target.Spec.ClusterIP)) {
				err = fmt.Errorf("%s", out)
			}
			return err
		})
		if kind == corev1.ServiceTypeNodePort { // its port is free
			again := s.spec(corev1.ServiceTypeNodePort)
			again.Ports[0].NodePort = was.Ports[0].NodePort
			s.service("again", again)
		}
	}
}

// [sig-network] Services should be able to change the type from ExternalName to ClusterIP; to NodePort.
func (s serviceTest) fromExternalName() {
	for _, kind := range []corev1.ServiceType{corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort} {
		svc := s.service("external-"+strings.ToLower(string(kind)), corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "foo.example.com"})
		if svc.Spec.ClusterIP != "" {
			s.t.Errorf("created %+v", svc.Spec)
		}
		s.answers(s.change(svc.Name, func(svc *corev1.Service) { svc.Spec = s.spec(kind) }))
	}
}

// [sig-network] Services should be able to create a functioning NodePort service.
func (s serviceTest) nodePort() { s.answers(s.service("nodeport", s.spec(corev1.ServiceTypeNodePort))) }

// [sig-network] Services should have session affinity work for service with type clusterIP; for NodePort service; should be able
// to switch session affinity for service with type clusterIP; for NodePort service.
func (s serviceTest) affinity() {
	spec := s.spec(corev1.ServiceTypeNodePort)
	spec.SessionAffinity = corev1.ServiceAffinityClientIP
	svc := s.service("affine", spec)
	if c := svc.Spec.SessionAffinityConfig; c == nil || *c.ClientIP.TimeoutSeconds != 10800 {
		s.t.Errorf("affinity %+v", c)
	}
	targets := map[string]int{svc.Spec.ClusterIP: 80, s.node: int(svc.Spec.Ports[0].NodePort)}
	one := func() {
		s.t.Helper()
		s.reachable(svc)
		for host, port := range targets {
			s.eventually("one pod answers all", func() error {
				got, err := dials(s.asker, "http", host, port, 16, "hostname")
				if err == nil && len(got) != 1 {
					err = fmt.Errorf("%s:%d answered as %v", host, port, got)
				}
				return err
			})
		}
	}
	one()
	s.change(svc.Name, func(svc *corev1.Service) {
		svc.Spec.SessionAffinity = corev1.ServiceAffinityNone
		svc.Spec.SessionAffinityConfig = nil
	})
	for host, port := range targets {
		s.reaches(s.asker, "http", host, port, s.backends...)
	}
	s.change(svc.Name, func(svc *corev1.Service) { svc.Spec.SessionAffinity = corev1.ServiceAffinityClientIP })
	one()
}

// reachable waits until a service answers at all.
func (s serviceTest) reachable(svc *corev1.Service) {
	s.t.Helper()
	s.eventually(svc.Name+" answers", func() error {
		_, err := dials(s.asker, "http", svc.Name, 80, 1, "hostname")
		return err
	})
}

// [sig-network] Services should serve endpoints on same port and different protocols.
func (s serviceTest) protocols() {
	tcp := corev1.ServicePort{Name: "tcp", Port: 80, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(8080)}
	udp := corev1.ServicePort{Name: "udp", Port: 80, Protocol: corev1.ProtocolUDP, TargetPort: intstr.FromInt32(8081)}
	spec := s.spec(corev1.ServiceTypeClusterIP)
	spec.Ports = []corev1.ServicePort{tcp, udp}
	svc := s.service("protocols", spec)
	ip := svc.Spec.ClusterIP
	s.reaches(s.asker, "http", ip, 80, s.backends...)
	s.reaches(s.asker, "udp", ip, 80, s.backends...)
	s.change(svc.Name, func(svc *corev1.Service) { svc.Spec.Ports = []corev1.ServicePort{tcp} })
	s.unreachable(s.asker, "udp", ip, 80)
	s.reaches(s.asker, "http", ip, 80, s.backends...)
	s.change(svc.Name, func(svc *corev1.Service) { svc.Spec.Ports = []corev1.ServicePort{udp} })
	s.unreachable(s.asker, "http", ip, 80)
	s.reaches(s.asker, "udp", ip, 80, s.backends...)
}

// [sig-network] Services should serve a basic endpoint from pods; should serve multiport endpoints from pods.
func TestServiceEndpoints(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	labels := map[string]string{"app": "endpoints"}
	svc := s.service("multi", corev1.ServiceSpec{Selector: labels, Ports: []corev1.ServicePort{
		{Name: "portname1", Port: 80, TargetPort: intstr.FromString("portname1")}, {Name: "portname2", Port: 81, TargetPort: intstr.FromString("portname2")},
	}})
	s.endpoints(svc.Name)
	pod := func(name, port string) *corev1.Pod {
		p := testPod(name, labels)
		p.Spec.Containers[0].Ports = []corev1.ContainerPort{{Name: port, ContainerPort: 8080}}
		return p
	}
	client := s.run(testPod("client", nil))[0].Status.PodIP
	s.run(pod("pod1", "portname1"))
	s.endpoints(svc.Name, "portname1 8080 pod1")
	s.reaches(client, "http", svc.Spec.ClusterIP, 80, "pod1")
	s.run(pod("pod2", "portname2"))
	s.endpoints(svc.Name, "portname1 8080 pod1", "portname2 8080 pod2")
	s.reaches(client, "http", svc.Spec.ClusterIP, 80, "pod1")
	s.reaches(client, "http", svc.Spec.ClusterIP, 81, "pod2")
	s.end("pod1")
	s.endpoints(svc.Name, "portname2 8080 pod2")
	s.reaches(client, "http", svc.Spec.ClusterIP, 81, "pod2")
	s.end("pod2")
	s.endpoints(svc.Name)
	s.unreachable(client, "http", svc.Spec.ClusterIP, 81)
}

// endpoints waits until both the Endpoints and the EndpointSlices of a service hold these "PORTNAME PORT POD" and no others.
func (s *session) endpoints(service string, want ...string) {
	s.t.Helper()
	ctx := s.t.Context()
	s.eventually("endpoints of "+service, func() error {
		old, err := s.client.CoreV1().Endpoints(s.namespace).Get(ctx, service, metav1.GetOptions{})
		if err != nil {
			return err
		}
		got := map[string]int{}
		for _, subset := range old.Subsets {
			for _, p := range subset.Ports {
				for _, a := range subset.Addresses {
					got[fmt.Sprintf("%s %d %s", p.Name, p.Port, a.TargetRef.Name)]++
				}
			}
		}
		if names := slices.Sorted(maps.Keys(got)); !slices.Equal(names, want) {
			return fmt.Errorf("endpoints %v, want %v", names, want)
		}
		list, err := s.client.DiscoveryV1().EndpointSlices(s.namespace).List(ctx, metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=" + service})
		if err != nil {
			return err
		}
		clear(got)
		for _, slice := range list.Items {
			for _, p := range slice.Ports {
				for _, e := range slice.Endpoints {
					if *e.Conditions.Ready {
						got[fmt.Sprintf("%s %d %s", *p.Name, *p.Port, e.TargetRef.Name)]++
					}
				}
			}
		}
		if names := slices.Sorted(maps.Keys(got)); !slices.Equal(names, want) {
			return fmt.Errorf("slices %v, want %v", names, want)
		}
		return nil
	})
}

// [sig-network] Service endpoints latency should not be very high. What it says of time is for the reader.
func TestServiceLatency(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	pod := testPod("pause", map[string]string{"app": "latency"}, "pause")
	ip := s.run(pod)[0].Status.PodIP
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	w, err := s.client.DiscoveryV1().EndpointSlices(s.namespace).Watch(ctx, metav1.ListOptions{})
	must(t, err)
	defer w.Stop()
	var took []time.Duration
	for n := range 100 {
		name := fmt.Sprintf("latency-%d", n)
		began := time.Now()
		s.service(name, corev1.ServiceSpec{Selector: pod.Labels, Ports: []corev1.ServicePort{{Port: 80}}})
		for {
			e, open := <-w.ResultChan()
			if !open {
				t.Fatalf("service %s has no endpoint", name)
			}
			slice, ok := e.Object.(*discoveryv1.EndpointSlice)
			if ok && slice.Labels[discoveryv1.LabelServiceName] == name && len(slice.Endpoints) == 1 && slice.Endpoints[0].Addresses[0] == ip {
				break
			}
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	t.Logf("from the creation of a service to its endpoint: half within %s, 90 of 100 within %s, all within %s", took[50], took[90], took[99])
}
