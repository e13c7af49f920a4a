package store

import (
	"sync/atomic"
	"time"
)

// event is a change of one object, as the cache has seen it.
type event struct {
	rev       int64
	prev, cur *Object // prev is nil for a creation, cur for a deletion
	gone      atomic.Pointer[Object]
}

// last returns the state before the event with the event's revision: what a watcher gets for whom the object is gone.
// All watchers get the same one, so that it is encoded once.
func (e *event) last() *Object {
	if o := e.gone.Load(); o != nil {
		return o
	}
	o := e.prev.at(e.rev)
	if e.gone.CompareAndSwap(nil, o) {
		return o
	}
	return e.gone.Load()
}

const (
	// The window holds the events of windowAge, but not more than windowCount, nor more than windowBytes of states that
	// are not current any more (though always windowMin).
	windowAge   = 5 * time.Minute
	windowCount = 8192
	windowMin   = 128
	windowBytes = 8 << 20
)

// window holds the latest events of a cache, in their order. Those after revision from are all there.
type window struct {
	from  int64
	ring  []windowEntry // a ring: grows by doubling
	head  int           // of the oldest
	n     int
	bytes int
}

type windowEntry struct {
	*event
	at int64 // Unix seconds
}

func (w *window) add(ev *event) {
	now := time.Now().Unix()
	w.expire(now)
	for w.n >= windowCount || (w.bytes > windowBytes && w.n > windowMin) {
		w.pop()
	}
	if w.n == len(w.ring) {
		ring := make([]windowEntry, max(16, 2*len(w.ring)))
		for i := range w.n {
			ring[i] = *w.at(i)
		}
		w.ring, w.head = ring, 0
	}
	w.ring[(w.head+w.n)%len(w.ring)] = windowEntry{ev, now}
	w.n++
	w.bytes += garbage(ev)
}

// garbage is the size of what an event holds and the cache does not.
func garbage(ev *event) int {
	if ev.prev == nil {
		return 0
	}
	return len(ev.prev.value)
}

// at returns the i-th event, the oldest being 0.
func (w *window) at(i int) *windowEntry { return &w.ring[(w.head+i)%len(w.ring)] }

func (w *window) pop() {
	e := w.at(0)
	w.from = e.rev
	w.bytes -= garbage(e.event)
	*e = windowEntry{}
	w.head = (w.head + 1) % len(w.ring)
	w.n--
}

// expire drops what is too old, and the memory of a ring that got too big.
func (w *window) expire(now int64) {
	for w.n > 0 && w.at(0).at < now-int64(windowAge/time.Second) {
		w.pop()
	}
	if w.n == 0 && len(w.ring) > 64 {
		w.ring, w.head = nil, 0
	}
}

// after calls fn with every event after rev.
func (w *window) after(rev int64, fn func(*event)) {
	// Binary search: revisions rise.
	lo, hi := 0, w.n
	for lo < hi {
		mid := (lo + hi) / 2
		if w.at(mid).rev > rev {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	for i := lo; i < w.n; i++ {
		fn(w.at(i).event)
	}
}
