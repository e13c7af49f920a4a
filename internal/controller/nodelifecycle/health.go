package nodelifecycle

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// watched are the conditions that become unknown when a node's agent falls silent.
var watched = []corev1.NodeConditionType{
	corev1.NodeReady, corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure,
}

func condition(n *corev1.Node, t corev1.NodeConditionType) *corev1.NodeCondition {
	for i := range n.Status.Conditions {
		if n.Status.Conditions[i].Type == t {
			return &n.Status.Conditions[i]
		}
	}
	return nil
}

// readiness is the status of the condition Ready; unknown when there is none.
func readiness(n *corev1.Node) corev1.ConditionStatus {
	if c := condition(n, corev1.NodeReady); c != nil {
		return c.Status
	}
	return corev1.ConditionUnknown
}

// silenced gives a copy of the node with the conditions unknown; changed is false if they are already.
func silenced(n *corev1.Node, now time.Time) (out *corev1.Node, changed bool) {
	out = n.DeepCopy()
	for _, t := range watched {
		c := condition(out, t)
		switch {
		case c == nil:
			out.Status.Conditions = append(out.Status.Conditions, corev1.NodeCondition{
				Type: t, Status: corev1.ConditionUnknown,
				Reason: "NodeStatusNeverUpdated", Message: "Kubelet never posted node status.",
				LastHeartbeatTime: n.CreationTimestamp, LastTransitionTime: metav1.NewTime(now),
			})
			changed = true
		case c.Status != corev1.ConditionUnknown:
			c.Status, c.Reason, c.Message = corev1.ConditionUnknown, "NodeStatusUnknown", "Kubelet stopped posting node status."
			c.LastTransitionTime = metav1.NewTime(now)
			changed = true
		}
	}
	return out, changed
}

// noScheduleFor is which taint keeps pods off a node that has a condition in a status.
var noScheduleFor = []struct {
	condition corev1.NodeConditionType
	status    corev1.ConditionStatus
	taint     string
}{
	{corev1.NodeReady, corev1.ConditionFalse, corev1.TaintNodeNotReady},
	{corev1.NodeReady, corev1.ConditionUnknown, corev1.TaintNodeUnreachable},
	{corev1.NodeMemoryPressure, corev1.ConditionTrue, corev1.TaintNodeMemoryPressure},
	{corev1.NodeDiskPressure, corev1.ConditionTrue, corev1.TaintNodeDiskPressure},
	{corev1.NodePIDPressure, corev1.ConditionTrue, corev1.TaintNodePIDPressure},
	{corev1.NodeNetworkUnavailable, corev1.ConditionTrue, corev1.TaintNodeNetworkUnavailable},
}

// ours tells whether the controller keeps taints of this key and effect.
func ours(t corev1.Taint) bool {
	switch t.Effect {
	case corev1.TaintEffectNoSchedule:
		return t.Key == corev1.TaintNodeUnschedulable ||
			slices.ContainsFunc(noScheduleFor, func(c struct {
				condition corev1.NodeConditionType
				status    corev1.ConditionStatus
				taint     string
			}) bool {
				return c.taint == t.Key
			})
	case corev1.TaintEffectNoExecute:
		return t.Key == corev1.TaintNodeNotReady || t.Key == corev1.TaintNodeUnreachable
	}
	return false
}

// evictionTaint is the NoExecute taint that a node's readiness calls for; ok is false if it calls for none.
func evictionTaint(n *corev1.Node) (t corev1.Taint, ok bool) {
	c := condition(n, corev1.NodeReady)
	switch {
	case c == nil || c.Status == corev1.ConditionTrue:
		return t, false
	case c.Status == corev1.ConditionFalse:
		return corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoExecute}, true
	default:
		return corev1.Taint{Key: corev1.TaintNodeUnreachable, Effect: corev1.TaintEffectNoExecute}, true
	}
}

// isEvicted tells whether the node has a taint that evicts pods because it isn't ready, for whichever reason.
func isEvicted(n *corev1.Node) bool {
	return slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Effect == corev1.TaintEffectNoExecute && ours(t) })
}

// taints gives the taints that the node shall have: those of others as they are, and those that its conditions call for,
// with the NoExecute taint only if evict is set. changed is false if it has them.
func taints(n *corev1.Node, evict bool, now time.Time) (out []corev1.Taint, changed bool) {
	var wanted []corev1.Taint
	for _, w := range noScheduleFor {
		if c := condition(n, w.condition); c != nil && c.Status == w.status {
			wanted = append(wanted, corev1.Taint{Key: w.taint, Effect: corev1.TaintEffectNoSchedule})
		}
	}
	if n.Spec.Unschedulable {
		wanted = append(wanted, corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule})
	}
	if t, ok := evictionTaint(n); ok && evict {
		wanted = append(wanted, t)
	}
	for _, t := range n.Spec.Taints {
		i := slices.IndexFunc(wanted, func(w corev1.Taint) bool { return w.MatchTaint(&t) })
		switch {
		case i >= 0:
			wanted = slices.Delete(wanted, i, i+1)
			out = append(out, t)
		case ours(t) && !keepsNotReady(n, t):
			changed = true
		default:
			out = append(out, t)
		}
	}
	for _, w := range wanted {
		w.TimeAdded = &metav1.Time{Time: now}
		out, changed = append(out, w), true
	}
	return out, changed
}

// keepsNotReady tells whether the taint is the one that a node is registered with, and is needed still since the node
// hasn't said that it is ready.
func keepsNotReady(n *corev1.Node, t corev1.Taint) bool {
	return t.Key == corev1.TaintNodeNotReady && t.Effect == corev1.TaintEffectNoSchedule && condition(n, corev1.NodeReady) == nil
}
