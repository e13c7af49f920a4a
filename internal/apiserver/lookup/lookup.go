// Package lookup reads the store's caches with types, for what decides about requests inside the API server:
// authentication, authorization, admission.
//
// What flows in is a cache; what flows out are typed, shared objects that nobody may change. Nothing here goes over HTTP
// or is authorized: the server asks on its own behalf.
package lookup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"k8s.io/apimachinery/pkg/runtime"

	"github.com/proa-k8s/proa/internal/store"
)

// Getter gives one object; namespace is empty for cluster scope. The error is store.ErrNotFound when there is none.
type Getter[T any] func(ctx context.Context, namespace, name string) (T, error)

// Lister gives all objects of a namespace, or of all when it is empty, in key order.
type Lister[T any] func(ctx context.Context, namespace string) ([]T, error)

// Get reads from the cache. What the cache doesn't have is asked for again as new as the store, so that an object can be
// referred to as soon as its creation was answered, whoever answered it. No cache (a kind that isn't served) gives nil, here
// and below.
func Get[T runtime.Object](c *store.Cache) Getter[T] {
	if c == nil {
		return nil
	}
	return func(ctx context.Context, namespace, name string) (T, error) {
		o, err := c.Get(ctx, namespace, name, 0)
		if errors.Is(err, store.ErrNotFound) {
			o, err = c.Get(ctx, namespace, name, -1)
		}
		if err != nil {
			var none T
			return none, err
		}
		return decoded[T](o)
	}
}

// GetLatest reads what is at least as new as the store at the time of the call.
func GetLatest[T runtime.Object](c *store.Cache) Getter[T] {
	if c == nil {
		return nil
	}
	return func(ctx context.Context, namespace, name string) (T, error) {
		o, err := c.Get(ctx, namespace, name, -1)
		if err != nil {
			var none T
			return none, err
		}
		return decoded[T](o)
	}
}

// List reads the present state of the cache.
func List[T runtime.Object](c *store.Cache) Lister[T] {
	if c == nil {
		return nil
	}
	return func(ctx context.Context, namespace string) ([]T, error) {
		l, err := c.List(ctx, store.ListOptions{Namespace: namespace, Match: store.MatchNotOlder})
		if err != nil {
			return nil, err
		}
		all := make([]T, len(l.Objects))
		for i, o := range l.Objects {
			if all[i], err = decoded[T](o); err != nil {
				return nil, err
			}
		}
		return all, nil
	}
}

func decoded[T runtime.Object](o *store.Object) (T, error) {
	obj, err := o.Decoded()
	if err != nil {
		var none T
		return none, fmt.Errorf("decoding %s: %w", o.Key, err)
	}
	t, ok := obj.(T)
	if !ok {
		return t, fmt.Errorf("%s is a %T, not a %T", o.Key, obj, t)
	}
	return t, nil
}

// Handler keeps something in step with a cache. Its functions are called one at a time.
type Handler[T any] struct {
	// Replace gets the whole state: first of all, and again when events were lost.
	Replace func(all []T)
	Set     func(obj T)
	// Delete gets the object's last state.
	Delete func(last T)
}

// retry is how long Follow waits before it tries again after it got nowhere.
const retry = 50 * time.Millisecond

// Follow tells the handler the cache's state and every change of it until the context ends, whose error it returns.
// An object that can't be decoded is left out, with an error in the log.
func Follow[T runtime.Object](ctx context.Context, log *slog.Logger, c *store.Cache, h Handler[T]) error {
	f := follower[T]{log: log, cache: c, handler: h}
	for {
		before := f.rev
		err := f.run(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, store.ErrStopped): // too slow, or the cache started anew: go on after the last event
			if f.rev > before {
				continue
			}
		case errors.Is(err, store.ErrExpired):
			f.rev = 0
			continue
		default:
			log.Error("following the store failed, starting again", "type", fmt.Sprintf("%T", *new(T)), "error", err)
			f.rev = 0
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(retry):
		}
	}
}

type follower[T runtime.Object] struct {
	log     *slog.Logger
	cache   *store.Cache
	handler Handler[T]
	rev     int64 // everything up to here was told; 0: nothing
}

// run is one watch, from the last revision or from the whole state.
func (f *follower[T]) run(ctx context.Context) error {
	if f.rev == 0 {
		if err := f.replace(ctx); err != nil {
			return err
		}
	}
	w, err := f.cache.Watch(ctx, store.WatchOptions{Rev: f.rev})
	if err != nil {
		return err
	}
	defer w.Stop()
	for {
		events, err := w.Next(ctx)
		if err != nil {
			return err
		}
		for _, e := range events {
			f.tell(e)
			f.rev = e.Rev
		}
	}
}

func (f *follower[T]) replace(ctx context.Context) error {
	if err := f.cache.WaitReady(ctx); err != nil {
		return err
	}
	l, err := f.cache.List(ctx, store.ListOptions{Match: store.MatchLatest})
	if err != nil {
		return err
	}
	all := make([]T, 0, len(l.Objects))
	for _, o := range l.Objects {
		if obj, ok := f.decode(o); ok {
			all = append(all, obj)
		}
	}
	f.handler.Replace(all)
	f.rev = l.Rev
	return nil
}

func (f *follower[T]) tell(e store.Event) {
	switch e.Type {
	case store.Added, store.Modified:
		if obj, ok := f.decode(e.Object); ok {
			f.handler.Set(obj)
		}
	case store.Deleted:
		if obj, ok := f.decode(e.Object); ok {
			f.handler.Delete(obj)
		}
	}
}

func (f *follower[T]) decode(o *store.Object) (T, bool) {
	obj, err := decoded[T](o)
	if err != nil {
		f.log.Error("an object in the store can't be used", "error", err)
	}
	return obj, err == nil
}
