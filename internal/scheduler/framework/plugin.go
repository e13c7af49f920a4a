package framework

import (
	"context"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Code classifies why a pod can't be where it was looked at.
type Code int8

// The codes of a status.
const (
	// Failed is an error: nothing is known.
	Failed Code = iota
	// Unschedulable may be mended by taking other pods away.
	Unschedulable
	// Unresolvable is not mended by taking other pods away.
	Unresolvable
	// Gated pods wait for somebody else.
	Gated
)

// Status says why not. A nil status means that nothing is in the way. Statuses are shared and never changed.
type Status struct {
	Code    Code
	Plugin  string
	Reasons []string
	Err     error // with Failed
}

// Message joins the reasons.
func (s *Status) Message() string {
	if s.Err != nil {
		return s.Err.Error()
	}
	return strings.Join(s.Reasons, ", ")
}

// Plugin is one rule of scheduling. It has a part in those extension points whose functions are set. The names of plugins
// and of extension points are those of KEP-624.
type Plugin struct {
	Name string
	// Weight multiplies the plugin's scores.
	Weight int64

	// PreEnqueue tells whether a pod may be looked at all.
	PreEnqueue func(*corev1.Pod) *Status
	// PreFilter prepares the plugin's filter for one pod. A nil filter lets all nodes pass; a status ends the decision.
	PreFilter func(*Cycle) (Filter, *Status)
	// PreScore prepares the scores of the nodes that passed. A nil scorer has no opinion.
	PreScore func(c *Cycle, feasible []*Node) (Scorer, *Status)
	// Reserve takes what the pod needs beside the node's resources, in memory only. A nil reservation needs no more.
	Reserve func(*Cycle, *Node) (Reservation, *Status)

	// LocalFilter says that what the filter answers about a node depends on that node, and on what memo.go calls the shape of
	// the pod, alone; LocalScore says the same of the scores, which need no Normalize either. PreScore is then called
	// without nodes. Such answers are remembered until the node changes, and hold for all pods of the shape.
	LocalFilter, LocalScore bool

	// Events are the kinds of events after which a pod that failed by this plugin may succeed.
	Events EventKind
	// Hint looks closer at such an event; nil lets all pass. It must not say no to an event that helps.
	Hint func(*Pod, *Event) bool
}

// Filter decides about nodes for one pod. Check may be called from several goroutines at once, and allocates nothing when
// the node passes.
type Filter interface {
	Check(*Node) *Status
}

// Adjustable is a filter whose answers depend on pods of other nodes too, and which can be told of pods that are added or
// removed in thought. All others read what they need from the node.
type Adjustable interface {
	Filter
	// Clone makes a filter that is adjusted independently.
	Clone() Adjustable
	Add(*Pod, *Node)
	Remove(*Pod, *Node)
}

// Narrowing is a filter that knows beforehand which nodes may pass.
type Narrowing interface {
	Filter
	// Only gives the names of the nodes.
	Only() []string
}

// MaxScore is the best score of a plugin, 0 the worst.
const MaxScore int64 = 100

// Scorer rates the nodes that passed. Score may be any number if Normalize brings all into the range of 0 to MaxScore.
type Scorer interface {
	Score(*Node) int64
	Normalize(nodes []*Node, scores []int64)
}

// Reservation is what a plugin has reserved for a pod that is being bound.
type Reservation interface {
	// PreBind makes the reservation real by calls of the API, before the pod is bound. It may take long.
	PreBind(ctx context.Context) error
	// Unreserve ends it, when the pod is bound or when that failed.
	Unreserve()
}

// Cycle is the surroundings of one decision.
type Cycle struct {
	State *State
	Pod   *Pod
}

// EventKind is a set of kinds of changes that may let pods be scheduled that couldn't before.
type EventKind uint32

// The kinds of events.
const (
	NodeAdded EventKind = 1 << iota
	NodeAllocatable
	NodeLabels
	NodeTaints // taints and spec.unschedulable
	NodeRemoved
	PodAssigned  // a pod was seen on a node for the first time
	PodLabels    // of a pod on a node
	PodScaled    // a pod on a node takes less
	PodRemoved   // a pod left its node, or a reservation ended
	PodChanged   // the waiting pod itself
	NamespaceSet // labels of a namespace
	VolumeEvent  // volumes, claims, classes and drivers
	// AnyEvent helps pods that failed for want of nodes.
	AnyEvent EventKind = 1<<iota - 1
)

// Event is a change.
type Event struct {
	Kind          EventKind
	OldNode, Node *corev1.Node // with the kinds of nodes; OldNode is nil with NodeAdded
	OldPod, Pod   *Pod         // with the kinds of pods
}
