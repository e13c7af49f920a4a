// Package plugins holds the rules of scheduling, by the names under which Kubernetes knows them. Each file is one plugin;
// what flows in is the state of nodes and pods, what flows out are the plugin's answers at its extension points.
package plugins

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/proa-k8s/proa/internal/scheduler/framework"
)

// Config is what plugins can be told.
type Config struct {
	// AddedAffinity applies to all pods beside their own node affinity.
	AddedAffinity *corev1.NodeAffinity
}

// Default makes the plugins of a profile in the order in which they run: the cheap ones and those that exclude most first.
func Default(c Config) []*framework.Plugin {
	return []*framework.Plugin{
		SchedulingGates(),
		NodeUnschedulable(),
		NodeName(),
		TaintToleration(),
		NodeAffinity(c.AddedAffinity),
		NodePorts(),
		NodeResourcesFit(),
		NodeResourcesBalancedAllocation(),
		ImageLocality(),
	}
}

// check is a filter that is a function.
type check func(*framework.Node) *framework.Status

func (f check) Check(n *framework.Node) *framework.Status { return f(n) }

// rate is a scorer whose scores are in range already.
type rate func(*framework.Node) int64

func (f rate) Score(n *framework.Node) int64        { return f(n) }
func (f rate) Normalize([]*framework.Node, []int64) {}

// byMaximum is a scorer whose scores are scaled so that the highest becomes the best (or, reversed, the worst).
type byMaximum struct {
	score   func(*framework.Node) int64
	reverse bool
}

func (s byMaximum) Score(n *framework.Node) int64 { return s.score(n) }

func (s byMaximum) Normalize(_ []*framework.Node, scores []int64) {
	var highest int64
	for _, v := range scores {
		highest = max(highest, v)
	}
	for i, v := range scores {
		if highest > 0 {
			v = v * framework.MaxScore / highest
		}
		if s.reverse {
			v = framework.MaxScore - v
		}
		scores[i] = v
	}
}

func failed(plugin string, err error) *framework.Status {
	return &framework.Status{Code: framework.Failed, Plugin: plugin, Err: err}
}
