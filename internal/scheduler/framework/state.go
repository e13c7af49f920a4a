package framework

import (
	"iter"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/component-helpers/node/topology"
)

// State is what is known of all nodes and of the pods on them. It belongs to one goroutine.
type State struct {
	nodes map[string]*Node
	list  []*Node // with an object, zone by zone in turn; nil when it must be made anew
	// listed counts how often list was made: positions in it hold until the next time.
	listed uint64
	pods   map[types.UID]*placed
	// byNamespace are the same pods: what a pod attracts or avoids is mostly in its own namespace.
	byNamespace map[string]map[types.UID]*placed

	withAffinity, withRequiredAntiAffinity sets.Set[*Node]
	// images counts the nodes that have an image.
	images map[string]int
	// softTainted counts the nodes with taints that only make them worse.
	softTainted int

	nominated nominations
}

// placed is where a pod is.
type placed struct {
	pod     *Pod
	node    *Node
	assumed bool // it is being bound, and not observed on the node yet
}

// NewState returns an empty state.
func NewState() *State {
	return &State{
		nodes: map[string]*Node{}, pods: map[types.UID]*placed{}, byNamespace: map[string]map[types.UID]*placed{}, images: map[string]int{},
		withAffinity: sets.New[*Node](), withRequiredAntiAffinity: sets.New[*Node](),
		nominated: nominations{byNode: map[string][]*Pod{}, nodeOf: map[types.UID]string{}},
	}
}

// Nodes are the nodes that exist, zone by zone in turn so that a part of the list is spread over zones. The slice must not
// be changed, and is valid until the next node is set or removed.
func (s *State) Nodes() []*Node {
	if s.list == nil {
		s.list = s.inTurn()
		s.listed++
		for i, n := range s.list {
			n.index = i
		}
	}
	return s.list
}

func (s *State) inTurn() []*Node {
	var order []string
	zones := map[string][]*Node{}
	for _, n := range s.nodes {
		if n.Node == nil {
			continue
		}
		z := topology.GetZoneKey(n.Node)
		if zones[z] == nil {
			order = append(order, z)
		}
		zones[z] = append(zones[z], n)
	}
	slices.Sort(order)
	list := make([]*Node, 0, len(s.nodes))
	for _, z := range order {
		slices.SortFunc(zones[z], func(a, b *Node) int { return strings.Compare(a.name, b.name) })
	}
	for i := 0; len(list) < cap(list); i++ {
		before := len(list)
		for _, z := range order {
			if i < len(zones[z]) {
				list = append(list, zones[z][i])
			}
		}
		if len(list) == before {
			break // the rest has no object
		}
	}
	return list
}

// GetNode finds a node that exists.
func (s *State) GetNode(name string) *Node {
	if n := s.nodes[name]; n != nil && n.Node != nil {
		return n
	}
	return nil
}

// SetNode takes a node as it is now and returns the object that it was before, nil if there was none.
func (s *State) SetNode(obj *corev1.Node) (old *corev1.Node) {
	n := s.node(obj.Name)
	old = n.Node
	if old == nil || topology.GetZoneKey(old) != topology.GetZoneKey(obj) {
		s.list = nil
	}
	s.count(n, -1)
	n.setNode(obj)
	s.count(n, 1)
	return old
}

// RemoveNode forgets a node. The pods that are known to be on it stay known, until they are removed.
func (s *State) RemoveNode(name string) {
	n := s.nodes[name]
	if n == nil || n.Node == nil {
		return
	}
	s.list = nil
	s.count(n, -1)
	n.Node, n.Images, n.HardTaints, n.SoftTaints, n.Allocatable = nil, nil, nil, nil, Resource{}
	s.dropEmpty(n)
}

func (s *State) node(name string) *Node {
	n := s.nodes[name]
	if n == nil {
		n = &Node{name: name}
		s.nodes[name] = n
	}
	return n
}

func (s *State) dropEmpty(n *Node) {
	if n.Node == nil && len(n.Pods) == 0 {
		delete(s.nodes, n.name)
	}
}

// count keeps the numbers of nodes that have something.
func (s *State) count(n *Node, by int) {
	if len(n.SoftTaints) > 0 {
		s.softTainted += by
	}
	for name := range n.Images {
		if s.images[name] += by; s.images[name] == 0 {
			delete(s.images, name)
		}
	}
}

// NodesWithImage is the number of nodes that have an image.
func (s *State) NodesWithImage(name string) int { return s.images[name] }

// SoftTaints tells whether any node has taints that only make it worse.
func (s *State) SoftTaints() bool { return s.softTainted > 0 }

// Assume puts a pod on a node to which it will be bound.
func (s *State) Assume(p *Pod, node string) {
	s.put(p, node, true)
}

// Observe puts a pod on the node where it was seen; what was assumed of it is replaced.
func (s *State) Observe(p *Pod, node string) {
	s.put(p, node, false)
}

func (s *State) put(p *Pod, node string, assumed bool) {
	s.Remove(p.UID)
	n := s.node(node)
	n.Add(p)
	at := &placed{pod: p, node: n, assumed: assumed}
	s.pods[p.UID] = at
	if s.byNamespace[p.Namespace] == nil {
		s.byNamespace[p.Namespace] = map[types.UID]*placed{}
	}
	s.byNamespace[p.Namespace][p.UID] = at
	s.index(n)
}

// Forget takes back an assumption, and tells whether there was one.
func (s *State) Forget(uid types.UID) bool {
	if at := s.pods[uid]; at == nil || !at.assumed {
		return false
	}
	s.Remove(uid)
	return true
}

// Remove removes a pod and returns it, nil if it wasn't there.
func (s *State) Remove(uid types.UID) *Pod {
	at := s.pods[uid]
	if at == nil {
		return nil
	}
	delete(s.pods, uid)
	if ns := s.byNamespace[at.pod.Namespace]; len(ns) == 1 {
		delete(s.byNamespace, at.pod.Namespace)
	} else {
		delete(ns, uid)
	}
	at.node.Remove(uid)
	s.index(at.node)
	s.dropEmpty(at.node)
	return at.pod
}

// Find tells where a pod is; the pod is nil if it is nowhere.
func (s *State) Find(uid types.UID) (p *Pod, node string, assumed bool) {
	at := s.pods[uid]
	if at == nil {
		return nil, "", false
	}
	return at.pod, at.node.name, at.assumed
}

// PodsIn gives the pods of a namespace with their nodes, those of nodes that don't exist left out.
func (s *State) PodsIn(namespace string) iter.Seq2[*Pod, *Node] {
	return existing(s.byNamespace[namespace])
}

// AllPods gives all pods with their nodes, those of nodes that don't exist left out.
func (s *State) AllPods() iter.Seq2[*Pod, *Node] { return existing(s.pods) }

func existing(pods map[types.UID]*placed) iter.Seq2[*Pod, *Node] {
	return func(yield func(*Pod, *Node) bool) {
		for _, at := range pods {
			if at.node.Node != nil && !yield(at.pod, at.node) {
				return
			}
		}
	}
}

func (s *State) index(n *Node) {
	set := func(all sets.Set[*Node], in bool) {
		if in {
			all.Insert(n)
		} else {
			all.Delete(n)
		}
	}
	set(s.withAffinity, len(n.WithAffinity) > 0)
	set(s.withRequiredAntiAffinity, len(n.WithRequiredAntiAffinity) > 0)
}

// WithAffinity are the nodes with pods that have terms of pod affinity or anti-affinity.
func (s *State) WithAffinity() sets.Set[*Node] { return s.withAffinity }

// WithRequiredAntiAffinity are the nodes with pods that keep others off.
func (s *State) WithRequiredAntiAffinity() sets.Set[*Node] { return s.withRequiredAntiAffinity }

// nominations are the pods that wait for a node on which room is being made.
type nominations struct {
	byNode map[string][]*Pod
	nodeOf map[types.UID]string
}

// Nominate reserves a node's room for a pod against pods of lower priority; without a node it ends the reservation.
func (s *State) Nominate(p *Pod, node string) {
	s.Unnominate(p.UID)
	if node != "" {
		s.nominated.byNode[node] = append(s.nominated.byNode[node], p)
		s.nominated.nodeOf[p.UID] = node
	}
}

// Unnominate ends a reservation.
func (s *State) Unnominate(uid types.UID) {
	node, ok := s.nominated.nodeOf[uid]
	if !ok {
		return
	}
	delete(s.nominated.nodeOf, uid)
	list := slices.DeleteFunc(s.nominated.byNode[node], func(p *Pod) bool { return p.UID == uid })
	if len(list) == 0 {
		delete(s.nominated.byNode, node)
	} else {
		s.nominated.byNode[node] = list
	}
}

// reserves tells whether room on the node is reserved for any pod.
func (s *State) reserves(node string) bool {
	return len(s.nominated.byNode) > 0 && len(s.nominated.byNode[node]) > 0
}

// Nominated are the pods for which room on the node is reserved.
func (s *State) Nominated(node string) []*Pod { return s.nominated.byNode[node] }

// NominatedNode is the node on which room is reserved for a pod.
func (s *State) NominatedNode(uid types.UID) string { return s.nominated.nodeOf[uid] }
