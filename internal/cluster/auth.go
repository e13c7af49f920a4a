package cluster

import (
	"context"
	"fmt"
	"net/http"
	"net/http/pprof"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/component-base/metrics/legacyregistry"

	"github.com/proa-k8s/proa/internal/apiserver"
	"github.com/proa-k8s/proa/internal/apiserver/auth/authn"
	"github.com/proa-k8s/proa/internal/apiserver/auth/authz"
	"github.com/proa-k8s/proa/internal/apiserver/auth/node"
	"github.com/proa-k8s/proa/internal/apiserver/auth/rbac"
	"github.com/proa-k8s/proa/internal/apiserver/binding"
	"github.com/proa-k8s/proa/internal/apiserver/eviction"
	"github.com/proa-k8s/proa/internal/apiserver/lookup"
	"github.com/proa-k8s/proa/internal/apiserver/nodeproxy"
	"github.com/proa-k8s/proa/internal/apiserver/openapi"
	"github.com/proa-k8s/proa/internal/store"
)

// auth is what decides about requests.
type auth struct {
	tokens *authn.Tokens
	authn  *authn.Authenticator
	rbac   *rbac.Authorizer
	graph  *node.Graph
	authz  *authz.Authorizer
}

// cache finds the cache of a resource by the place it has in the store.
func (s *server) cache(prefix string) *store.Cache { return s.store.Cache(prefix) }

func (s *server) makeAuth() (*auth, error) {
	a := &auth{rbac: rbac.New(), graph: node.NewGraph()}
	var err error
	a.tokens, err = authn.NewTokens(authn.TokensConfig{
		Issuer: "https://kubernetes.default.svc." + s.ClusterDomain,
		Key:    s.pki.ServiceAccountKey(),
		Objects: authn.Objects{
			ServiceAccounts: lookup.Get[*corev1.ServiceAccount](s.cache("serviceaccounts")),
			Secrets:         lookup.Get[*corev1.Secret](s.cache("secrets")),
			Pods:            lookup.Get[*corev1.Pod](s.cache("pods")),
			Nodes:           lookup.Get[*corev1.Node](s.cache("minions")),
		},
	})
	if err != nil {
		return nil, fmt.Errorf("setting up service account tokens: %w", err)
	}
	a.authn, err = authn.New(authn.Config{
		ClientCAs:        s.pki.ClientCAs(),
		FrontProxyCAs:    s.pki.FrontProxyCAs(),
		FrontProxyNames:  []string{"front-proxy-client"},
		Tokens:           a.tokens,
		BootstrapSecrets: lookup.Get[*corev1.Secret](s.cache("secrets")),
	})
	if err != nil {
		return nil, fmt.Errorf("setting up authentication: %w", err)
	}
	a.authz = authz.New(node.New(a.graph), a.rbac)
	return a, nil
}

func (s *server) rbacCaches() rbac.Caches {
	return rbac.Caches{
		Roles: s.cache("roles"), ClusterRoles: s.cache("clusterroles"),
		RoleBindings: s.cache("rolebindings"), ClusterRoleBindings: s.cache("clusterrolebindings"),
	}
}

// follow keeps authorization in step with the store, and returns when it has caught up.
func (s *server) follow(ctx context.Context, group *errgroup.Group) error {
	rbacReady, graphReady := make(chan struct{}), make(chan struct{})
	log := s.Log.With("component", "authorizer")
	group.Go(func() error {
		s.auth.rbac.Follow(ctx, log, s.rbacCaches(), func() { close(rbacReady) })
		return nil
	})
	group.Go(func() error {
		caches := node.Caches{Pods: s.cache("pods"), PersistentVolumes: s.cache("persistentvolumes"), VolumeAttachments: s.cache("volumeattachments")}
		s.auth.graph.Follow(ctx, log, caches, func() { close(graphReady) })
		return nil
	})
	for _, ready := range []chan struct{}{rbacReady, graphReady} {
		select {
		case <-ready:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// makeAPI puts the API server together.
func (s *server) makeAPI(ctx context.Context, group *errgroup.Group) error {
	var err error
	if s.auth, err = s.makeAuth(); err != nil {
		return err
	}
	if _, err := rbac.Reconcile(ctx, s.rbacCaches(), s.policy()); err != nil {
		return fmt.Errorf("writing the default roles: %w", err)
	}
	if err := s.follow(ctx, group); err != nil {
		return err
	}
	admission, err := s.makeAdmission()
	if err != nil {
		return err
	}
	extra, err := s.extraHandlers()
	if err != nil {
		return err
	}
	connectors, closeIdle := nodeproxy.Connectors(nodeproxy.Config{
		Pod:     lookup.Get[*corev1.Pod](s.cache("pods")),
		Node:    lookup.Get[*corev1.Node](s.cache("minions")),
		Service: lookup.Get[*corev1.Service](s.cache("services/specs")),
		Slices:  lookup.List[*discoveryv1.EndpointSlice](s.cache("endpointslices")),
		TLS:     s.pki.ClientTLS(rbac.KubeletClientUser, nil),
	})
	s.closers = append(s.closers, closeIdle)
	companion, err := s.serviceCompanion(ctx)
	if err != nil {
		return err
	}
	s.api, err = apiserver.New(apiserver.Config{
		Store:         s.store,
		Resources:     s.resources,
		Authenticator: s.auth.authn,
		Authorizer:    s.auth.authz,
		Admission:     admission,
		Creaters:      s.creaters(),
		Connectors:    connectors,
		Companions:    map[schema.GroupResource]apiserver.Companion{{Resource: "services"}: companion},
		Extra:         extra,
		Version:       Version(),
		Logger:        s.Log.With("component", "apiserver"),
		Registerer:    s.registry,
		Checks:        []apiserver.Check{{Name: "etcd", Live: true, Func: s.checkEtcd}},
	})
	if err != nil {
		return fmt.Errorf("setting up the API: %w", err)
	}
	s.closers = append(s.closers, s.api.Close)
	return nil
}

func (s *server) checkEtcd(ctx context.Context) error {
	_, err := s.etcd.Client().Get(ctx, "health")
	return err
}

func (s *server) creaters() map[string]apiserver.CreateFunc {
	bind := binding.Create(s.cache("pods"))
	evict := eviction.Create(eviction.Config{Pods: s.cache("pods"), Budgets: s.cache("poddisruptionbudgets"), Delete: s.deletePod})
	return map[string]apiserver.CreateFunc{
		"authentication.k8s.io/tokenreviews":             s.auth.authn.TokenReview,
		"authentication.k8s.io/selfsubjectreviews":       s.auth.authn.SelfSubjectReview,
		"authorization.k8s.io/subjectaccessreviews":      s.auth.authz.SubjectAccessReview,
		"authorization.k8s.io/localsubjectaccessreviews": s.auth.authz.LocalSubjectAccessReview,
		"authorization.k8s.io/selfsubjectaccessreviews":  s.auth.authz.SelfSubjectAccessReview,
		"authorization.k8s.io/selfsubjectrulesreviews":   s.auth.authz.SelfSubjectRulesReview,
		"serviceaccounts/token":                          s.auth.tokens.TokenRequest,
		"pods/binding":                                   bind,
		"pods/eviction":                                  evict,
		"bindings":                                       bind,
	}
}

// deletePod deletes an evicted pod: who may evict need not have the right to delete.
func (s *server) deletePod(ctx context.Context, namespace, name string, options metav1.DeleteOptions) error {
	c, err := corev1client.NewForConfig(s.rest(&user.DefaultInfo{Name: user.APIServerUser, Groups: []string{user.SystemPrivilegedGroup}}))
	if err != nil {
		return err
	}
	return c.Pods(namespace).Delete(ctx, name, options)
}

// extraHandlers serve what is no resource.
func (s *server) extraHandlers() (map[string]http.Handler, error) {
	docs, err := openapi.New()
	if err != nil {
		return nil, err
	}
	// Libraries of the Kubernetes family register their metrics in a registry of their own.
	all := prometheus.Gatherers{s.registry, legacyregistry.DefaultGatherer}
	extra := map[string]http.Handler{
		"/openapi/v2":  docs,
		"/openapi/v3":  docs,
		"/openapi/v3/": docs,
		"/metrics":     promhttp.HandlerFor(all, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}),
	}
	// As upstream's servers, this one shows what it spends time and memory on to who may ask.
	extra["/debug/pprof/"] = http.HandlerFunc(pprof.Index)
	extra["/debug/pprof/profile"] = http.HandlerFunc(pprof.Profile)
	extra["/debug/pprof/trace"] = http.HandlerFunc(pprof.Trace)
	discovery, err := s.auth.tokens.Discovery("")
	if err != nil {
		return nil, fmt.Errorf("setting up the discovery of token keys: %w", err)
	}
	for path, h := range discovery {
		extra[path] = h
	}
	return extra, nil
}
