package store

import (
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// fieldValue is a field and the value that it has, or must have.
type fieldValue struct{ field, value string }

// indexedField returns the object's value of a field if an index knows it.
func (o *Object) indexedField(field string) (string, bool) {
	if list := o.indexed.Load(); list != nil {
		for i := range *list {
			if (*list)[i].field == field {
				return (*list)[i].value, true
			}
		}
	}
	return "", false
}

// index finds the objects whose field has a certain value, which otherwise means to decode all of them. (Labels need no
// index: comparing those of 30,000 objects takes a millisecond.) Indexes are made when a list first asks for a value among many objects,
// and dropped when nobody has asked for long.
type index struct {
	field string
	used  atomic.Int64 // Unix seconds

	byValue map[string][]*Object // in key order
}

const (
	indexFrom    = 256 // objects from which on an index is worth it
	maxIndexes   = 4   // of one cache
	indexIdleFor = 10 * time.Minute
)

func byKey(o *Object, key string) int { return strings.Compare(o.Key, key) }

func (ix *index) insert(o *Object, value string) {
	list := ix.byValue[value]
	i, found := slices.BinarySearchFunc(list, o.Key, byKey)
	if found {
		list[i] = o
		return
	}
	ix.byValue[value] = slices.Insert(list, i, o)
}

func (ix *index) remove(o *Object, value string) {
	list := ix.byValue[value]
	i, found := slices.BinarySearchFunc(list, o.Key, byKey)
	if !found {
		return
	}
	if len(list) == 1 {
		delete(ix.byValue, value)
		return
	}
	ix.byValue[value] = slices.Delete(list, i, i+1)
}

// replace takes an object's new state into the index. Under the cache's lock.
func (ix *index) replace(prev, cur *Object) {
	if cur != nil {
		value := ix.note(cur)
		if prev != nil {
			if old, ok := prev.indexedField(ix.field); ok && old != value {
				ix.remove(prev, old)
			}
		}
		ix.insert(cur, value)
	} else if prev != nil {
		if old, ok := prev.indexedField(ix.field); ok {
			ix.remove(prev, old)
		}
	}
}

// note finds out the object's value and writes it down with the object.
func (ix *index) note(o *Object) string {
	if value, ok := o.indexedField(ix.field); ok {
		return value
	}
	value := ix.valueOf(o)
	var list []fieldValue
	if have := o.indexed.Load(); have != nil {
		list = slices.Clone(*have)
	}
	list = append(list, fieldValue{ix.field, value})
	o.indexed.Store(&list)
	return value
}

func (ix *index) valueOf(o *Object) string {
	set, err := o.fields()
	if err != nil {
		o.cache.store.log.Error("Indexing an object", "err", err)
		return ""
	}
	// The one copy of the value that all objects share, and not a part of the decoded object.
	if list := ix.byValue[set[ix.field]]; len(list) > 0 {
		value, _ := list[0].indexedField(ix.field)
		return value
	}
	return strings.Clone(set[ix.field])
}

// lookup returns the objects that have one of the values that the matcher demands, and whether an index could say.
// The caller holds the cache's lock; the slice is valid as long.
func (c *Cache) lookup(m *matcher) ([]*Object, bool) {
	for _, want := range m.exact {
		for _, ix := range c.indexes {
			if ix.field == want.field {
				ix.used.Store(time.Now().Unix())
				return ix.byValue[want.value], true
			}
		}
	}
	return nil, false
}

// wantsIndex says whether an index for the matcher is worth it and there is none yet.
func (c *Cache) wantsIndex(m *matcher) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	_, have := c.lookup(m)
	return !have && c.tree.Len() >= indexFrom && len(c.indexes) < maxIndexes
}

// ensureIndex makes an index for the matcher if one is worth it and there is none.
func (c *Cache) ensureIndex(m *matcher) {
	if len(m.exact) == 0 || m.name != "" || !c.wantsIndex(m) {
		return
	}
	// One at a time: a thousand nodes that start together need it made once.
	c.indexing.Lock()
	defer c.indexing.Unlock()
	if !c.wantsIndex(m) {
		return
	}
	ix := &index{field: m.exact[0].field, byValue: map[string][]*Object{}}
	ix.used.Store(time.Now().Unix())
	// The values are found without the lock: that may have to decode all objects.
	values := map[*Object]string{}
	interned := map[string]string{}
	c.snapshot().tree.Ascend(func(e entry) bool {
		v := ix.valueOf(e.Object)
		if have, ok := interned[v]; ok {
			v = have
		} else {
			interned[v] = v
		}
		values[e.Object] = v
		return true
	})
	c.addIndex(ix, values)
}

// addIndex puts a new index in force. Objects that changed since their values were found are looked at again.
func (c *Cache) addIndex(ix *index, values map[*Object]string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tree.Ascend(func(e entry) bool {
		o := e.Object
		if v, ok := values[o]; ok {
			var list []fieldValue
			if have := o.indexed.Load(); have != nil {
				list = slices.DeleteFunc(slices.Clone(*have), func(x fieldValue) bool { return x.field == ix.field })
			}
			list = append(list, fieldValue{ix.field, v})
			o.indexed.Store(&list)
			ix.byValue[v] = append(ix.byValue[v], o) // in key order
			return true
		}
		v := ix.note(o)
		ix.byValue[v] = append(ix.byValue[v], o)
		return true
	})
	c.indexes = append(c.indexes, ix)
}

func (c *Cache) dropIdleIndexes() {
	now := time.Now().Unix()
	c.indexes = slices.DeleteFunc(c.indexes, func(x *index) bool {
		return now-x.used.Load() > int64(indexIdleFor/time.Second) && c.watches.fields[x.field] == 0
	})
}
