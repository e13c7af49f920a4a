package plugins

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/proa-k8s/proa/internal/scheduler/framework"
)

const fitName = "NodeResourcesFit"

// NodeResourcesFit lets nodes pass that have what the pod asks for, and prefers those that have most left of it.
func NodeResourcesFit() *framework.Plugin {
	table := fitStatuses()
	return &framework.Plugin{
		Name:        fitName,
		Weight:      1,
		LocalFilter: true,
		LocalScore:  true,
		PreFilter: func(c *framework.Cycle) (framework.Filter, *framework.Status) {
			return &fit{request: &c.Pod.Request, statuses: table}, nil
		},
		PreScore: func(c *framework.Cycle, _ []*framework.Node) (framework.Scorer, *framework.Status) {
			pod := &c.Pod.NonZero
			return rate(func(n *framework.Node) int64 { return leastAllocated(pod, n) }), nil
		},
		Events: framework.NodeAdded | framework.NodeAllocatable | framework.PodRemoved | framework.PodScaled | framework.PodChanged,
		Hint:   fitHint,
	}
}

// fit is the filter for one pod.
type fit struct {
	request  *framework.Resource
	statuses *[2 * allShort]framework.Status
}

// What may be short, as bits, and whether the node could never have it.
const (
	shortPods = 1 << iota
	shortCPU
	shortMemory
	shortStorage
	allShort
)

// fitStatuses are the statuses for all sets of the usual resources: unresolvable ones in the second half.
func fitStatuses() *[2 * allShort]framework.Status {
	var table [2 * allShort]framework.Status
	for i := range table {
		table[i] = framework.Status{Code: framework.Unschedulable, Plugin: fitName, Reasons: shortReasons(i)}
		if i >= allShort {
			table[i].Code = framework.Unresolvable
		}
	}
	return &table
}

func shortReasons(bits int) []string {
	var reasons []string
	for bit, reason := range map[int]string{
		shortPods: "Too many pods", shortCPU: "Insufficient cpu", shortMemory: "Insufficient memory", shortStorage: "Insufficient ephemeral-storage",
	} {
		if bits&bit != 0 {
			reasons = append(reasons, reason)
		}
	}
	slices.Sort(reasons)
	return reasons
}

func (f *fit) Check(n *framework.Node) *framework.Status {
	want, have, used := f.request, &n.Allocatable, &n.Requested
	bits, never := 0, 0
	if used.Pods+1 > have.Pods {
		bits |= shortPods
	}
	short := func(bit int, want, have, used int64) {
		if want > 0 && want > have-used {
			bits |= bit
			if want > have {
				never = allShort
			}
		}
	}
	short(shortCPU, want.MilliCPU, have.MilliCPU, used.MilliCPU)
	short(shortMemory, want.Memory, have.Memory, used.Memory)
	short(shortStorage, want.EphemeralStorage, have.EphemeralStorage, used.EphemeralStorage)
	var scalars []string
	for name, v := range want.Scalar {
		if v > 0 && v > have.Scalar[name]-used.Scalar[name] {
			scalars = append(scalars, "Insufficient "+string(name))
			if v > have.Scalar[name] {
				never = allShort
			}
		}
	}
	if scalars != nil {
		slices.Sort(scalars)
		code := framework.Unschedulable
		if never != 0 {
			code = framework.Unresolvable
		}
		return &framework.Status{Code: code, Plugin: fitName, Reasons: append(shortReasons(bits), scalars...)}
	}
	if bits == 0 {
		return nil
	}
	return &f.statuses[bits|never]
}

// leastAllocated is the mean share of cpu and memory that would be left.
func leastAllocated(pod *framework.Resource, n *framework.Node) int64 {
	var sum, weights int64
	left := func(capacity, used int64) {
		if capacity == 0 {
			return
		}
		weights++
		if used <= capacity {
			sum += (capacity - used) * framework.MaxScore / capacity
		}
	}
	left(n.Allocatable.MilliCPU, n.NonZero.MilliCPU+pod.MilliCPU)
	left(n.Allocatable.Memory, n.NonZero.Memory+pod.Memory)
	if weights == 0 {
		return 0
	}
	return sum / weights
}

// fitHint: a node helps that could hold the pod were it empty; a pod that goes helps if it gives back something that is
// asked for, its place among the pods included.
func fitHint(p *framework.Pod, e *framework.Event) bool {
	switch {
	case e.Kind&(framework.NodeAdded|framework.NodeAllocatable) != 0:
		return fitsEmpty(&p.Request, e)
	case e.Kind == framework.PodScaled:
		return givesBack(&p.Request, &e.OldPod.Request, &e.Pod.Request)
	default:
		return true
	}
}

func fitsEmpty(want *framework.Resource, e *framework.Event) bool {
	have := framework.NewResource(e.Node.Status.Allocatable)
	if !within(want, &have) {
		return false
	}
	if e.OldNode == nil {
		return true
	}
	before := framework.NewResource(e.OldNode.Status.Allocatable)
	more := false
	each(want, func(name corev1.ResourceName, _ int64) { more = more || have.Get(name) > before.Get(name) })
	return more
}

func within(want, have *framework.Resource) bool {
	ok := true
	each(want, func(name corev1.ResourceName, v int64) { ok = ok && v <= have.Get(name) })
	return ok
}

func givesBack(want, before, after *framework.Resource) bool {
	gives := false
	each(want, func(name corev1.ResourceName, _ int64) { gives = gives || before.Get(name) > after.Get(name) })
	return gives
}

// each calls fn for everything that is asked for.
func each(want *framework.Resource, fn func(corev1.ResourceName, int64)) {
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage, corev1.ResourcePods} {
		if v := want.Get(name); v > 0 {
			fn(name, v)
		}
	}
	for name, v := range want.Scalar {
		if v > 0 {
			fn(name, v)
		}
	}
}
