package proxy

import (
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netns"
	corev1 "k8s.io/api/core/v1"
)

func TestClusterIP(t *testing.T) {
	w := newWorld(t)
	a, b := w.pod(11), w.pod(12)
	for _, network := range []string{"tcp", "udp"} {
		w.serve(a, network, ":8080", "a")
		w.serve(b, network, ":8080", "b")
	}
	tcp := service("web", corev1.ProtocolTCP, nil, "10.96.0.7", "fd11::7")
	udp := service("dns", corev1.ProtocolUDP, nil, "10.96.0.8", "fd11::8")
	w.put(tcp, slice(tcp, "10.244.3.11", "10.244.3.12"), slice(tcp, "fd10:0:0:3::11", "fd10:0:0:3::12"),
		udp, slice(udp, "10.244.3.11", "10.244.3.12"), slice(udp, "fd10:0:0:3::11", "fd10:0:0:3::12"))
	for from, ns := range map[string]netns.NsHandle{"the node": w.here(), "another pod": w.pod(13), "a pod behind it": a, "outside": w.outside} {
		for _, target := range []struct{ network, address string }{
			{"tcp", "10.96.0.7:80"}, {"tcp", "[fd11::7]:80"}, {"udp", "10.96.0.8:80"}, {"udp", "[fd11::8]:80"},
		} {
			seen := map[string]bool{}
			for range 40 {
				answer, err := ask(ns, target.network, target.address)
				if err != nil {
					t.Fatalf("%s %s from %s: %v", target.network, target.address, from, err)
				}
				name, client, _ := strings.Cut(answer, " ")
				seen[name] = true
				if from == "another pod" && client != "10.244.3.13" && client != "fd10:0:0:3::13" {
					t.Fatalf("from another pod, %s sees %s", name, client)
				}
				if from == "outside" && client != "10.244.3.1" && client != "fd10:0:0:3::1" {
					t.Fatalf("from outside, %s sees %s", name, client)
				}
			}
			if !seen["a"] || !seen["b"] {
				t.Errorf("%s %s from %s is served by %v only", target.network, target.address, from, seen)
			}
		}
	}
}

// refused tells whether a connection was refused rather than ignored. A process on the node hears of it when it sends, if it sends
// UDP, or when it finds no route.
func refused(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENETUNREACH)
}

func TestRefusal(t *testing.T) {
	w := newWorld(t)
	pod := w.pod(11)
	w.serve(pod, "tcp", ":8080", "a")
	good := service("good", corev1.ProtocolTCP, nil, "10.96.0.7")
	empty := service("empty", corev1.ProtocolTCP, func(s *corev1.Service) {
		s.Spec.Type = corev1.ServiceTypeNodePort
		s.Spec.Ports[0].NodePort = 30001
		s.Spec.ExternalIPs = []string{"198.51.100.1"}
	}, "10.96.0.9")
	w.put(good, slice(good, "10.244.3.11"), empty)
	// Somebody else's server on the node port does not get what is for the service.
	w.serve(w.here(), "tcp", "192.0.2.1:30001", "node")
	for from, ns := range map[string]netns.NsHandle{"the node": w.here(), "a pod": pod, "outside": w.outside} {
		for _, target := range []struct{ network, address string }{
			{"tcp", "10.96.0.9:80"},    // no endpoints
			{"tcp", "10.96.0.7:81"},    // no such port
			{"udp", "10.96.0.7:80"},    // no such protocol
			{"tcp", "10.96.0.99:80"},   // no such service
			{"udp", "10.96.0.99:80"},   //
			{"tcp", "192.0.2.1:30001"}, // node port without endpoints
			{"tcp", "198.51.100.1:80"}, // external address without endpoints
			{"tcp", "[fd11::99]:80"},
		} {
			if answer, err := ask(ns, target.network, target.address); !refused(err) {
				t.Errorf("%s %s from %s: %q, %v", target.network, target.address, from, answer, err)
			}
		}
	}
	if answer, err := ask(pod, "tcp", "10.96.0.7:80"); err != nil {
		t.Errorf("%q, %v", answer, err)
	}
	if _, err := net.Dial("tcp", "127.0.0.1:30001"); !refused(err) {
		t.Errorf("node port on loopback: %v", err)
	}
}
