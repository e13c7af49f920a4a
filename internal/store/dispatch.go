package store

import (
	"context"
	"time"
)

// watchPlace is where a watch is found: under the narrowest thing that it asks for.
type watchPlace struct {
	kind  placeKind
	field string // for byValue
	value string // the key, the field's value or the namespace
}

type placeKind uint8

const (
	byAll placeKind = iota
	byNamespace
	byObject
	byField
)

// watchSet are the watches of a cache. An event looks only at those that it can concern, so that the watches of a
// thousand nodes for their own pods cost it nothing.
type watchSet struct {
	all    map[*Watch]struct{}
	places map[watchPlace]map[*Watch]struct{}
	fields map[string]int // how many watches are found by each field
	marks  int            // how many want bookmarks
	dirty  []*Watch       // to be waked when the batch is through
}

func (c *Cache) placeOf(m *matcher) watchPlace {
	switch {
	case m.name != "" && (m.namespace != "" || !c.resource.Namespaced):
		return watchPlace{kind: byObject, value: c.key(m.namespace, m.name)}
	case len(m.exact) > 0:
		return watchPlace{kind: byField, field: m.exact[0].field, value: m.exact[0].value}
	case m.namespace != "":
		return watchPlace{kind: byNamespace, value: m.namespace}
	}
	return watchPlace{}
}

func (s *watchSet) add(w *Watch) {
	if s.all == nil {
		s.all = map[*Watch]struct{}{}
		s.places = map[watchPlace]map[*Watch]struct{}{}
		s.fields = map[string]int{}
	}
	s.all[w] = struct{}{}
	set := s.places[w.place]
	if set == nil {
		set = map[*Watch]struct{}{}
		s.places[w.place] = set
	}
	set[w] = struct{}{}
	if w.place.kind == byField {
		s.fields[w.place.field]++
	}
	if w.marks {
		s.marks++
	}
}

func (s *watchSet) remove(w *Watch) {
	if _, ok := s.all[w]; !ok {
		return
	}
	delete(s.all, w)
	set := s.places[w.place]
	if delete(set, w); len(set) == 0 {
		delete(s.places, w.place)
	}
	if w.place.kind == byField {
		if s.fields[w.place.field]--; s.fields[w.place.field] == 0 {
			delete(s.fields, w.place.field)
		}
	}
	if w.marks {
		s.marks--
	}
}

// wake tells the watchers that got events. Once for a batch: most are asleep, and waking costs more than queueing.
func (s *watchSet) wake() {
	for i, w := range s.dirty {
		w.wake()
		s.dirty[i] = nil
	}
	s.dirty = s.dirty[:0]
}

// evaluation looks at one event after another with the eyes of many watchers.
type evaluation struct {
	ev        *event
	prev, cur view
}

// seenBy says what an event is for a watcher: an object that begins to match is Added, one that ceases to is Deleted.
func (e *evaluation) seenBy(w *Watch, ev *event) (EventType, bool) {
	if e.ev != ev {
		*e = evaluation{ev: ev, prev: view{o: ev.prev}, cur: view{o: ev.cur}}
	}
	if ev.rev <= w.minRev {
		return 0, false
	}
	was := ev.prev != nil && e.matches(w, &e.prev)
	is := ev.cur != nil && e.matches(w, &e.cur)
	switch {
	case is && was:
		return Modified, true
	case is:
		return Added, true
	case was:
		return Deleted, true
	}
	return 0, false
}

func (e *evaluation) matches(w *Watch, v *view) bool {
	logged := v.err != nil
	ok, err := w.m.matches(v)
	if err != nil && !logged {
		w.cache.store.log.Error("Selecting a changed object for a watch", "err", err)
	}
	return ok
}

// dispatch queues an event for the watchers that it concerns. Under the cache's lock.
func (c *Cache) dispatch(ev *event) {
	set := &c.watches
	if len(set.all) == 0 {
		return
	}
	o := ev.cur
	if o == nil {
		o = ev.prev
	}
	eval := evaluation{ev: ev, prev: view{o: ev.prev}, cur: view{o: ev.cur}}
	c.dispatchTo(&eval, watchPlace{})
	c.dispatchTo(&eval, watchPlace{kind: byObject, value: o.Key})
	if o.Namespace != "" {
		c.dispatchTo(&eval, watchPlace{kind: byNamespace, value: o.Namespace})
	}
	for field := range set.fields {
		var was, is string
		var hadPrev, hasCur bool
		if ev.prev != nil {
			value, err := eval.prev.field(field)
			was, hadPrev = value, err == nil
		}
		if ev.cur != nil {
			value, err := eval.cur.field(field)
			is, hasCur = value, err == nil
		}
		if hadPrev {
			c.dispatchTo(&eval, watchPlace{kind: byField, field: field, value: was})
		}
		if hasCur && !(hadPrev && is == was) {
			c.dispatchTo(&eval, watchPlace{kind: byField, field: field, value: is})
		}
	}
}

func (c *Cache) dispatchTo(eval *evaluation, place watchPlace) {
	set := &c.watches
	for w := range set.places[place] {
		typ, ok := eval.seenBy(w, eval.ev)
		if !ok {
			continue
		}
		c.queue(w, eval.ev, typ)
	}
}

// queue gives an event to a watcher, and drops the watcher if it doesn't keep up.
func (c *Cache) queue(w *Watch, ev *event, typ EventType) {
	wake, ok := w.push(ev, typ)
	if !ok {
		c.watches.remove(w)
		c.terminated.Add(1)
		c.store.log.Debug("A watcher is too slow and was ended", "resource", c.resource.Prefix)
	} else if wake {
		c.watches.dirty = append(c.watches.dirty, w)
	}
}

// wantBookmarks wakes the goroutine that sends bookmarks, if it sleeps because nobody wanted any.
func (s *Store) wantBookmarks() {
	select {
	case s.bookmarks <- struct{}{}:
	default:
	}
}

// sendBookmarks sends bookmarks to those who want them, until ctx ends. As long as nobody does, it has no timer.
func (s *Store) sendBookmarks(ctx context.Context) {
	timer := time.NewTimer(s.options.BookmarkEvery)
	timer.Stop()
	defer timer.Stop()
	running := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.bookmarks:
			if !running {
				running = true
				timer.Reset(s.options.BookmarkEvery)
			}
		case <-timer.C:
			wanted := 0
			for _, c := range s.registered() {
				wanted += c.bookmark()
			}
			if running = wanted > 0; running {
				timer.Reset(s.options.BookmarkEvery)
			}
		}
	}
}

// bookmark queues a bookmark for all watchers of the cache that want one, and returns how many these are.
func (c *Cache) bookmark() int {
	fed := c.store.fed.Load()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.watches.marks == 0 || !c.filled {
		return c.watches.marks
	}
	ev := &event{rev: c.revLocked(fed)}
	for w := range c.watches.all {
		if w.marks && ev.rev >= w.minRev {
			c.queue(w, ev, Bookmark)
		}
	}
	c.watches.wake()
	return c.watches.marks
}
