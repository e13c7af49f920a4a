package kubelet

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"

	"github.com/proa-k8s/proa/internal/api/core"
	"github.com/proa-k8s/proa/internal/kubelet/allocation"
	"github.com/proa-k8s/proa/internal/kubelet/criconfig"
	"github.com/proa-k8s/proa/internal/kubelet/podstatus"
)

// nodeFacts is what the admission of a pod rests on.
type nodeFacts struct {
	node          *corev1.Node // as the API has it; nil when not known yet
	allocatable   corev1.ResourceList
	unsafeSysctls []string
	pressure      func(corev1.NodeConditionType) bool
}

// admit decides whether a pod that was bound to this node can run beside the others. Nil means yes; a pod that is refused
// fails for good.
func admit(pod *corev1.Pod, others []*corev1.Pod, facts *nodeFacts) *podstatus.Reason {
	rejected := func(reason, format string, args ...any) *podstatus.Reason {
		return &podstatus.Reason{Reason: reason, Message: "Pod was rejected: " + fmt.Sprintf(format, args...)}
	}
	if sc := pod.Spec.SecurityContext; sc != nil {
		for _, s := range sc.Sysctls {
			if !criconfig.SysctlAllowed(s.Name, facts.unsafeSysctls) {
				return rejected("SysctlForbidden", "forbidden sysctl: %q not allowlisted", s.Name)
			}
		}
	}
	if os := pod.Spec.OS; os != nil && os.Name != corev1.Linux {
		return rejected("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS")
	}
	if facts.node != nil {
		if ok, err := nodeaffinity.GetRequiredNodeAffinity(pod).Match(facts.node); err != nil || !ok {
			return rejected(nodeAffinity, "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector")
		}
	}
	if critical(pod) {
		return nil // room is made for these
	}
	if short := pressed(pod, facts); len(short) > 0 {
		return &podstatus.Reason{Reason: "Evicted", Message: fmt.Sprintf("Pod was rejected: The node had condition: %v. ", short)}
	}
	return fits(pod, others, facts)
}

// nodeAffinity is the reason for which a pod is refused that selects other nodes.
const nodeAffinity = "NodeAffinity"

// restsOnNode tells whether a pod was refused by what others write to the node, of which there may be news.
func restsOnNode(why *podstatus.Reason) bool {
	return why.Reason == nodeAffinity || strings.HasPrefix(why.Reason, "OutOf") && strings.Contains(why.Reason, "/")
}

// pressed gives the conditions of the node under which a pod is not taken. Where memory alone is short, one that asked
// for some is, and one that tolerates it.
func pressed(pod *corev1.Pod, facts *nodeFacts) []corev1.NodeConditionType {
	if facts.pressure == nil {
		return nil
	}
	var short []corev1.NodeConditionType
	for _, c := range []corev1.NodeConditionType{corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure} {
		if facts.pressure(c) {
			short = append(short, c)
		}
	}
	if len(short) != 1 || short[0] != corev1.NodeMemoryPressure {
		return short
	}
	taint := &corev1.Taint{Key: corev1.TaintNodeMemoryPressure, Effect: corev1.TaintEffectNoSchedule}
	tolerates := slices.ContainsFunc(pod.Spec.Tolerations, func(t corev1.Toleration) bool { return t.ToleratesTaint(klog.Background(), taint, true) })
	if criconfig.QOS(pod) != corev1.PodQOSBestEffort || tolerates {
		return nil
	}
	return short
}

// critical reports whether a pod is of the system's own priority classes, or static.
func critical(pod *corev1.Pod) bool {
	return pod.Spec.Priority != nil && *pod.Spec.Priority >= 2000000000 || pod.Annotations[configSourceAnnotation] == configSourceFile
}

// fits checks the resources that are asked for, and host ports.
func fits(pod *corev1.Pod, others []*corev1.Pod, facts *nodeFacts) *podstatus.Reason {
	rejected := func(short *allocation.Shortage) *podstatus.Reason {
		return &podstatus.Reason{Reason: "OutOf" + string(short.Resource), Message: "Pod was rejected: " + short.String()}
	}
	count := int64(len(others))
	if limit := facts.allocatable.Pods().Value(); count+1 > limit {
		return rejected(&allocation.Shortage{Resource: corev1.ResourcePods, Requested: 1, Used: count, Capacity: limit})
	}
	requests, allocatable := accounted(pod, facts)
	if short := allocation.Short(requests, others, allocatable); short != nil {
		return rejected(short)
	}
	ports := map[hostPort]bool{}
	for _, o := range others {
		for _, p := range hostPorts(o) {
			ports[p] = true
		}
	}
	for _, want := range hostPorts(pod) {
		for have := range ports {
			if want.conflicts(have) {
				return &podstatus.Reason{Reason: "NodePorts", Message: "Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"}
			}
		}
	}
	return nil
}

// accounted gives what a pod asks for, and what there is of it. Extended resources that others have put into the node's status
// count with what stands there; of those that are not there the node knows nothing yet, and leaves them to the scheduler.
func accounted(pod *corev1.Pod, facts *nodeFacts) (requests, allocatable corev1.ResourceList) {
	requests, allocatable = allocation.Requests(pod), maps.Clone(facts.allocatable)
	for name := range requests {
		if _, own := allocatable[name]; own || !core.IsExtendedResource(name) {
			continue
		}
		var offered resource.Quantity
		ok := facts.node != nil
		if ok {
			offered, ok = facts.node.Status.Allocatable[name]
		}
		if ok {
			allocatable[name] = offered
		} else {
			delete(requests, name)
		}
	}
	return requests, allocatable
}

type hostPort struct {
	ip       string
	protocol corev1.Protocol
	port     int32
}

func (p hostPort) conflicts(o hostPort) bool {
	return p.port == o.port && p.protocol == o.protocol && (p.ip == o.ip || p.ip == "0.0.0.0" || o.ip == "0.0.0.0")
}

func hostPorts(pod *corev1.Pod) []hostPort {
	var list []hostPort
	for _, containers := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range containers {
			for _, p := range containers[i].Ports {
				if p.HostPort == 0 {
					continue
				}
				h := hostPort{ip: p.HostIP, protocol: p.Protocol, port: p.HostPort}
				if h.ip == "" {
					h.ip = "0.0.0.0"
				}
				if h.protocol == "" {
					h.protocol = corev1.ProtocolTCP
				}
				list = append(list, h)
			}
		}
	}
	return list
}
