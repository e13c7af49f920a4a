package client

import (
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/proa-k8s/proa/internal/api"
	"github.com/proa-k8s/proa/internal/store"
)

// Resource is one stored resource of the server, as controllers see it that work on objects of every kind: garbage
// collection, the deletion of namespaces, quotas.
type Resource struct {
	schema.GroupVersionResource // in the preferred version
	Kind                        string
	Namespaced                  bool
	Verbs                       sets.Set[string]
	Cache                       *store.Cache
}

// Resources is the set of the server's stored resources. It changes while the server runs, as custom resources come and
// go. The zero value is an empty set. It is safe for concurrent use.
type Resources struct {
	mu      sync.Mutex
	list    []Resource
	changed chan struct{}
}

// Set replaces the set and wakes everyone who waits for a change. The list is not copied and must not be changed
// afterwards.
func (r *Resources) Set(list []Resource) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = list
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}

// Get gives the present set, which must not be changed, and a channel that is closed at the next change.
func (r *Resources) Get() (list []Resource, changed <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.changed == nil {
		r.changed = make(chan struct{})
	}
	return r.list, r.changed
}

// Find gives the resource of the kind in any version of its group.
func (r *Resources) Find(kind schema.GroupKind) (Resource, bool) {
	list, _ := r.Get()
	for _, res := range list {
		if res.Group == kind.Group && res.Kind == kind.Kind {
			return res, true
		}
	}
	return Resource{}, false
}

// Stored lists those of the resources that st has caches of, for Set.
func Stored(st *store.Store, resources []*api.Resource) []Resource {
	var out []Resource
	for _, r := range resources {
		if r.Prefix == "" {
			continue
		}
		c := st.Cache(r.Prefix)
		if c == nil {
			continue
		}
		verbs := r.Verbs
		if verbs == nil {
			verbs = []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}
		}
		out = append(out, Resource{
			GroupVersionResource: r.Versions[0].WithResource(r.Plural),
			Kind:                 r.Kind, Namespaced: r.Namespaced, Verbs: sets.New(verbs...), Cache: c,
		})
	}
	return out
}
