// Package queue holds the pods that wait for a node.
//
// What flows in are pods, the outcome of attempts, and events that may let pods succeed; what flows out is the pod to be
// looked at next. A pod is in one of four places: among the active ones, ordered by priority and age; in backoff after an
// attempt that failed; waiting for an event that its failing plugins name; or gated. Nothing is locked: the queue belongs
// to the goroutine that schedules. Time is handed in.
package queue

import (
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/proa-k8s/proa/internal/scheduler/framework"
)

// How long pods wait.
const (
	InitialBackoff = time.Second
	MaxBackoff     = 10 * time.Second
	// MaxWait is how long a pod waits for an event at most: the net below hints that are wrong.
	MaxWait = 5 * time.Minute
)

// Entry is a pod in the queue, or taken from it.
type Entry struct {
	Pod *framework.Pod
	// Attempts counts how often the pod was taken from the queue.
	Attempts int
	// Since is when the pod came to the queue first.
	Since time.Time
	// Gate is why the pod may not be looked at; nil if it may.
	Gate *framework.Status

	stamp   time.Time // when it came to its place; of equal priority the oldest is first
	failing []*framework.Plugin
	failed  bool      // the last attempt ended in an error, not in a decision
	due     time.Time // when backoff ends
	in      place
	index   int // in its heap
}

type place int8

const (
	nowhere place = iota
	active
	backoff
	waiting
	gated
)

// Queue is the queue of one scheduler.
type Queue struct {
	entries map[types.UID]*Entry
	active  heap
	backoff heap // after a decision against the pod: taken early when there is nothing else to do
	errors  heap // after an error: the time is to pass
	waiting map[types.UID]*Entry
	gated   map[types.UID]*Entry
	flush   time.Time // when the first of the waiting has waited MaxWait

	preEnqueue func(*corev1.Pod) *framework.Status
}

// New makes an empty queue; preEnqueue tells which pods are gated.
func New(preEnqueue func(*corev1.Pod) *framework.Status) *Queue {
	first := func(a, b *Entry) bool {
		if a.Pod.PodPriority != b.Pod.PodPriority {
			return a.Pod.PodPriority > b.Pod.PodPriority
		}
		return a.stamp.Before(b.stamp)
	}
	due := func(a, b *Entry) bool {
		if !a.due.Equal(b.due) {
			return a.due.Before(b.due)
		}
		return first(a, b)
	}
	return &Queue{
		entries: map[types.UID]*Entry{}, waiting: map[types.UID]*Entry{}, gated: map[types.UID]*Entry{},
		active: heap{less: first}, backoff: heap{less: due}, errors: heap{less: due}, preEnqueue: preEnqueue,
	}
}

// Add takes a pod that was not known before. A gated one is returned as an entry with a Gate.
func (q *Queue) Add(p *framework.Pod, now time.Time) *Entry {
	if e := q.entries[p.UID]; e != nil {
		q.Update(p, nil, now)
		return e
	}
	e := &Entry{Pod: p, Since: now, stamp: now}
	q.enter(e)
	return e
}

// enter puts an entry among the active or the gated.
func (q *Queue) enter(e *Entry) {
	q.entries[e.Pod.UID] = e
	if e.Gate = q.preEnqueue(e.Pod.Pod); e.Gate != nil {
		e.in = gated
		q.gated[e.Pod.UID] = e
		return
	}
	e.in = active
	q.active.push(e)
}

// Update replaces a pod by what it is now; old may be nil. It tells whether the pod is in the queue.
func (q *Queue) Update(p, old *framework.Pod, now time.Time) bool {
	e := q.entries[p.UID]
	if e == nil {
		return false
	}
	if old == nil {
		old = e.Pod
	}
	e.Pod = p
	switch e.in {
	case gated:
		if q.preEnqueue(p.Pod) == nil {
			delete(q.gated, p.UID)
			e.stamp = now
			q.enter(e)
		}
	case waiting:
		if changed(old.Pod, p.Pod) && q.helps(e, &framework.Event{Kind: framework.PodChanged, OldPod: old, Pod: p}) {
			q.wake(e, now)
		}
	case active:
		q.active.fix(e.index)
	case backoff:
		q.heapOf(e).fix(e.index)
	case nowhere:
	}
	return true
}

// changed tells whether an update of a waiting pod can matter to the scheduler: its status doesn't.
func changed(old, now *corev1.Pod) bool {
	return old.Generation != now.Generation || !maps.Equal(old.Labels, now.Labels) || !maps.Equal(old.Annotations, now.Annotations)
}

// Remove drops a pod, and returns its entry, nil if it wasn't there.
func (q *Queue) Remove(uid types.UID) *Entry {
	e := q.entries[uid]
	if e != nil {
		q.leave(e)
		delete(q.entries, uid)
	}
	return e
}

// leave takes an entry from its place.
func (q *Queue) leave(e *Entry) {
	switch e.in {
	case active:
		q.active.remove(e.index)
	case backoff:
		q.heapOf(e).remove(e.index)
	case waiting:
		delete(q.waiting, e.Pod.UID)
	case gated:
		delete(q.gated, e.Pod.UID)
	case nowhere:
	}
	e.in = nowhere
}

func (q *Queue) heapOf(e *Entry) *heap {
	if e.failed {
		return &q.errors
	}
	return &q.backoff
}

// Pop takes the pod that is to be looked at next, nil if there is none. It leaves the queue: the outcome of the attempt
// brings it back.
func (q *Queue) Pop(now time.Time) *Entry {
	q.advance(now)
	e := q.active.pop()
	if e == nil {
		e = q.backoff.pop() // nobody gains by its waiting
	}
	if e == nil {
		return nil
	}
	e.in = nowhere
	delete(q.entries, e.Pod.UID)
	e.Attempts++
	return e
}

// advance moves what has waited long enough.
func (q *Queue) advance(now time.Time) {
	for _, h := range []*heap{&q.backoff, &q.errors} {
		for len(h.list) > 0 && !h.list[0].due.After(now) {
			e := h.pop()
			e.failed = false
			q.enter(e)
		}
	}
	if len(q.waiting) == 0 || now.Before(q.flush) {
		return
	}
	q.flush = now.Add(MaxWait)
	for _, e := range q.waiting {
		if until := e.stamp.Add(MaxWait); !until.After(now) {
			q.wake(e, now)
		} else if until.Before(q.flush) {
			q.flush = until
		}
	}
}

// Next is when Pop can give something although nothing happens; zero if never.
func (q *Queue) Next() time.Time {
	var next time.Time
	if len(q.errors.list) > 0 {
		next = q.errors.list[0].due
	}
	if len(q.waiting) > 0 && (next.IsZero() || q.flush.Before(next)) {
		next = q.flush
	}
	return next
}

// Wait brings back an entry that no node is good for; failing are the plugins that were in the way. Without any, every
// event may help.
func (q *Queue) Wait(e *Entry, failing []*framework.Plugin, now time.Time) {
	e.failing, e.stamp, e.in = failing, now, waiting
	if len(q.waiting) == 0 {
		q.flush = now.Add(MaxWait)
	}
	q.entries[e.Pod.UID], q.waiting[e.Pod.UID] = e, e
}

// Retry brings back an entry whose attempt ended in an error: it is tried again when the backoff is over.
func (q *Queue) Retry(e *Entry, now time.Time) {
	e.failing, e.stamp, e.failed, e.in = nil, now, true, backoff
	e.due = now.Add(backoffOf(e.Attempts))
	q.entries[e.Pod.UID] = e
	q.errors.push(e)
}

// Event wakes the waiting pods that an event may help.
func (q *Queue) Event(event *framework.Event, now time.Time) {
	for _, e := range q.waiting {
		if q.helps(e, event) {
			q.wake(e, now)
		}
	}
}

func (q *Queue) helps(e *Entry, event *framework.Event) bool {
	if len(e.failing) == 0 {
		return true
	}
	return slices.ContainsFunc(e.failing, func(p *framework.Plugin) bool {
		return p.Events&event.Kind != 0 && (p.Hint == nil || p.Hint(e.Pod, event))
	})
}

// Wake has a waiting pod tried again.
func (q *Queue) Wake(uid types.UID, now time.Time) {
	if e := q.waiting[uid]; e != nil {
		q.wake(e, now)
	}
}

// wake moves an entry from the waiting to where it is tried again.
func (q *Queue) wake(e *Entry, now time.Time) {
	q.leave(e)
	e.due = e.stamp.Add(backoffOf(e.Attempts))
	if !e.due.After(now) {
		e.stamp = now
		q.enter(e)
		return
	}
	e.in = backoff
	q.backoff.push(e)
}

// backoffOf is how long a pod is left alone after an attempt that failed.
func backoffOf(attempts int) time.Duration {
	d := InitialBackoff
	for i := 1; i < attempts && d < MaxBackoff; i++ {
		d *= 2
	}
	return min(d, MaxBackoff)
}

// Counts are the numbers of pods in the queue by place.
type Counts struct{ Active, Backoff, Unschedulable, Gated int }

// Counts counts.
func (q *Queue) Counts() Counts {
	return Counts{len(q.active.list), len(q.backoff.list) + len(q.errors.list), len(q.waiting), len(q.gated)}
}
