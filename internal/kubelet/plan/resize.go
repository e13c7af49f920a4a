package plan

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/proa-k8s/proa/internal/kubelet/cri"
)

// Resizing is what is known of a pod whose resources were changed after its containers were made (KEP-1287). The pod of
// the Input has the resources that are allocated to it.
type Resizing struct {
	// Actuated are the resources that containers have, or had when they ended, by ID.
	Actuated map[string]corev1.ResourceRequirements
	// Widen says that a bound of the pod's cgroup is below what is allocated, Narrow that one is above.
	Widen, Narrow bool
	// Busy says that a resize is under way; Hold is the earliest time of the next attempt after one that failed.
	Busy bool
	Hold time.Time
}

// Resize is what to do in place: the cgroup of the pod is widened first, then containers are updated in their order, then
// the cgroup is narrowed.
type Resize struct {
	Updates []Update
	// Narrow says that nothing runs any more that needs the old bounds of the pod.
	Narrow bool
}

// Update is a container that gets other resources while it runs.
type Update struct {
	ID        string
	Container *corev1.Container
	From      corev1.ResourceRequirements
}

// LessMemory reports whether the container is left with a lower bound of its memory.
func (u *Update) LessMemory() bool {
	limit, had := u.Container.Resources.Limits[corev1.ResourceMemory], u.From.Limits[corev1.ResourceMemory]
	return !limit.IsZero() && (had.IsZero() || limit.Cmp(had) < 0)
}

// resize plans what brings running containers to the resources that are allocated. It reports whether containers must not
// be started yet, because the cgroup of the pod is too narrow for them.
func (d *decider) resize() (wait bool) {
	r := d.Resizing
	if r == nil {
		return false
	}
	todo := resizes{}
	for i := range d.Pod.Spec.InitContainers {
		if c := &d.Pod.Spec.InitContainers[i]; Restartable(c) {
			d.resizeContainer(c, &todo)
		}
	}
	for i := range d.Pod.Spec.Containers {
		d.resizeContainer(&d.Pod.Spec.Containers[i], &todo)
	}
	slices.SortStableFunc(todo.updates, func(a, b Update) int {
		return cmp.Or(cmp.Compare(a.growth(corev1.ResourceMemory), b.growth(corev1.ResourceMemory)),
			cmp.Compare(a.growth(corev1.ResourceCPU), b.growth(corev1.ResourceCPU)))
	})
	d.a.Resizing = r.Busy || r.Widen || r.Narrow || len(todo.updates) > 0 || todo.restarts
	narrow := !todo.restarts && !todo.starts
	switch {
	case r.Busy:
		return true
	case len(todo.updates) == 0 && !r.Widen && !(r.Narrow && narrow):
	case d.Now.Before(r.Hold):
		d.a.wakeAt(r.Hold)
	default:
		d.a.Resize = &Resize{Updates: todo.updates, Narrow: narrow}
		return r.Widen
	}
	return false
}

// resizes is what is found to be resized.
type resizes struct {
	updates  []Update
	restarts bool // a container is being restarted for its new resources
	starts   bool // a container is being started, perhaps with what was allocated before
}

// resizeContainer adds to what is to be done for one container, or ends it when it wants to be restarted for it.
func (d *decider) resizeContainer(c *corev1.Container, todo *resizes) {
	op := d.Busy[c.Name].Kind
	if op == Starting {
		todo.starts = true
		return
	}
	last := d.current(c.Name)
	if d.restartsForResize(c, last) {
		todo.restarts = true
		return
	}
	if last == nil || last.State != cri.Running {
		return
	}
	from := d.Resizing.Actuated[last.ID]
	changed := changes(&from, &c.Resources)
	if len(changed) == 0 {
		return
	}
	for _, p := range c.ResizePolicy {
		if p.RestartPolicy == corev1.RestartContainer && slices.Contains(changed, p.ResourceName) {
			todo.restarts = true
			killToRestart(d.Input, d.a, last, graceOf(d.Pod), fmt.Sprintf("Container %s resize requires restart", c.Name))
			return
		}
	}
	if op == Killing {
		todo.restarts = true
		return
	}
	todo.updates = append(todo.updates, Update{ID: last.ID, Container: c, From: from})
}

// restartsForResize reports whether a container has ended for the sake of new resources, and is to be started with them.
func (d *decider) restartsForResize(c *corev1.Container, last *cri.Container) bool {
	if d.Resizing == nil || last == nil || last.State != cri.Exited || !d.Restarting[last.ID] {
		return false
	}
	from := d.Resizing.Actuated[last.ID]
	return len(changes(&from, &c.Resources)) > 0
}

// changes are the resources that differ.
func changes(a, b *corev1.ResourceRequirements) []corev1.ResourceName {
	var list []corev1.ResourceName
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		if !same(a.Requests, b.Requests, name) || !same(a.Limits, b.Limits, name) {
			list = append(list, name)
		}
	}
	return list
}

func same(a, b corev1.ResourceList, name corev1.ResourceName) bool {
	before, had := a[name]
	after, has := b[name]
	return had == has && before.Cmp(after) == 0
}

// growth tells by how much the bound of a resource grows, or what is asked for of it when it has no bound.
func (u *Update) growth(name corev1.ResourceName) int64 {
	after, before := u.Container.Resources.Limits[name], u.From.Limits[name]
	if after.IsZero() {
		after, before = u.Container.Resources.Requests[name], u.From.Requests[name]
	}
	return after.MilliValue() - before.MilliValue()
}
