package preemption_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/proa-k8s/proa/internal/scheduler/framework"
	"github.com/proa-k8s/proa/internal/scheduler/plugins"
	"github.com/proa-k8s/proa/internal/scheduler/preemption"
)

var now = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// pod describes a pod in words: name, node (- for none), cpu, priority, minutes since its start.
func pod(t *testing.T, words string) *framework.Pod {
	t.Helper()
	var name, node, cpu string
	var priority int32
	var minutes int
	if _, err := fmt.Sscan(words, &name, &node, &cpu, &priority, &minutes); err != nil {
		t.Fatal(err)
	}
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID(name), Labels: map[string]string{"app": strings.TrimRight(name, "0123456789")}},
		Spec: corev1.PodSpec{NodeName: node, Priority: &priority, Containers: []corev1.Container{{
			Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}},
		}}},
		Status: corev1.PodStatus{StartTime: ptr.To(metav1.NewTime(now.Add(-time.Duration(minutes) * time.Minute)))},
	}
	if node == "-" {
		p.Spec.NodeName = ""
	}
	return framework.NewPod(p)
}

func budget(app string, allowed int32, disrupted ...string) *policyv1.PodDisruptionBudget {
	b := &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: app},
		Spec:       policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}},
		Status:     policyv1.PodDisruptionBudgetStatus{DisruptionsAllowed: allowed, DisruptedPods: map[string]metav1.Time{}},
	}
	for _, name := range disrupted {
		b.Status.DisruptedPods[name] = metav1.Now()
	}
	return b
}

func TestDecide(t *testing.T) {
	tests := map[string]struct {
		nodes   int // each with 4 cpus, named n0 and so on
		pods    []string
		pod     string
		change  func(*framework.State, *framework.Pod)
		budgets []*policyv1.PodDisruptionBudget
		want    string // node: victims
		why     string
	}{
		"nobody is less important": {
			nodes: 1, pods: []string{"a n0 4 10 1"}, pod: "p - 1 10 0",
			why: "0/1 nodes are available: 1 No preemption victims found for incoming pod.",
		},
		"the node is too small": {
			nodes: 1, pods: []string{"a n0 4 0 1"}, pod: "p - 5 10 0", why: "0/1 nodes are available: 1 Preemption is not helpful for scheduling.",
		},
		"what goes is not enough": {
			nodes: 1, pods: []string{"a n0 1 0 1", "b n0 3 20 1"}, pod: "p - 2 10 0", why: "0/1 nodes are available: 1 Insufficient cpu.",
		},
		"as few as possible":                  {nodes: 1, pods: []string{"a n0 1 0 3", "b n0 1 0 2", "c n0 2 0 1"}, pod: "p - 2 10 0", want: "n0: c"},
		"the least important go":              {nodes: 1, pods: []string{"a n0 2 5 1", "b n0 2 1 1"}, pod: "p - 2 10 0", want: "n0: b"},
		"who has run longest stays":           {nodes: 1, pods: []string{"a n0 2 1 1", "b n0 2 1 9"}, pod: "p - 2 10 0", want: "n0: a"},
		"the node with the least important":   {nodes: 2, pods: []string{"a n0 4 5 1", "b n1 4 1 1"}, pod: "p - 2 10 0", want: "n1: b"},
		"the node with the lowest sum":        {nodes: 2, pods: []string{"a n0 2 5 1", "b n0 2 4 1", "c n1 2 5 1", "d n1 2 3 1"}, pod: "p - 4 10 0", want: "n1: c d"},
		"the node with the fewest":            {nodes: 2, pods: []string{"a n0 2 5 1", "b n0 2 5 1", "c n1 4 5 1"}, pod: "p - 4 10 0", want: "n1: c"},
		"the node whose victims are youngest": {nodes: 2, pods: []string{"a n0 4 5 9", "b n1 4 5 1"}, pod: "p - 4 10 0", want: "n1: b"},
		"budgets come first": {
			nodes: 2, pods: []string{"guarded1 n0 4 1 1", "b n1 4 5 1"}, pod: "p - 4 10 0", want: "n1: b",
			budgets: []*policyv1.PodDisruptionBudget{budget("guarded", 0)},
		},
		"budgets within a node": {
			nodes: 1, pods: []string{"guarded1 n0 2 1 1", "b n0 2 5 1"}, pod: "p - 2 10 0", want: "n0: b",
			budgets: []*policyv1.PodDisruptionBudget{budget("guarded", 0)},
		},
		"a budget that allows one": {
			nodes: 1, pods: []string{"guarded1 n0 2 1 1", "b n0 2 5 1"}, pod: "p - 2 10 0", want: "n0: guarded1",
			budgets: []*policyv1.PodDisruptionBudget{budget("guarded", 1)},
		},
		"a pod that is counted as gone": {
			nodes: 1, pods: []string{"guarded1 n0 2 1 1", "b n0 2 5 1"}, pod: "p - 2 10 0", want: "n0: guarded1",
			budgets: []*policyv1.PodDisruptionBudget{budget("guarded", 0, "guarded1")},
		},
		"budgets don't save a pod for good": {
			nodes: 1, pods: []string{"guarded1 n0 4 1 1"}, pod: "p - 4 10 0", want: "n0: guarded1",
			budgets: []*policyv1.PodDisruptionBudget{budget("guarded", 0)},
		},
		"it never preempts": {
			nodes: 1, pods: []string{"a n0 4 0 1"}, pod: "p - 2 10 0", why: "not eligible due to preemptionPolicy=Never.",
			change: func(_ *framework.State, p *framework.Pod) { p.Spec.PreemptionPolicy = ptr.To(corev1.PreemptNever) },
		},
		"room is being made already": {
			nodes: 1, pods: []string{"a n0 4 0 1"}, pod: "p - 2 10 0", why: "not eligible due to a terminating pod on the nominated node.",
			change: func(s *framework.State, p *framework.Pod) {
				s.Nominate(p, "n0")
				a, _, _ := s.Find("a")
				a.DeletionTimestamp = ptr.To(metav1.Now())
				a.Status.Conditions = []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: corev1.PodReasonPreemptionByScheduler}}
			},
		},
		"room is kept for others": {
			nodes: 1, pods: []string{"a n0 2 0 1", "b n0 2 20 1"}, pod: "p - 2 10 0", why: "0/1 nodes are available: 1 Insufficient cpu.",
			change: func(s *framework.State, _ *framework.Pod) {
				other := pod(t, "other - 2 15 0")
				s.Nominate(other, "n0")
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := framework.NewState()
			for i := range test.nodes {
				n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("n%d", i)}}
				n.Status.Allocatable = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourcePods: resource.MustParse("10")}
				s.SetNode(n)
			}
			for _, words := range test.pods {
				p := pod(t, words)
				s.Observe(p, p.Spec.NodeName)
			}
			p := pod(t, test.pod)
			if test.change != nil {
				test.change(s, p)
			}
			first := func(int) int { return 0 }
			d := framework.Decider{Plugins: []*framework.Plugin{plugins.NodeResourcesFit()}, Rand: first}
			r := d.Decide(s, p)
			if r.Node != nil || r.Err != nil {
				t.Fatalf("on %v, %v", r.Node, r.Err)
			}
			victims, why := preemption.Decide(preemption.Request{State: s, Pod: p, Diagnosis: &r.Diagnosis, Budgets: test.budgets, Rand: first})
			got := ""
			if victims != nil {
				got = victims.Node + ":"
				for _, v := range victims.Pods {
					got += " " + v.Name
				}
			}
			if got != test.want || why != test.why {
				t.Errorf("got %q, %q\nwant %q, %q", got, why, test.want, test.why)
			}
		})
	}
}
