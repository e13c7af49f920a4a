package apiserver

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/util/sets"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"

	"github.com/proa-k8s/proa/internal/api"
	"github.com/proa-k8s/proa/internal/apiserver/codec"
	"github.com/proa-k8s/proa/internal/apiserver/discovery"
	"github.com/proa-k8s/proa/internal/apiserver/fieldmanager"
	"github.com/proa-k8s/proa/internal/store"
)

// RegisterCaches registers all stored resources with the store, whose caches start to fill. Authenticators, authorizers
// and admission plugins that read from caches can then be made before the server is: they find a cache by
// (*store.Store).Cache(resource.Prefix). New does it for resources that are not registered yet.
func RegisterCaches(st *store.Store, resources []*api.Resource) {
	types := codec.NewTypes(resources)
	for _, r := range resources {
		if r.Prefix != "" && st.Cache(r.Prefix) == nil {
			st.Register(types.Stored(r))
		}
	}
}

// Server is the API. It is an http.Handler: the whole chain from panic recovery to the verbs.
type Server struct {
	config   Config
	log      *slog.Logger
	types    *codec.Types
	managers *fieldmanager.Factory
	gate     gate
	infos    apirequest.RequestInfoFactory
	metrics  *metrics
	reads    limit
	writes   limit

	mu     sync.Mutex // of changes of served
	served atomic.Pointer[served]

	// running ends when the server is closed.
	running    context.Context
	stop       context.CancelFunc
	background sync.WaitGroup
}

// served is what is served at one time. It is immutable.
type served struct {
	resources []*api.Resource
	routes    routes
	documents *discovery.Documents
}

// New makes a server. Its caches may still be filling when it returns: /readyz tells.
func New(c Config) (*Server, error) {
	switch {
	case c.Store == nil:
		return nil, errors.New("making the API server: no store")
	case c.Authenticator == nil:
		return nil, errors.New("making the API server: no authenticator")
	case c.Authorizer == nil:
		return nil, errors.New("making the API server: no authorizer")
	}
	s := &Server{
		config: c, log: c.Logger, types: codec.NewTypes(c.Resources), gate: newGate(c.Admission),
		metrics: newMetrics(c.Registerer),
		infos:   apirequest.RequestInfoFactory{APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api")},
	}
	if s.log == nil {
		s.log = slog.Default()
	}
	s.metrics.is(&c.Version)
	s.reads.init(c.MaxInFlight, 400, s.metrics.inflight("readOnly"))
	s.writes.init(c.MaxMutatingInFlight, 200, s.metrics.inflight("mutating"))
	s.managers = fieldmanager.NewFactory(s.types)
	s.running, s.stop = context.WithCancel(context.Background())
	// Every write needs the schema: it is read while the rest of the cluster starts.
	s.background.Go(s.managers.Load)
	s.served.Store(&served{routes: routes{}})
	s.AddResources(c.Resources...)
	return s, nil
}

// AddResources serves more resources, or other versions of those that are served.
func (s *Server) AddResources(resources ...*api.Resource) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.served.Load()
	next := &served{routes: now.routes, resources: slices.Clone(now.resources)}
	var added []*endpoint
	for _, r := range resources {
		s.types.AddResource(r)
		next.resources = slices.DeleteFunc(next.resources, func(old *api.Resource) bool { return old.GroupResource() == r.GroupResource() })
		next.resources = append(next.resources, r)
		added = append(added, s.endpoints(r)...)
	}
	next.routes = now.routes.with(added)
	next.documents = discovery.New(next.resources)
	s.served.Store(next)
}

// RemoveResource serves a resource no more. Its watches end; what is stored stays.
func (s *Server) RemoveResource(r *api.Resource) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.served.Load()
	next := &served{routes: now.routes.without(r), resources: slices.Clone(now.resources)}
	next.resources = slices.DeleteFunc(next.resources, func(old *api.Resource) bool { return old.GroupResource() == r.GroupResource() })
	next.documents = discovery.New(next.resources)
	s.served.Store(next)
	if r.Prefix != "" {
		s.config.Store.Unregister(r.Prefix)
	}
}

// Close ends all watches, and waits for what the server runs in the background.
func (s *Server) Close() {
	s.stop()
	s.background.Wait()
}

var _ http.Handler = (*Server)(nil)
