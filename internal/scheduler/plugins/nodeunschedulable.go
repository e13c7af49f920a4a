package plugins

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/proa-k8s/proa/internal/scheduler/framework"
)

// NodeUnschedulable keeps pods off cordoned nodes, unless they tolerate the taint that stands for that.
func NodeUnschedulable() *framework.Plugin {
	const name = "NodeUnschedulable"
	cordoned := &framework.Status{Code: framework.Unresolvable, Plugin: name, Reasons: []string{"node(s) were unschedulable"}}
	taint := &corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}
	return &framework.Plugin{
		Name:        name,
		LocalFilter: true,
		PreFilter: func(c *framework.Cycle) (framework.Filter, *framework.Status) {
			if tolerates(c.Pod.Spec.Tolerations, taint) {
				return nil, nil
			}
			return check(func(n *framework.Node) *framework.Status {
				if n.Spec.Unschedulable {
					return cordoned
				}
				return nil
			}), nil
		},
		Events: framework.NodeAdded | framework.NodeTaints | framework.PodChanged,
		Hint: func(p *framework.Pod, e *framework.Event) bool {
			return e.Node == nil || !e.Node.Spec.Unschedulable || tolerates(p.Spec.Tolerations, taint)
		},
	}
}
