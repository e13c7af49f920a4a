package plugins

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/proa-k8s/proa/internal/scheduler/framework"
)

// SchedulingGates keeps pods back while they have gates (KEP-3521).
func SchedulingGates() *framework.Plugin {
	const name = "SchedulingGates"
	return &framework.Plugin{
		Name: name,
		PreEnqueue: func(p *corev1.Pod) *framework.Status {
			if len(p.Spec.SchedulingGates) == 0 {
				return nil
			}
			gates := make([]string, len(p.Spec.SchedulingGates))
			for i, g := range p.Spec.SchedulingGates {
				gates[i] = g.Name
			}
			return &framework.Status{Code: framework.Gated, Plugin: name, Reasons: []string{fmt.Sprintf("waiting for scheduling gates: %v", gates)}}
		},
		Events: framework.PodChanged,
	}
}
