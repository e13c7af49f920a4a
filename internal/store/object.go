package store

import (
	"fmt"
	"reflect"
	"strconv"
	"sync"
	"sync/atomic"
	"unsafe"
	"weak"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
)

// Object is one stored state of an object. It is immutable, and shared by everyone in the process.
type Object struct {
	Key       string // "<namespace>/<name>" or "<name>"
	Namespace string
	Name      string
	Rev       int64 // etcd's modification revision; of a deleted object that of the deletion

	cache  *Cache
	value  []byte
	labels labelList
	// indexed are the object's values in the indexes of its cache; replaced, never changed, under the cache's lock.
	indexed atomic.Pointer[[]fieldValue]

	mu sync.Mutex
	// decoded points to the decoded object as long as somebody else keeps that alive (an informer, a request): decoded
	// objects are several times as big as the stored bytes, and are not held here for the case that somebody asks.
	decoded   weak.Pointer[byte]
	encodings *encodings // nil when cold
}

// newObject makes an Object of stored bytes, which belong to it from here on.
func newObject(c *Cache, key string, value []byte, rev int64) *Object {
	o := &Object{Key: key, Name: key, Rev: rev, cache: c, value: value}
	if c.resource.Namespaced {
		o.Namespace, o.Name = splitKey(key)
	}
	list, err := readLabels(value)
	if err != nil {
		c.store.log.Error("Reading the labels of a stored object", "key", c.prefix+key, "revision", rev, "err", err)
	}
	o.labels = list
	return o
}

func splitKey(key string) (namespace, name string) {
	for i := 0; i < len(key); i++ {
		if key[i] == '/' {
			return key[:i], key[i+1:]
		}
	}
	return "", key
}

// at returns the same state at another revision: the last state of a deleted object.
func (o *Object) at(rev int64) *Object {
	return &Object{Key: o.Key, Namespace: o.Namespace, Name: o.Name, Rev: rev, cache: o.cache, value: o.value, labels: o.labels}
}

// Value returns the stored bytes, which nobody may change.
func (o *Object) Value() []byte { return o.value }

// Labels returns the object's labels, without decoding it.
func (o *Object) Labels() labels.Labels { return &o.labels }

// Decoded returns the object with its resourceVersion set. It is shared: nobody may change it. As long as somebody
// holds it, everybody gets the same.
func (o *Object) Decoded() (runtime.Object, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if p := o.decoded.Value(); p != nil {
		return reflect.NewAt(*o.cache.goType.Load(), unsafe.Pointer(p)).Interface().(runtime.Object), nil
	}
	obj, err := o.cache.resource.Decode(o.value)
	if err != nil {
		return nil, fmt.Errorf("decoding %s%s at revision %d: %w", o.cache.prefix, o.Key, o.Rev, err)
	}
	o.cache.store.metrics.decodes.Inc()
	if err := o.adopt(obj); err != nil {
		return nil, err
	}
	return obj, nil
}

// adopt makes obj the decoded object. The caller holds o.mu, or o is not shared yet.
func (o *Object) adopt(obj runtime.Object) error {
	if err := setRevision(obj, o.Rev); err != nil {
		return fmt.Errorf("setting the revision of %s%s: %w", o.cache.prefix, o.Key, err)
	}
	v := reflect.ValueOf(obj)
	if v.Kind() != reflect.Pointer {
		return nil // can't be pointed to weakly: it is decoded each time
	}
	if !o.cache.isGoType(v.Type().Elem()) {
		return nil
	}
	o.decoded = weak.Make((*byte)(v.UnsafePointer()))
	return nil
}

func setRevision(obj runtime.Object, rev int64) error {
	m, err := meta.Accessor(obj)
	if err != nil {
		return err
	}
	if rev == 0 {
		m.SetResourceVersion("")
	} else {
		m.SetResourceVersion(strconv.FormatInt(rev, 10))
	}
	return nil
}
