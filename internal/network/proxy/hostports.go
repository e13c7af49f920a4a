package proxy

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// holderOf is the name under which the ledger has what a pod needs; the name of a service has no slash.
func holderOf(pod *corev1.Pod) types.NamespacedName {
	return types.NamespacedName{Namespace: pod.Namespace, Name: "pod/" + pod.Name}
}

// hostPorts are the ports of the node that a pod has, as the kubelet tells them to runtimes.
func hostPorts(pod *corev1.Pod) []corev1.ContainerPort {
	if pod == nil || pod.Spec.HostNetwork {
		return nil
	}
	var some []corev1.ContainerPort
	add := func(c *corev1.Container) {
		for _, p := range c.Ports {
			if p.HostPort > 0 {
				some = append(some, p)
			}
		}
	}
	for i := range pod.Spec.Containers {
		add(&pod.Spec.Containers[i])
	}
	for i := range pod.Spec.InitContainers {
		if c := &pod.Spec.InitContainers[i]; c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			add(c)
		}
	}
	return some
}

// trimmed is what rules for host ports depend on; for a pod without any, it is a name.
func trimmed(pod *corev1.Pod) *corev1.Pod {
	small := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name}}
	if ports := hostPorts(pod); len(ports) > 0 {
		small.Spec.Containers = []corev1.Container{{Ports: ports}}
		small.Status = corev1.PodStatus{Phase: pod.Status.Phase, PodIPs: pod.Status.PodIPs}
	}
	return small
}

// hostPortRules says what a pod's host ports need: each is a frontend at its hostIP, or at every address of the node, that leads to
// the pod alone. Clients keep their addresses. A pod that has ended, or that is nil, needs nothing.
func hostPortRules(pod *corev1.Pod, n node) rules {
	r := newRules()
	if pod == nil || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return r
	}
	for _, ip := range pod.Status.PodIPs {
		addr, err := netip.ParseAddr(ip.IP)
		if err != nil || addr.Is6() && !n.v6 || addr.Is4() && !n.v4 {
			continue
		}
		for _, p := range hostPorts(pod) {
			if at, ok := hostAddress(p.HostIP, addr.Is6()); ok {
				r.addHostPort(holderOf(pod), frontend{addr: at, proto: protocol(p.Protocol), port: uint16(p.HostPort)}, netip.AddrPortFrom(addr, uint16(p.ContainerPort)))
			}
		}
	}
	return r
}

// hostAddress reads a hostIP: it is for its own family alone, and for both when it is empty.
func hostAddress(hostIP string, v6 bool) (netip.Addr, bool) {
	if hostIP == "" {
		if v6 {
			return netip.IPv6Unspecified(), true
		}
		return netip.IPv4Unspecified(), true
	}
	addr, err := netip.ParseAddr(hostIP)
	return addr, err == nil && addr.Is6() == v6
}

func (r *rules) addHostPort(holder types.NamespacedName, f frontend, to netip.AddrPort) {
	c := class{set: setServices, size: 1}
	if f.addr.IsUnspecified() {
		c.set = setHostPorts
	}
	name := poolName{service: holder, port: netip.AddrPortFrom(f.addr, f.port).String(), proto: f.proto, v6: f.v6()}
	r.frontends[f] = target{class: c, pool: name}
	r.pools[name] = pool{endpoints: []netip.AddrPort{to}}
	r.hairpins[to.Addr()] = true
}
