// Package objects holds the ConfigMaps and Secrets that pods of this node refer to, and only those.
//
// What flows in are references of pods; what flows out are the objects, current as long as a pod refers to them: one
// watch by name per object, begun at the first reference and ended with the last.
package objects

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

// The back-off between attempts to read an object. It begins short, because a new node or pod may not be known to the
// node authorizer for a moment.
const (
	firstRetry = 20 * time.Millisecond
	lastRetry  = 5 * time.Second
	// patience is how long Get waits for a first answer while the API server refuses or fails.
	patience = 2 * time.Second
)

// Object is a pointer to an API object.
type Object interface {
	runtime.Object
	metav1.Object
}

// Reader reads objects of one kind of one namespace.
type Reader struct {
	List  func(ctx context.Context, namespace string, options metav1.ListOptions) (runtime.Object, error)
	Watch func(ctx context.Context, namespace string, options metav1.ListOptions) (watch.Interface, error)
}

// Cache holds objects of one kind.
type Cache[T Object] struct {
	resource schema.GroupResource
	reader   Reader
	changed  func(types.UID)

	mu     sync.Mutex
	closed bool
	items  map[types.NamespacedName]*item[T]
	wg     sync.WaitGroup
}

// New makes a Cache. singular names the kind in errors ("configmap"). changed is called with the UID of each pod that
// refers to an object when the object has changed, not for its first appearance to a Get.
func New[T Object](singular string, reader Reader, changed func(types.UID)) *Cache[T] {
	return &Cache[T]{
		resource: schema.GroupResource{Resource: singular},
		reader:   reader,
		changed:  changed,
		items:    map[types.NamespacedName]*item[T]{},
	}
}

// item is one object. known is closed when it is known whether the object exists, or why that cannot be known.
type item[T Object] struct {
	cancel context.CancelFunc
	known  chan struct{}

	mu      sync.Mutex
	users   map[types.UID]bool
	settled bool
	object  T
	exists  bool
	err     error
}

// Get returns the object for a pod, which from now on is told of its changes. It waits for the API server's answer.
// The object is shared: do not change it.
func (c *Cache[T]) Get(ctx context.Context, pod types.UID, namespace, name string) (T, error) {
	var none T
	it, err := c.acquire(pod, types.NamespacedName{Namespace: namespace, Name: name})
	if err != nil {
		return none, err
	}
	select {
	case <-it.known:
	case <-ctx.Done():
		return none, fmt.Errorf("waiting for %s %q: %w", c.resource.Resource, name, ctx.Err())
	}
	it.mu.Lock()
	defer it.mu.Unlock()
	switch {
	case it.exists:
		return it.object, nil
	case it.err != nil:
		return none, it.err
	}
	return none, apierrors.NewNotFound(c.resource, name)
}

func (c *Cache[T]) acquire(pod types.UID, key types.NamespacedName) (*item[T], error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errors.New("the kubelet is stopping")
	}
	it := c.items[key]
	if it == nil {
		ctx, cancel := context.WithCancel(context.Background())
		it = &item[T]{cancel: cancel, known: make(chan struct{}), users: map[types.UID]bool{}}
		c.items[key] = it
		c.wg.Add(1)
		go func() {
			defer c.wg.Done()
			c.follow(ctx, it, key)
		}()
	}
	it.mu.Lock()
	it.users[pod] = true
	it.mu.Unlock()
	return it, nil
}

// Release forgets all references of a pod.
func (c *Cache[T]) Release(pod types.UID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, it := range c.items {
		it.mu.Lock()
		delete(it.users, pod)
		unused := len(it.users) == 0
		it.mu.Unlock()
		if unused {
			it.cancel()
			delete(c.items, key)
		}
	}
}

// Close ends all watches and waits for them.
func (c *Cache[T]) Close() {
	c.mu.Lock()
	c.closed = true
	for _, it := range c.items {
		it.cancel()
	}
	c.mu.Unlock()
	c.wg.Wait()
}

// follow keeps an item current until ctx is done.
func (c *Cache[T]) follow(ctx context.Context, it *item[T], key types.NamespacedName) {
	options := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, key.Name).String()}
	began, delay := time.Now(), firstRetry
	for ctx.Err() == nil {
		err := c.once(ctx, it, key, options, &delay)
		if err == nil || ctx.Err() != nil {
			continue
		}
		if time.Since(began) > patience || apierrors.IsNotFound(err) {
			c.settle(it, nil, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(delay):
		}
		delay = min(2*delay, lastRetry)
	}
	c.settle(it, nil, ctx.Err())
}

// once lists and then watches until the watch ends.
func (c *Cache[T]) once(ctx context.Context, it *item[T], key types.NamespacedName, options metav1.ListOptions, delay *time.Duration) error {
	list, err := c.reader.List(ctx, key.Namespace, options)
	if err != nil {
		return err
	}
	accessor, err := meta.ListAccessor(list)
	if err != nil {
		return err
	}
	found := false
	if err := meta.EachListItem(list, func(o runtime.Object) error {
		if object, ok := o.(T); ok && object.GetName() == key.Name {
			found = true
			c.settle(it, &object, nil)
		}
		return nil
	}); err != nil {
		return err
	}
	if !found {
		c.settle(it, nil, nil)
	}
	options.ResourceVersion = accessor.GetResourceVersion()
	options.AllowWatchBookmarks = true
	for ctx.Err() == nil {
		w, err := c.reader.Watch(ctx, key.Namespace, options)
		if err != nil {
			return err
		}
		*delay = firstRetry
		before := options.ResourceVersion
		if err := c.drain(ctx, w, it, key, &options.ResourceVersion); err != nil {
			return err
		}
		if options.ResourceVersion == before {
			// A watch that ends at once and brings nothing must not become a busy loop.
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}
	return nil
}

// drain takes the events of one watch.
func (c *Cache[T]) drain(ctx context.Context, w watch.Interface, it *item[T], key types.NamespacedName, version *string) error {
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case event, ok := <-w.ResultChan():
			if !ok {
				return nil
			}
			if event.Type == watch.Error {
				return apierrors.FromObject(event.Object)
			}
			object, ok := event.Object.(T)
			if !ok {
				return fmt.Errorf("unexpected object %T in a watch", event.Object)
			}
			*version = object.GetResourceVersion()
			if event.Type == watch.Bookmark || object.GetName() != key.Name {
				continue
			}
			if event.Type == watch.Deleted {
				c.settle(it, nil, nil)
			} else {
				c.settle(it, &object, nil)
			}
		}
	}
}

// settle records what is known and tells the pods when that is news.
func (c *Cache[T]) settle(it *item[T], object *T, err error) {
	it.mu.Lock()
	first := !it.settled
	it.settled = true
	changed := !first
	switch {
	case object != nil:
		changed = changed && (!it.exists || it.object.GetResourceVersion() != (*object).GetResourceVersion())
		it.object, it.exists, it.err = *object, true, nil
	case err != nil:
		// What was known stays: an API server that cannot be reached takes nothing away.
		it.err, changed = err, false
	default:
		var none T
		changed = changed && (it.exists || it.err != nil)
		it.object, it.exists, it.err = none, false, nil
	}
	var users []types.UID
	if changed {
		for uid := range it.users {
			users = append(users, uid)
		}
	}
	it.mu.Unlock()
	if first {
		close(it.known)
	}
	for _, uid := range users {
		c.changed(uid)
	}
}
