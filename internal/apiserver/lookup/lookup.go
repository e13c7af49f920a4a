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
// referred to as soon as its creation was answered, whoever answered it.
func Get[T runtime.Object](c *store.Cache) Getter[T] {
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
	return func(ctx context.Context, namespace string) ([]T, error) {
		l, err := c.List(ctx, store.ListOptions{Namespace: namespace, Match: store.MatchNotOlder})
		if err != nil {
			return nil, err
		}
		return decodedAll[T](l)
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

func decodedAll[T runtime.Object](l *store.List) ([]T, error) {
	all := make([]T, len(l.Objects))
	for i, o := range l.Objects {
		var err error
		if all[i], err = decoded[T](o); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// Handler keeps something in step with a cache. Its functions are called one at a time.
type Handler[T any] struct {
	// Replace gets the whole state: first of all, and again when events were lost.
	Replace func(all []T)
	Set     func(obj T)
	// Delete gets the object's last state.
	Delete func(last T)
}

// Follow tells the handler the cache's state and every change of it until the context ends, whose error it returns.
func Follow[T runtime.Object](ctx context.Context, log *slog.Logger, c *store.Cache, h Handler[T]) error {
	rev := int64(0)
	for {
		err := follow(ctx, c, h, &rev)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, store.ErrStopped):
			continue // too slow, or the cache started anew: go on after the last event
		case errors.Is(err, store.ErrExpired):
			rev = 0
			continue
		}
		log.Error("following the store failed, starting again", "type", fmt.Sprintf("%T", *new(T)), "error", err)
		rev = 0
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// follow runs one watch from revision *rev on, or from the whole state when that is 0.
func follow[T runtime.Object](ctx context.Context, c *store.Cache, h Handler[T], rev *int64) error {
	if *rev == 0 {
		if err := c.WaitReady(ctx); err != nil {
			return err
		}
		l, err := c.List(ctx, store.ListOptions{Match: store.MatchNotOlder})
		if err != nil {
			return err
		}
		all, err := decodedAll[T](l)
		if err != nil {
			return err
		}
		h.Replace(all)
		*rev = l.Rev
	}
	w, err := c.Watch(ctx, store.WatchOptions{Rev: *rev})
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
			if e.Type == store.Bookmark || e.Type == store.InitialEnd {
				continue
			}
			obj, err := decoded[T](e.Object)
			if err != nil {
				return err
			}
			if e.Type == store.Deleted {
				h.Delete(obj)
			} else {
				h.Set(obj)
			}
			*rev = e.Rev
		}
	}
}
