package framework

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
)

// Decider decides by a set of plugins. It belongs to one goroutine.
type Decider struct {
	Plugins []*Plugin
	// Percentage is how many percent of the nodes are looked for that a pod could be on, before the best of them is chosen.
	// 0 adapts to the number of nodes.
	Percentage int
	// Rand gives a number below n; it breaks ties.
	Rand func(n int) int

	next int // where the search begins, so that all nodes get their turn

	memos   []*memo
	memosOf *State // which they are about
	memosAt uint64 // State.listed

	// What belongs to the present decision.
	memo *memo   // for the pod; nil if there is none
	rest Filters // those that the memo has not

	// Buffers that live from one decision to the next.
	filters  Filters
	statuses []*Status
	feasible []*Node
	scores   []int64
	totals   []int64
}

// Result is a decision.
type Result struct {
	// Node is where the pod is to be; nil if there is no place.
	Node *Node
	// Diagnosis says why there is none.
	Diagnosis Diagnosis
	// Evaluated and Feasible count the nodes that were looked at, and those of them that were good.
	Evaluated, Feasible int
	// Err is set when a plugin failed; nothing is known then.
	Err error
}

// Decide chooses the node for a pod. The state is only read. Filters and the diagnosis are valid until the next call.
func (d *Decider) Decide(s *State, p *Pod) Result {
	nodes := s.Nodes()
	if len(nodes) == 0 {
		return Result{Diagnosis: Diagnosis{NoNodes: true}}
	}
	c := &Cycle{State: s, Pod: p}
	r := Result{Diagnosis: Diagnosis{Nodes: nodes}}
	only, status := d.prepare(c, &r.Diagnosis)
	if status != nil {
		if status.Code == Failed {
			r.Err = fmt.Errorf("running PreFilter plugin %q: %w", status.Plugin, status.Err)
			return r
		}
		r.Diagnosis.PreFilter = status
		return r
	}
	d.statuses = resize(d.statuses, len(nodes))
	r.Diagnosis.Statuses, r.Diagnosis.Filters = d.statuses, d.filters
	if n := s.GetNode(s.NominatedNode(p.UID)); n != nil && (only == nil || slices.Contains(only, n)) {
		if d.filters.CheckNominated(s, p, n) == nil {
			r.Node, r.Evaluated, r.Feasible = n, 1, 1
			return r
		}
	}
	if only != nil {
		d.narrow(c, only, &r)
	} else {
		d.search(c, nodes, &r)
	}
	if r.Err = firstError(r.Diagnosis.Statuses); r.Err != nil && len(d.feasible) == 0 {
		return r
	}
	r.Err = nil
	r.Feasible = len(d.feasible)
	switch len(d.feasible) {
	case 0:
	case 1:
		r.Node = d.feasible[0]
	default:
		r.Node, r.Err = d.best(c)
	}
	return r
}

// prepare runs PreFilter. A nil list of nodes stands for all.
func (d *Decider) prepare(c *Cycle, diag *Diagnosis) (only []*Node, status *Status) {
	d.filters = d.filters[:0]
	todo, local := d.Plugins, 0
	if d.memo = d.recall(c); d.memo != nil {
		d.filters = append(d.filters, d.memo.filters...)
		todo, local = todo[len(d.localFilters()):], len(d.memo.filters)
	}
	defer func() { d.rest = d.filters[local:] }()
	for _, plugin := range todo {
		if plugin.PreFilter == nil {
			continue
		}
		f, status := plugin.PreFilter(c)
		if status != nil {
			return nil, status
		}
		if f == nil {
			continue
		}
		d.filters = append(d.filters, f)
		narrowing, ok := f.(Narrowing)
		if !ok {
			continue
		}
		names := narrowing.Only()
		if names == nil {
			continue
		}
		nodes := make([]*Node, 0, len(names))
		for _, name := range names {
			if n := c.State.GetNode(name); n != nil && (only == nil || slices.Contains(only, n)) {
				nodes = append(nodes, n)
			}
		}
		only = nodes
		diag.NarrowedBy = append(diag.NarrowedBy, plugin.Name)
	}
	return only, nil
}

// narrow looks at the few nodes that PreFilter left.
func (d *Decider) narrow(c *Cycle, only []*Node, r *Result) {
	others := &Status{Code: Unresolvable, Plugin: r.Diagnosis.NarrowedBy[0], Reasons: []string{
		fmt.Sprintf("node(s) didn't satisfy plugin(s) %v", r.Diagnosis.NarrowedBy)}}
	for i := range d.statuses {
		d.statuses[i] = others
	}
	d.feasible = d.feasible[:0]
	for _, n := range only {
		status := d.check(c, n)
		d.statuses[n.index] = status
		if status == nil {
			d.feasible = append(d.feasible, n)
		}
	}
	r.Evaluated = len(only)
}

// parallelFrom is the number of nodes that are looked at one by one before the rest is shared among processors: starting
// them costs as much as looking at some hundred nodes.
const parallelFrom = 512

// search looks at nodes until enough are found.
func (d *Decider) search(c *Cycle, nodes []*Node, r *Result) {
	d.feasible = d.feasible[:0]
	wanted := wantedNodes(len(nodes), d.Percentage)
	start := d.next % len(nodes)
	i := 0
	for ; i < len(nodes) && i < parallelFrom && len(d.feasible) < wanted; i++ {
		n := nodes[(start+i)%len(nodes)]
		status := d.check(c, n)
		d.statuses[n.index] = status
		if status == nil {
			d.feasible = append(d.feasible, n)
		}
	}
	workers := runtime.GOMAXPROCS(0)
	for i < len(nodes) && len(d.feasible) < wanted {
		step := min(len(nodes)-i, workers*parallelFrom)
		d.inParallel(c, nodes, start+i, step, workers)
		for range step {
			n := nodes[(start+i)%len(nodes)]
			i++
			if d.statuses[n.index] == nil {
				d.feasible = append(d.feasible, n)
			}
			if len(d.feasible) == wanted {
				break
			}
		}
	}
	r.Evaluated = i
	d.next = (start + i) % len(nodes)
}

// inParallel fills the statuses of count nodes from a position on.
func (d *Decider) inParallel(c *Cycle, nodes []*Node, from, count, workers int) {
	check := func(from, to int) {
		for i := from; i < to; i++ {
			n := nodes[i%len(nodes)]
			d.statuses[n.index] = d.check(c, n)
		}
	}
	if workers == 1 || count < parallelFrom {
		check(from, from+count)
		return
	}
	var all sync.WaitGroup
	part := (count + workers - 1) / workers
	for at := 0; at < count; at += part {
		all.Go(func() { check(from+at, from+min(at+part, count)) })
	}
	all.Wait()
}

// check gives the first reason against a node. It may be called for several nodes at once.
func (d *Decider) check(c *Cycle, n *Node) *Status {
	if d.memo == nil || c.State.reserves(n.name) {
		return d.filters.CheckNominated(c.State, c.Pod, n)
	}
	if status := d.memo.check(n); status != nil {
		return status
	}
	return d.rest.Check(n)
}

// wantedNodes is how many nodes are looked for among all: all when they are few, a share of them, which is the smaller the
// more there are, when they are many.
func wantedNodes(all, percentage int) int {
	const fewest = 100
	if all < fewest {
		return all
	}
	if percentage == 0 {
		percentage = max(50-all/125, 5)
	}
	if percentage >= 100 {
		return all
	}
	return max(all*percentage/100, fewest)
}

// best scores the feasible nodes and chooses.
func (d *Decider) best(c *Cycle) (*Node, error) {
	nodes := d.feasible
	d.scores, d.totals = resize(d.scores, len(nodes)), resize(d.totals, len(nodes))
	if d.memo != nil {
		for i, n := range nodes {
			d.totals[i] = d.memo.score(n)
		}
	}
	for _, plugin := range d.Plugins {
		if plugin.PreScore == nil || d.memo != nil && plugin.LocalScore {
			continue
		}
		scorer, status := plugin.PreScore(c, nodes)
		if status != nil {
			return nil, fmt.Errorf("running PreScore plugin %q: %w", plugin.Name, errors.New(status.Message()))
		}
		if scorer == nil {
			continue
		}
		for i, n := range nodes {
			d.scores[i] = scorer.Score(n)
		}
		scorer.Normalize(nodes, d.scores)
		for i, score := range d.scores {
			d.totals[i] += score * plugin.Weight
		}
	}
	return nodes[choose(d.totals, d.Rand)], nil
}

// choose gives the position of the highest total, any one of them if there are several.
func choose(totals []int64, rand func(int) int) int {
	chosen, equal := 0, 1
	for i := 1; i < len(totals); i++ {
		switch {
		case totals[i] > totals[chosen]:
			chosen, equal = i, 1
		case totals[i] == totals[chosen]:
			equal++
		}
	}
	if equal == 1 {
		return chosen
	}
	for i, skip := chosen, rand(equal); ; i++ {
		if totals[i] == totals[chosen] {
			if skip == 0 {
				return i
			}
			skip--
		}
	}
}

func resize[T any](list []T, n int) []T {
	if cap(list) < n {
		return make([]T, n)
	}
	list = list[:n]
	clear(list)
	return list
}

func firstError(statuses []*Status) error {
	for _, s := range statuses {
		if s != nil && s.Code == Failed {
			return fmt.Errorf("running %q filter plugin: %w", s.Plugin, s.Err)
		}
	}
	return nil
}

// Filters are the filters of one decision.
type Filters []Filter

// Check gives the first reason against a node.
func (fs Filters) Check(n *Node) *Status {
	for _, f := range fs {
		if status := f.Check(n); status != nil {
			return status
		}
	}
	return nil
}

// CheckNominated is Check with regard to pods of the same or higher priority for which the node's room is reserved: the
// pod must fit beside them, and, because they may end up elsewhere, without them too.
func (fs Filters) CheckNominated(s *State, p *Pod, n *Node) *Status {
	if reserved := s.Nominated(n.name); len(reserved) > 0 {
		copied, with := n, fs
		for _, q := range reserved {
			if q.UID == p.UID || q.PodPriority < p.PodPriority {
				continue
			}
			if copied == n {
				copied, with = n.Clone(), fs.Clone()
			}
			copied.Add(q)
			with.Add(q, copied)
		}
		if copied != n {
			if status := with.Check(copied); status != nil {
				return status
			}
		}
	}
	return fs.Check(n)
}

// Clone makes filters that are adjusted independently.
func (fs Filters) Clone() Filters {
	out := slices.Clone(fs)
	for i, f := range out {
		if a, ok := f.(Adjustable); ok {
			out[i] = a.Clone()
		}
	}
	return out
}

// Add tells the filters of a pod that was added to a node in thought.
func (fs Filters) Add(p *Pod, n *Node) {
	for _, f := range fs {
		if a, ok := f.(Adjustable); ok {
			a.Add(p, n)
		}
	}
}

// Remove tells the filters of a pod that was removed from a node in thought.
func (fs Filters) Remove(p *Pod, n *Node) {
	for _, f := range fs {
		if a, ok := f.(Adjustable); ok {
			a.Remove(p, n)
		}
	}
}
