package node

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// reasons are those of the events that tell that a condition of the node has changed, by what it is now.
var reasons = map[corev1.NodeConditionType]map[corev1.ConditionStatus]string{
	corev1.NodeMemoryPressure: {corev1.ConditionFalse: "NodeHasSufficientMemory", corev1.ConditionTrue: "NodeHasInsufficientMemory"},
	corev1.NodeDiskPressure:   {corev1.ConditionFalse: "NodeHasNoDiskPressure", corev1.ConditionTrue: "NodeHasDiskPressure"},
	corev1.NodePIDPressure:    {corev1.ConditionFalse: "NodeHasSufficientPID", corev1.ConditionTrue: "NodeHasInsufficientPID"},
	corev1.NodeReady:          {corev1.ConditionTrue: "NodeReady", corev1.ConditionFalse: "NodeNotReady"},
}

// announce tells which conditions of the node have changed. That it is ready or not is no news of a node whose conditions
// nobody knew before.
func (n *Node) announce(before, after []corev1.NodeCondition) {
	was := make(map[corev1.NodeConditionType]corev1.ConditionStatus, len(before))
	for i := range before {
		was[before[i].Type] = before[i].Status
	}
	for i := range after {
		c := &after[i]
		old, known := was[c.Type]
		reason := reasons[c.Type][c.Status]
		if reason == "" || old == c.Status || !known && c.Type == corev1.NodeReady {
			continue
		}
		n.cfg.Event(corev1.EventTypeNormal, reason, fmt.Sprintf("Node %s status is now: %s", n.cfg.Name, reason))
	}
}
