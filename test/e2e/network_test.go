package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/rest"
)

// [sig-network] Networking Granular Checks: Pods should function for intra-pod communication: http; udp; for node-pod
// communication: http; udp.
func TestPodNetwork(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	onNode := testPod("on-node", nil, "pause")
	onNode.Spec.HostNetwork = true
	pods := s.run(testPod("one", nil), testPod("two", nil), onNode)
	_, node := s.node()
	if got := pods[2].Status.PodIP; got != node {
		t.Errorf("the pod in the node's network has the address %s, not %s", got, node)
	}
	for _, target := range pods[:2] {
		ip := target.Status.PodIP
		for _, from := range pods[:2] {
			s.reaches(from.Status.PodIP, "http", ip, 8080, target.Name)
			s.reaches(from.Status.PodIP, "udp", ip, 8081, target.Name)
			if got, err := dials(from.Status.PodIP, "http", ip, 8080, 1, "clientip"); err != nil || len(got) != 1 || !strings.HasPrefix(fmt.Sprint(got), "map["+from.Status.PodIP+":") {
				t.Errorf("%s sees %s as %v, %v", target.Name, from.Status.PodIP, got, err)
			}
		}
		for protocol, address := range map[string]string{
			"http": ip + ":8080",
			"udp":  ip + ":8081",
		} {
			s.eventually(protocol+" from the node", func() error {
				if out, err := s.exec(onNode.Name, "/agnhost", "ask", protocol, address, "hostname"); err != nil || out != target.Name {
					return fmt.Errorf("%q, %w", out, err)
				}
				return nil
			})
		}
	}
}

// [sig-network] HostPort validates that there is no conflict between pods with same hostPort but different hostIP and protocol.
func TestHostPort(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	_, node := s.node()
	port := int32(54323 + s.slot) // of the machine, on which are other clusters
	pod := func(name, ip string, protocol corev1.Protocol, container int32) *corev1.Pod {
		p := testPod(name, nil)
		p.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostPort: port, HostIP: ip, Protocol: protocol, ContainerPort: container}}
		return p
	}
	client := testPod("client", nil, "pause")
	client.Spec.HostNetwork = true
	s.run(pod("loopback", "127.0.0.1", corev1.ProtocolTCP, 8080), pod("tcp", node, corev1.ProtocolTCP, 8080), pod("udp", node, corev1.ProtocolUDP, 8081), client)
	for question, want := range map[string]string{
		fmt.Sprintf("http 127.0.0.1:%d", port): "loopback",
		fmt.Sprintf("http %s:%d", node, port):  "tcp",
		fmt.Sprintf("udp %s:%d", node, port):   "udp",
	} {
		s.eventually(question, func() error {
			protocol, address, _ := strings.Cut(question, " ")
			if out, err := s.exec("client", "/agnhost", "ask", protocol, address, "hostname"); err != nil || out != want {
				return fmt.Errorf("%q, want %q, %w", out, want, err)
			}
			return nil
		})
	}
}

// [sig-network] Proxy version v1: a set of valid responses are returned for both pod and service Proxy; ProxyWithPath.
func TestProxyMethods(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	pod := testPod("echo", map[string]string{"app": "echo"}, "porter", "--json-response")
	pod.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "SERVE_PORT_80", Value: "foo"}}
	s.run(pod)
	s.service("echo", corev1.ServiceSpec{Selector: pod.Labels, Ports: []corev1.ServicePort{{Port: 80}}})
	client, err := rest.HTTPClientFor(s.config)
	must(t, err)
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	for _, target := range []string{"pods", "services"} {
		base := fmt.Sprintf("%s/api/v1/namespaces/%s/%s/echo/proxy", s.server, s.namespace, target)
		s.eventually("an answer of "+base, func() error { // the service needs its endpoint first
			resp, err := client.Get(base + "/")
			if err == nil {
				resp.Body.Close()
				if resp.StatusCode != 200 {
					err = fmt.Errorf("%s", resp.Status)
				}
			}
			return err
		})
		for _, method := range []string{"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"} {
			for _, path := range []string{"/?method=" + method, "/some/path/with/" + method, "?method=" + method} {
				req, err := http.NewRequestWithContext(t.Context(), method, base+path, nil)
				must(t, err)
				resp, err := client.Do(req)
				must(t, err)
				var answer struct{ Method, Body, Path, Query string }
				decoded := json.NewDecoder(resp.Body).Decode(&answer)
				resp.Body.Close()
				at, query, _ := strings.Cut(path, "?")
				switch {
				case at == "" && (method == "GET" || method == "HEAD"): // relative links need the slash
					if location := resp.Header.Get("Location"); resp.StatusCode != 301 || location != fmt.Sprintf("/api/v1/namespaces/%s/%s/echo/proxy/?%s", s.namespace, target, query) {
						t.Errorf("%s %s%s: %s to %s", method, base, path, resp.Status, location)
					}
				case resp.StatusCode != 200:
					t.Errorf("%s %s%s: %s", method, base, path, resp.Status)
				case method == "HEAD":
				case decoded != nil || answer.Method != method || answer.Body != "foo" || answer.Path != "/"+strings.TrimPrefix(at, "/") || answer.Query != query:
					t.Errorf("%s %s%s: %+v, %v", method, base, path, answer, decoded)
				}
			}
		}
	}
}

// [sig-network] Proxy version v1 should proxy through a service and a pod.
func TestProxyPorts(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	pod := testPod("porter", map[string]string{"app": "porter"}, "porter")
	c := &pod.Spec.Containers[0]
	for port, text := range map[int]string{80: `<a href="/rewriteme">test</a>`, 1080: `<a href="/rewriteme">test</a>`, 160: "foo", 162: "bar"} {
		c.Env = append(c.Env, corev1.EnvVar{Name: fmt.Sprint("SERVE_PORT_", port), Value: text})
	}
	for port, text := range map[int]string{443: `<a href="/tlsrewriteme">test</a>`, 460: "tls baz", 462: "tls qux"} {
		c.Env = append(c.Env, corev1.EnvVar{Name: fmt.Sprint("SERVE_TLS_PORT_", port), Value: text})
	}
	c.Ports = []corev1.ContainerPort{{Name: "dest1", ContainerPort: 160}, {Name: "dest2", ContainerPort: 162}, {Name: "tlsdest1", ContainerPort: 460}, {Name: "tlsdest2", ContainerPort: 462}}
	s.run(pod)
	s.service("svc", corev1.ServiceSpec{Selector: pod.Labels, Ports: []corev1.ServicePort{
		{Name: "portname1", Port: 80, TargetPort: intstr.FromString("dest1")}, {Name: "portname2", Port: 81, TargetPort: intstr.FromInt32(162)},
		{Name: "tlsportname1", Port: 443, TargetPort: intstr.FromString("tlsdest1")}, {Name: "tlsportname2", Port: 444, TargetPort: intstr.FromInt32(462)},
	}})
	link := func(kind, path, name string) string {
		return fmt.Sprintf(`<a href="/api/v1/namespaces/%s/%s/%s/proxy/%s">test</a>`, s.namespace, kind, name, path)
	}
	for target, want := range map[string]string{
		"services/svc:portname1":          "foo",
		"services/http:svc:portname1":     "foo",
		"services/svc:portname2":          "bar",
		"services/http:svc:portname2":     "bar",
		"services/https:svc:tlsportname1": "tls baz",
		"services/https:svc:tlsportname2": "tls qux",
		"services/svc:80":                 "foo",
		"services/svc:81":                 "bar",
		"services/https:svc:443":          "tls baz",
		"services/https:svc:444":          "tls qux",
		"pods/porter":                     "foo", // the first port that is declared
		"pods/porter:80":                  link("pods", "rewriteme", "porter:80"),
		"pods/porter:1080":                link("pods", "rewriteme", "porter:1080"),
		"pods/porter:160":                 "foo",
		"pods/http:porter:160":            "foo",
		"pods/porter:162":                 "bar",
		"pods/http:porter:80":             link("pods", "rewriteme", "http:porter:80"),
		"pods/https:porter:443":           link("pods", "tlsrewriteme", "https:porter:443"),
		"pods/https:porter:460":           "tls baz",
		"pods/https:porter:462":           "tls qux",
	} {
		s.eventually(target, func() error {
			kind, name, _ := strings.Cut(target, "/")
			body, err := s.client.CoreV1().RESTClient().Get().Namespace(s.namespace).Resource(kind).Name(name).SubResource("proxy").Suffix("/").DoRaw(t.Context())
			if err == nil && string(body) != want {
				err = fmt.Errorf("%q, want %q", body, want)
			}
			return err
		})
	}

	// The node's own logs come through the proxy of nodes.
	node, _ := s.node()
	if body, err := s.client.CoreV1().RESTClient().Get().Resource("nodes").Name(node.Name).SubResource("proxy").Suffix("logs/").DoRaw(t.Context()); err != nil || !strings.Contains(string(body), "<pre>") {
		t.Errorf("logs of the node: %v %s", err, body)
	}
}

// service creates a Service.
func (s *session) service(name string, spec corev1.ServiceSpec) *corev1.Service {
	s.t.Helper()
	created, err := s.client.CoreV1().Services(s.namespace).Create(s.t.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}, metav1.CreateOptions{})
	must(s.t, err)
	return created
}

// nodePort is the one of a service's first port, as text.
func nodePort(svc *corev1.Service) string { return strconv.Itoa(int(svc.Spec.Ports[0].NodePort)) }
