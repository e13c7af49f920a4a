package proxy

import (
	"os/exec"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestListing checks that the command nft, with which people look at a node, understands the tables.
func TestListing(t *testing.T) {
	nft, err := exec.LookPath("nft")
	if err != nil {
		t.Skip("there is no nft")
	}
	w := newWorld(t)
	everything := service("web", corev1.ProtocolTCP, func(s *corev1.Service) {
		s.Spec.Type = corev1.ServiceTypeLoadBalancer
		s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
		s.Spec.Ports[0].NodePort = 30001
		s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
		s.Spec.LoadBalancerSourceRanges = []string{"192.0.2.0/28"}
		s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "198.51.100.1"}}
	}, "10.96.0.7", "fd11::7")
	plain := service("plain", corev1.ProtocolTCP, nil, "10.96.0.8")
	empty := service("empty", corev1.ProtocolUDP, nil, "10.96.0.9")
	w.put(everything, slice(everything, "10.244.3.11", "10.244.3.12"), slice(everything, "fd10:0:0:3::11"), plain, slice(plain, "10.244.3.11", "10.244.3.12"), empty)
	out, err := exec.Command(nft, "list", "ruleset").CombinedOutput()
	if err != nil {
		t.Fatalf("nft: %v\n%s", err, out)
	}
	for _, want := range []string{
		`10.96.0.8 . tcp . 80 comment "default/plain:p" : goto services-2-masquerade-outside`,
		`10.96.0.8 . tcp . 80 . 0x00000001 : 10.244.3.12 . 8080`,
		`198.51.100.1 . tcp . 80 . 192.0.2.0/28`,
		`update @clients-default/web/p/10.244.3.11/8080 { ip saddr timeout 3h }`,
		`to ip daddr . meta l4proto . th dport . numgen random mod 2 map @endpoints`,
		`10.96.0.9 . udp . 80 comment "default/empty:p" : goto refused`,
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("missing %q in\n%s", want, out)
		}
	}
}
