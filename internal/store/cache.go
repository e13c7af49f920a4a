package store

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/btree"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// Cache serves the objects of one resource: reads and watches from memory, writes to etcd.
type Cache struct {
	store    *Store
	resource Resource
	prefix   string // "/registry/pods/"
	goType   atomic.Pointer[reflect.Type]
	pending  pending
	// Changes that came from etcd, and watchers that didn't keep up, for metrics.
	events, terminated atomic.Int64
	indexing           sync.Mutex // held while an index is made; before mu

	ctx    context.Context // ends when the resource is unregistered or the store closed
	cancel context.CancelFunc
	ready  chan struct{} // closed when filled

	mu      sync.RWMutex
	filled  bool
	backlog []change // while not filled
	base    int64    // the revision that the cache was filled or compared at: older changes are in it already
	tree    *btree.BTreeG[entry]
	last    int64     // the revision of the last change, or of the filling
	shared  *snapshot // of the tree as it is; nil when nobody has asked since the last change
	kept    []*snapshot
	indexes []*index
	window  window
	watches watchSet
}

// entry is an object in the tree. The key is beside it, so that a search touches no object.
type entry struct {
	key string
	*Object
}

func entryLess(a, b entry) bool { return a.key < b.key }

func newCache(s *Store, r Resource) *Cache {
	c := &Cache{
		store: s, resource: r, prefix: root + r.Prefix + "/",
		ready: make(chan struct{}),
		tree:  btree.NewG(32, entryLess),
	}
	c.ctx, c.cancel = context.WithCancel(s.ctx)
	return c
}

// close ends the filling and all watches.
func (c *Cache) close() {
	c.cancel()
	c.mu.Lock()
	defer c.mu.Unlock()
	for w := range c.watches.all {
		w.end()
	}
	c.watches = watchSet{}
}

// isGoType says whether t is the type that all objects of this cache decode to. The first one decides.
func (c *Cache) isGoType(t reflect.Type) bool {
	if have := c.goType.Load(); have != nil {
		return *have == t
	}
	return c.goType.CompareAndSwap(nil, &t) || *c.goType.Load() == t
}

// WaitReady waits until the cache is filled.
func (c *Cache) WaitReady(ctx context.Context) error {
	select {
	case <-c.ready:
		return nil
	default:
	}
	select {
	case <-c.ready:
		return nil
	case <-c.ctx.Done():
		return ErrStopped
	case <-ctx.Done():
		return fmt.Errorf("%w: %s: %w", ErrNotReady, c.resource.Prefix, ctx.Err())
	}
}

// Ready says whether the cache is filled.
func (c *Cache) Ready() bool {
	select {
	case <-c.ready:
		return true
	default:
		return false
	}
}

// fill reads the cache from etcd, until it succeeds or ctx ends. The feed runs already: what it delivers meanwhile waits
// in the backlog.
func (c *Cache) fill(ctx context.Context) {
	for ctx.Err() == nil {
		tree := btree.NewG(32, entryLess)
		rev, err := c.store.readAll(ctx, c, 0, func(kv *mvccpb.KeyValue) {
			o := c.take(string(kv.Key[len(c.prefix):]), kv.Value, kv.ModRevision)
			tree.ReplaceOrInsert(entry{o.Key, o})
		})
		if err == nil {
			c.finishFill(tree, rev)
			return
		}
		if ctx.Err() == nil {
			c.store.log.Warn("Filling the cache failed, and is tried again", "resource", c.resource.Prefix, "err", err)
			sleep(ctx, 200*time.Millisecond)
		}
	}
}

func (c *Cache) finishFill(tree *btree.BTreeG[entry], rev int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tree, c.base, c.last, c.filled = tree, rev, rev, true
	c.window.from = rev
	backlog := c.backlog
	c.backlog = nil
	c.applyLocked(backlog)
	close(c.ready)
}

// apply takes changes of etcd into the cache and tells the watchers.
func (c *Cache) apply(batch []change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.filled {
		c.backlog = append(c.backlog, batch...)
		return
	}
	c.applyLocked(batch)
}

func (c *Cache) applyLocked(batch []change) {
	for _, ch := range batch {
		if ch.rev <= c.base {
			c.pending.drop(ch.key, ch.value)
			continue
		}
		c.applyOne(ch)
	}
	c.watches.wake()
}

func (c *Cache) applyOne(ch change) {
	var prev, cur *Object
	if ch.value != nil {
		cur = c.take(ch.key, ch.value, ch.rev)
	}
	c.changed(ch.rev)
	if cur == nil {
		old, ok := c.tree.Delete(entry{key: ch.key})
		if !ok {
			return
		}
		prev = old.Object
	} else if old, ok := c.tree.ReplaceOrInsert(entry{cur.Key, cur}); ok {
		prev = old.Object
	}
	for _, ix := range c.indexes {
		ix.replace(prev, cur)
	}
	ev := &event{rev: ch.rev, prev: prev, cur: cur}
	c.window.add(ev)
	c.dispatch(ev)
	c.events.Add(1)
}

// take makes an object of what etcd delivers, or takes the one that a writer of this process has made.
func (c *Cache) take(key string, value []byte, rev int64) *Object {
	if o := c.pending.take(key, value, rev); o != nil {
		return o
	}
	return newObject(c, key, value, rev)
}

// changed notes that the tree is about to become that of another revision.
func (c *Cache) changed(rev int64) {
	if c.shared != nil {
		c.shared.until = rev
		c.shared = nil
	}
	c.last = rev
}

// resync compares the cache with what is stored at a revision, and applies the differences as if they had been
// delivered. An object that was deleted and created again meanwhile is both, so that nobody takes it for the old one.
func (c *Cache) resync(ctx context.Context, rev int64) error {
	if err := c.WaitReady(ctx); err != nil {
		if c.isGone() {
			return nil
		}
		return err
	}
	stored := map[string]bool{}
	var batch []change
	snap := c.snapshot()
	rev, err := c.store.readAll(ctx, c, rev, func(kv *mvccpb.KeyValue) {
		key := string(kv.Key[len(c.prefix):])
		stored[key] = true
		old, ok := snap.tree.Get(entry{key: key})
		if ok && old.Rev >= kv.ModRevision {
			return
		}
		if ok && kv.CreateRevision > old.Rev {
			batch = append(batch, change{key: key, rev: kv.CreateRevision})
		}
		batch = append(batch, change{key: key, value: kv.Value, rev: kv.ModRevision})
	})
	if err != nil {
		return err
	}
	snap.tree.Ascend(func(e entry) bool {
		if !stored[e.key] {
			batch = append(batch, change{key: e.key, rev: rev})
		}
		return true
	})
	slices.SortStableFunc(batch, func(a, b change) int { return int(a.rev - b.rev) })
	c.pending.clear()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.applyLocked(batch)
	c.base = max(c.base, rev)
	return nil
}

// Get returns an object from a state at least as new as minRev; -1: as new as the store, 0: any.
func (c *Cache) Get(ctx context.Context, namespace, name string, minRev int64) (*Object, error) {
	if err := c.await(ctx, minRev); err != nil {
		return nil, err
	}
	key := c.key(namespace, name)
	c.mu.RLock()
	e, ok := c.tree.Get(entry{key: key})
	c.mu.RUnlock()
	if !ok {
		return nil, fmt.Errorf("%s %s: %w", c.resource.Prefix, key, ErrNotFound)
	}
	return e.Object, nil
}

// await waits until the cache may answer a request that wants a state as new as rev.
func (c *Cache) await(ctx context.Context, rev int64) error {
	if err := c.WaitReady(ctx); err != nil {
		return err
	}
	switch {
	case rev == 0:
		return nil
	case rev < 0:
		return c.store.waitLatest(ctx)
	default:
		return c.store.waitFed(ctx, rev, futureTimeout)
	}
}

func (c *Cache) key(namespace, name string) string {
	if c.resource.Namespaced {
		return namespace + "/" + name
	}
	return name
}

// revLocked is the revision of the state that the cache is in. fed was read before the lock was taken.
func (c *Cache) revLocked(fed int64) int64 { return max(fed, c.last) }

// Len is the number of objects.
func (c *Cache) Len() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.tree.Len()
}

// isGone says whether the cache's resource was unregistered or the store closed.
func (c *Cache) isGone() bool { return c.ctx.Err() != nil }
