package store

import (
	"context"
	"fmt"
	"sync"
)

const (
	// maxQueue is how many events may wait for a watcher before it is taken for too slow, and ended.
	maxQueue = 4096
	// initialBatch is how many initial events Next returns at a time.
	initialBatch = 512
)

// Watch is a running watch. Next is for one goroutine.
type Watch struct {
	cache  *Cache
	m      *matcher
	place  watchPlace
	minRev int64 // events up to this revision are seen already
	marks  bool  // bookmarks are wanted

	// Used by Next only.
	initial    []*Object
	initialEnd bool
	initialRev int64
	out        []Event
	spare      []queued

	signal chan struct{} // holds one token when there is something in the queue, or the watch has ended

	mu      sync.Mutex
	queue   []queued
	waked   bool // a token was sent since Next last looked
	stopped bool
}

// queued is an event as one watcher sees it.
type queued struct {
	ev  *event
	typ EventType
}

// Watch starts a watch. Objects that match from the start on come as Added events, if asked for; then every change, in
// the order of revisions.
func (c *Cache) Watch(ctx context.Context, o WatchOptions) (*Watch, error) {
	w := &Watch{
		cache: c, marks: o.Bookmarks, signal: make(chan struct{}, 1),
		m: newMatcher(c.resource.Namespaced, o.Namespace, o.Labels, o.Fields),
	}
	w.place = c.placeOf(w.m)
	state := o.InitialEvents || o.Rev == 0 // the present state is wanted
	switch {
	case state && o.Rev > 0:
		if err := c.await(ctx, o.Rev); err != nil {
			return nil, err
		}
	case state || o.Rev < 0:
		if err := c.await(ctx, -1); err != nil {
			return nil, err
		}
	default:
		if err := c.WaitReady(ctx); err != nil {
			return nil, err
		}
	}
	var err error
	if state {
		err = c.startWithState(w, o.InitialEvents)
	} else {
		err = c.startAfter(w, o.Rev)
	}
	if err != nil {
		return nil, err
	}
	if w.marks {
		c.store.wantBookmarks()
	}
	return w, nil
}

func (c *Cache) startWithState(w *Watch, end bool) error {
	c.ensureIndex(w.m)
	fed := c.store.fed.Load()
	c.mu.Lock()
	if c.isGone() {
		c.mu.Unlock()
		return ErrStopped
	}
	w.minRev = c.revLocked(fed)
	var snap *snapshot
	if candidates, ok := c.candidatesLocked(w.m); ok {
		w.initial = append(w.initial, candidates...)
	} else {
		snap = c.snapshotLocked()
	}
	c.watches.add(w)
	c.mu.Unlock()

	// The watch runs already; what happens from here on waits in its queue.
	q := &query{m: w.m, limit: int(^uint(0) >> 1)}
	var err error
	if snap != nil {
		err = q.scan(snap)
	}
	for _, o := range w.initial {
		if _, err = q.add(o); err != nil {
			break
		}
	}
	if err != nil {
		w.Stop()
		return err
	}
	w.initial, w.initialEnd, w.initialRev = q.objects, end, w.minRev
	return nil
}

func (c *Cache) startAfter(w *Watch, rev int64) error {
	fed := c.store.fed.Load()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isGone() {
		return ErrStopped
	}
	if rev < 0 {
		rev = c.revLocked(fed)
	}
	w.minRev = rev
	if rev < c.window.from {
		return fmt.Errorf("watching %s from revision %d, the oldest known is %d: %w", c.resource.Prefix, rev, c.window.from, ErrExpired)
	}
	var eval evaluation
	c.window.after(rev, func(ev *event) {
		if typ, ok := eval.seenBy(w, ev); ok {
			w.queue = append(w.queue, queued{ev, typ})
		}
	})
	if len(w.queue) > 0 {
		w.waked = true
		w.signal <- struct{}{}
	}
	c.watches.add(w)
	return nil
}

// Next waits for events. The slice is valid until the next call. The error is ErrStopped when the watch has ended and
// everything before the end was returned, or that of ctx.
func (w *Watch) Next(ctx context.Context) ([]Event, error) {
	w.out = w.out[:0]
	if len(w.initial) > 0 || w.initialEnd {
		return w.nextInitial(ctx)
	}
	for {
		w.mu.Lock()
		w.waked = false
		queue, stopped := w.queue, w.stopped
		w.queue = w.spare[:0]
		w.mu.Unlock()
		if len(queue) > 0 {
			w.spare = queue
			return w.take(queue), nil
		}
		w.spare = queue
		if stopped {
			return nil, ErrStopped
		}
		select {
		case <-w.signal:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (w *Watch) nextInitial(ctx context.Context) ([]Event, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	n := min(initialBatch, len(w.initial))
	for _, o := range w.initial[:n] {
		w.out = append(w.out, Event{Added, o, o.Rev})
	}
	clear(w.initial[:n])
	w.initial = w.initial[n:]
	if len(w.initial) == 0 {
		w.initial = nil
		if w.initialEnd {
			w.initialEnd = false
			w.out = append(w.out, Event{Type: InitialEnd, Rev: w.initialRev})
		}
	}
	return w.out, nil
}

func (w *Watch) take(queue []queued) []Event {
	for _, q := range queue {
		e := Event{Type: q.typ, Rev: q.ev.rev}
		switch q.typ {
		case Deleted:
			e.Object = q.ev.last()
		case Added, Modified:
			e.Object = q.ev.cur
		}
		w.out = append(w.out, e)
	}
	clear(queue) // a burst that is over is not held
	if cap(queue) > 256 {
		w.spare = nil
	}
	return w.out
}

// Stop ends the watch. Next returns what waits, and then ErrStopped.
func (w *Watch) Stop() {
	c := w.cache
	c.mu.Lock()
	c.watches.remove(w)
	c.mu.Unlock()
	w.end()
}

func (w *Watch) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	w.wakeLocked()
}

// push adds an event to the queue, and says whether the watcher has to be waked. A watcher that does not keep up is
// ended.
func (w *Watch) push(ev *event, typ EventType) (wake, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		return false, true
	}
	if len(w.queue) >= maxQueue {
		w.stopped = true
		w.wakeLocked()
		return false, false
	}
	w.queue = append(w.queue, queued{ev, typ})
	wake = !w.waked
	w.waked = true
	return wake, true
}

func (w *Watch) wakeLocked() {
	w.waked = true
	w.wake()
}

func (w *Watch) wake() {
	select {
	case w.signal <- struct{}{}:
	default:
	}
}
