package store

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// root is where all objects are in etcd.
const root = "/registry/"

// Options tune a Store. The zero value is good.
type Options struct {
	Logger     *slog.Logger          // nil: slog.Default()
	Registerer prometheus.Registerer // nil: no metrics

	// Rev reads etcd's present revision, linearizably, when there is a cheaper way than a request to etcd (a single
	// embedded member knows it). Nil: by a request.
	Rev func(ctx context.Context) (int64, error)

	// CompactEvery is the interval of compaction, and how long history is kept at least; 0: 5 minutes, below 0: never.
	CompactEvery time.Duration
	// BookmarkEvery is the interval of bookmarks; 0: 1 minute.
	BookmarkEvery time.Duration
}

// Store is an open store: the caches, and the one watch that feeds them.
type Store struct {
	client  *clientv3.Client
	log     *slog.Logger
	options Options
	metrics *metrics
	leases  leases
	warm    warmer

	ctx    context.Context // ends with Close; etcd's watch is found by it
	cancel context.CancelFunc
	wg     sync.WaitGroup // all goroutines of the store

	// fed is the revision up to which all caches have seen everything.
	fed     atomic.Int64
	waiters waiters
	revs    revReader

	mu     sync.RWMutex
	caches map[string]*Cache // by prefix; replaced under mu

	bookmarks chan struct{} // wakes the goroutine that sends bookmarks
}

// Open starts a store on a client, which stays the caller's. It returns as soon as etcd's revision is known.
func Open(ctx context.Context, client *clientv3.Client, o Options) (*Store, error) {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.CompactEvery == 0 {
		o.CompactEvery = 5 * time.Minute
	}
	if o.BookmarkEvery == 0 {
		o.BookmarkEvery = time.Minute
	}
	s := &Store{
		client: client, log: o.Logger, options: o,
		caches: map[string]*Cache{}, bookmarks: make(chan struct{}, 1),
	}
	s.leases.client = client
	s.ctx, s.cancel = context.WithCancel(clientv3.WithRequireLeader(context.Background()))
	s.metrics = newMetrics(s)
	rev, err := s.Rev(ctx)
	if err != nil {
		s.cancel()
		return nil, fmt.Errorf("opening the store: %w", err)
	}
	if o.Registerer != nil {
		if err := o.Registerer.Register(s.metrics); err != nil {
			s.cancel()
			return nil, fmt.Errorf("registering the store's metrics: %w", err)
		}
	}
	s.fed.Store(rev)
	s.wg.Go(func() { s.feed(s.ctx) })
	s.wg.Go(func() { s.sendBookmarks(s.ctx) })
	s.wg.Go(func() { s.compact(s.ctx, rev) })
	return s, nil
}

// start runs a goroutine that Close waits for. It refuses when the store is closed already.
func (s *Store) start(fn func()) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.ctx.Err() != nil {
		return false
	}
	s.wg.Go(fn)
	return true
}

// Close ends all watches and waits for everything that the store started.
func (s *Store) Close() {
	s.mu.Lock()
	s.cancel() // under the lock: nothing is started after it
	s.mu.Unlock()
	s.wg.Wait()
	s.warm.close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.caches {
		c.close()
	}
	if s.options.Registerer != nil {
		s.options.Registerer.Unregister(s.metrics)
	}
}

// Register adds a resource, whose cache starts to fill at once. It may be called at any time. A prefix that is
// registered already keeps its cache and its resource: Unregister it first to change it.
func (s *Store) Register(r Resource) *Cache {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.caches[r.Prefix]; c != nil {
		return c
	}
	c := newCache(s, r)
	// Copied on write, so that the feed reads it without a lock for each event.
	caches := make(map[string]*Cache, len(s.caches)+1)
	for k, v := range s.caches {
		caches[k] = v
	}
	caches[r.Prefix] = c
	s.caches = caches
	if s.ctx.Err() == nil {
		s.wg.Go(func() { c.fill(c.ctx) })
	}
	return c
}

// Unregister drops the resource with that prefix, and ends its watches. What is stored stays.
func (s *Store) Unregister(prefix string) {
	s.mu.Lock()
	c := s.caches[prefix]
	caches := make(map[string]*Cache, len(s.caches))
	for k, v := range s.caches {
		if k != prefix {
			caches[k] = v
		}
	}
	s.caches = caches
	s.mu.Unlock()
	if c != nil {
		c.close()
	}
}

// Cache returns the cache of a registered prefix, or nil.
func (s *Store) Cache(prefix string) *Cache { return s.registered()[prefix] }

func (s *Store) registered() map[string]*Cache {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.caches
}
