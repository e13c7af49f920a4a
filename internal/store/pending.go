package store

import (
	"bytes"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
)

// pending are the writes of this process that the feed has not delivered yet. The feed takes their objects from here, so
// that what was encoded in this process is not decoded again by it.
type pending struct {
	mu    sync.Mutex
	byKey map[string][]*handover
}

// handover is one write on its way to etcd and back.
type handover struct {
	cache *Cache
	key   string
	value []byte
	obj   runtime.Object

	// object is made when the revision is known, by the feed or by the writer, whoever is first. Under pending.mu.
	object *Object
}

// at returns the written object at its revision.
func (h *handover) at(rev int64) *Object {
	if h.object == nil {
		h.object = newObject(h.cache, h.key, h.value, rev)
		if err := h.object.adopt(h.obj); err != nil {
			h.cache.store.log.Error("Taking over a written object", "key", h.cache.prefix+h.key, "err", err)
		}
		h.obj = nil
	}
	return h.object
}

func (p *pending) add(h *handover) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.byKey == nil {
		p.byKey = map[string][]*handover{}
	}
	p.byKey[h.key] = append(p.byKey[h.key], h)
}

// take finds the write that the feed delivers, and returns its object; nil if it is not of this process.
func (p *pending) take(key string, value []byte, rev int64) *Object {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, h := range p.byKey[key] {
		if bytes.Equal(h.value, value) && (h.object == nil || h.object.Rev == rev) {
			p.removeLocked(h)
			return h.at(rev)
		}
	}
	return nil
}

// done is for the writer, when the write is acknowledged. The handover waits for the feed if that is behind.
func (p *pending) done(h *handover, rev int64) *Object {
	p.mu.Lock()
	defer p.mu.Unlock()
	if h.object != nil && h.object.Rev != rev { // the very same bytes were written by somebody else before
		h.object = nil
		return newObject(h.cache, h.key, h.value, rev)
	}
	return h.at(rev)
}

// drop forgets a write that the cache has seen in another way.
func (p *pending) drop(key string, value []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, h := range p.byKey[key] {
		if bytes.Equal(h.value, value) {
			p.removeLocked(h)
			return
		}
	}
}

// remove forgets a write that failed.
func (p *pending) remove(h *handover) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.removeLocked(h)
}

func (p *pending) removeLocked(h *handover) {
	list := slices.DeleteFunc(p.byKey[h.key], func(x *handover) bool { return x == h })
	if len(list) == 0 {
		delete(p.byKey, h.key)
	} else {
		p.byKey[h.key] = list
	}
}

func (p *pending) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.byKey = nil
}
