package framework_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/proa-k8s/proa/internal/scheduler/framework"
	"github.com/proa-k8s/proa/internal/scheduler/plugins"
)

func benchPlugins() []*framework.Plugin {
	none := func(*corev1.Pod) labels.Selector { return labels.Everything() }
	return []*framework.Plugin{
		plugins.NodeUnschedulable(), plugins.NodeName(), plugins.TaintToleration(), plugins.NodeAffinity(nil), plugins.NodePorts(), plugins.NodeResourcesFit(),
		plugins.PodTopologySpread(plugins.TopologySpreadConfig{Siblings: none}), plugins.InterPodAffinity(func(string) labels.Set { return nil }),
		plugins.NodeResourcesBalancedAllocation(), plugins.ImageLocality(),
	}
}

// BenchmarkDecide is one decision with all plugins, and what follows from it in the state.
func BenchmarkDecide(b *testing.B) {
	for _, nodes := range []int{100, 1000, 5000} {
		for _, full := range []bool{false, true} {
			b.Run(fmt.Sprintf("nodes=%d/full=%t", nodes, full), func(b *testing.B) {
				s := cluster(nodes)
				if full {
					for i := range nodes {
						s.Observe(pod(fmt.Sprintf("full-%d", i), "32"), fmt.Sprintf("n%d", i))
					}
				}
				d := framework.Decider{Rand: rand.IntN, Plugins: benchPlugins()}
				p := pod("p", "100m")
				b.ReportAllocs()
				for b.Loop() {
					r := d.Decide(s, p)
					if (r.Node == nil) != full || r.Err != nil {
						b.Fatal(r.Node, r.Err)
					}
					if r.Node != nil {
						s.Assume(p, r.Node.Name())
					}
				}
			})
		}
	}
}
