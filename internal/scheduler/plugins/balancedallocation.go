package plugins

import "github.com/proa-k8s/proa/internal/scheduler/framework"

// NodeResourcesBalancedAllocation prefers nodes on which cpu and memory would be used to the same degree.
func NodeResourcesBalancedAllocation() *framework.Plugin {
	return &framework.Plugin{
		Name:       "NodeResourcesBalancedAllocation",
		Weight:     1,
		LocalScore: true,
		PreScore: func(c *framework.Cycle, _ []*framework.Node) (framework.Scorer, *framework.Status) {
			pod := &c.Pod.Request
			if pod.MilliCPU == 0 && pod.Memory == 0 {
				return nil, nil // it changes no balance
			}
			return rate(func(n *framework.Node) int64 { return balance(pod, n) }), nil
		},
	}
}

// balance is the better the smaller the standard deviation of the shares is, which for two values is half their distance.
func balance(pod *framework.Resource, n *framework.Node) int64 {
	share := func(used, capacity int64) (float64, bool) {
		if capacity == 0 {
			return 0, false
		}
		return min(float64(used)/float64(capacity), 1), true
	}
	cpu, hasCPU := share(n.Requested.MilliCPU+pod.MilliCPU, n.Allocatable.MilliCPU)
	memory, hasMemory := share(n.Requested.Memory+pod.Memory, n.Allocatable.Memory)
	deviation := 0.0
	if hasCPU && hasMemory {
		deviation = max(cpu-memory, memory-cpu) / 2
	}
	return int64((1 - deviation) * float64(framework.MaxScore))
}
