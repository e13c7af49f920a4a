package framework_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"

	"github.com/proa-k8s/proa/internal/scheduler/framework"
)

// TestMemory has two deciders make the same decisions about a cluster that changes at random: one that remembers answers, and
// one that doesn't.
func TestMemory(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { testMemory(t, rand.New(rand.NewPCG(seed, 1))) })
	}
}

func testMemory(t *testing.T, r *rand.Rand) {
	forgetful := benchPlugins()
	for _, p := range forgetful {
		p.LocalFilter, p.LocalScore = false, false
	}
	with := framework.Decider{Plugins: benchPlugins(), Rand: rand.New(rand.NewPCG(1, 2)).IntN}
	without := framework.Decider{Plugins: forgetful, Rand: rand.New(rand.NewPCG(1, 2)).IntN}
	s := cluster(60 + r.IntN(90))
	var placed, nominated []*framework.Pod
	scheduled, refused := 0, 0
	for i := range 600 {
		switch what := r.IntN(20); {
		case what == 0:
			s.SetNode(randomNode(r, fmt.Sprintf("n%d", r.IntN(150))))
		case what == 1 && i%10 == 0:
			s.RemoveNode(fmt.Sprintf("n%d", r.IntN(150)))
		case what == 2 && len(placed) > 0:
			k := r.IntN(len(placed))
			s.Remove(placed[k].UID)
			placed = append(placed[:k], placed[k+1:]...)
		case what == 3:
			p := randomPod(r, fmt.Sprintf("nominated-%d", i))
			s.Nominate(p, fmt.Sprintf("n%d", r.IntN(150)))
			nominated = append(nominated, p)
		case what == 4 && len(nominated) > 0:
			s.Unnominate(nominated[0].UID)
			nominated = nominated[1:]
		default:
			p := randomPod(r, fmt.Sprintf("p%d", i))
			a, b := with.Decide(s, p), without.Decide(s, p)
			if a.Node != b.Node || a.Feasible != b.Feasible || a.Evaluated != b.Evaluated || (a.Err == nil) != (b.Err == nil) {
				t.Fatalf("step %d: %+v, without memory %+v", i, a, b)
			}
			if a.Node == nil {
				refused++
				if got, want := a.Diagnosis.Message(), b.Diagnosis.Message(); got != want {
					t.Fatalf("step %d: %q, without memory %q", i, got, want)
				}
				continue
			}
			scheduled++
			s.Assume(p, a.Node.Name())
			placed = append(placed, p)
		}
	}
	if scheduled < 50 || refused < 5 {
		t.Errorf("%d pods were scheduled and %d refused: too few to tell", scheduled, refused)
	}
}

func randomNode(r *rand.Rand, name string) *corev1.Node {
	n := node(name, "disk", []string{"ssd", "hdd"}[r.IntN(2)])
	n.Spec.Unschedulable = r.IntN(4) == 0
	for i, effect := range []corev1.TaintEffect{corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule} {
		if r.IntN(3) == 0 {
			n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: fmt.Sprintf("t%d", i), Effect: effect})
		}
	}
	n.Status.Allocatable[corev1.ResourceCPU] = *resource.NewQuantity(int64(r.IntN(9)), resource.DecimalSI)
	if r.IntN(2) == 0 {
		n.Status.Images = []corev1.ContainerImage{{Names: []string{"image:1"}, SizeBytes: 500 << 20}}
	}
	return n
}

func randomPod(r *rand.Rand, name string) *framework.Pod {
	obj := pod(name, fmt.Sprint([]int{1, 7, 30, 31}[r.IntN(4)])).Pod
	obj.UID = types.UID(name)
	obj.Spec.Containers[0].Image = "image:1"
	switch r.IntN(8) {
	case 0:
		obj.Spec.NodeSelector = map[string]string{"disk": "ssd"}
	case 1:
		obj.Spec.Tolerations = []corev1.Toleration{{Key: fmt.Sprintf("t%d", r.IntN(2)), Operator: corev1.TolerationOpExists}}
	case 2:
		obj.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostPort: int32(80 + r.IntN(2)), Protocol: corev1.ProtocolTCP}}
	case 3:
		obj.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
			NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{
				{Key: "disk", Operator: corev1.NodeSelectorOpIn, Values: []string{[]string{"ssd", "hdd"}[r.IntN(2)]}},
			}}},
		}}}
	case 4:
		obj.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
			NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{
				{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{fmt.Sprintf("n%d", r.IntN(150))}},
			}}},
		}}}
	}
	p := framework.NewPod(obj)
	p.PodPriority = int32(r.IntN(3))
	return p
}
