package nodelifecycle

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// node makes a node whose conditions are given as alternating types and statuses.
func node(conditions ...string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}
	for i := 0; i < len(conditions); i += 2 {
		n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{
			Type: corev1.NodeConditionType(conditions[i]), Status: corev1.ConditionStatus(conditions[i+1]),
		})
	}
	return n
}

func TestTaints(t *testing.T) {
	unschedulable := node("Ready", "True")
	unschedulable.Spec.Unschedulable = true
	with := func(n *corev1.Node, key string, effect corev1.TaintEffect) *corev1.Node {
		n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: key, Effect: effect})
		return n
	}
	const notReady, unreachable = corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable
	for name, test := range map[string]struct {
		node    *corev1.Node
		evict   bool
		want    string
		changed bool
	}{
		"healthy":                     {node("Ready", "True"), true, "", false},
		"has become ready":            {with(with(node("Ready", "True"), notReady, "NoSchedule"), notReady, "NoExecute"), true, "", true},
		"new":                         {with(node(), notReady, "NoSchedule"), true, "not-ready:NoSchedule ", false},
		"not ready":                   {node("Ready", "False"), true, "not-ready:NoSchedule not-ready:NoExecute ", true},
		"not ready, may not evict":    {node("Ready", "False"), false, "not-ready:NoSchedule ", true},
		"no longer may evict":         {with(with(node("Ready", "False"), notReady, "NoSchedule"), notReady, "NoExecute"), false, "not-ready:NoSchedule ", true},
		"silent after not ready":      {with(with(node("Ready", "Unknown"), notReady, "NoSchedule"), notReady, "NoExecute"), true, "unreachable:NoSchedule unreachable:NoExecute ", true},
		"silent, and said so already": {with(with(node("Ready", "Unknown"), unreachable, "NoSchedule"), unreachable, "NoExecute"), true, "unreachable:NoSchedule unreachable:NoExecute ", false},
		"pressures":                   {node("Ready", "True", "MemoryPressure", "True", "DiskPressure", "True", "PIDPressure", "True", "NetworkUnavailable", "True"), true, "memory-pressure:NoSchedule disk-pressure:NoSchedule pid-pressure:NoSchedule network-unavailable:NoSchedule ", true},
		"pressure is over":            {with(node("Ready", "True", "MemoryPressure", "False"), corev1.TaintNodeMemoryPressure, "NoSchedule"), true, "", true},
		"cordoned":                    {unschedulable, true, "unschedulable:NoSchedule ", true},
		"taints of others stay":       {with(with(node("Ready", "True"), "example.com/x", "NoSchedule"), corev1.TaintNodeMemoryPressure, "NoExecute"), true, "example.com/x:NoSchedule memory-pressure:NoExecute ", false},
	} {
		t.Run(name, func(t *testing.T) {
			got, changed := taints(test.node, test.evict, now)
			text := ""
			for _, taint := range got {
				key := taint.Key
				if len(key) > len("node.kubernetes.io/") && key[:len("node.kubernetes.io/")] == "node.kubernetes.io/" {
					key = key[len("node.kubernetes.io/"):]
				}
				text += fmt.Sprintf("%s:%s ", key, taint.Effect)
			}
			if text != test.want || changed != test.changed {
				t.Errorf("got %q, changed %v", text, changed)
			}
		})
	}
}

func TestSilenced(t *testing.T) {
	n, changed := silenced(node("Ready", "True", "MemoryPressure", "False", "NetworkUnavailable", "False"), now)
	if !changed {
		t.Fatal("nothing changed")
	}
	for typ, want := range map[corev1.NodeConditionType]string{
		"Ready":              "Unknown NodeStatusUnknown Kubelet stopped posting node status.",
		"MemoryPressure":     "Unknown NodeStatusUnknown Kubelet stopped posting node status.",
		"DiskPressure":       "Unknown NodeStatusNeverUpdated Kubelet never posted node status.",
		"NetworkUnavailable": "False  ",
	} {
		c := condition(n, typ)
		if got := fmt.Sprintf("%s %s %s", c.Status, c.Reason, c.Message); got != want {
			t.Errorf("%s is %q, want %q", typ, got, want)
		}
	}
	if _, changed := silenced(n, now); changed {
		t.Error("a silent node changed once more")
	}
}
