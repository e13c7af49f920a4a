package plugins

import (
	"math"

	corev1 "k8s.io/api/core/v1"

	"github.com/proa-k8s/proa/internal/scheduler/framework"
)

// spreadScorer rates nodes by how many pods are in their domains already: the fewer the better.
type spreadScorer struct {
	constraints []constraint
	all         bool // nodes without all topology keys are out of the question
	// matching are, for each constraint, the numbers of pods by value of the topology key.
	matching []map[string]int64
	// weights favour constraints with many domains, in which differences are small.
	weights []float64
}

func (t topologySpread) preScore(c *framework.Cycle, nodes []*framework.Node) (framework.Scorer, *framework.Status) {
	p := c.Pod.Pod
	list, err := t.constraints(p, corev1.ScheduleAnyway)
	if err != nil {
		return nil, failed(topologySpreadName, err)
	}
	if len(list) == 0 {
		return nil, nil
	}
	s := &spreadScorer{
		constraints: list, all: len(p.Spec.TopologySpreadConstraints) > 0 || !t.system,
		matching: make([]map[string]int64, len(list)), weights: make([]float64, len(list)),
	}
	for i := range list {
		s.matching[i] = map[string]int64{}
	}
	rated := 0
	for _, n := range nodes {
		if s.ignores(n) {
			continue
		}
		rated++
		for i := range list {
			if value, ok := n.Labels[list[i].key]; ok {
				s.matching[i][value] = 0
			}
		}
	}
	for i := range list {
		domains := len(s.matching[i])
		if list[i].key == corev1.LabelHostname {
			domains = rated
		}
		s.weights[i] = math.Log(float64(domains + 2))
	}
	which := newInclusion(p)
	for q, n := range c.State.PodsIn(p.Namespace) {
		s.count(p, q.Pod, n, &which)
	}
	return s, nil
}

func (s *spreadScorer) ignores(n *framework.Node) bool { return s.all && !hasAllKeys(n, s.constraints) }

// count counts a pod in those of its domains that nodes to be rated are in.
func (s *spreadScorer) count(p, q *corev1.Pod, n *framework.Node, which *inclusion) {
	if s.ignores(n) {
		return
	}
	for i := range s.constraints {
		c := &s.constraints[i]
		value, ok := n.Labels[c.key]
		if !ok {
			continue
		}
		if _, rated := s.matching[i][value]; rated && c.selects(p, q) && which.counts(c, n) {
			s.matching[i][value]++
		}
	}
}

// ignored marks nodes that are out of the question.
const ignored = -1

func (s *spreadScorer) Score(n *framework.Node) int64 {
	if s.ignores(n) {
		return ignored
	}
	var score float64
	for i := range s.constraints {
		if value, ok := n.Labels[s.constraints[i].key]; ok {
			score += float64(s.matching[i][value])*s.weights[i] + float64(s.constraints[i].maxSkew-1)
		}
	}
	return int64(math.Round(score))
}

func (s *spreadScorer) Normalize(_ []*framework.Node, scores []int64) {
	lowest, highest := int64(math.MaxInt64), int64(0)
	for _, v := range scores {
		if v != ignored {
			lowest, highest = min(lowest, v), max(highest, v)
		}
	}
	for i, v := range scores {
		switch {
		case v == ignored:
			scores[i] = 0
		case highest == 0:
			scores[i] = framework.MaxScore
		default:
			scores[i] = framework.MaxScore * (highest + lowest - v) / highest
		}
	}
}
