package client

import (
	"reflect"
	"sync"

	"k8s.io/client-go/tools/cache"
)

// notification is what a handler is to be told. The objects are decoded when it is.
type notification struct {
	kind     notificationKind
	old, now *item
	initial  bool // of an added object: it was there when the informer, or the handler, started
}

type notificationKind uint8

const (
	added notificationKind = iota
	updated
	deleted
	lost   // deleted, and nobody knows in which state
	synced // everything that was there at the start was told
)

// listener tells one handler, in order and one at a time, what happens. It is the handler's registration. As much waits for
// a slow handler as has to.
type listener struct {
	handler cache.ResourceEventHandler
	example reflect.Type
	signal  chan struct{} // holds one token when there is something in the queue
	quit    chan struct{} // closed when nothing more is to be told
	synced  chan struct{} // closed when all that was there at the start was told
	ended   chan struct{} // closed when the handler does not run any more

	mu    sync.Mutex
	queue []notification
}

func newListener(h cache.ResourceEventHandler, example reflect.Type) *listener {
	return &listener{
		handler: h, example: example, signal: make(chan struct{}, 1),
		quit: make(chan struct{}), synced: make(chan struct{}), ended: make(chan struct{}),
	}
}

// HasSynced says whether the handler was told all that was there at the start.
func (l *listener) HasSynced() bool { return cache.IsDone(l) }

// HasSyncedChecker is HasSynced to be waited for.
func (l *listener) HasSyncedChecker() cache.DoneChecker { return l }

// Name and Done make the listener its own DoneChecker.
func (l *listener) Name() string { return "handler of SharedIndexInformer " + l.example.String() }

// Done is closed when the handler was told all that was there at the start.
func (l *listener) Done() <-chan struct{} { return l.synced }

// ShutdownChan is for cache.ShutDownEventHandler: it is closed when the handler does not run any more.
func (l *listener) ShutdownChan() <-chan struct{} { return l.ended }

func (l *listener) add(n notification) {
	l.mu.Lock()
	l.queue = append(l.queue, n)
	l.mu.Unlock()
	select {
	case l.signal <- struct{}{}:
	default:
	}
}

// stop is called once, under the informer's lock.
func (l *listener) stop() { close(l.quit) }

func (l *listener) run() {
	defer close(l.ended)
	var spare []notification
	for {
		select {
		case <-l.quit:
			return
		case <-l.signal:
		}
		l.mu.Lock()
		queue := l.queue
		l.queue = spare[:0]
		l.mu.Unlock()
		for n := range queue {
			select {
			case <-l.quit:
				return
			default:
			}
			l.tell(&queue[n])
			queue[n] = notification{}
		}
		spare = queue
		if cap(spare) > 256 { // a burst that is over is not held
			spare = nil
		}
	}
}

func (l *listener) tell(n *notification) {
	switch n.kind {
	case synced:
		close(l.synced)
	case added:
		if now := n.now.object(); now != nil {
			l.handler.OnAdd(now, n.initial)
		}
	case updated:
		old, now := n.old.object(), n.now.object()
		if old != nil && now != nil {
			l.handler.OnUpdate(old, now)
		}
	case deleted:
		if old := n.old.object(); old != nil {
			l.handler.OnDelete(old)
		}
	case lost:
		if old := n.old.object(); old != nil {
			l.handler.OnDelete(cache.DeletedFinalStateUnknown{Key: n.old.key, Obj: old})
		}
	}
}
