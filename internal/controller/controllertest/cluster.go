// Package controllertest runs controllers in tests against a real API server on a real store, with RBAC as it follows from
// their declarations, and a simulated node agent that binds pods and reports them as running.
package controllertest

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/proa-k8s/proa/internal/api"
	"github.com/proa-k8s/proa/internal/api/catalogue"
	"github.com/proa-k8s/proa/internal/apiserver"
	"github.com/proa-k8s/proa/internal/apiserver/auth/rbac"
	"github.com/proa-k8s/proa/internal/apiserver/binding"
	"github.com/proa-k8s/proa/internal/apiserver/eviction"
	"github.com/proa-k8s/proa/internal/client"
	"github.com/proa-k8s/proa/internal/controller"
	"github.com/proa-k8s/proa/internal/store"
	"github.com/proa-k8s/proa/internal/store/etcd"
)

// Main runs a package's tests with mutation detection: an informer panics when an object from its lister was changed. To be
// called by TestMain.
func Main(m *testing.M) {
	const detector = "KUBE_CACHE_MUTATION_DETECTOR"
	if os.Getenv(detector) == "" { // client-go reads it before main runs.
		if self, err := os.Executable(); err == nil {
			err = syscall.Exec(self, os.Args, append(os.Environ(), detector+"=true"))
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// Cluster is an API server with controllers.
type Cluster struct {
	// Admin is a client that may do everything; REST makes others.
	Admin kubernetes.Interface
	REST  func(user.Info) *rest.Config
	// Informers and Resources are those of the server.
	Informers informers.SharedInformerFactory
	Resources *client.Resources
	Store     *store.Store
}

// admin is allowed everything.
var admin = &user.DefaultInfo{Name: "admin", Groups: []string{user.SystemPrivilegedGroup, user.AllAuthenticated}}

// Start starts a cluster with the controllers; it ends with the test.
func Start(t testing.TB, controllers ...controller.Controller) *Cluster {
	t.Helper()
	return StartWith(t, nil, controllers...)
}

// StartWith is Start with a change of the manager's configuration.
func StartWith(t testing.TB, change func(*controller.Config), controllers ...controller.Controller) *Cluster {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	log := Quiet()
	if testing.Verbose() {
		log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	st := openStore(ctx, t, log)
	resources := catalogue.Builtin()
	apiserver.RegisterCaches(st, resources)
	for _, r := range resources {
		if r.Prefix != "" {
			must(t, st.Cache(r.Prefix).WaitReady(ctx))
		}
	}
	handler := serve(ctx, t, st, resources, controllers, log)
	c := &Cluster{Store: st, Resources: new(client.Resources)}
	c.REST = func(u user.Info) *rest.Config { return client.NewConfig(handler, u) }
	c.Admin = kubernetes.NewForConfigOrDie(c.REST(admin))
	c.Informers = client.Informers(c.Admin, st, resources)
	c.Resources.Set(client.Stored(st, resources))
	config := controller.Config{REST: c.REST, Informers: c.Informers, Resources: c.Resources, Log: log}
	if change != nil {
		change(&config)
	}
	m, err := controller.NewManager(config, controllers)
	must(t, err)
	for _, ns := range []string{metav1.NamespaceDefault, metav1.NamespaceSystem, corev1.NamespaceNodeLease} {
		_, err := c.Admin.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}, metav1.CreateOptions{})
		must(t, err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := m.Run(ctx); err != nil {
			t.Errorf("running the controllers: %v", err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		c.Informers.Shutdown()
	})
	return c
}

func openStore(ctx context.Context, t testing.TB, log *slog.Logger) *store.Store {
	quiet := Quiet()
	db, err := etcd.Start(ctx, etcd.Config{Dir: t.TempDir(), Logger: quiet, UnsafeNoFsync: true})
	must(t, err)
	t.Cleanup(func() { must(t, db.Close()) })
	st, err := store.Open(ctx, db.Client(), store.Options{Logger: log, Rev: db.Rev, CompactEvery: -1})
	must(t, err)
	t.Cleanup(st.Close)
	return st
}

// serve makes the API server, which lets controllers do what they declare.
func serve(ctx context.Context, t testing.TB, st *store.Store, resources []*api.Resource, controllers []controller.Controller, log *slog.Logger) http.Handler {
	cacheOf := func(group, plural string) *store.Cache {
		for _, r := range resources {
			if r.Group == group && r.Plural == plural {
				return st.Cache(r.Prefix)
			}
		}
		t.Fatalf("no resource %s in group %q", plural, group)
		return nil
	}
	roles := rbac.New()
	caches := rbac.Caches{
		Roles:               cacheOf("rbac.authorization.k8s.io", "roles"),
		RoleBindings:        cacheOf("rbac.authorization.k8s.io", "rolebindings"),
		ClusterRoles:        cacheOf("rbac.authorization.k8s.io", "clusterroles"),
		ClusterRoleBindings: cacheOf("rbac.authorization.k8s.io", "clusterrolebindings"),
	}
	_, err := rbac.Reconcile(ctx, caches, rbac.DefaultPolicy(controller.Roles(controllers)))
	must(t, err)
	ready, followed := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(followed)
		roles.Follow(ctx, log, caches, func() { close(ready) })
	}()
	t.Cleanup(func() { <-followed })
	<-ready
	var server *apiserver.Server
	server, err = apiserver.New(apiserver.Config{
		Store: st, Resources: resources, Logger: log,
		Authenticator: authenticator.RequestFunc(func(*http.Request) (*authenticator.Response, bool, error) { return nil, false, nil }),
		Authorizer: authorizer.AuthorizerFunc(func(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
			if a.GetUser().GetName() == admin.Name {
				return authorizer.DecisionAllow, "", nil
			}
			decision, reason, err := roles.Authorize(ctx, a)
			if decision != authorizer.DecisionAllow {
				t.Errorf("%s may not %s %s/%s %s: %s", a.GetUser().GetName(), a.GetVerb(), a.GetResource(), a.GetSubresource(), a.GetName(), reason)
			}
			return decision, reason, err
		}),
		Creaters: map[string]apiserver.CreateFunc{
			"pods/binding": binding.Create(st.Cache("pods")),
			"pods/eviction": eviction.Create(eviction.Config{
				Pods: st.Cache("pods"), Budgets: st.Cache("poddisruptionbudgets"),
				Delete: func(ctx context.Context, namespace, name string, options metav1.DeleteOptions) error {
					return kubernetes.NewForConfigOrDie(client.NewConfig(server, admin)).CoreV1().Pods(namespace).Delete(ctx, name, options)
				},
			}),
		},
		Version: version.Info{Major: "1", Minor: "37"},
	})
	must(t, err)
	t.Cleanup(server.Close)
	return server
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// Quiet is a log that nobody reads.
func Quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }
