// Package store keeps the state of the cluster: objects in etcd, under upstream's keys and in upstream's encodings, and
// one cache per resource that serves every read and watch.
//
// What flows in are objects of hub types to be written; what flows out are stored objects, lists of them, and events.
// One etcd watch over the whole prefix feeds all caches. The package knows nothing of HTTP, versions or kinds.
package store

import (
	"errors"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Errors that callers tell apart with errors.Is.
var (
	ErrNotFound = errors.New("object not found")
	ErrExists   = errors.New("object exists already")
	// ErrGuard says that the guard of a companion Op did not hold: recompute it and try again.
	ErrGuard = errors.New("a guard of the transaction did not hold")
	// ErrExpired says that the revision asked for is compacted, or out of the watch window (410 Gone).
	ErrExpired = errors.New("revision is too old")
	// ErrTooLarge says that etcd refuses an object or a transaction because of its size (1.5 MB).
	ErrTooLarge = errors.New("object is too large to be stored")
	// ErrFuture says that a revision asked for lies in the future and was not reached in time (504, "Too large
	// resource version").
	ErrFuture = errors.New("revision is not reached yet")
	// ErrNotReady says that a cache is not filled yet, because etcd does not answer.
	ErrNotReady = errors.New("cache is not filled yet")
	// ErrStopped ends a watch that was stopped, was too slow, or whose resource is gone. A client that starts again
	// after the last revision it saw misses nothing.
	ErrStopped = errors.New("watch is stopped")
)

// Resource tells the store what it must know of a resource.
type Resource struct {
	Prefix     string // below /registry/, without slashes at its ends
	Namespaced bool
	TTL        int64 // seconds that an object lives after its last write; 0: forever

	// GroupResource names the resource in metrics; empty: the prefix does.
	GroupResource schema.GroupResource

	// Encode gives the bytes to store (with the k8s\0 envelope for protobuf); the object's resourceVersion is empty.
	Encode func(obj runtime.Object) ([]byte, error)
	// Decode reads what Encode (or upstream) wrote into a new hub object, defaults applied. data is shared and is not
	// to be changed.
	Decode func(data []byte) (runtime.Object, error)
	// Fields gives the values of the field selectors, metadata.name and metadata.namespace included.
	Fields func(obj runtime.Object) fields.Set
}

// Op is a write of another key that must happen together with an object's, in one etcd transaction.
type Op struct {
	Key   string // whole key: "/registry/ipaddresses/10.96.0.1"
	Value []byte // nil deletes the key
	// ModRevision must be the key's at the time of the write; 0 demands that there is no such key.
	ModRevision int64
}

// EventType is what happened to an object, as seen by one watcher (an object that stops to match the watcher's selector
// is Deleted for it).
type EventType uint8

// The types of events.
const (
	Added EventType = iota
	Modified
	Deleted
	// Bookmark carries no object, only the revision that the watcher has seen everything up to.
	Bookmark
	// InitialEnd is the bookmark that ends the initial events of a streaming list.
	InitialEnd
)

// Event is one step of a watch. Object is the state after it; for Deleted, the last state, with Rev that of the deletion.
type Event struct {
	Type   EventType
	Object *Object
	Rev    int64
}

// Match is how a list or watch at a revision treats it: the values of resourceVersionMatch.
type Match uint8

// The ways to match a revision, as the API conventions define them.
const (
	MatchLatest   Match = iota // as new as the store: rev unset
	MatchNotOlder              // from the cache, at least as new as Rev; Rev 0 means any
	MatchExact                 // the state at Rev, from etcd when the cache doesn't have it
)

// ListOptions select what is listed.
type ListOptions struct {
	Namespace string // empty: all
	Labels    labels.Selector
	Fields    fields.Selector
	Match     Match
	Rev       int64
	// Limit is how many objects to return at most, 0 for all. Continue goes on after the object with this key
	// ("<namespace>/<name>" or "<name>"), in the state of Rev (Match is MatchExact then).
	Limit    int64
	Continue string
}

// List is the answer to a list. Objects are shared and in key order.
type List struct {
	Objects []*Object
	Rev     int64
	// More says that Limit cut the list; Remaining is how many objects follow, -1 when unknown (selectors).
	More      bool
	Remaining int64
}

// WatchOptions select what is watched.
type WatchOptions struct {
	Namespace string
	Labels    labels.Selector
	Fields    fields.Selector
	// Rev is the revision after which events are wanted. 0: the present state as Added events, then what follows.
	// -1: from now on (resourceVersion unset without initial events).
	Rev int64
	// InitialEvents streams the present state (at least as new as Rev if Rev > 0, as new as the store when Rev is -1)
	// as Added events, ended by InitialEnd.
	InitialEvents bool
	Bookmarks     bool
}

// UpdateFunc computes the new object from the present one, which it must not change: it returns a changed copy. It may be
// called again when somebody else was faster. Returning cur's own decoded object means that there is nothing to write.
type UpdateFunc func(cur *Object) (runtime.Object, []Op, error)

// DeleteFunc checks whether the present object may be deleted (preconditions); an error ends the deletion.
type DeleteFunc func(cur *Object) ([]Op, error)
