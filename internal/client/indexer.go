package client

import (
	"errors"
	"fmt"
	"maps"
	"strconv"
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/proa-k8s/proa/internal/store"
)

// indexer is the store of an informer: the cache's entries by key and by the values of indexes. What is asked for is
// decoded, if nobody holds it decoded.
type indexer struct {
	transform cache.TransformFunc // set before the informer starts
	revision  atomic.Int64
	hot       hot

	writing sync.Mutex // held while index functions are called, which is not done under mu
	mu      sync.RWMutex
	items   map[string]*item
	indexes map[string]*valueIndex // replaced by AddIndexers, under both locks
}

// item is one state of an object. It is immutable, but for being hot.
type item struct {
	key    string
	source *store.Object
	// kept is the object, for one that does not come from the cache as it is: transformed, or put by hand.
	kept any
	in   []*bucket
	heat heat
}

// bucket are the items that have one value in one index.
type bucket struct {
	value string
	items map[*item]struct{}
}

// valueIndex is one index.
type valueIndex struct {
	fn      cache.IndexFunc
	buckets map[string]*bucket
}

func newIndexer() *indexer {
	return &indexer{
		items: map[string]*item{},
		indexes: map[string]*valueIndex{
			cache.NamespaceIndex: {fn: cache.MetaNamespaceIndexFunc, buckets: map[string]*bucket{}},
		},
	}
}

// object gives the item's object; nil, and a word in the log, if it can't be decoded.
func (it *item) object() any {
	if it.kept != nil {
		return it.kept
	}
	obj, err := it.source.Decoded()
	if err != nil {
		klog.Background().Error(err, "Decoding an object for an informer", "key", it.key)
		return nil
	}
	return obj
}

// rev is the item's revision; 0 if it was put by hand.
func (it *item) rev() int64 {
	if it.source == nil {
		return 0
	}
	return it.source.Rev
}

// set takes an object of the cache, and returns its item and the one it replaces. There is no item if the indexer is as new.
func (x *indexer) set(o *store.Object) (now, old *item, err error) {
	x.writing.Lock()
	defer x.writing.Unlock()
	x.mu.RLock()
	old = x.items[o.Key]
	x.mu.RUnlock()
	if old != nil && old.rev() >= o.Rev {
		return nil, nil, nil
	}
	if now, err = x.itemOf(o); err != nil {
		return nil, nil, err
	}
	if old != nil {
		now.key = old.key
	}
	if err := x.put(now, old); err != nil {
		return nil, nil, err
	}
	return now, old, nil
}

// itemOf makes an item of an object of the cache.
func (x *indexer) itemOf(o *store.Object) (*item, error) {
	it := &item{key: o.Key, source: o}
	if x.transform == nil {
		return it, nil
	}
	obj, err := o.Decoded()
	if err != nil {
		return nil, err
	}
	it.kept, err = x.transform(obj.DeepCopyObject())
	return it, err
}

// last is what to tell of a deleted object: its last state, at the revision of the deletion.
func (x *indexer) last(o *store.Object, old *item) *item {
	it, err := x.itemOf(o)
	if err != nil {
		klog.Background().Error(err, "Transforming a deleted object", "key", o.Key)
		return old
	}
	return it
}

// put has now take the place of old, which is nil if there is none. The caller holds writing.
func (x *indexer) put(now, old *item) error {
	values := make(map[string][]string, len(x.indexes))
	for name, ix := range x.indexes {
		v, err := ix.valuesOf(name, now)
		if err != nil {
			return fmt.Errorf("computing the index %q of %s: %w", name, now.key, err)
		}
		values[name] = v
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if old != nil {
		x.takeOut(old)
	}
	x.items[now.key] = now
	for name, ix := range x.indexes {
		ix.insert(now, values[name])
	}
	return nil
}

// valuesOf computes an item's values. That of the namespace needs no decoding.
func (ix *valueIndex) valuesOf(name string, it *item) ([]string, error) {
	if name == cache.NamespaceIndex && it.source != nil && it.kept == nil {
		return []string{it.source.Namespace}, nil
	}
	obj := it.object()
	if obj == nil {
		return nil, errors.New("it can't be decoded")
	}
	return ix.fn(obj)
}

func (ix *valueIndex) insert(it *item, values []string) {
	for _, v := range values {
		b := ix.buckets[v]
		if b == nil {
			b = &bucket{value: v, items: map[*item]struct{}{}}
			ix.buckets[v] = b
		}
		b.items[it] = struct{}{}
		it.in = append(it.in, b)
	}
}

// takeOut removes an item. Under mu.
func (x *indexer) takeOut(it *item) {
	delete(x.items, it.key)
	for _, b := range it.in {
		delete(b.items, it)
	}
	for _, ix := range x.indexes {
		for _, b := range it.in {
			if len(b.items) == 0 && ix.buckets[b.value] == b {
				delete(ix.buckets, b.value)
			}
		}
	}
	x.hot.drop(it)
}

// remove removes the object with that key, and returns its item.
func (x *indexer) remove(key string) *item {
	x.writing.Lock()
	defer x.writing.Unlock()
	x.mu.Lock()
	defer x.mu.Unlock()
	it := x.items[key]
	if it != nil {
		x.takeOut(it)
	}
	return it
}

func (x *indexer) noteRevision(rev int64) {
	for {
		have := x.revision.Load()
		if have >= rev || x.revision.CompareAndSwap(have, rev) {
			return
		}
	}
}

// all gives the items.
func (x *indexer) all() []*item {
	x.mu.RLock()
	defer x.mu.RUnlock()
	out := make([]*item, 0, len(x.items))
	for _, it := range x.items {
		out = append(out, it)
	}
	return out
}

// in gives the items that have one of the values in an index.
func (x *indexer) in(index string, values ...string) ([]*item, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	ix := x.indexes[index]
	if ix == nil {
		return nil, fmt.Errorf("Index with name %s does not exist", index) //nolint:staticcheck // client-go's words
	}
	if len(values) == 1 {
		return ix.bucket(values[0]), nil
	}
	seen := map[*item]struct{}{}
	for _, v := range values {
		for _, it := range ix.bucket(v) {
			seen[it] = struct{}{}
		}
	}
	out := make([]*item, 0, len(seen))
	for it := range seen {
		out = append(out, it)
	}
	return out, nil
}

func (ix *valueIndex) bucket(value string) []*item {
	b := ix.buckets[value]
	if b == nil {
		return nil
	}
	out := make([]*item, 0, len(b.items))
	for it := range b.items {
		out = append(out, it)
	}
	return out
}

// few is how many objects may be asked for at a time to count as being used: whoever looks at more looks at everything.
const few = 64

// objects gives the items' objects.
func (x *indexer) objects(items []*item) []any {
	out := make([]any, 0, len(items))
	for _, it := range items {
		if obj := it.object(); obj != nil {
			out = append(out, obj)
			if len(items) <= few {
				x.hot.use(it)
			}
		}
	}
	return out
}

// Select lists the objects of an indexer that have a value in one of its indexes and labels that match. It decodes only
// those, where the indexer is of an informer of the server's caches.
func Select[T runtime.Object](all cache.Indexer, index, value string, selector labels.Selector) ([]T, error) {
	var out []T
	if own, ok := all.(*indexer); ok {
		items, err := own.in(index, value)
		if err != nil {
			return nil, err
		}
		matching := items[:0]
		for _, it := range items {
			if it.kept != nil || selector.Matches(it.source.Labels()) {
				matching = append(matching, it)
			}
		}
		for _, obj := range own.objects(matching) {
			out, err = appendMatching(out, obj, selector)
			if err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	objs, err := all.ByIndex(index, value)
	if err != nil {
		return nil, err
	}
	for _, obj := range objs {
		if out, err = appendMatching(out, obj, selector); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func appendMatching[T runtime.Object](out []T, obj any, selector labels.Selector) ([]T, error) {
	m, err := meta.Accessor(obj)
	if err != nil {
		return nil, err
	}
	if selector.Matches(labels.Set(m.GetLabels())) {
		out = append(out, obj.(T))
	}
	return out, nil
}

// What follows is cache.Indexer.

// AddIndexers adds indexes, of the objects that are there too.
func (x *indexer) AddIndexers(more cache.Indexers) error {
	x.writing.Lock()
	defer x.writing.Unlock()
	for name := range more {
		if _, there := x.indexes[name]; there {
			return fmt.Errorf("indexer conflict: %v", []string{name})
		}
	}
	indexes := maps.Clone(x.indexes)
	type values struct {
		index *valueIndex
		item  *item
		list  []string
	}
	var all []values
	for name, fn := range more {
		ix := &valueIndex{fn: fn, buckets: map[string]*bucket{}}
		indexes[name] = ix
		for _, it := range x.all() {
			v, err := ix.valuesOf(name, it)
			if err != nil {
				return fmt.Errorf("computing the index %q of %s: %w", name, it.key, err)
			}
			all = append(all, values{ix, it, v})
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, v := range all {
		v.index.insert(v.item, v.list)
	}
	x.indexes = indexes
	return nil
}

// GetIndexers gives the functions of the indexes.
func (x *indexer) GetIndexers() cache.Indexers {
	x.mu.RLock()
	defer x.mu.RUnlock()
	out := make(cache.Indexers, len(x.indexes))
	for name, ix := range x.indexes {
		out[name] = ix.fn
	}
	return out
}

// ByIndex gives the objects that have a value in an index.
func (x *indexer) ByIndex(index, value string) ([]any, error) {
	items, err := x.in(index, value)
	if err != nil {
		return nil, err
	}
	return x.objects(items), nil
}

// Index gives the objects that have a value in an index that obj has too.
func (x *indexer) Index(index string, obj any) ([]any, error) {
	fn := x.GetIndexers()[index]
	if fn == nil {
		return nil, fmt.Errorf("Index with name %s does not exist", index) //nolint:staticcheck // client-go's words
	}
	values, err := fn(obj)
	if err != nil {
		return nil, err
	}
	items, err := x.in(index, values...)
	if err != nil {
		return nil, err
	}
	return x.objects(items), nil
}

// IndexKeys gives the keys of the objects that have a value in an index.
func (x *indexer) IndexKeys(index, value string) ([]string, error) {
	items, err := x.in(index, value)
	if err != nil {
		return nil, err
	}
	keys := make([]string, len(items))
	for i, it := range items {
		keys[i] = it.key
	}
	return keys, nil
}

// ListIndexFuncValues gives all values of an index.
func (x *indexer) ListIndexFuncValues(index string) []string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	ix := x.indexes[index]
	if ix == nil {
		return nil
	}
	out := make([]string, 0, len(ix.buckets))
	for v := range ix.buckets {
		out = append(out, v)
	}
	return out
}

// List gives all objects.
func (x *indexer) List() []any { return x.objects(x.all()) }

// ListKeys gives all keys.
func (x *indexer) ListKeys() []string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	out := make([]string, 0, len(x.items))
	for key := range x.items {
		out = append(out, key)
	}
	return out
}

// Get gives the object that has obj's key.
func (x *indexer) Get(obj any) (any, bool, error) {
	key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(obj)
	if err != nil {
		return nil, false, cache.KeyError{Obj: obj, Err: err}
	}
	return x.GetByKey(key)
}

// GetByKey gives the object with that key.
func (x *indexer) GetByKey(key string) (any, bool, error) {
	x.mu.RLock()
	it := x.items[key]
	x.mu.RUnlock()
	if it == nil {
		return nil, false, nil
	}
	obj := it.object()
	if obj == nil {
		return nil, false, fmt.Errorf("%s can't be decoded", key)
	}
	x.hot.use(it)
	return obj, true, nil
}

// Add puts an object by hand. The informer's own come from the cache.
func (x *indexer) Add(obj any) error {
	key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(obj)
	if err != nil {
		return cache.KeyError{Obj: obj, Err: err}
	}
	x.writing.Lock()
	defer x.writing.Unlock()
	x.mu.RLock()
	old := x.items[key]
	x.mu.RUnlock()
	return x.put(&item{key: key, kept: obj}, old)
}

// Update is Add.
func (x *indexer) Update(obj any) error { return x.Add(obj) }

// Delete removes an object by hand.
func (x *indexer) Delete(obj any) error {
	key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(obj)
	if err != nil {
		return cache.KeyError{Obj: obj, Err: err}
	}
	x.remove(key)
	return nil
}

// Replace removes everything and puts other objects by hand.
func (x *indexer) Replace(list []any, rev string) error {
	for _, key := range x.ListKeys() {
		x.remove(key)
	}
	for _, obj := range list {
		if err := x.Add(obj); err != nil {
			return err
		}
	}
	x.Bookmark(rev)
	return nil
}

// Resync does nothing.
func (x *indexer) Resync() error { return nil }

// Bookmark notes a revision that everything was seen up to.
func (x *indexer) Bookmark(rev string) {
	if n, err := strconv.ParseInt(rev, 10, 64); err == nil {
		x.noteRevision(n)
	}
}

// LastStoreSyncResourceVersion is the revision that everything was seen up to.
func (x *indexer) LastStoreSyncResourceVersion() string {
	if rev := x.revision.Load(); rev > 0 {
		return strconv.FormatInt(rev, 10)
	}
	return ""
}
