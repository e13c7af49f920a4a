package loadbalancer

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func node(name string, ready bool, addrs ...string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: status}}
	for _, a := range addrs {
		kind := corev1.NodeInternalIP
		if public, ok := strings.CutPrefix(a, "public "); ok {
			a, kind = public, corev1.NodeExternalIP
		}
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: kind, Address: a})
	}
	n.Status.DaemonEndpoints.KubeletEndpoint.Port = 10250
	return n
}

var made = time.Unix(1e9, 0)

// service makes a service of type LoadBalancer; each is younger than the one before by name.
func service(name string, port int32, change ...func(*corev1.Service)) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, CreationTimestamp: metav1.NewTime(made.Add(time.Duration(name[0]) * time.Second))}}
	s.Spec.Type = corev1.ServiceTypeLoadBalancer
	s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol}
	s.Spec.Ports = []corev1.ServicePort{{Protocol: corev1.ProtocolTCP, Port: port}}
	for _, c := range change {
		c(s)
	}
	return s
}

func local(s *corev1.Service) {
	s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
}

func TestAssign(t *testing.T) {
	two := []*corev1.Node{node("b", true, "192.0.2.2"), node("a", true, "192.0.2.1")}
	kubernetes := service("kubernetes", 443, func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeClusterIP })
	for name, tc := range map[string]struct {
		nodes    []*corev1.Node
		services []*corev1.Service
		want     map[string]string // addresses, or "!" and a part of the problem
	}{
		"all nodes":        {two, []*corev1.Service{service("a", 80)}, map[string]string{"a": "192.0.2.1 192.0.2.2"}},
		"no nodes":         {nil, []*corev1.Service{service("a", 80)}, map[string]string{"a": "!no node"}},
		"node isn't ready": {[]*corev1.Node{node("a", false, "192.0.2.1"), two[0]}, []*corev1.Service{service("a", 80)}, map[string]string{"a": "192.0.2.2"}},
		"external address": {[]*corev1.Node{node("a", true, "192.0.2.1", "public 198.51.100.1")}, []*corev1.Service{service("a", 80)}, map[string]string{"a": "198.51.100.1"}},
		"two ports":        {two, []*corev1.Service{service("a", 80), service("b", 81)}, map[string]string{"a": "192.0.2.1 192.0.2.2", "b": "192.0.2.1 192.0.2.2"}},
		"conflict":         {two, []*corev1.Service{service("b", 80), service("a", 80)}, map[string]string{"a": "192.0.2.1 192.0.2.2", "b": "!port 80/TCP of 192.0.2.2 is used by service default/a"}},
		"other protocol":   {two[:1], []*corev1.Service{service("a", 80), service("b", 80, func(s *corev1.Service) { s.Spec.Ports[0].Protocol = corev1.ProtocolUDP })}, map[string]string{"a": "192.0.2.2", "b": "192.0.2.2"}},
		"kubelet":          {two, []*corev1.Service{service("a", 10250)}, map[string]string{"a": "!used by the kubelet"}},
		"API server":       {two, []*corev1.Service{kubernetes, service("a", 6443)}, map[string]string{"a": "192.0.2.2"}},
		"a class":          {two, []*corev1.Service{service("a", 80, func(s *corev1.Service) { s.Spec.LoadBalancerClass = ptr.To("x/y") })}, map[string]string{}},
		"another type":     {two, []*corev1.Service{service("a", 80, func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeNodePort })}, map[string]string{}},
		"asks for one":     {two, []*corev1.Service{service("a", 80, func(s *corev1.Service) { s.Spec.LoadBalancerIP = "192.0.2.2" })}, map[string]string{"a": "192.0.2.2"}},
		"asks for other":   {two, []*corev1.Service{service("a", 80, func(s *corev1.Service) { s.Spec.LoadBalancerIP = "192.0.2.9" })}, map[string]string{"a": "!has the address 192.0.2.9"}},
		"local":            {two, []*corev1.Service{service("local", 80, local)}, map[string]string{"local": "192.0.2.2"}},
		"local, none":      {two, []*corev1.Service{service("a", 80, local)}, map[string]string{"a": "!no node"}},
		"IPv6":             {[]*corev1.Node{node("a", true, "192.0.2.1", "2001:db8::1")}, []*corev1.Service{service("a", 80, func(s *corev1.Service) { s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv6Protocol} })}, map[string]string{"a": "2001:db8::1"}},
		"excluded by label": {[]*corev1.Node{two[0], func() *corev1.Node {
			n := node("a", true, "192.0.2.1")
			n.Labels = map[string]string{corev1.LabelNodeExcludeBalancers: ""}
			return n
		}()}, []*corev1.Service{service("a", 80)}, map[string]string{"a": "192.0.2.2"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := assign(cluster{services: tc.services, nodes: tc.nodes, endpoints: func(s *corev1.Service) []*discoveryv1.EndpointSlice {
				switch s.Name {
				case "local":
					return []*discoveryv1.EndpointSlice{{Endpoints: []discoveryv1.Endpoint{
						{NodeName: ptr.To("b")}, {NodeName: ptr.To("a"), Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(false)}},
					}}}
				case "kubernetes":
					return []*discoveryv1.EndpointSlice{{Ports: []discoveryv1.EndpointPort{{Port: ptr.To(int32(6443))}}, Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"192.0.2.1"}}}}}
				}
				return nil
			}})
			if len(got) != len(tc.want) {
				t.Errorf("got %v", got)
			}
			for name, a := range got {
				var ips []string
				for _, in := range a.ingress {
					if in.IPMode == nil || *in.IPMode != corev1.LoadBalancerIPModeVIP {
						t.Errorf("mode is %v", in.IPMode)
					}
					ips = append(ips, in.IP)
				}
				problem, bad := strings.CutPrefix(tc.want[name.Name], "!")
				switch {
				case bad && (len(ips) > 0 || !strings.Contains(a.problem, problem)):
					t.Errorf("%s: got %v, %q; want the problem %q", name, ips, a.problem, problem)
				case !bad && (strings.Join(ips, " ") != tc.want[name.Name] || a.problem != ""):
					t.Errorf("%s: got %v, %q; want %s", name, ips, a.problem, tc.want[name.Name])
				}
			}
		})
	}
}
