package client

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/informers/internalinterfaces"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/proa-k8s/proa/internal/store"
)

// cachedInformer makes informers that are fed by c.
func cachedInformer(c *store.Cache, example runtime.Object) internalinterfaces.NewInformerFunc {
	return func(kubernetes.Interface, time.Duration) cache.SharedIndexInformer {
		return cache.NewSharedIndexInformer(listerWatcher{c}, example, 0,
			cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
	}
}

// listerWatcher lets a reflector list and watch a cache: the objects are the cache's own.
type listerWatcher struct{ cache *store.Cache }

// IsWatchListSemanticsUnSupported makes reflectors list first: nothing is gained by streaming what is shared.
func (lw listerWatcher) IsWatchListSemanticsUnSupported() bool { return true }

// List gives all objects as of the store's present revision, or as of any when options ask for "0".
func (lw listerWatcher) List(options metav1.ListOptions) (runtime.Object, error) {
	return lw.ListWithContext(context.Background(), options)
}

// ListWithContext is List.
func (lw listerWatcher) ListWithContext(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	match := store.MatchLatest
	if options.ResourceVersion == "0" {
		match = store.MatchNotOlder
	}
	if err := lw.cache.WaitReady(ctx); err != nil {
		return nil, fmt.Errorf("waiting for the cache: %w", err)
	}
	list, err := lw.cache.List(ctx, store.ListOptions{Match: match})
	if err != nil {
		return nil, status(err)
	}
	out := &objects{Items: make([]runtime.Object, len(list.Objects))}
	out.ResourceVersion = strconv.FormatInt(list.Rev, 10)
	for i, o := range list.Objects {
		if out.Items[i], err = o.Decoded(); err != nil {
			return nil, fmt.Errorf("decoding %s: %w", o.Key, err)
		}
	}
	return out, nil
}

// Watch gives the events after the revision that options name.
func (lw listerWatcher) Watch(options metav1.ListOptions) (watch.Interface, error) {
	return lw.WatchWithContext(context.Background(), options)
}

// WatchWithContext is Watch.
func (lw listerWatcher) WatchWithContext(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	rev, err := strconv.ParseInt(options.ResourceVersion, 10, 64)
	if err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("resource version %q: %v", options.ResourceVersion, err))
	}
	w, err := lw.cache.Watch(ctx, store.WatchOptions{Rev: rev})
	if err != nil {
		return nil, status(err)
	}
	return newWatcher(ctx, w), nil
}

// objects is a list of shared objects. The reflector takes its items out by reflection.
type objects struct {
	metav1.TypeMeta
	metav1.ListMeta
	Items []runtime.Object
}

// DeepCopyObject copies the list, not the items, which nobody changes.
func (o *objects) DeepCopyObject() runtime.Object {
	out := *o
	out.Items = append([]runtime.Object(nil), o.Items...)
	return &out
}

// status words the store's errors as the API does, which reflectors understand.
func status(err error) error {
	switch {
	case errors.Is(err, store.ErrExpired):
		return apierrors.NewResourceExpired(err.Error())
	case errors.Is(err, store.ErrFuture):
		return apierrors.NewTimeoutError("Too large resource version", 1)
	default:
		return err
	}
}

// watcher hands the events of a cache's watch to a reflector.
type watcher struct {
	source *store.Watch
	out    chan watch.Event
	cancel context.CancelFunc
}

func newWatcher(ctx context.Context, source *store.Watch) *watcher {
	ctx, cancel := context.WithCancel(ctx)
	w := &watcher{source: source, out: make(chan watch.Event, 16), cancel: cancel}
	go w.run(ctx)
	return w
}

// Stop ends the watch; the channel is closed soon after.
func (w *watcher) Stop() { w.cancel() }

// ResultChan gives the events.
func (w *watcher) ResultChan() <-chan watch.Event { return w.out }

func (w *watcher) run(ctx context.Context) {
	defer close(w.out)
	defer w.source.Stop()
	for {
		events, err := w.source.Next(ctx)
		if errors.Is(err, store.ErrExpired) {
			w.send(ctx, failed(err))
		}
		if err != nil {
			return
		}
		for _, e := range events {
			out, err := convert(e)
			if err != nil {
				w.send(ctx, failed(err))
				return
			}
			if out.Object != nil && !w.send(ctx, out) {
				return
			}
		}
	}
}

func (w *watcher) send(ctx context.Context, e watch.Event) bool {
	select {
	case w.out <- e:
		return true
	case <-ctx.Done():
		return false
	}
}

// failed is the event that ends a watch with an error; a reflector lists again then.
func failed(err error) watch.Event {
	var s apierrors.APIStatus
	if !errors.As(status(err), &s) {
		s = apierrors.NewInternalError(err)
	}
	answer := s.Status()
	return watch.Event{Type: watch.Error, Object: &answer}
}

// convert words an event of the store as one of client-go. Bookmarks are left out (the event is empty): what they
// save, a resumed watch after long silence, costs nothing in this process.
func convert(e store.Event) (watch.Event, error) {
	var kind watch.EventType
	switch e.Type {
	case store.Added:
		kind = watch.Added
	case store.Modified:
		kind = watch.Modified
	case store.Deleted:
		kind = watch.Deleted
	default:
		return watch.Event{}, nil
	}
	obj, err := e.Object.Decoded()
	if err != nil {
		return watch.Event{}, fmt.Errorf("decoding %s: %w", e.Object.Key, err)
	}
	if kind == watch.Deleted {
		obj = atRevision(obj, strconv.FormatInt(e.Rev, 10))
	}
	return watch.Event{Type: kind, Object: obj}, nil
}

// atRevision gives obj, or a shallow copy of it, with the given resourceVersion. What is deleted carries the revision of its
// deletion, so that a watch that is resumed after it does not go back.
func atRevision(obj runtime.Object, rev string) runtime.Object {
	if m, ok := obj.(metav1.Object); !ok || m.GetResourceVersion() == rev {
		return obj
	}
	out := reflect.New(reflect.TypeOf(obj).Elem())
	out.Elem().Set(reflect.ValueOf(obj).Elem())
	copied := out.Interface().(runtime.Object)
	copied.(metav1.Object).SetResourceVersion(rev)
	return copied
}
