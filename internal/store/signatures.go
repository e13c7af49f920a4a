package store

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
)

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

// Store is an open store.
type Store struct{}

// Cache serves the objects of one resource.
type Cache struct{}

// Open starts a store on a client.
func Open(ctx context.Context, client *clientv3.Client, o Options) (*Store, error) { panic("soon") }

// Close ends all watches.
func (s *Store) Close() {}

// Register adds a resource, whose cache starts to fill. At run time, too.
func (s *Store) Register(r Resource) *Cache { panic("soon") }

// Unregister drops the resource with that prefix, and ends its watches.
func (s *Store) Unregister(prefix string) {}

// Cache returns the cache of a registered prefix, or nil.
func (s *Store) Cache(prefix string) *Cache { panic("soon") }

// Rev returns etcd's present revision.
func (s *Store) Rev(ctx context.Context) (int64, error) { panic("soon") }

// WaitReady waits until the cache is filled.
func (c *Cache) WaitReady(ctx context.Context) error { panic("soon") }

// Get returns an object at least as new as minRev (-1: as new as the store; 0: any).
func (c *Cache) Get(ctx context.Context, namespace, name string, minRev int64) (*Object, error) {
	panic("soon")
}

// List lists.
func (c *Cache) List(ctx context.Context, o ListOptions) (*List, error) { panic("soon") }

// Watch watches.
func (c *Cache) Watch(ctx context.Context, o WatchOptions) (*Watch, error) { panic("soon") }

// Create writes a new object. obj belongs to the store from here on.
func (c *Cache) Create(ctx context.Context, namespace, name string, obj runtime.Object, ops []Op) (*Object, error) {
	panic("soon")
}

// Update changes an object.
func (c *Cache) Update(ctx context.Context, namespace, name string, fn UpdateFunc) (*Object, error) {
	panic("soon")
}

// Delete deletes an object, and returns its last state with the revision of the deletion.
func (c *Cache) Delete(ctx context.Context, namespace, name string, fn DeleteFunc) (*Object, error) {
	panic("soon")
}

// Watch is a running watch.
type Watch struct{}

// Next waits for events. The slice is valid until the next call. The error is ErrStopped when the watch has ended, or
// that of ctx.
func (w *Watch) Next(ctx context.Context) ([]Event, error) { panic("soon") }

// Stop ends the watch.
func (w *Watch) Stop() {}

// Object is one stored state of an object. It is immutable and shared.
type Object struct {
	Key       string // "<namespace>/<name>" or "<name>"
	Namespace string
	Name      string
	Rev       int64 // etcd's modification revision; of a deleted object that of the deletion
}

// Value returns the stored bytes, which nobody may change.
func (o *Object) Value() []byte { panic("soon") }

// Decoded returns the object with its resourceVersion set. It is shared: nobody may change it.
func (o *Object) Decoded() (runtime.Object, error) { panic("soon") }

// Labels returns the object's labels, without decoding it.
func (o *Object) Labels() labels.Labels { panic("soon") }

// EncodingKey tells the encodings of one object apart.
type EncodingKey struct {
	Version string // in which the object is encoded: "apps/v1"
	Form    string // "json", "watch-modified-json"
}

// Encoding returns the object's encoding of that name, made at most once while it is in use, and shared.
func (o *Object) Encoding(key EncodingKey, make func() ([]byte, error)) ([]byte, error) {
	panic("soon")
}
