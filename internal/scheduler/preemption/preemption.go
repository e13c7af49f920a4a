// Package preemption decides which pods have to go so that a more important one can be scheduled (KEP-564).
//
// What flows in are the state, the pod, the reasons against each node, and disruption budgets. What flows out is a node and
// the fewest and least important pods to be taken from it, or the reasons why that is no help anywhere. The state is only
// read: what would be is tried on copies of nodes.
package preemption

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/proa-k8s/proa/internal/scheduler/framework"
)

// Name is the plugin's name.
const Name = "DefaultPreemption"

// Request is what a decision about preemption rests on.
type Request struct {
	State *framework.State
	Pod   *framework.Pod
	// Diagnosis is that of the decision that found no node.
	Diagnosis *framework.Diagnosis
	Budgets   []*policyv1.PodDisruptionBudget
	// Rand gives a number below n: where the search begins when not all nodes are looked at.
	Rand func(n int) int
}

// Waits is the answer for a pod that keeps its nomination although it may not preempt: its victims are not gone yet.
const Waits = "not eligible due to a terminating pod on the nominated node."

// Victims are the pods that go.
type Victims struct {
	Node string
	// Pods are ordered by importance, the most important first.
	Pods []*framework.Pod
	// Violations counts those of them that their disruption budgets protect.
	Violations int
}

// The fewest candidates among which the best is chosen when there are many nodes, and their share of all nodes in percent.
const (
	fewestCandidates = 100
	candidateShare   = 10
)

var (
	noHelp    = &framework.Status{Code: framework.Unresolvable, Plugin: Name, Reasons: []string{"Preemption is not helpful for scheduling"}}
	noVictims = &framework.Status{Code: framework.Unresolvable, Plugin: Name, Reasons: []string{"No preemption victims found for incoming pod"}}
)

// Decide gives the victims, or, if there are none to be had, why.
func Decide(r Request) (*Victims, string) {
	if why := r.ineligible(); why != "" {
		return nil, why
	}
	nodes := r.Diagnosis.Nodes
	statuses := make([]*framework.Status, len(nodes))
	start, wanted := 0, len(nodes)
	if wanted > fewestCandidates {
		start, wanted = r.Rand(len(nodes)), max(len(nodes)*candidateShare/100, fewestCandidates)
	}
	var candidates []*Victims
	for i := range nodes {
		at := (start + i) % len(nodes)
		n := nodes[at]
		if r.status(at).Code == framework.Unresolvable {
			statuses[at] = noHelp
			continue
		}
		victims, status := r.victims(n)
		if status != nil {
			statuses[at] = status
			continue
		}
		candidates = append(candidates, victims)
		if len(candidates) == wanted {
			break
		}
	}
	if len(candidates) == 0 {
		return nil, fmt.Sprintf("0/%d nodes are available: %s.", len(nodes), framework.CountReasons(statuses))
	}
	return best(candidates), ""
}

// status is what was said about a node.
func (r *Request) status(i int) *framework.Status {
	if r.Diagnosis.PreFilter != nil {
		return r.Diagnosis.PreFilter
	}
	if s := r.Diagnosis.Statuses[i]; s != nil {
		return s
	}
	return noHelp // it was good enough
}

// ineligible says why the pod may not preempt.
func (r *Request) ineligible() string {
	if p := r.Pod.Spec.PreemptionPolicy; p != nil && *p == corev1.PreemptNever {
		return "not eligible due to preemptionPolicy=Never."
	}
	// Room is being made for it already: wait, unless the node is no good any more.
	n := r.State.GetNode(r.State.NominatedNode(r.Pod.UID))
	if n == nil || r.status(n.Index()).Code == framework.Unresolvable {
		return ""
	}
	for _, q := range n.Pods {
		if q.PodPriority < r.Pod.PodPriority && q.DeletionTimestamp != nil && preempted(q.Pod) {
			return Waits
		}
	}
	return ""
}

// preempted tells whether a pod is going because of the scheduler.
func preempted(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.DisruptionTarget {
			return c.Status == corev1.ConditionTrue && c.Reason == corev1.PodReasonPreemptionByScheduler
		}
	}
	return false
}

// victims finds the pods that have to leave a node: all that are less important are taken away in thought, and then given
// back, the most important first, as long as the pod still fits.
func (r *Request) victims(n *framework.Node) (*Victims, *framework.Status) {
	lower := lowerPriority(n.Pods, r.Pod.PodPriority)
	if len(lower) == 0 {
		return nil, noVictims
	}
	node, filters := n.Clone(), r.Diagnosis.Filters.Clone()
	for _, q := range lower {
		node.Remove(q.UID)
		filters.Remove(q, node)
	}
	fits := func() *framework.Status { return filters.CheckNominated(r.State, r.Pod, node) }
	if status := fits(); status != nil {
		return nil, status
	}
	protected, free := split(lower, r.Budgets)
	v := &Victims{Node: n.Name()}
	spare := func(q *framework.Pod) bool {
		node.Add(q)
		filters.Add(q, node)
		if fits() == nil {
			return true
		}
		node.Remove(q.UID)
		filters.Remove(q, node)
		v.Pods = append(v.Pods, q)
		return false
	}
	for _, q := range protected {
		if !spare(q) {
			v.Violations++
		}
	}
	for _, q := range free {
		spare(q)
	}
	if len(v.Pods) == 0 {
		return nil, noVictims // it fits without: the state has changed meanwhile
	}
	slices.SortStableFunc(v.Pods, byImportance)
	return v, nil
}

func lowerPriority(pods []*framework.Pod, than int32) []*framework.Pod {
	var out []*framework.Pod
	for _, p := range pods {
		if p.PodPriority < than {
			out = append(out, p)
		}
	}
	slices.SortStableFunc(out, byImportance)
	return out
}

// byImportance orders pods by priority, those of one priority by how long they run.
func byImportance(a, b *framework.Pod) int {
	if a.PodPriority != b.PodPriority {
		return int(int64(b.PodPriority) - int64(a.PodPriority))
	}
	return started(a).Compare(started(b).Time)
}

func started(p *framework.Pod) metav1.Time {
	if p.Status.StartTime != nil {
		return *p.Status.StartTime
	}
	return metav1.Now() // it is about to
}

// split finds those of the pods, in order of importance, whose eviction a disruption budget doesn't allow.
func split(pods []*framework.Pod, budgets []*policyv1.PodDisruptionBudget) (protected, free []*framework.Pod) {
	allowed := make([]int32, len(budgets))
	selectors := make([]labels.Selector, len(budgets))
	for i, b := range budgets {
		allowed[i] = b.Status.DisruptionsAllowed
		if s, err := metav1.LabelSelectorAsSelector(b.Spec.Selector); err == nil && !s.Empty() {
			selectors[i] = s
		}
	}
	for _, p := range pods {
		violates := false
		for i, b := range budgets {
			if b.Namespace != p.Namespace || len(p.Labels) == 0 || selectors[i] == nil || !selectors[i].Matches(labels.Set(p.Labels)) {
				continue
			}
			if _, going := b.Status.DisruptedPods[p.Name]; going {
				continue
			}
			if allowed[i]--; allowed[i] < 0 {
				violates = true
			}
		}
		if violates {
			protected = append(protected, p)
		} else {
			free = append(free, p)
		}
	}
	return protected, free
}

// best chooses among nodes: the fewest violated budgets, then the least important victims, the lowest sum of their
// priorities, the fewest of them, and those that were started last.
func best(candidates []*Victims) *Victims {
	return slices.MinFunc(candidates, func(a, b *Victims) int {
		for _, key := range []func(*Victims) int64{
			func(v *Victims) int64 { return int64(v.Violations) },
			func(v *Victims) int64 { return int64(v.Pods[0].PodPriority) },
			sumOfPriorities,
			func(v *Victims) int64 { return int64(len(v.Pods)) },
			func(v *Victims) int64 { return -earliestStart(v).UnixNano() },
		} {
			if x, y := key(a), key(b); x < y {
				return -1
			} else if x > y {
				return 1
			}
		}
		return 0
	})
}

// sumOfPriorities counts from the lowest priority there is, so that more pods are never better than fewer of them.
func sumOfPriorities(v *Victims) int64 {
	const lowest = int64(1) << 31
	var sum int64
	for _, p := range v.Pods {
		sum += int64(p.PodPriority) + lowest
	}
	return sum
}

// earliestStart is when the first of the most important victims was started.
func earliestStart(v *Victims) metav1.Time {
	earliest := started(v.Pods[0])
	for _, p := range v.Pods {
		if p.PodPriority == v.Pods[0].PodPriority {
			if t := started(p); t.Time.Before(earliest.Time) {
				earliest = t
			}
		}
	}
	return earliest
}
