package plugins

import (
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/proa-k8s/proa/internal/scheduler/framework"
)

const interPodAffinityName = "InterPodAffinity"

// hardAffinityWeight is what a pod that requires to be near pods like the one that is scheduled counts in scores.
const hardAffinityWeight = 1

// InterPodAffinity puts pods near the pods that they ask to be near, away from those that they avoid and from those that
// avoid them. namespaceLabels gives the labels of a namespace, for terms with a namespace selector.
func InterPodAffinity(namespaceLabels func(string) labels.Set) *framework.Plugin {
	a := interPodAffinity{namespaceLabels}
	return &framework.Plugin{
		Name:      interPodAffinityName,
		Weight:    2,
		PreFilter: a.preFilter,
		PreScore:  a.preScore,
		Events: framework.NodeAdded | framework.NodeLabels | framework.PodAssigned | framework.PodLabels | framework.PodRemoved |
			framework.PodChanged | framework.NamespaceSet,
		Hint: a.hint,
	}
}

type interPodAffinity struct{ namespaceLabels func(string) labels.Set }

func affinityStatus(code framework.Code, reason string) *framework.Status {
	return &framework.Status{Code: code, Plugin: interPodAffinityName, Reasons: []string{reason}}
}

var (
	podAffinityMismatch     = affinityStatus(framework.Unresolvable, "node(s) didn't match pod affinity rules")
	podAntiAffinityMismatch = affinityStatus(framework.Unschedulable, "node(s) didn't match pod anti-affinity rules")
	existingAntiAffinity    = affinityStatus(framework.Unschedulable, "node(s) didn't satisfy existing pods anti-affinity rules")
)

// domain is a set of nodes: those with a value of a label.
type domain struct{ key, value string }

// counts are numbers of pods by domain.
type counts map[domain]int64

func (c counts) add(key string, n *framework.Node, by int64) {
	if value, ok := n.Labels[key]; ok {
		d := domain{key, value}
		if c[d] += by; c[d] == 0 {
			delete(c, d)
		}
	}
}

// podAffinityFilter is the filter for one pod.
type podAffinityFilter struct {
	interPodAffinity
	pod *framework.Pod
	// avoiding are the pods that avoid the pod; near those that match all its affinity terms; avoided those that match
	// its anti-affinity terms.
	avoiding, near, avoided counts
	// avoidingKeys are the topology keys that avoiding is about.
	avoidingKeys []string
}

func (a interPodAffinity) preFilter(c *framework.Cycle) (framework.Filter, *framework.Status) {
	p := c.Pod
	if p.Invalid != nil {
		return nil, &framework.Status{Code: framework.Unresolvable, Plugin: interPodAffinityName, Reasons: []string{p.Invalid.Error()}}
	}
	others := c.State.WithRequiredAntiAffinity()
	own := len(p.RequiredAffinity) + len(p.RequiredAntiAffinity)
	if own == 0 && len(others) == 0 {
		return nil, nil
	}
	f := &podAffinityFilter{interPodAffinity: a, pod: p, avoiding: counts{}, near: counts{}, avoided: counts{}}
	for n := range others {
		if n.Node == nil {
			continue
		}
		for _, q := range n.WithRequiredAntiAffinity {
			f.countAvoiding(q, n, 1)
		}
	}
	if own > 0 {
		a.eachPod(c.State, termsOf(p.RequiredAffinity, p.RequiredAntiAffinity), func(q *framework.Pod, n *framework.Node) {
			f.countOwn(q, n, 1)
		})
	}
	if own == 0 && len(f.avoiding) == 0 {
		return nil, nil
	}
	return f, nil
}

func termsOf(lists ...[]framework.AffinityTerm) []*framework.AffinityTerm {
	var out []*framework.AffinityTerm
	for _, list := range lists {
		for i := range list {
			out = append(out, &list[i])
		}
	}
	return out
}

// eachPod calls fn for the pods that any of the terms may select.
func (a interPodAffinity) eachPod(s *framework.State, terms []*framework.AffinityTerm, fn func(*framework.Pod, *framework.Node)) {
	namespaces := sets.New[string]()
	for _, t := range terms {
		if t.NamespaceSelector != nil {
			for q, n := range s.AllPods() {
				fn(q, n)
			}
			return
		}
		namespaces = namespaces.Union(t.Namespaces)
	}
	for namespace := range namespaces {
		for q, n := range s.PodsIn(namespace) {
			fn(q, n)
		}
	}
}

// countAvoiding counts a pod in the domains from which it keeps the pod off.
func (f *podAffinityFilter) countAvoiding(q *framework.Pod, n *framework.Node, by int64) {
	for i := range q.RequiredAntiAffinity {
		if t := &q.RequiredAntiAffinity[i]; t.Matches(f.pod.Pod, f.namespaceLabels) {
			f.avoiding.add(t.TopologyKey, n, by)
			if !slices.Contains(f.avoidingKeys, t.TopologyKey) {
				f.avoidingKeys = append(f.avoidingKeys, t.TopologyKey)
			}
		}
	}
}

// countOwn counts a pod in the domains that the pod's own terms are about.
func (f *podAffinityFilter) countOwn(q *framework.Pod, n *framework.Node, by int64) {
	if len(f.pod.RequiredAffinity) > 0 && f.matchesAll(q) {
		for i := range f.pod.RequiredAffinity {
			f.near.add(f.pod.RequiredAffinity[i].TopologyKey, n, by)
		}
	}
	for i := range f.pod.RequiredAntiAffinity {
		if t := &f.pod.RequiredAntiAffinity[i]; t.Matches(q.Pod, f.namespaceLabels) {
			f.avoided.add(t.TopologyKey, n, by)
		}
	}
}

func (f *podAffinityFilter) matchesAll(q *framework.Pod) bool {
	for i := range f.pod.RequiredAffinity {
		if !f.pod.RequiredAffinity[i].Matches(q.Pod, f.namespaceLabels) {
			return false
		}
	}
	return true
}

func (f *podAffinityFilter) Check(n *framework.Node) *framework.Status {
	if !f.nearEnough(n) {
		return podAffinityMismatch
	}
	for i := range f.pod.RequiredAntiAffinity {
		key := f.pod.RequiredAntiAffinity[i].TopologyKey
		if value, ok := n.Labels[key]; ok && f.avoided[domain{key, value}] > 0 {
			return podAntiAffinityMismatch
		}
	}
	if len(f.avoiding) > 0 {
		for _, key := range f.avoidingKeys {
			if value, ok := n.Labels[key]; ok && f.avoiding[domain{key, value}] > 0 {
				return existingAntiAffinity
			}
		}
	}
	return nil
}

// nearEnough: every term must have its pod in the node's domain. The first of a group of pods that want to be near each
// other may be anywhere in the topology.
func (f *podAffinityFilter) nearEnough(n *framework.Node) bool {
	all := true
	for i := range f.pod.RequiredAffinity {
		key := f.pod.RequiredAffinity[i].TopologyKey
		value, ok := n.Labels[key]
		if !ok {
			return false
		}
		if f.near[domain{key, value}] <= 0 {
			all = false
		}
	}
	return all || len(f.near) == 0 && f.matchesAll(f.pod)
}

func (f *podAffinityFilter) Clone() framework.Adjustable {
	out := *f
	out.avoiding, out.near, out.avoided = maps.Clone(f.avoiding), maps.Clone(f.near), maps.Clone(f.avoided)
	out.avoidingKeys = slices.Clone(f.avoidingKeys)
	return &out
}

func (f *podAffinityFilter) Add(p *framework.Pod, n *framework.Node) { f.adjust(p, n, 1) }

func (f *podAffinityFilter) Remove(p *framework.Pod, n *framework.Node) { f.adjust(p, n, -1) }

func (f *podAffinityFilter) adjust(p *framework.Pod, n *framework.Node, by int64) {
	f.countAvoiding(p, n, by)
	f.countOwn(p, n, by)
}

// podAffinityScorer sums, by domain, the weights of the terms that are met there.
type podAffinityScorer struct {
	sums counts
	keys sets.Set[string]
}

func (a interPodAffinity) preScore(c *framework.Cycle, _ []*framework.Node) (framework.Scorer, *framework.Status) {
	p := c.Pod
	s := &podAffinityScorer{sums: counts{}, keys: sets.New[string]()}
	add := func(t *framework.AffinityTerm, whom *framework.Pod, n *framework.Node, weight int64) {
		if t.Matches(whom.Pod, a.namespaceLabels) {
			s.sums.add(t.TopologyKey, n, weight)
			s.keys.Insert(t.TopologyKey)
		}
	}
	for n := range c.State.WithAffinity() {
		if n.Node == nil {
			continue
		}
		for _, q := range n.WithAffinity { // what others think of the pod
			for i := range q.RequiredAffinity {
				add(&q.RequiredAffinity[i], p, n, hardAffinityWeight)
			}
			for i := range q.PreferredAffinity {
				add(&q.PreferredAffinity[i].AffinityTerm, p, n, int64(q.PreferredAffinity[i].Weight))
			}
			for i := range q.PreferredAntiAffinity {
				add(&q.PreferredAntiAffinity[i].AffinityTerm, p, n, -int64(q.PreferredAntiAffinity[i].Weight))
			}
		}
	}
	var terms []*framework.AffinityTerm
	for _, list := range [][]framework.WeightedTerm{p.PreferredAffinity, p.PreferredAntiAffinity} {
		for i := range list {
			terms = append(terms, &list[i].AffinityTerm)
		}
	}
	a.eachPod(c.State, terms, func(q *framework.Pod, n *framework.Node) {
		for i := range p.PreferredAffinity {
			add(&p.PreferredAffinity[i].AffinityTerm, q, n, int64(p.PreferredAffinity[i].Weight))
		}
		for i := range p.PreferredAntiAffinity {
			add(&p.PreferredAntiAffinity[i].AffinityTerm, q, n, -int64(p.PreferredAntiAffinity[i].Weight))
		}
	})
	if len(s.sums) == 0 {
		return nil, nil
	}
	return s, nil
}

func (s *podAffinityScorer) Score(n *framework.Node) int64 {
	var sum int64
	for key := range s.keys {
		if value, ok := n.Labels[key]; ok {
			sum += s.sums[domain{key, value}]
		}
	}
	return sum
}

func (s *podAffinityScorer) Normalize(_ []*framework.Node, scores []int64) {
	lowest, highest := scores[0], scores[0]
	for _, v := range scores {
		lowest, highest = min(lowest, v), max(highest, v)
	}
	for i, v := range scores {
		scores[i] = 0
		if highest > lowest {
			scores[i] = framework.MaxScore * (v - lowest) / (highest - lowest)
		}
	}
}

// hint: pods that come help those who want to be near them, pods that go those who avoid them or whom they avoided.
func (a interPodAffinity) hint(p *framework.Pod, e *framework.Event) bool {
	if e.Pod == nil || e.Kind&framework.PodChanged != 0 {
		return true // nodes, namespaces, and the pod itself
	}
	wanted := func(q *framework.Pod) bool {
		for i := range p.RequiredAffinity {
			if p.RequiredAffinity[i].Matches(q.Pod, a.namespaceLabels) {
				return true
			}
		}
		return false
	}
	inTheWay := func(q *framework.Pod) bool {
		for i := range p.RequiredAntiAffinity {
			if p.RequiredAntiAffinity[i].Matches(q.Pod, a.namespaceLabels) {
				return true
			}
		}
		for i := range q.RequiredAntiAffinity {
			if q.RequiredAntiAffinity[i].Matches(p.Pod, a.namespaceLabels) {
				return true
			}
		}
		return false
	}
	switch {
	case e.Kind&framework.PodLabels != 0:
		return wanted(e.Pod) || inTheWay(e.OldPod)
	case e.Kind == framework.PodAssigned:
		return wanted(e.Pod)
	case e.Kind == framework.PodRemoved:
		return inTheWay(e.Pod)
	default:
		return false
	}
}
