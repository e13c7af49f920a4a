package store

import (
	"context"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

const (
	// futureTimeout is how long a request waits for a revision that a client names.
	futureTimeout = 3 * time.Second
	// lagTimeout is how long a request waits for the caches to catch up with etcd.
	lagTimeout = 10 * time.Second
	// progressAfter is how long the feed may take to deliver a revision before etcd is asked whether there is anything
	// to deliver: a revision that touched nothing below the root is not delivered otherwise.
	progressAfter = 5 * time.Millisecond
)

// Rev returns the present revision of etcd: every write that was acknowledged before the call has it or a lower one.
func (s *Store) Rev(ctx context.Context) (int64, error) {
	if s.options.Rev != nil {
		return s.options.Rev(ctx)
	}
	r := &s.revs
	r.mu.Lock()
	if r.next == nil {
		r.next = &revRead{done: make(chan struct{})}
	}
	mine := r.next
	if !r.running {
		r.running = s.start(s.readRevs)
		if !r.running {
			r.mu.Unlock()
			return 0, ErrStopped
		}
	}
	r.mu.Unlock()
	select {
	case <-mine.done:
		return mine.rev, mine.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// revReader lets all who ask for the revision while a request is on its way share the next one. (The one on its way
// may have read the revision before they asked.)
type revReader struct {
	mu      sync.Mutex
	running bool
	next    *revRead
}

type revRead struct {
	done chan struct{}
	rev  int64
	err  error
}

// readRevs reads the revision until nobody waits for it.
func (s *Store) readRevs() {
	r := &s.revs
	for {
		r.mu.Lock()
		cur := r.next
		r.next = nil
		r.running = cur != nil
		r.mu.Unlock()
		if cur == nil {
			return
		}
		ctx, cancel := context.WithTimeout(s.ctx, lagTimeout)
		began := time.Now()
		resp, err := s.client.Get(ctx, root, clientv3.WithCountOnly())
		cancel()
		s.metrics.observe("getCurrentResourceVersion", schema.GroupResource{}, began, err)
		if err != nil {
			cur.err = fmt.Errorf("reading etcd's revision: %w", err)
		} else {
			cur.rev = resp.Header.Revision
		}
		close(cur.done)
	}
}

// waiters are those who wait for the feed to reach a revision.
type waiters struct {
	mu   sync.Mutex
	list []waiter
}

type waiter struct {
	rev int64
	ch  chan struct{}
}

// setFed announces that all caches have seen everything up to rev.
func (s *Store) setFed(rev int64) {
	if rev <= s.fed.Load() {
		return
	}
	w := &s.waiters
	w.mu.Lock()
	defer w.mu.Unlock()
	s.fed.Store(rev)
	rest := w.list[:0]
	for _, x := range w.list {
		if x.rev <= rev {
			close(x.ch)
		} else {
			rest = append(rest, x)
		}
	}
	clear(w.list[len(rest):])
	w.list = rest
}

// waitFed waits until all caches have seen rev. After the timeout it fails with ErrFuture.
func (s *Store) waitFed(ctx context.Context, rev int64, timeout time.Duration) error {
	if s.fed.Load() >= rev {
		return nil
	}
	w := &s.waiters
	w.mu.Lock()
	if s.fed.Load() >= rev {
		w.mu.Unlock()
		return nil
	}
	mine := waiter{rev, make(chan struct{})}
	w.list = append(w.list, mine)
	w.mu.Unlock()
	defer w.drop(mine.ch)

	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	again := progressAfter
	progress := time.NewTimer(again)
	defer progress.Stop()
	for {
		select {
		case <-mine.ch:
			return nil
		case <-progress.C:
			if err := s.client.RequestProgress(s.ctx); err != nil {
				s.log.Debug("Asking etcd for the progress of the watch", "err", err)
			}
			// The answer is missing while the watch is only being started, or is behind.
			again = min(2*again, time.Second)
			progress.Reset(again)
		case <-deadline.C:
			return fmt.Errorf("waiting for revision %d, present is %d: %w", rev, s.fed.Load(), ErrFuture)
		case <-ctx.Done():
			return ctx.Err()
		case <-s.ctx.Done():
			return ErrStopped
		}
	}
}

func (w *waiters) drop(ch chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.list {
		if w.list[i].ch == ch {
			w.list = append(w.list[:i], w.list[i+1:]...)
			return
		}
	}
}

// waitLatest waits until the caches are as new as etcd is now.
func (s *Store) waitLatest(ctx context.Context) error {
	rev, err := s.Rev(ctx)
	if err != nil {
		return err
	}
	return s.waitFed(ctx, rev, lagTimeout)
}
