package nodelifecycle

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// The rates at which nodes of a zone are given up, in seconds per node, and when a zone counts as large.
const (
	usualInterval     = 10 * time.Second
	disruptedInterval = 100 * time.Second
	largeZone         = 50
	unhealthyShare    = 0.55
)

// zones counts nodes by zone, and lets so many nodes of a zone in a time have the taint that evicts their pods. It keeps
// numbers up to date rather than counting: in a large cluster many nodes may fall silent at once.
type zones struct {
	nodes map[string]member
	zones map[string]*zoneState
	ready int // in all zones
}

// member is what is counted of a node.
type member struct {
	zone  string
	ready bool
}

// zoneState is the state of one zone.
type zoneState struct {
	ready, unready int
	last           time.Time // when the last node was given up
	granted        string    // which one that was: its taint may not be written yet
	// line are the nodes that wait for their turn, the next one first. Those that waiting doesn't have any more have left it.
	line    []string
	waiting map[string]bool
}

func newZones() *zones {
	return &zones{nodes: map[string]member{}, zones: map[string]*zoneState{}}
}

// zone is the failure domain of a node.
func zone(n *corev1.Node) string {
	return n.Labels[corev1.LabelTopologyRegion] + ":" + n.Labels[corev1.LabelTopologyZone]
}

// pace says how fast the pods of a zone may be evicted: every interval one node; never if ok is false, because most of a small
// zone, or all of the cluster, is not ready, and the fault more likely lies between the nodes and the control plane.
func pace(ready, unready int, anyReady bool) (interval time.Duration, ok bool) {
	switch {
	case !anyReady:
		return 0, false
	case ready > 0 && unready > 2 && float64(unready)/float64(ready+unready) >= unhealthyShare:
		return disruptedInterval, ready+unready > largeZone
	}
	return usualInterval, true
}

// set takes a node as it is now, nil if it is gone. It returns the names of the nodes that aren't ready and may be treated
// differently from now on: those of a zone whose pace changed, all when the first node has become ready or the last unready.
func (z *zones) set(name string, n *corev1.Node) (affected []string) {
	before, had := z.nodes[name]
	var now member
	if n != nil {
		now = member{zone(n), readiness(n) == corev1.ConditionTrue}
	}
	if had && n != nil && before == now {
		return nil
	}
	type rate struct {
		interval time.Duration
		ok       bool
	}
	paceOf := func(name string) rate {
		s := z.zones[name]
		if s == nil {
			return rate{}
		}
		interval, ok := pace(s.ready, s.unready, z.ready > 0)
		return rate{interval, ok}
	}
	anyReady, old, next := z.ready > 0, paceOf(before.zone), paceOf(now.zone)
	if had && before.zone != now.zone {
		old := z.zones[before.zone]
		old.leave(name)
		if next := old.first(); next != "" {
			affected = append(affected, next)
		}
	}
	if had {
		z.count(before, -1)
		delete(z.nodes, name)
	}
	if n != nil {
		z.nodes[name] = now
		z.count(now, 1)
	}
	all := anyReady != (z.ready > 0)
	left, entered := had && old != paceOf(before.zone), n != nil && next != paceOf(now.zone)
	if !all && !left && !entered {
		return affected
	}
	for other, m := range z.nodes {
		if !m.ready && (all || left && m.zone == before.zone || entered && m.zone == now.zone) {
			affected = append(affected, other)
		}
	}
	return affected
}

func (z *zones) count(m member, by int) {
	s := z.zones[m.zone]
	if s == nil {
		s = &zoneState{waiting: map[string]bool{}}
		z.zones[m.zone] = s
	}
	if m.ready {
		s.ready += by
		z.ready += by
	} else {
		s.unready += by
	}
	if s.ready+s.unready == 0 {
		delete(z.zones, m.zone)
	}
}

// knows tells whether a node is counted.
func (z *zones) knows(name string) bool {
	_, ok := z.nodes[name]
	return ok
}

// anyReady tells whether any node is ready.
func (z *zones) anyReady() bool { return z.ready > 0 }

// evict tells whether a node may have its pods evicted now. If not, next is the node of its zone whose turn is the next, which
// is to ask again when wait has passed; it is empty if the zone's nodes are not given up at present.
func (z *zones) evict(name string, now time.Time) (may bool, next string, wait time.Duration) {
	s := z.zones[z.nodes[name].zone]
	if s == nil {
		return false, "", 0
	}
	interval, ok := pace(s.ready, s.unready, z.anyReady())
	if !ok {
		s.leave(name)
		return false, "", 0
	}
	if s.granted == name {
		return true, "", 0
	}
	if !s.waiting[name] {
		s.waiting[name] = true
		s.line = append(s.line, name)
	}
	if wait = s.last.Add(interval).Sub(now); wait <= 0 && s.first() == name {
		s.leave(name)
		s.last, s.granted = now, name
		return true, s.first(), interval
	}
	return false, s.first(), max(wait, 0)
}

// leave takes a node out of its zone's line, if it is there. It returns the node that is the next for that.
func (z *zones) leave(name string, now time.Time) (next string, wait time.Duration) {
	s := z.zones[z.nodes[name].zone]
	if s == nil || !s.waiting[name] && s.granted != name {
		return "", 0
	}
	if s.leave(name); s.granted == name {
		s.granted = ""
	}
	interval, ok := pace(s.ready, s.unready, z.anyReady())
	if !ok {
		return "", 0
	}
	return s.first(), max(s.last.Add(interval).Sub(now), 0)
}

func (s *zoneState) leave(name string) {
	delete(s.waiting, name)
	if len(s.waiting) == 0 {
		s.line = nil
	}
}

// first is the node whose turn is the next.
func (s *zoneState) first() string {
	for len(s.line) > 0 && !s.waiting[s.line[0]] {
		s.line = s.line[1:]
	}
	if len(s.line) == 0 {
		return ""
	}
	return s.line[0]
}
