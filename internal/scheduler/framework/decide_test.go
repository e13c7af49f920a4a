package framework_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/proa-k8s/proa/internal/scheduler/framework"
	"github.com/proa-k8s/proa/internal/scheduler/plugins"
)

func first(int) int { return 0 }

func node(name string, labels ...string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{}}}
	for i := 0; i < len(labels); i += 2 {
		n.Labels[labels[i]] = labels[i+1]
	}
	n.Status.Allocatable = corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("32"), corev1.ResourceMemory: resource.MustParse("256Gi"), corev1.ResourcePods: resource.MustParse("110"),
	}
	return n
}

func pod(name, cpu string) *framework.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID(name)}}
	p.Spec.Containers = []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse("100Mi"),
	}}}}
	return framework.NewPod(p)
}

func cluster(nodes int) *framework.State {
	s := framework.NewState()
	for i := range nodes {
		s.SetNode(node(fmt.Sprintf("n%d", i)))
	}
	return s
}

// filtering makes a plugin that passes the nodes that fits allows.
func filtering(name string, fits func(*framework.Node) bool) *framework.Plugin {
	no := &framework.Status{Code: framework.Unschedulable, Plugin: name, Reasons: []string{"not " + name}}
	return &framework.Plugin{Name: name, PreFilter: func(*framework.Cycle) (framework.Filter, *framework.Status) {
		return filter(func(n *framework.Node) *framework.Status {
			if fits(n) {
				return nil
			}
			return no
		}), nil
	}}
}

type filter func(*framework.Node) *framework.Status

func (f filter) Check(n *framework.Node) *framework.Status { return f(n) }

type only struct {
	filter
	names []string
}

func (o only) Only() []string { return o.names }

// scoring makes a plugin that rates nodes.
func scoring(weight int64, score func(*framework.Node) int64) *framework.Plugin {
	return &framework.Plugin{Weight: weight, PreScore: func(*framework.Cycle, []*framework.Node) (framework.Scorer, *framework.Status) {
		return scorer(score), nil
	}}
}

type scorer func(*framework.Node) int64

func (f scorer) Score(n *framework.Node) int64            { return f(n) }
func (f scorer) Normalize(_ []*framework.Node, _ []int64) {}

func TestBestNode(t *testing.T) {
	s := cluster(3)
	like := func(name string) func(*framework.Node) int64 {
		return func(n *framework.Node) int64 {
			if n.Name() == name {
				return 100
			}
			return 0
		}
	}
	d := framework.Decider{Rand: first, Plugins: []*framework.Plugin{scoring(1, like("n0")), scoring(2, like("n1"))}}
	r := d.Decide(s, pod("p", "1"))
	if r.Err != nil || r.Node == nil || r.Node.Name() != "n1" || r.Feasible != 3 || r.Evaluated != 3 {
		t.Errorf("%+v", r)
	}
}

func TestTiesAreBrokenAtRandom(t *testing.T) {
	s := cluster(4)
	random := rand.New(rand.NewPCG(1, 2))
	d := framework.Decider{Rand: random.IntN}
	chosen := map[string]int{}
	for range 4000 {
		chosen[d.Decide(s, pod("p", "1")).Node.Name()]++
	}
	for i := range 4 {
		if n := chosen[fmt.Sprintf("n%d", i)]; n < 850 || n > 1150 {
			t.Errorf("chosen: %v", chosen)
		}
	}
}

func TestDiagnosis(t *testing.T) {
	nobody := func(*framework.Node) bool { return false }
	stop := func(s *framework.Status) *framework.Plugin {
		return &framework.Plugin{Name: "stop", PreFilter: func(*framework.Cycle) (framework.Filter, *framework.Status) { return nil, s }}
	}
	narrow := &framework.Plugin{Name: "narrow", PreFilter: func(*framework.Cycle) (framework.Filter, *framework.Status) {
		return only{func(*framework.Node) *framework.Status { return nil }, []string{"n1", "gone"}}, nil
	}}
	tests := map[string]struct {
		nodes   int
		plugins []*framework.Plugin
		post    string
		want    string
		by      []string
	}{
		"no nodes": {0, nil, "", "no nodes available to schedule pods", nil},
		"reasons are counted": {3, []*framework.Plugin{
			filtering("b", func(n *framework.Node) bool { return n.Name() == "n0" }), filtering("a", nobody),
		}, "", "0/3 nodes are available: 1 not a, 2 not b.", []string{"a", "b"}},
		"preemption": {1, []*framework.Plugin{filtering("a", nobody)}, "preemption: no.", "0/1 nodes are available: 1 not a. preemption: no.", []string{"a"}},
		"before any node": {
			2, []*framework.Plugin{stop(&framework.Status{Code: framework.Unresolvable, Plugin: "stop", Reasons: []string{"it is so"}})},
			"", "0/2 nodes are available: it is so.", []string{"stop"},
		},
		"narrowed": {3, []*framework.Plugin{narrow, filtering("a", nobody)}, "", "0/3 nodes are available: 1 not a, 2 node(s) didn't satisfy plugin(s) [narrow].", []string{"a", "narrow"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			d := framework.Decider{Rand: first, Plugins: test.plugins}
			r := d.Decide(cluster(test.nodes), pod("p", "1"))
			if r.Node != nil || r.Err != nil {
				t.Fatalf("%v, %v", r.Node, r.Err)
			}
			r.Diagnosis.PostFilter = test.post
			if got := r.Diagnosis.Message(); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
			by := r.Diagnosis.Plugins()
			slices.Sort(by)
			if !slices.Equal(by, test.by) {
				t.Errorf("by %v, want %v", by, test.by)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	broken := errors.New("broken")
	status := &framework.Status{Code: framework.Failed, Plugin: "x", Err: broken}
	for name, plugin := range map[string]*framework.Plugin{
		"PreFilter": {Name: "x", PreFilter: func(*framework.Cycle) (framework.Filter, *framework.Status) { return nil, status }},
		"Filter": {Name: "x", PreFilter: func(*framework.Cycle) (framework.Filter, *framework.Status) {
			return filter(func(*framework.Node) *framework.Status { return status }), nil
		}},
	} {
		d := framework.Decider{Rand: first, Plugins: []*framework.Plugin{plugin}}
		if r := d.Decide(cluster(2), pod("p", "1")); !errors.Is(r.Err, broken) || r.Node != nil {
			t.Errorf("%s: %v, %v", name, r.Node, r.Err)
		}
	}
}

func TestNominations(t *testing.T) {
	s := cluster(2)
	waiting := pod("waiting", "30")
	waiting.PodPriority = 10
	s.Nominate(waiting, "n0")
	d := framework.Decider{Rand: first, Plugins: []*framework.Plugin{plugins.NodeResourcesFit()}}
	if r := d.Decide(s, pod("low", "4")); r.Node == nil || r.Node.Name() != "n1" {
		t.Errorf("the reserved room was given away: %v", r.Node)
	}
	high := pod("high", "4")
	high.PodPriority = 20
	if r := d.Decide(s, high); r.Feasible != 2 {
		t.Errorf("%d nodes for a more important pod", r.Feasible)
	}
	if r := d.Decide(s, waiting); r.Node == nil || r.Node.Name() != "n0" || r.Evaluated != 1 {
		t.Errorf("%v after %d", r.Node, r.Evaluated)
	}
	s.Unnominate("waiting")
	if r := d.Decide(s, pod("low", "4")); r.Feasible != 2 {
		t.Errorf("%d nodes are free", r.Feasible)
	}
}

// TestSearch: in big clusters not all nodes are looked at, all get their turn, and however they are looked at the answer
// is that of each of them.
func TestSearch(t *testing.T) {
	s := cluster(5000)
	d := framework.Decider{Rand: first}
	begun := map[string]bool{}
	for range 10 {
		r := d.Decide(s, pod("p", "1"))
		if r.Feasible != 500 || r.Evaluated != 500 {
			t.Fatalf("%d of %d", r.Feasible, r.Evaluated)
		}
		begun[r.Node.Name()] = true
	}
	if len(begun) != 10 {
		t.Errorf("the search began at %v", begun)
	}
	rare := func(n *framework.Node) bool { return n.Index()%100 == 7 }
	d = framework.Decider{Rand: first, Plugins: []*framework.Plugin{filtering("rare", rare)}}
	r := d.Decide(s, pod("p", "1"))
	if r.Feasible != 50 || r.Evaluated != 5000 {
		t.Errorf("%d of %d", r.Feasible, r.Evaluated)
	}
	for i, status := range r.Diagnosis.Statuses {
		if (status == nil) != rare(r.Diagnosis.Nodes[i]) {
			t.Fatalf("node %d: %v", i, status)
		}
	}
	d.Percentage = 100
	if r := d.Decide(cluster(200), pod("p", "1")); r.Evaluated != 200 {
		t.Errorf("%d", r.Evaluated)
	}
}

func TestState(t *testing.T) {
	s := framework.NewState()
	p := pod("p", "2")
	s.Observe(p, "a") // before its node
	if len(s.Nodes()) != 0 || s.GetNode("a") != nil {
		t.Error("a node without an object")
	}
	const zone = corev1.LabelTopologyZone
	for _, n := range []*corev1.Node{node("a", zone, "1"), node("b", zone, "1"), node("c", zone, "2")} {
		s.SetNode(n)
	}
	var order []string
	for i, n := range s.Nodes() {
		order = append(order, n.Name())
		if n.Index() != i {
			t.Errorf("%s has the index %d", n.Name(), n.Index())
		}
	}
	if !slices.Equal(order, []string{"a", "c", "b"}) {
		t.Errorf("not zone by zone: %v", order)
	}
	if got := s.GetNode("a").Requested; got.MilliCPU != 2000 || got.Pods != 1 {
		t.Errorf("%+v", got)
	}
	s.Assume(p, "b")
	if got := s.GetNode("a").Requested; got.MilliCPU != 0 || len(s.GetNode("a").Pods) != 0 {
		t.Errorf("%+v", got)
	}
	if !s.Forget("p") || s.Forget("p") {
		t.Error("an assumption is taken back once")
	}
	s.Assume(p, "b")
	s.Observe(p, "b")
	if s.Forget("p") {
		t.Error("what was observed is no assumption")
	}
	s.RemoveNode("b")
	if len(s.Nodes()) != 2 {
		t.Errorf("%d nodes", len(s.Nodes()))
	}
	if s.Remove("p") != p || s.Remove("p") != nil {
		t.Error("a pod is removed once")
	}
	for range s.AllPods() {
		t.Error("a pod is left")
	}
}

// TestSumsStayTrue adds and removes pods at random and compares the sums with those of who is there.
func TestSumsStayTrue(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	s := cluster(3)
	there := map[string]*framework.Pod{}
	for range 2000 {
		name := fmt.Sprint(random.IntN(40))
		if _, ok := there[name]; ok && random.IntN(2) == 0 {
			s.Remove(types.UID(name))
			delete(there, name)
			continue
		}
		p := pod(name, fmt.Sprintf("%dm", random.IntN(1000)))
		p.Ports = []framework.HostPort{{Port: int32(random.IntN(5)), Protocol: "TCP", IP: "0.0.0.0"}}
		there[name] = p
		s.Assume(p, fmt.Sprintf("n%d", random.IntN(3)))
	}
	var cpu int64
	count, ports := 0, 0
	for _, n := range s.Nodes() {
		cpu += n.Requested.MilliCPU
		count += len(n.Pods)
		ports += len(n.Ports)
	}
	var want int64
	for _, p := range there {
		want += p.Request.MilliCPU
	}
	if cpu != want || count != len(there) || ports != len(there) {
		t.Errorf("%d milli-cpus of %d pods with %d ports, want %d of %d", cpu, count, ports, want, len(there))
	}
}
