package client

import (
	"container/list"
	"sync"
	"sync/atomic"
)

// hotBytes is how many stored bytes of objects an informer keeps decoded, which takes several times as much: all objects of a
// small cluster, and of a large one those that are used.
const hotBytes = 2 << 20

// hot keeps decoded objects alive that are used, up to hotBytes. It gives them up in the order in which they came, but
// for those that were used since they were last looked at: a second chance, which costs the reader one store.
type hot struct {
	mu    sync.Mutex
	queue list.List // of *item
	size  int
}

// heat is an item's part of hot.
type heat struct {
	state  atomic.Uint32
	pinned *pinned // under hot.mu; nil when cold
}

// pinned keeps a decoded object alive.
type pinned struct {
	obj   any
	place *list.Element
}

const (
	cold uint32 = iota
	warm        // pinned
	used        // pinned, and used since
	gone        // not the present state any more
)

// use notes that an item's object is used.
func (h *hot) use(it *item) {
	switch it.heat.state.Load() {
	case used, gone:
		return
	case warm:
		it.heat.state.CompareAndSwap(warm, used)
		return
	}
	if it.kept != nil {
		return
	}
	obj := it.object()
	if obj == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if it.heat.state.CompareAndSwap(cold, warm) {
		it.heat.pinned = &pinned{obj: obj, place: h.queue.PushBack(it)}
		h.size += it.weight()
		h.shrink()
	}
}

func (it *item) weight() int { return len(it.source.Value()) }

// shrink gives up what is too much. Every item is met at most twice.
func (h *hot) shrink() {
	for n := 2 * h.queue.Len(); h.size > hotBytes && n > 0; n-- {
		first := h.queue.Front()
		it := first.Value.(*item)
		if it.heat.state.CompareAndSwap(used, warm) {
			h.queue.MoveToBack(first)
		} else {
			h.cool(it, cold)
		}
	}
}

func (h *hot) cool(it *item, state uint32) {
	it.heat.state.Store(state)
	if it.heat.pinned != nil {
		h.queue.Remove(it.heat.pinned.place)
		it.heat.pinned = nil
		h.size -= it.weight()
	}
}

// drop gives an item up that is not the present state any more.
func (h *hot) drop(it *item) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cool(it, gone)
}
