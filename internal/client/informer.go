package client

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strconv"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/informers/internalinterfaces"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/proa-k8s/proa/internal/store"
)

// cachedInformer makes informers that are fed by c.
func cachedInformer(c *store.Cache, example runtime.Object) internalinterfaces.NewInformerFunc {
	return func(kubernetes.Interface, time.Duration) cache.SharedIndexInformer { return newInformer(c, example) }
}

// informer is a SharedIndexInformer on a cache of the store. It keeps no copy: what it holds of an object is the cache's
// entry, the values of its indexes, and, as long as the object is used often, the decoded object. Others are decoded when
// a lister or a handler wants them, once for all who do at that time. It never resyncs.
type informer struct {
	source  *store.Cache
	example reflect.Type
	indexer *indexer
	// detector watches for objects being changed in tests that ask for it by KUBE_CACHE_MUTATION_DETECTOR; nil otherwise.
	detector cache.MutationDetector
	synced   chan struct{} // closed when all that there was at the start is in the indexer

	// events is held while events are taken in, so that a handler that joins meets every object once. Before mu.
	events sync.Mutex

	mu        sync.Mutex
	started   bool
	stopped   bool
	listeners map[*listener]struct{}
	running   sync.WaitGroup // the listeners' goroutines
}

func newInformer(c *store.Cache, example runtime.Object) *informer {
	i := &informer{
		source: c, example: reflect.TypeOf(example), indexer: newIndexer(),
		synced: make(chan struct{}), listeners: map[*listener]struct{}{},
	}
	if on, err := strconv.ParseBool(os.Getenv("KUBE_CACHE_MUTATION_DETECTOR")); err == nil && on {
		i.detector = cache.NewCacheMutationDetector(i.example.String())
	}
	return i
}

// Run is RunWithContext.
func (i *informer) Run(stop <-chan struct{}) { i.RunWithContext(wait.ContextForChannel(stop)) }

// RunWithContext follows the cache until ctx ends, and returns when no handler runs any more.
func (i *informer) RunWithContext(ctx context.Context) {
	i.mu.Lock()
	if i.started {
		i.mu.Unlock()
		klog.FromContext(ctx).Info("Warning: the informer has started already, it runs only once", "type", i.example)
		return
	}
	i.started = true
	for l := range i.listeners {
		i.running.Go(l.run)
	}
	i.mu.Unlock()
	var detecting sync.WaitGroup
	if i.detector != nil {
		detecting.Go(func() { i.detector.Run(ctx.Done()) })
	}
	i.follow(ctx)

	i.mu.Lock()
	i.stopped = true
	for l := range i.listeners {
		l.stop()
	}
	clear(i.listeners)
	i.mu.Unlock()
	i.running.Wait()
	detecting.Wait()
}

// follow watches the cache, again and again: a watch ends when it was too slow to take what happened.
func (i *informer) follow(ctx context.Context) {
	var rev int64 // everything up to here was seen; 0: nothing yet
	for ctx.Err() == nil {
		var err error
		if rev, err = i.watch(ctx, rev); err == nil || ctx.Err() != nil {
			continue
		}
		if errors.Is(err, store.ErrExpired) {
			rev = 0 // start with the state
			continue
		}
		if !errors.Is(err, store.ErrStopped) {
			klog.FromContext(ctx).Error(err, "Watching the cache", "type", i.example)
		}
		select { // the store closes, or is not ready
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// watch takes events after rev, or the state and what follows when rev is 0, until the watch ends. It returns the revision
// up to which everything was seen, and no error if there were any events.
func (i *informer) watch(ctx context.Context, rev int64) (int64, error) {
	w, err := i.source.Watch(ctx, store.WatchOptions{Rev: rev, InitialEvents: rev == 0})
	if err != nil {
		return rev, fmt.Errorf("starting to watch: %w", err)
	}
	defer w.Stop()
	var state map[string]struct{} // the keys of the state that the watch begins with, while it comes
	if rev == 0 {
		state = map[string]struct{}{}
	}
	progress := false
	for {
		events, err := w.Next(ctx)
		if err != nil {
			if progress {
				err = nil
			}
			return rev, err
		}
		progress = true
		if last := i.take(events, &state); state == nil && last > 0 {
			rev = last
		}
	}
}

// take takes events in, and returns the last one's revision. state is nil after the initial ones.
func (i *informer) take(events []store.Event, state *map[string]struct{}) (last int64) {
	i.events.Lock()
	defer i.events.Unlock()
	for n := range events {
		e := &events[n]
		last = e.Rev
		switch e.Type {
		case store.Added, store.Modified:
			if *state != nil {
				(*state)[e.Object.Key] = struct{}{}
			}
			i.set(e.Object)
		case store.Deleted:
			if old := i.indexer.remove(e.Object.Key); old != nil {
				i.distribute(notification{kind: deleted, old: i.indexer.last(e.Object, old)})
			}
		case store.InitialEnd:
			i.dropAllBut(*state)
			*state = nil
			i.indexer.noteRevision(e.Rev)
			i.finishSync()
		case store.Bookmark:
		}
	}
	if last > 0 && *state == nil {
		i.indexer.noteRevision(last)
	}
	return last
}

// set takes an object as it is now.
func (i *informer) set(o *store.Object) {
	now, old, err := i.indexer.set(o)
	if err != nil {
		klog.Background().Error(err, "Taking an object into an informer", "type", i.example, "key", o.Key)
		return
	}
	if now != nil && i.HasSynced() { // what there is at the start need not be decoded
		i.indexer.hot.use(now)
	}
	if i.detector != nil && now != nil {
		i.detector.AddObject(now.object())
	}
	switch {
	case now == nil: // seen before
	case old == nil:
		i.distribute(notification{kind: added, now: now, initial: !i.HasSynced()})
	default:
		i.distribute(notification{kind: updated, old: old, now: now})
	}
}

// dropAllBut removes what is not there any more, whose deletion was not seen.
func (i *informer) dropAllBut(state map[string]struct{}) {
	for _, key := range i.indexer.ListKeys() {
		if _, there := state[key]; !there {
			if old := i.indexer.remove(key); old != nil {
				i.distribute(notification{kind: lost, old: old})
			}
		}
	}
}

func (i *informer) finishSync() {
	if i.HasSynced() {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for l := range i.listeners {
		l.add(notification{kind: synced})
	}
	close(i.synced)
}

func (i *informer) distribute(n notification) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for l := range i.listeners {
		l.add(n)
	}
}

// AddEventHandler adds a handler, which is told what is there and then what happens.
func (i *informer) AddEventHandler(h cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	return i.AddEventHandlerWithOptions(h, cache.HandlerOptions{})
}

// AddEventHandlerWithResyncPeriod is AddEventHandler: this informer does not resync.
func (i *informer) AddEventHandlerWithResyncPeriod(h cache.ResourceEventHandler, period time.Duration) (cache.ResourceEventHandlerRegistration, error) {
	return i.AddEventHandlerWithOptions(h, cache.HandlerOptions{ResyncPeriod: &period})
}

// AddEventHandlerWithOptions is AddEventHandler. As client-go's informers without a resync period of their own do, it warns
// that there are no resyncs when some are asked for.
func (i *informer) AddEventHandlerWithOptions(h cache.ResourceEventHandler, o cache.HandlerOptions) (cache.ResourceEventHandlerRegistration, error) {
	if o.ResyncPeriod != nil && *o.ResyncPeriod > 0 {
		log := klog.Background()
		if o.Logger != nil {
			log = *o.Logger
		}
		log.Info("Warning: the specified resyncPeriod is invalid because this shared informer doesn't support resyncing", "desired", *o.ResyncPeriod)
	}
	i.events.Lock()
	defer i.events.Unlock()
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.stopped {
		return nil, fmt.Errorf("handler %v was not added to shared informer because it has stopped already", h)
	}
	l := newListener(h, i.example)
	i.listeners[l] = struct{}{}
	for _, item := range i.indexer.all() {
		l.add(notification{kind: added, now: item, initial: true})
	}
	if i.HasSynced() {
		l.add(notification{kind: synced})
	}
	if i.started {
		i.running.Go(l.run)
	}
	return l, nil
}

// RemoveEventHandler ends that a handler is told what happens. It does not wait for what the handler is being told.
func (i *informer) RemoveEventHandler(handle cache.ResourceEventHandlerRegistration) error {
	l, ok := handle.(*listener)
	if !ok {
		return fmt.Errorf("invalid key type %T", handle)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if _, there := i.listeners[l]; !there {
		return nil
	}
	delete(i.listeners, l)
	l.stop()
	if !i.started {
		close(l.ended)
	}
	return nil
}

// GetStore gives the local store.
func (i *informer) GetStore() cache.Store { return i.indexer }

// GetIndexer gives the local store.
func (i *informer) GetIndexer() cache.Indexer { return i.indexer }

// AddIndexers adds indexes, also while the informer runs.
func (i *informer) AddIndexers(indexers cache.Indexers) error {
	if i.IsStopped() {
		return errors.New("indexer was not added because it has stopped already")
	}
	return i.indexer.AddIndexers(indexers)
}

// HasSynced says whether all that there was at the start is in the store.
func (i *informer) HasSynced() bool { return cache.IsDone(i) }

// HasSyncedChecker is HasSynced to be waited for.
func (i *informer) HasSyncedChecker() cache.DoneChecker { return i }

// Name and Done make the informer its own DoneChecker.
func (i *informer) Name() string { return "SharedIndexInformer " + i.example.String() }

// Done is closed when the informer has synced.
func (i *informer) Done() <-chan struct{} { return i.synced }

// LastSyncResourceVersion is that of the last change taken in.
func (i *informer) LastSyncResourceVersion() string { return i.indexer.LastStoreSyncResourceVersion() }

// IsStopped says whether the informer has run and ended.
func (i *informer) IsStopped() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.stopped
}

// GetController gives what says whether the informer has synced; running it does nothing.
func (i *informer) GetController() cache.Controller { return controller{i} }

// controller is deprecated in client-go, and hides there as here that informers run by themselves.
type controller struct{ *informer }

func (controller) Run(<-chan struct{})            {}
func (controller) RunWithContext(context.Context) {}

// SetTransform has every object changed before it is kept. Objects of the cache are shared, so what is changed is a copy,
// and kept.
func (i *informer) SetTransform(transform cache.TransformFunc) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.started {
		return errors.New("informer has already started")
	}
	i.indexer.transform = transform
	return nil
}

var errNoReflector = errors.New("an informer of the server's own caches has no reflector, and no connection that could break")

// SetWatchErrorHandler is refused: there are no such errors.
func (i *informer) SetWatchErrorHandler(cache.WatchErrorHandler) error { return errNoReflector }

// SetWatchErrorHandlerWithContext is refused: there are no such errors.
func (i *informer) SetWatchErrorHandlerWithContext(cache.WatchErrorHandlerWithContext) error {
	return errNoReflector
}
