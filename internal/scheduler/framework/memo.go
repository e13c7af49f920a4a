package framework

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

// memo remembers what the local plugins have said about each node for pods of one shape. Most pods are like one that came
// shortly before, and a decision changes one node: only that one has to be looked at again for the next (KEP-5598 has the
// same aim).
type memo struct {
	pod     *Pod    // one of the shape
	filters Filters // those of the local plugins
	scorers []weighted

	// By the index of the node. versions tells which state of the node the rest is about; 0 is none.
	versions []uint64
	statuses []*Status
	scores   []int64 // the weighted sum; of nodes that pass
}

// weighted is a scorer with the weight of its plugin.
type weighted struct {
	Scorer
	weight int64
}

// check is the first reason that a local plugin has against a node. It may be called for several nodes at once.
func (m *memo) check(n *Node) *Status {
	i := n.index
	if m.versions[i] == n.version {
		return m.statuses[i]
	}
	status := m.filters.Check(n)
	m.statuses[i], m.scores[i] = status, 0
	if status == nil {
		for _, s := range m.scorers {
			m.scores[i] += s.weight * s.Score(n)
		}
	}
	m.versions[i] = n.version
	return status
}

// score is the sum of the local plugins' scores of a node that passes.
func (m *memo) score(n *Node) int64 {
	if m.versions[n.index] != n.version {
		m.check(n)
	}
	return m.scores[n.index]
}

// maxMemos is how many shapes are remembered, the last used first.
const maxMemos = 8

// recall finds or makes the memo for pods like that of the cycle. It gives nil if the pod is one of those about which it
// isn't worth while: local plugins know without looking that few nodes can pass, or none.
func (d *Decider) recall(c *Cycle) *memo {
	if nodes := c.State.Nodes(); d.memosOf != c.State || d.memosAt != c.State.listed || len(nodes) == 0 {
		d.memos, d.memosOf, d.memosAt = nil, c.State, c.State.listed
	}
	at := slices.IndexFunc(d.memos, func(m *memo) bool { return sameShape(m.pod, c.Pod) })
	var m *memo
	if at >= 0 {
		m = d.memos[at]
	} else {
		if m = d.newMemo(c); m == nil {
			return nil
		}
		if at = len(d.memos); at < maxMemos {
			d.memos = append(d.memos, nil)
		} else {
			at--
			m.reuse(d.memos[at])
		}
		m.fit(len(c.State.list))
	}
	copy(d.memos[1:at+1], d.memos[:at])
	d.memos[0] = m
	return m
}

// newMemo asks the local plugins for their filters and scorers.
func (d *Decider) newMemo(c *Cycle) *memo {
	m := &memo{pod: c.Pod}
	for _, plugin := range d.localFilters() {
		if plugin.PreFilter == nil {
			continue
		}
		f, status := plugin.PreFilter(c)
		if status != nil {
			return nil
		}
		if f == nil {
			continue
		}
		if n, ok := f.(Narrowing); ok && n.Only() != nil {
			return nil
		}
		m.filters = append(m.filters, f)
	}
	for _, plugin := range d.Plugins {
		if plugin.PreScore == nil || !plugin.LocalScore {
			continue
		}
		s, status := plugin.PreScore(c, nil)
		if status != nil {
			return nil
		}
		if s != nil {
			m.scorers = append(m.scorers, weighted{s, plugin.Weight})
		}
	}
	return m
}

// localFilters are the plugins whose filters can be remembered: those before the first that can't, so that the reason that
// is given is that of the first filter.
func (d *Decider) localFilters() []*Plugin {
	if i := slices.IndexFunc(d.Plugins, func(p *Plugin) bool { return p.PreFilter != nil && !p.LocalFilter }); i >= 0 {
		return d.Plugins[:i]
	}
	return d.Plugins
}

// reuse takes over the space of a memo that is no longer needed.
func (m *memo) reuse(old *memo) {
	clear(old.versions)
	m.versions, m.statuses, m.scores = old.versions, old.statuses, old.scores
}

// fit makes space for so many nodes.
func (m *memo) fit(nodes int) {
	if len(m.versions) != nodes {
		m.versions, m.statuses, m.scores = make([]uint64, nodes), make([]*Status, nodes), make([]int64, nodes)
	}
}

// sameShape tells whether two pods are the same to local plugins: which nodes they ask for and tolerate, what they take of
// them, and their host ports.
func sameShape(a, b *Pod) bool {
	x, y := &a.Spec, &b.Spec
	return x.NodeName == y.NodeName && a.Request.Equal(&b.Request) && a.NonZero.Equal(&b.NonZero) && slices.Equal(a.Ports, b.Ports) &&
		maps.Equal(x.NodeSelector, y.NodeSelector) && slices.EqualFunc(x.Tolerations, y.Tolerations, sameToleration) &&
		sameNodeAffinity(x.Affinity, y.Affinity)
}

func sameToleration(a, b corev1.Toleration) bool {
	return a.Key == b.Key && a.Operator == b.Operator && a.Value == b.Value && a.Effect == b.Effect
}

func sameNodeAffinity(a, b *corev1.Affinity) bool {
	var x, y *corev1.NodeAffinity
	if a != nil {
		x = a.NodeAffinity
	}
	if b != nil {
		y = b.NodeAffinity
	}
	return x == y || x != nil && y != nil && equality.Semantic.DeepEqual(x, y)
}
