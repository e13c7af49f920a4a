package plugins

import "github.com/proa-k8s/proa/internal/scheduler/framework"

// NodeName lets only the node pass that the pod asks for by name.
func NodeName() *framework.Plugin {
	const name = "NodeName"
	other := &framework.Status{Code: framework.Unresolvable, Plugin: name, Reasons: []string{"node(s) didn't match the requested node name"}}
	return &framework.Plugin{
		Name:        name,
		LocalFilter: true,
		PreFilter: func(c *framework.Cycle) (framework.Filter, *framework.Status) {
			wanted := c.Pod.Spec.NodeName
			if wanted == "" {
				return nil, nil
			}
			return check(func(n *framework.Node) *framework.Status {
				if n.Name() != wanted {
					return other
				}
				return nil
			}), nil
		},
		Events: framework.NodeAdded,
		Hint:   func(p *framework.Pod, e *framework.Event) bool { return e.Node.Name == p.Spec.NodeName },
	}
}
