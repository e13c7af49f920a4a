package e2e

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// What the conformance tests of DNS demand. A pod with a name of its own asks, and serves.
func TestDNS(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	labels := map[string]string{"app": "dns"}
	port := []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromInt32(8080)}}
	s.service("headless", corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone, Selector: labels, Ports: port})
	svc := s.service("normal", corev1.ServiceSpec{Selector: labels, Ports: port})
	asker := testPod("asker", labels)
	asker.Spec.Hostname, asker.Spec.Subdomain = "querier", "headless"
	ip := s.run(asker)[0].Status.PodIP
	s.endpoints("headless", "http 8080 asker")
	s.endpoints("normal", "http 8080 asker")

	domain := s.namespace + ".svc.cluster.local"
	kubernetes, err := s.client.CoreV1().Services("default").Get(t.Context(), "kubernetes", metav1.GetOptions{})
	must(t, err)
	dashed := strings.ReplaceAll(ip, ".", "-")

	// [sig-network] DNS should provide DNS for the cluster; for services; for pods for Hostname; for pods for Subdomain; should
	// resolve DNS of partial qualified names for services.
	for question, want := range map[string]string{
		"A kubernetes.default":                                 "A " + kubernetes.Spec.ClusterIP,
		"A kubernetes.default.svc":                             "A " + kubernetes.Spec.ClusterIP,
		"A kubernetes.default.svc.cluster.local":               "A " + kubernetes.Spec.ClusterIP,
		"SRV _https._tcp.kubernetes.default.svc.cluster.local": "SRV 0 100 443 kubernetes.default.svc.cluster.local.",
		"A normal":                                               "A " + svc.Spec.ClusterIP,
		"A normal." + s.namespace:                                "A " + svc.Spec.ClusterIP,
		"A normal." + s.namespace + ".svc":                       "A " + svc.Spec.ClusterIP,
		"A normal." + domain:                                     "A " + svc.Spec.ClusterIP,
		"A headless":                                             "A " + ip,
		"A headless." + s.namespace:                              "A " + ip,
		"A headless." + s.namespace + ".svc":                     "A " + ip,
		"A headless." + domain:                                   "A " + ip,
		"SRV _http._tcp.normal." + s.namespace + ".svc":          "SRV 0 100 80 normal." + domain + ".",
		"SRV _http._tcp.normal":                                  "SRV 0 100 80 normal." + domain + ".",
		"SRV _http._tcp.headless." + s.namespace + ".svc":        "SRV 0 100 8080 querier.headless." + domain + ".",
		"SRV _http._tcp.headless":                                "SRV 0 100 8080 querier.headless." + domain + ".",
		"A querier.headless." + domain:                           "A " + ip,
		"A querier.headless":                                     "A " + ip,
		"A " + dashed + "." + s.namespace + ".pod.cluster.local": "A " + ip,
		"PTR " + reverse(svc.Spec.ClusterIP):                     "PTR normal." + domain + ".",
		"PTR " + reverse(ip):                                     "PTR querier.headless." + domain + ".",
	} {
		for _, transport := range []string{"", "+tcp "} {
			s.digs(ip, transport+question, want)
		}
	}
	if out, err := dig(ip, "A nobody."+domain); err == nil || !strings.Contains(err.Error(), "NXDOMAIN") {
		t.Errorf("a name that nobody has: %s %v", out, err)
	}

	// [sig-network] DNS should provide /etc/hosts entries for the cluster.
	hosts, err := s.exec(asker.Name, "cat", "/etc/hosts")
	must(t, err)
	if line := ip + "\tquerier.headless." + domain + "\tquerier"; !strings.Contains(hosts, line) {
		t.Errorf("%q is not in /etc/hosts:\n%s", line, hosts)
	}
	if out, err := s.exec(asker.Name, "hostname", "-f"); err != nil || strings.TrimSpace(out) != "querier.headless."+domain {
		t.Errorf("hostname -f: %s %v", out, err)
	}

	t.Run("ExternalName", func(t *testing.T) { s.sub(t).digsExternalName(ip) })
}

// [sig-network] DNS should provide DNS for ExternalName services.
func (s *session) digsExternalName(from string) {
	ctx, api := s.t.Context(), s.client.CoreV1().Services(s.namespace)
	s.service("external", corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "foo.example.com"})
	change := func(change func(*corev1.Service)) *corev1.Service {
		return update(s.t, func() (*corev1.Service, error) { return api.Get(ctx, "external", metav1.GetOptions{}) }, change,
			func(svc *corev1.Service) (*corev1.Service, error) {
				return api.Update(ctx, svc, metav1.UpdateOptions{})
			})
	}
	s.digs(from, "CNAME external", "CNAME foo.example.com.")
	change(func(svc *corev1.Service) { svc.Spec.ExternalName = "bar.example.com" })
	s.digs(from, "CNAME external", "CNAME bar.example.com.")
	svc := change(func(svc *corev1.Service) {
		svc.Spec.Type, svc.Spec.ExternalName = corev1.ServiceTypeClusterIP, ""
		svc.Spec.Ports = []corev1.ServicePort{{Port: 80}}
	})
	s.digs(from, "A external", "A "+svc.Spec.ClusterIP)
}

// digs waits until a question that the pod at an address asks, "[+tcp] TYPE NAME", is answered with a record, and with no other
// unless it is for a name.
func (s *session) digs(from, question, want string) {
	s.t.Helper()
	s.eventually("dig "+question, func() error {
		out, err := dig(from, question)
		if err == nil && out != want && !(strings.HasPrefix(want, "PTR") && slices.Contains(strings.Split(out, "\n"), want)) {
			err = fmt.Errorf("answer %q, want %q", out, want)
		}
		return err
	})
}

func dig(from, question string) (string, error) {
	transport := "udp"
	if rest, ok := strings.CutPrefix(question, "+tcp "); ok {
		transport, question = "tcp", rest
	}
	kind, name, _ := strings.Cut(question, " ")
	code, body, err := get("http://" + from + ":8080/dig?" + url.Values{"transport": {transport}, "type": {kind}, "name": {name}}.Encode())
	if err == nil && code != 200 {
		err = fmt.Errorf("%d: %s", code, body)
	}
	return body, err
}

// reverse is the name by which DNS finds an IPv4 address.
func reverse(ip string) string {
	parts := strings.Split(ip, ".")
	slices.Reverse(parts)
	return strings.Join(parts, ".") + ".in-addr.arpa."
}

// [sig-network] DNS should support configurable pod DNS nameservers.
func TestDNSConfig(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	pod := testPod("configured", nil, "pause")
	option := "2"
	pod.Spec.DNSPolicy = corev1.DNSNone
	pod.Spec.DNSConfig = &corev1.PodDNSConfig{
		Nameservers: []string{"192.0.2.1"}, Searches: []string{"resolv.conf.local"},
		Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: &option}, {Name: "edns0"}},
	}
	s.run(pod)
	if out, err := s.exec(pod.Name, "cat", "/etc/resolv.conf"); err != nil || out != "search resolv.conf.local\nnameserver 192.0.2.1\noptions ndots:2 edns0\n" {
		t.Errorf("/etc/resolv.conf: %q %v", out, err)
	}
}
