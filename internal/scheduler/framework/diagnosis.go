package framework

import (
	"fmt"
	"slices"
	"strings"
)

// Diagnosis says why there is no node for a pod.
type Diagnosis struct {
	// NoNodes: the cluster has none.
	NoNodes bool
	// PreFilter ended the decision before any node was looked at; nil if it didn't.
	PreFilter *Status
	// PostFilter is what became of the attempt to make room, in words.
	PostFilter string
	// Nodes are all nodes and Statuses, in the same order, what was said about them.
	Nodes    []*Node
	Statuses []*Status
	// NarrowedBy are the plugins that limited the nodes beforehand.
	NarrowedBy []string
	// Filters are those that the statuses are from.
	Filters Filters
}

// Message words the diagnosis.
func (d *Diagnosis) Message() string {
	if d.NoNodes {
		return "no nodes available to schedule pods"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "0/%d nodes are available:", len(d.Nodes))
	if d.PreFilter != nil {
		if msg := d.PreFilter.Message(); msg != "" {
			fmt.Fprintf(&b, " %s.", msg)
		}
	} else if reasons := CountReasons(d.Statuses); reasons != "" {
		fmt.Fprintf(&b, " %s.", reasons)
	}
	if d.PostFilter != "" {
		b.WriteString(" " + d.PostFilter)
	}
	return b.String()
}

// CountReasons lists the reasons with the number of nodes that each holds for.
func CountReasons(statuses []*Status) string {
	// The same status is shared by many nodes.
	byStatus := map[*Status]int{}
	for i := 0; i < len(statuses); {
		s, from := statuses[i], i
		for i++; i < len(statuses) && statuses[i] == s; i++ { // mostly in a row
		}
		if s != nil {
			byStatus[s] += i - from
		}
	}
	counts := map[string]int{}
	for s, n := range byStatus {
		for _, reason := range s.Reasons {
			counts[reason] += n
		}
	}
	list := make([]string, 0, len(counts))
	for reason, n := range counts {
		list = append(list, fmt.Sprintf("%d %s", n, reason))
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

// Plugins are the names of the plugins that were in the way.
func (d *Diagnosis) Plugins() []string {
	if d.PreFilter != nil {
		return []string{d.PreFilter.Plugin}
	}
	out := slices.Clone(d.NarrowedBy)
	var last *Status
	for _, s := range d.Statuses {
		if s == nil || s == last {
			continue
		}
		last = s
		if !slices.Contains(out, s.Plugin) {
			out = append(out, s.Plugin)
		}
	}
	return out
}
