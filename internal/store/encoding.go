package store

import (
	"sync"
	"sync/atomic"
	"time"
)

// EncodingKey tells the encodings of one object apart.
type EncodingKey struct {
	Version string // in which the object is encoded: "apps/v1"
	Form    string // "json", "watch-modified-json"
}

// encodings are those of one object that were asked for lately.
type encodings struct {
	list []*encoding   // under the object's lock
	used atomic.Uint32 // the round of the warmer in which one was last asked for
}

type encoding struct {
	key  EncodingKey
	once sync.Once
	made atomic.Bool
	data []byte
	err  error
}

// making says whether an encoding is being made, so that its size is not known yet.
func (s *encodings) making() bool {
	for _, e := range s.list {
		if !e.made.Load() {
			return true
		}
	}
	return false
}

// Encoding returns the object's encoding of that name, which make makes if there is none: once, however many ask at a
// time. It is kept for some seconds after the last use, as long as there is room, and shared: nobody may change it.
func (o *Object) Encoding(key EncodingKey, make func() ([]byte, error)) ([]byte, error) {
	w := &o.cache.store.warm
	o.mu.Lock()
	set := o.encodings
	if set == nil {
		if w.full() {
			o.mu.Unlock()
			return make()
		}
		set = &encodings{}
		o.encodings = set
		set.used.Store(w.round.Load())
		w.add(o)
	} else if r := w.round.Load(); set.used.Load() != r {
		set.used.Store(r)
	}
	var e *encoding
	for _, have := range set.list {
		if have.key == key {
			e = have
			break
		}
	}
	if e == nil {
		e = &encoding{key: key}
		set.list = append(set.list, e)
	}
	o.mu.Unlock()

	e.once.Do(func() {
		e.data, e.err = make()
		w.size.Add(int64(len(e.data)))
		e.made.Store(true)
	})
	return e.data, e.err
}

const (
	// coolAfter is how long an encoding is kept at least after its last use; at most twice as long.
	coolAfter = 3 * time.Second
	// maxWarm is how many bytes of encodings are kept at most: a list of 30,000 pods of 6 KB in JSON, and some more. What does
	// not fit is decoded and encoded at every list.
	maxWarm = 224 << 20
)

// warmer knows the objects that hold encodings, and makes them drop what has got cold. Its timer runs only while there
// are any.
type warmer struct {
	size  atomic.Int64 // bytes of encodings held, about
	round atomic.Uint32

	mu      sync.Mutex
	objects []*Object
	timer   *time.Timer
	closed  bool
}

func (w *warmer) full() bool { return w.size.Load() >= maxWarm }

// add is called under the lock of o, and so never the other way round: cool takes no object's lock under its own.
func (w *warmer) add(o *Object) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	w.objects = append(w.objects, o)
	if w.timer == nil {
		w.timer = time.AfterFunc(coolAfter, w.cool)
	}
}

func (w *warmer) cool() {
	w.mu.Lock()
	objects := w.objects
	w.objects = nil
	w.mu.Unlock()

	last := w.round.Add(1) - 1
	warm := objects[:0]
	for _, o := range objects {
		o.mu.Lock()
		if set := o.encodings; set.used.Load() >= last || set.making() {
			warm = append(warm, o)
		} else {
			for _, e := range set.list {
				w.size.Add(-int64(len(e.data)))
			}
			o.encodings = nil
		}
		o.mu.Unlock()
	}
	clear(objects[len(warm):])

	w.mu.Lock()
	defer w.mu.Unlock()
	w.objects = append(warm, w.objects...)
	if len(w.objects) == 0 {
		w.objects = nil
	}
	w.timer = nil
	if len(w.objects) > 0 && !w.closed {
		w.timer = time.AfterFunc(coolAfter, w.cool)
	}
}

func (w *warmer) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	if w.timer != nil {
		w.timer.Stop()
	}
}
