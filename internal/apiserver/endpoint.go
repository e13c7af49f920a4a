package apiserver

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"cmp"
	"maps"
	"net/http"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/proa-k8s/proa/internal/api"
	"github.com/proa-k8s/proa/internal/apiserver/codec"
	"github.com/proa-k8s/proa/internal/apiserver/discovery"
	"github.com/proa-k8s/proa/internal/apiserver/fieldmanager"
	"github.com/proa-k8s/proa/internal/store"
)

// endpoint is one resource in one version, as requests meet it. It is immutable.
type endpoint struct {
	*api.Resource
	version *api.Version
	kind    schema.GroupVersionKind // as served
	gvr     schema.GroupVersionResource
	gr      schema.GroupResource // as served, which may be in another group than the hub

	cache     *store.Cache // nil for a virtual resource
	create    CreateFunc   // of a virtual resource
	companion Companion
	manager   *fieldmanager.Manager
	subs      map[string]*subresource
	form      *codec.Form
}

// subresource is one subresource of an endpoint.
type subresource struct {
	*api.Subresource
	create  CreateFunc
	connect http.Handler
	manager *fieldmanager.Manager
}

// isHub says whether objects are served as they are stored.
// defaultPropagation is what a deletion does to dependents when the request does not say.
func (e *endpoint) defaultPropagation() metav1.DeletionPropagation {
	return cmp.Or(e.version.DefaultPropagation, e.DefaultPropagation)
}

func verbsOf(r *api.Resource) []string {
	if r.Verbs == nil {
		return discovery.AllVerbs
	}
	return r.Verbs
}

func (e *endpoint) serves(verb string) bool { return slices.Contains(verbsOf(e.Resource), verb) }

// routes are all endpoints. A table is immutable; the server swaps it for a new one when resources come and go.
type routes map[schema.GroupVersion]map[string]*endpoint

func (t routes) find(group, version, resource string) *endpoint {
	return t[schema.GroupVersion{Group: group, Version: version}][resource]
}

// with returns a table with the endpoints of a resource added, or replaced.
func (t routes) with(endpoints []*endpoint) routes {
	next := t.clone()
	for _, e := range endpoints {
		gv := e.version.GroupVersion
		if next[gv] == nil {
			next[gv] = map[string]*endpoint{}
		}
		next[gv][e.Plural] = e
	}
	return next
}

// without returns a table without a resource.
func (t routes) without(r *api.Resource) routes {
	next := t.clone()
	for _, v := range r.Versions {
		delete(next[v.GroupVersion], r.Plural)
		if len(next[v.GroupVersion]) == 0 {
			delete(next, v.GroupVersion)
		}
	}
	return next
}

func (t routes) clone() routes {
	next := make(routes, len(t)+1)
	for gv, resources := range t {
		next[gv] = maps.Clone(resources)
	}
	return next
}

// endpoints makes the endpoints of a resource, one per version.
func (s *Server) endpoints(r *api.Resource) []*endpoint {
	var cache *store.Cache
	if r.Prefix != "" {
		if cache = s.config.Store.Cache(r.Prefix); cache == nil {
			cache = s.config.Store.Register(s.types.Stored(r))
		}
	}
	list := make([]*endpoint, len(r.Versions))
	for i := range r.Versions {
		v := &r.Versions[i]
		e := &endpoint{
			Resource: r, version: v, kind: v.WithKind(r.Kind), gvr: v.WithResource(r.Plural),
			gr:        schema.GroupResource{Group: v.Group, Resource: r.Plural},
			cache:     cache,
			create:    s.config.Creaters[handlerKey(r.Group, r.Plural)],
			companion: s.config.Companions[r.GroupResource()],
			subs:      map[string]*subresource{},
		}
		if cache != nil {
			e.manager = s.managers.New(r, v, "", r.ResetFields)
			e.form = codec.NewForm(s.types, r, v)
		}
		for j := range r.Subresources {
			e.subs[r.Subresources[j].Name] = s.subresource(e, &r.Subresources[j])
		}
		list[i] = e
	}
	return list
}

func (s *Server) subresource(e *endpoint, sub *api.Subresource) *subresource {
	key := handlerKey(e.Resource.Group, e.Plural, sub.Name)
	out := &subresource{Subresource: sub, create: s.config.Creaters[key], connect: s.config.Connectors[key]}
	switch {
	case sub.Scale != nil:
		out.manager = s.managers.NewScale()
	case sub.Strategy != nil:
		out.manager = s.managers.New(e.Resource, e.version, sub.Name, sub.Strategy.ResetFields)
	}
	return out
}

// handlerKey is the key of Config.Creaters and Connectors.
func handlerKey(group string, rest ...string) string {
	key := strings.Join(rest, "/")
	if group != "" {
		key = group + "/" + key
	}
	return key
}
