package namespace

import (
	"context"
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/proa-k8s/proa/internal/client"
	"github.com/proa-k8s/proa/internal/store"
)

// follower wakes namespaces whenever something that remains in them goes: one watch per namespace and resource, for as long
// as there is something to wait for.
type follower struct {
	wake    func(namespace string)
	started chan struct{}
	ctx     context.Context // set before started is closed
	all     sync.WaitGroup

	mu        sync.Mutex
	following map[followed]bool
}

type followed struct {
	namespace string
	resource  schema.GroupVersionResource
}

func newFollower(wake func(string)) *follower {
	return &follower{wake: wake, started: make(chan struct{}), following: make(map[followed]bool)}
}

// run ends all watches with ctx.
func (f *follower) run(ctx context.Context) {
	f.ctx = ctx
	close(f.started)
	<-ctx.Done()
	f.mu.Lock() // Nothing is begun any more once the lock is free: see follow.
	f.following = nil
	f.mu.Unlock()
	f.all.Wait()
}

// follow wakes the namespace at the next deletion of an object of the resource in it, after the revision.
func (f *follower) follow(r client.Resource, namespace string, rev int64) {
	<-f.started
	key := followed{namespace, r.GroupVersionResource}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.following == nil || f.following[key] {
		return
	}
	f.following[key] = true
	f.all.Go(func() {
		awaitDeletion(f.ctx, r.Cache, namespace, rev)
		f.mu.Lock()
		delete(f.following, key)
		f.mu.Unlock()
		f.wake(namespace)
	})
}

// awaitDeletion returns when something was deleted in the namespace, or might have been because the watch broke.
func awaitDeletion(ctx context.Context, c *store.Cache, namespace string, rev int64) {
	w, err := c.Watch(ctx, store.WatchOptions{Namespace: namespace, Rev: rev})
	if err != nil {
		return
	}
	defer w.Stop()
	for {
		events, err := w.Next(ctx)
		if err != nil {
			return
		}
		for _, e := range events {
			if e.Type == store.Deleted {
				return
			}
		}
	}
}
