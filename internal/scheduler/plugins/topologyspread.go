package plugins

import (
	"fmt"
	"maps"
	"math"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"github.com/proa-k8s/proa/internal/scheduler/framework"
)

const topologySpreadName = "PodTopologySpread"

// TopologySpreadConfig is what PodTopologySpread can be told.
type TopologySpreadConfig struct {
	// Defaults apply to pods that have no constraints of their own; they have no label selector: the pods are those of
	// the same services and controllers. Nil stands for an even spread over zones and nodes, as far as it is possible.
	Defaults []corev1.TopologySpreadConstraint
	// Siblings selects the pods of the services and the controller that a pod belongs to; it selects nothing when there
	// are none.
	Siblings func(*corev1.Pod) labels.Selector
}

// systemDefaults spread what belongs together although nobody asked for it (KEP-1258).
func systemDefaults() []corev1.TopologySpreadConstraint {
	return []corev1.TopologySpreadConstraint{
		{TopologyKey: corev1.LabelHostname, MaxSkew: 3, WhenUnsatisfiable: corev1.ScheduleAnyway},
		{TopologyKey: corev1.LabelTopologyZone, MaxSkew: 5, WhenUnsatisfiable: corev1.ScheduleAnyway},
	}
}

// PodTopologySpread spreads pods over domains of nodes (KEP-895).
func PodTopologySpread(c TopologySpreadConfig) *framework.Plugin {
	p := topologySpread{TopologySpreadConfig: c, system: c.Defaults == nil}
	if p.system {
		p.Defaults = systemDefaults()
	}
	return &framework.Plugin{
		Name:      topologySpreadName,
		Weight:    2,
		PreFilter: p.preFilter,
		PreScore:  p.preScore,
		Events: framework.NodeAdded | framework.NodeLabels | framework.NodeTaints | framework.NodeRemoved | framework.PodAssigned |
			framework.PodLabels | framework.PodRemoved | framework.PodChanged,
		Hint: p.hint,
	}
}

type topologySpread struct {
	TopologySpreadConfig
	system bool // the defaults are the system's
}

var (
	spreadMismatch = &framework.Status{Code: framework.Unschedulable, Plugin: topologySpreadName, Reasons: []string{"node(s) didn't match pod topology spread constraints"}}
	spreadNoLabel  = &framework.Status{Code: framework.Unresolvable, Plugin: topologySpreadName, Reasons: []string{"node(s) didn't match pod topology spread constraints (missing required label)"}}
)

// constraint is a constraint of a pod, parsed.
type constraint struct {
	key        string
	maxSkew    int64
	minDomains int64
	selector   labels.Selector
	affinity   bool // only nodes count that the pod's node affinity allows
	taints     bool // only nodes count whose taints the pod tolerates
}

// constraints are those of one kind that hold for a pod: its own, or else the defaults.
func (t topologySpread) constraints(p *corev1.Pod, kind corev1.UnsatisfiableConstraintAction) ([]constraint, error) {
	list, siblings := p.Spec.TopologySpreadConstraints, labels.Selector(nil)
	if len(list) == 0 {
		if t.Siblings == nil || !slices.ContainsFunc(t.Defaults, func(c corev1.TopologySpreadConstraint) bool { return c.WhenUnsatisfiable == kind }) {
			return nil, nil
		}
		if siblings = t.Siblings(p); siblings.Empty() {
			return nil, nil
		}
		list = t.Defaults
	}
	var out []constraint
	for i := range list {
		if list[i].WhenUnsatisfiable != kind {
			continue
		}
		c, err := parseConstraint(&list[i], p)
		if err != nil {
			return nil, err
		}
		if siblings != nil {
			c.selector = siblings
		}
		out = append(out, c)
	}
	return out, nil
}

func parseConstraint(c *corev1.TopologySpreadConstraint, p *corev1.Pod) (constraint, error) {
	selector, err := metav1.LabelSelectorAsSelector(c.LabelSelector)
	if err != nil {
		return constraint{}, fmt.Errorf("parsing the label selector of a topology spread constraint: %w", err)
	}
	out := constraint{
		key: c.TopologyKey, maxSkew: int64(c.MaxSkew), minDomains: 1, affinity: true,
		selector: framework.WithLabelKeys(selector, p.Labels, c.MatchLabelKeys, selection.In),
	}
	if c.MinDomains != nil {
		out.minDomains = int64(*c.MinDomains)
	}
	if c.NodeAffinityPolicy != nil {
		out.affinity = *c.NodeAffinityPolicy == corev1.NodeInclusionPolicyHonor
	}
	if c.NodeTaintsPolicy != nil {
		out.taints = *c.NodeTaintsPolicy == corev1.NodeInclusionPolicyHonor
	}
	return out, nil
}

// selects tells whether a pod counts for the constraint of another.
func (c *constraint) selects(p, q *corev1.Pod) bool {
	return q.Namespace == p.Namespace && q.DeletionTimestamp == nil && c.selector.Matches(labels.Set(q.Labels))
}

// inclusion decides which nodes count.
type inclusion struct {
	pod      *corev1.Pod
	affinity nodeaffinity.RequiredNodeAffinity
	always   bool // the pod has no node affinity
}

func newInclusion(p *corev1.Pod) inclusion {
	return inclusion{
		pod: p, affinity: nodeaffinity.GetRequiredNodeAffinity(p),
		always: len(p.Spec.NodeSelector) == 0 && requiredNodeAffinity(&p.Spec) == nil,
	}
}

func (i *inclusion) counts(c *constraint, n *framework.Node) bool {
	if c.affinity && !i.always {
		if ok, _ := i.affinity.Match(n.Node); !ok {
			return false
		}
	}
	return !c.taints || tolerated(i.pod.Spec.Tolerations, n.HardTaints)
}

func hasAllKeys(n *framework.Node, list []constraint) bool {
	for i := range list {
		if _, ok := n.Labels[list[i].key]; !ok {
			return false
		}
	}
	return true
}

// spreadFilter is the filter for one pod.
type spreadFilter struct {
	pod         *corev1.Pod
	inclusion   inclusion
	constraints []constraint
	// matching are, for each constraint, the numbers of pods by value of the topology key.
	matching []map[string]int64
	self     []int64 // 1 for constraints that select the pod itself
	lowest   []int64 // the lowest of matching, kept while it does not change
}

func (t topologySpread) preFilter(c *framework.Cycle) (framework.Filter, *framework.Status) {
	p := c.Pod.Pod
	list, err := t.constraints(p, corev1.DoNotSchedule)
	if err != nil {
		return nil, failed(topologySpreadName, err)
	}
	if len(list) == 0 {
		return nil, nil
	}
	f := &spreadFilter{
		pod: p, inclusion: newInclusion(p), constraints: list,
		matching: make([]map[string]int64, len(list)), self: make([]int64, len(list)), lowest: make([]int64, len(list)),
	}
	for i := range list {
		f.matching[i] = map[string]int64{}
		if list[i].selector.Matches(labels.Set(p.Labels)) {
			f.self[i] = 1
		}
	}
	for _, n := range c.State.Nodes() {
		if !hasAllKeys(n, list) {
			continue
		}
		for i := range list {
			if f.inclusion.counts(&list[i], n) {
				f.matching[i][n.Labels[list[i].key]] += 0 // domains without pods count too
			}
		}
	}
	for q, n := range c.State.PodsIn(p.Namespace) {
		f.count(q.Pod, n, 1)
	}
	f.findLowest()
	return f, nil
}

// count counts a pod in its domains, as far as its node counts.
func (f *spreadFilter) count(q *corev1.Pod, n *framework.Node, by int64) {
	if !hasAllKeys(n, f.constraints) {
		return
	}
	for i := range f.constraints {
		c := &f.constraints[i]
		if c.selects(f.pod, q) && f.inclusion.counts(c, n) {
			f.matching[i][n.Labels[c.key]] += by
		}
	}
}

// findLowest finds the lowest number of each constraint, which is 0 when there are fewer domains than there should be.
func (f *spreadFilter) findLowest() {
	for i := range f.constraints {
		f.lowest[i] = math.MaxInt32
		for _, n := range f.matching[i] {
			f.lowest[i] = min(f.lowest[i], n)
		}
		if int64(len(f.matching[i])) < f.constraints[i].minDomains {
			f.lowest[i] = 0
		}
	}
}

func (f *spreadFilter) Check(n *framework.Node) *framework.Status {
	for i := range f.constraints {
		c := &f.constraints[i]
		value, ok := n.Labels[c.key]
		if !ok {
			return spreadNoLabel
		}
		if f.matching[i][value]+f.self[i]-f.lowest[i] > c.maxSkew {
			return spreadMismatch
		}
	}
	return nil
}

func (f *spreadFilter) Clone() framework.Adjustable {
	out := *f
	out.matching, out.lowest = make([]map[string]int64, len(f.matching)), slices.Clone(f.lowest)
	for i := range f.matching {
		out.matching[i] = maps.Clone(f.matching[i])
	}
	return &out
}

func (f *spreadFilter) Add(p *framework.Pod, n *framework.Node) {
	f.count(p.Pod, n, 1)
	f.findLowest()
}

func (f *spreadFilter) Remove(p *framework.Pod, n *framework.Node) {
	f.count(p.Pod, n, -1)
	f.findLowest()
}

// hint: nodes help that are in the topology, or were; pods help that are or were among those that are counted.
func (t topologySpread) hint(p *framework.Pod, e *framework.Event) bool {
	list, err := t.constraints(p.Pod, corev1.DoNotSchedule)
	if err != nil || e.Kind&framework.PodChanged != 0 {
		return true
	}
	in := func(n *corev1.Node) bool {
		if n == nil {
			return false
		}
		for i := range list {
			if _, ok := n.Labels[list[i].key]; !ok {
				return false
			}
		}
		return true
	}
	if e.Pod == nil {
		return in(e.Node) || in(e.OldNode)
	}
	counted := func(q *framework.Pod) bool {
		return q != nil && q.Namespace == p.Namespace && slices.ContainsFunc(list, func(c constraint) bool {
			return c.selector.Matches(labels.Set(q.Labels))
		})
	}
	return counted(e.Pod) || counted(e.OldPod)
}
