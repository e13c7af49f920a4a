package framework

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Node is a node with the pods on it and the sums over them. Decisions only read it.
type Node struct {
	// Node is the object; it is nil while pods are known of a node that is not.
	*corev1.Node
	Allocatable Resource
	// Images maps the names of images on the node to their size in bytes.
	Images map[string]int64
	// HardTaints are the taints that keep pods off, SoftTaints those that only make the node worse.
	HardTaints, SoftTaints []corev1.Taint

	Pods      []*Pod
	Requested Resource // the sum of the pods' requests
	NonZero   Resource // the sum of what they count for in scores
	// Ports are the host ports that are taken.
	Ports []HostPort
	// WithAffinity are the pods with any term of pod affinity or anti-affinity, and WithRequiredAntiAffinity those of them
	// that keep others off.
	WithAffinity, WithRequiredAntiAffinity []*Pod

	name    string
	index   int    // position among the nodes of the state
	version uint64 // counts the changes of the node and of the pods on it
}

// Name is the node's name, which is known even when the object isn't.
func (n *Node) Name() string { return n.name }

// Index is the node's position among the nodes of the state.
func (n *Node) Index() int { return n.index }

func (n *Node) setNode(node *corev1.Node) {
	n.version++
	n.Node = node
	n.Allocatable = NewResource(node.Status.Allocatable)
	n.HardTaints, n.SoftTaints = nil, nil
	for _, t := range node.Spec.Taints {
		switch t.Effect {
		case corev1.TaintEffectNoSchedule, corev1.TaintEffectNoExecute:
			n.HardTaints = append(n.HardTaints, t)
		case corev1.TaintEffectPreferNoSchedule:
			n.SoftTaints = append(n.SoftTaints, t)
		}
	}
	n.Images = make(map[string]int64, len(node.Status.Images))
	for i := range node.Status.Images {
		for _, name := range node.Status.Images[i].Names {
			n.Images[name] = node.Status.Images[i].SizeBytes
		}
	}
}

// Add puts a pod on the node.
func (n *Node) Add(p *Pod) {
	n.version++
	n.Pods = append(n.Pods, p)
	n.Requested.Add(&p.Request, 1)
	n.NonZero.Add(&p.NonZero, 1)
	n.Ports = append(n.Ports, p.Ports...)
	if p.hasAffinity() {
		n.WithAffinity = append(n.WithAffinity, p)
	}
	if len(p.RequiredAntiAffinity) > 0 {
		n.WithRequiredAntiAffinity = append(n.WithRequiredAntiAffinity, p)
	}
}

// Remove takes a pod off the node and tells whether it was there.
func (n *Node) Remove(uid types.UID) bool {
	i := slices.IndexFunc(n.Pods, func(p *Pod) bool { return p.UID == uid })
	if i < 0 {
		return false
	}
	n.version++
	p := n.Pods[i]
	n.Pods = swapDelete(n.Pods, i)
	n.Requested.Add(&p.Request, -1)
	n.NonZero.Add(&p.NonZero, -1)
	for _, port := range p.Ports {
		if i := slices.Index(n.Ports, port); i >= 0 {
			n.Ports = swapDelete(n.Ports, i)
		}
	}
	is := func(q *Pod) bool { return q == p }
	if i := slices.IndexFunc(n.WithAffinity, is); i >= 0 {
		n.WithAffinity = swapDelete(n.WithAffinity, i)
	}
	if i := slices.IndexFunc(n.WithRequiredAntiAffinity, is); i >= 0 {
		n.WithRequiredAntiAffinity = swapDelete(n.WithRequiredAntiAffinity, i)
	}
	return true
}

// Clone is a copy to which pods can be added without a change of the original.
func (n *Node) Clone() *Node {
	out := *n
	out.Pods = slices.Clone(n.Pods)
	out.Ports = slices.Clone(n.Ports)
	out.WithAffinity = slices.Clone(n.WithAffinity)
	out.WithRequiredAntiAffinity = slices.Clone(n.WithRequiredAntiAffinity)
	out.Requested, out.NonZero = n.Requested.Clone(), n.NonZero.Clone()
	return &out
}

func (p *Pod) hasAffinity() bool {
	return len(p.RequiredAffinity)+len(p.RequiredAntiAffinity)+len(p.PreferredAffinity)+len(p.PreferredAntiAffinity) > 0
}

func swapDelete[T any](list []T, i int) []T {
	last := len(list) - 1
	list[i] = list[last]
	var zero T
	list[last] = zero
	return list[:last]
}
