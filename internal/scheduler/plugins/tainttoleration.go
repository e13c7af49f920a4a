package plugins

import (
	corev1 "k8s.io/api/core/v1"
	corev1helpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/klog/v2"

	"github.com/proa-k8s/proa/internal/scheduler/framework"
)

// TaintToleration keeps pods off nodes whose taints they don't tolerate, and prefers nodes with few taints of the soft kind.
func TaintToleration() *framework.Plugin {
	const name = "TaintToleration"
	untolerated := &framework.Status{Code: framework.Unresolvable, Plugin: name, Reasons: []string{"node(s) had untolerated taint(s)"}}
	return &framework.Plugin{
		Name:        name,
		LocalFilter: true,
		Weight:      3,
		PreFilter: func(c *framework.Cycle) (framework.Filter, *framework.Status) {
			tolerations := c.Pod.Spec.Tolerations
			return check(func(n *framework.Node) *framework.Status {
				if !tolerated(tolerations, n.HardTaints) {
					return untolerated
				}
				return nil
			}), nil
		},
		PreScore: func(c *framework.Cycle, _ []*framework.Node) (framework.Scorer, *framework.Status) {
			if !c.State.SoftTaints() {
				return nil, nil // all are equal
			}
			var soft []corev1.Toleration
			for _, t := range c.Pod.Spec.Tolerations {
				if t.Effect == "" || t.Effect == corev1.TaintEffectPreferNoSchedule {
					soft = append(soft, t)
				}
			}
			return byMaximum{reverse: true, score: func(n *framework.Node) int64 {
				var count int64
				for i := range n.SoftTaints {
					if !tolerates(soft, &n.SoftTaints[i]) {
						count++
					}
				}
				return count
			}}, nil
		},
		Events: framework.NodeAdded | framework.NodeTaints | framework.PodChanged,
		Hint: func(p *framework.Pod, e *framework.Event) bool {
			if e.Node == nil {
				return true
			}
			for i := range e.Node.Spec.Taints {
				t := &e.Node.Spec.Taints[i]
				if t.Effect != corev1.TaintEffectPreferNoSchedule && !tolerates(p.Spec.Tolerations, t) {
					return false
				}
			}
			return true
		},
	}
}

func tolerated(tolerations []corev1.Toleration, taints []corev1.Taint) bool {
	for i := range taints {
		if !tolerates(tolerations, &taints[i]) {
			return false
		}
	}
	return true
}

func tolerates(tolerations []corev1.Toleration, taint *corev1.Taint) bool {
	return len(tolerations) > 0 && corev1helpers.TolerationsTolerateTaint(klog.Logger{}, tolerations, taint, true)
}
