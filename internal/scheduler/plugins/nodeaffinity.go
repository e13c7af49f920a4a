package plugins

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"github.com/proa-k8s/proa/internal/scheduler/framework"
)

const nodeAffinityName = "NodeAffinity"

// NodeAffinity lets nodes pass that match the pod's node selector and required node affinity, and prefers those that match
// the preferred one. added applies to all pods beside their own; it may be nil.
func NodeAffinity(added *corev1.NodeAffinity) *framework.Plugin {
	a := nodeAffinity{}
	if added != nil {
		if required := added.RequiredDuringSchedulingIgnoredDuringExecution; required != nil {
			a.required = nodeaffinity.NewLazyErrorNodeSelector(required)
		}
		a.preferred = added.PreferredDuringSchedulingIgnoredDuringExecution
	}
	return &framework.Plugin{
		Name:        nodeAffinityName,
		Weight:      2,
		LocalFilter: true,
		PreFilter:   a.preFilter,
		PreScore:    a.preScore,
		Events:      framework.NodeAdded | framework.NodeLabels | framework.PodChanged,
		Hint:        a.hint,
	}
}

type nodeAffinity struct {
	required  *nodeaffinity.LazyErrorNodeSelector
	preferred []corev1.PreferredSchedulingTerm
}

var (
	affinityMismatch = &framework.Status{Code: framework.Unresolvable, Plugin: nodeAffinityName, Reasons: []string{"node(s) didn't match Pod's node affinity/selector"}}
	addedMismatch    = &framework.Status{Code: framework.Unresolvable, Plugin: nodeAffinityName, Reasons: []string{"node(s) didn't match scheduler-enforced node affinity"}}
	affinityConflict = &framework.Status{Code: framework.Unresolvable, Plugin: nodeAffinityName, Reasons: []string{"pod affinity terms conflict"}}
)

func (a nodeAffinity) preFilter(c *framework.Cycle) (framework.Filter, *framework.Status) {
	spec := &c.Pod.Spec
	own := requiredNodeAffinity(spec) != nil
	if !own && len(spec.NodeSelector) == 0 && a.required == nil {
		return nil, nil
	}
	f := &affinityFilter{added: a.required, selector: spec.NodeSelector}
	if own {
		f.own = nodeaffinity.NewLazyErrorNodeSelector(requiredNodeAffinity(spec))
		names, known := namesOnly(requiredNodeAffinity(spec))
		if known && len(names) == 0 {
			return nil, affinityConflict
		}
		if known {
			f.only = sets.List(names)
		}
	}
	return f, nil
}

func requiredNodeAffinity(spec *corev1.PodSpec) *corev1.NodeSelector {
	if spec.Affinity == nil || spec.Affinity.NodeAffinity == nil {
		return nil
	}
	return spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution
}

// namesOnly gives the names of the nodes that can match when every term asks for names, as daemon sets do.
func namesOnly(s *corev1.NodeSelector) (names sets.Set[string], known bool) {
	if len(s.NodeSelectorTerms) == 0 {
		return nil, false
	}
	names = sets.New[string]()
	for i := range s.NodeSelectorTerms {
		var term sets.Set[string]
		for _, r := range s.NodeSelectorTerms[i].MatchFields {
			if r.Key != metav1.ObjectNameField || r.Operator != corev1.NodeSelectorOpIn {
				continue
			}
			if these := sets.New(r.Values...); term == nil {
				term = these
			} else {
				term = term.Intersection(these)
			}
		}
		if term == nil {
			return nil, false
		}
		names = names.Union(term)
	}
	return names, true
}

// affinityFilter is the filter for one pod.
type affinityFilter struct {
	added, own *nodeaffinity.LazyErrorNodeSelector
	selector   map[string]string
	only       []string
}

func (f *affinityFilter) Only() []string { return f.only }

func (f *affinityFilter) Check(n *framework.Node) *framework.Status {
	if f.added != nil {
		if ok, err := f.added.Match(n.Node); err != nil {
			return failed(nodeAffinityName, err)
		} else if !ok {
			return addedMismatch
		}
	}
	for k, v := range f.selector {
		if have, ok := n.Labels[k]; !ok || have != v {
			return affinityMismatch
		}
	}
	if f.own != nil {
		// A term that can't be understood matches nothing.
		if ok, _ := f.own.Match(n.Node); !ok {
			return affinityMismatch
		}
	}
	return nil
}

func (a nodeAffinity) preScore(c *framework.Cycle, _ []*framework.Node) (framework.Scorer, *framework.Status) {
	terms := a.preferred
	if af := c.Pod.Spec.Affinity; af != nil && af.NodeAffinity != nil {
		own := af.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution
		terms = append(terms[:len(terms):len(terms)], own...)
	}
	if len(terms) == 0 {
		return nil, nil
	}
	parsed, err := nodeaffinity.NewPreferredSchedulingTerms(terms)
	if err != nil {
		return nil, failed(nodeAffinityName, fmt.Errorf("parsing the preferred node affinity: %w", err))
	}
	return byMaximum{score: func(n *framework.Node) int64 { return parsed.Score(n.Node) }}, nil
}

// hint: a change of a node helps when it matches now and didn't before.
func (a nodeAffinity) hint(p *framework.Pod, e *framework.Event) bool {
	if e.Node == nil {
		return true
	}
	matches := func(n *corev1.Node) bool {
		if a.required != nil {
			if ok, err := a.required.Match(n); err != nil || !ok {
				return false
			}
		}
		ok, err := nodeaffinity.GetRequiredNodeAffinity(p.Pod).Match(n)
		return ok || err != nil
	}
	return matches(e.Node) && (e.OldNode == nil || !matches(e.OldNode))
}
