package plugins

import "github.com/proa-k8s/proa/internal/scheduler/framework"

// NodePorts lets nodes pass on which the pod's host ports are free.
func NodePorts() *framework.Plugin {
	const name = "NodePorts"
	taken := &framework.Status{Code: framework.Unschedulable, Plugin: name, Reasons: []string{"node(s) didn't have free ports for the requested pod ports"}}
	return &framework.Plugin{
		Name:        name,
		LocalFilter: true,
		PreFilter: func(c *framework.Cycle) (framework.Filter, *framework.Status) {
			wanted := c.Pod.Ports
			if len(wanted) == 0 {
				return nil, nil
			}
			return check(func(n *framework.Node) *framework.Status {
				if conflict(wanted, n.Ports) {
					return taken
				}
				return nil
			}), nil
		},
		Events: framework.NodeAdded | framework.PodRemoved,
		Hint: func(p *framework.Pod, e *framework.Event) bool {
			return e.Pod == nil || conflict(p.Ports, e.Pod.Ports)
		},
	}
}

func conflict(a, b []framework.HostPort) bool {
	for i := range a {
		for j := range b {
			if a[i].Conflicts(b[j]) {
				return true
			}
		}
	}
	return false
}
