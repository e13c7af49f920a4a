// Package plugins holds the rules of scheduling, by the names under which Kubernetes knows them. Each file is one plugin;
// what flows in is the state of nodes and pods, what flows out are the plugin's answers at its extension points.
package plugins

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"

	"github.com/proa-k8s/proa/internal/scheduler/framework"
)

// Config is what plugins can be told.
type Config struct {
	// AddedAffinity applies to all pods beside their own node affinity (NodeAffinity).
	AddedAffinity *corev1.NodeAffinity
	// DefaultConstraints apply to pods without topology spread constraints of their own (PodTopologySpread). Nil stands for
	// an even spread over zones and nodes as far as it is possible; an empty list for none.
	DefaultConstraints []corev1.TopologySpreadConstraint
}

// Default makes the plugins of a profile in the order in which they run: the cheap ones and those that exclude most first.
// The informers that they read are requested here.
func Default(c Config, f informers.SharedInformerFactory, v *Volumes) []*framework.Plugin {
	namespaces := f.Core().V1().Namespaces().Lister()
	return []*framework.Plugin{
		SchedulingGates(),
		NodeUnschedulable(),
		NodeName(),
		TaintToleration(),
		NodeAffinity(c.AddedAffinity),
		NodePorts(),
		NodeResourcesFit(),
		VolumeRestrictions(v),
		NodeVolumeLimits(v),
		VolumeBinding(v),
		VolumeZone(v),
		PodTopologySpread(TopologySpreadConfig{Defaults: c.DefaultConstraints, Siblings: newSiblings(f).selector}),
		InterPodAffinity(func(name string) labels.Set {
			if ns, err := namespaces.Get(name); err == nil {
				return ns.Labels
			}
			return nil
		}),
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
