package rbac

import (
	"context"
	"log/slog"
	"slices"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/proa-k8s/proa/internal/api"
	apirbac "github.com/proa-k8s/proa/internal/api/rbac"
	"github.com/proa-k8s/proa/internal/apiserver/codec"
	"github.com/proa-k8s/proa/internal/store"
	"github.com/proa-k8s/proa/internal/store/etcd"
)

func withPolicy(p *Policy) *Authorizer {
	a := New()
	for _, o := range p.ClusterRoles {
		a.Set(o)
	}
	for _, o := range p.ClusterRoleBindings {
		a.Set(o)
	}
	for _, o := range p.Roles {
		a.Set(o)
	}
	for _, o := range p.RoleBindings {
		a.Set(o)
	}
	return a
}

// TestDefaultPolicy checks what the roles that everybody relies on allow.
func TestDefaultPolicy(t *testing.T) {
	a := withPolicy(DefaultPolicy(nil, nil))
	for _, role := range []string{"view", "edit", "admin"} {
		a.Set(&rbacv1.RoleBinding{ObjectMeta: meta("dev", role), RoleRef: clusterRoleRef(role), Subjects: []rbacv1.Subject{userNamed(role)}})
	}
	signedIn, anonymous := asUser("x", user.AllAuthenticated), asUser(user.Anonymous, user.AllUnauthenticated)
	sched, manager := asUser(user.KubeScheduler), asUser(user.KubeControllerManager)
	for _, test := range []struct {
		attrs authorizer.AttributesRecord
		want  bool
	}{
		{resource(asUser("x", user.SystemPrivilegedGroup), "x", "y", "z", "anything", "", ""), true},
		{path(asUser("x", user.SystemPrivilegedGroup), "x", "/y"), true},

		{resource(asUser("view"), "list", "dev", "", "pods", "", ""), true},
		{resource(asUser("view"), "get", "dev", "apps", "deployments", "status", "x"), true},
		{resource(asUser("view"), "get", "dev", "", "pods", "log", "x"), true},
		{resource(asUser("view"), "get", "dev", "", "secrets", "", "x"), false},
		{resource(asUser("view"), "get", "dev", "rbac.authorization.k8s.io", "roles", "", "x"), false},
		{resource(asUser("view"), "delete", "dev", "", "pods", "", "x"), false},
		{resource(asUser("view"), "list", "prod", "", "pods", "", ""), false},
		{resource(asUser("view"), "list", "", "", "pods", "", ""), false},

		{resource(asUser("edit"), "list", "dev", "", "pods", "", ""), true},
		{resource(asUser("edit"), "get", "dev", "", "secrets", "", "x"), true},
		{resource(asUser("edit"), "create", "dev", "apps", "deployments", "", ""), true},
		{resource(asUser("edit"), "create", "dev", "", "pods", "exec", "x"), true},
		{resource(asUser("edit"), "create", "dev", "", "serviceaccounts", "token", "x"), true},
		{resource(asUser("edit"), "update", "dev", "", "endpoints", "", "x"), false},
		{resource(asUser("edit"), "update", "dev", "discovery.k8s.io", "endpointslices", "", "x"), false},
		{resource(asUser("edit"), "create", "dev", "rbac.authorization.k8s.io", "rolebindings", "", ""), false},
		{resource(asUser("edit"), "update", "dev", "", "resourcequotas", "", "x"), false},

		{resource(asUser("admin"), "list", "dev", "", "pods", "", ""), true},
		{resource(asUser("admin"), "create", "dev", "apps", "deployments", "", ""), true},
		{resource(asUser("admin"), "create", "dev", "rbac.authorization.k8s.io", "rolebindings", "", ""), true},
		{resource(asUser("admin"), "create", "dev", "authorization.k8s.io", "localsubjectaccessreviews", "", ""), true},
		{resource(asUser("admin"), "update", "dev", "", "namespaces", "", "dev"), false},

		{path(signedIn, "get", "/api/v1"), true},
		{path(signedIn, "get", "/openapi/v3"), true},
		{path(signedIn, "get", "/metrics"), false},
		{resource(signedIn, "create", "", "authorization.k8s.io", "selfsubjectaccessreviews", "", ""), true},
		{resource(signedIn, "create", "", "authentication.k8s.io", "selfsubjectreviews", "", ""), true},
		{path(anonymous, "get", "/version"), true},
		{path(anonymous, "get", "/readyz"), true},
		{path(anonymous, "get", "/api"), false},
		{resource(anonymous, "create", "", "authorization.k8s.io", "selfsubjectaccessreviews", "", ""), false},
		{path(asUser("x", user.MonitoringGroup), "get", "/metrics"), true},
		{path(asUser("system:serviceaccount:a:b", "system:serviceaccounts"), "get", "/openid/v1/jwks"), true},

		{resource(sched, "create", "dev", "", "pods", "binding", "x"), true},
		{resource(sched, "watch", "", "", "nodes", "", ""), true},
		{resource(sched, "update", "kube-system", "coordination.k8s.io", "leases", "", "kube-scheduler"), true},
		{resource(sched, "update", "default", "coordination.k8s.io", "leases", "", "other"), false},
		{resource(sched, "update", "kube-system", "coordination.k8s.io", "leases", "", "other"), true},
		{resource(sched, "get", "kube-system", "", "configmaps", "", "kube-scheduler"), false},
		{resource(sched, "update", "dev", "", "pods", "finalizers", "x"), true},
		{resource(sched, "patch", "dev", "resource.k8s.io", "resourceclaims", "status", "x"), true},
		{resource(sched, "list", "", "scheduling.k8s.io", "priorityclasses", "", ""), false},
		{resource(asUser("system:serviceaccount:kube-system:leader-election-controller"), "create", "kube-system", "coordination.k8s.io", "leases", "", ""), true},
		{resource(asUser("system:serviceaccount:kube-system:kube-dns"), "watch", "", "discovery.k8s.io", "endpointslices", "", ""), false},
		{resource(sched, "get", "kube-system", "", "configmaps", "", "extension-apiserver-authentication"), true},
		{resource(sched, "get", "dev", "", "secrets", "", "x"), false},
		{resource(manager, "list", "", "example.org", "things", "", ""), true},
		{resource(manager, "delete", "", "example.org", "things", "", "x"), false},
		{resource(asUser(KubeletClientUser), "create", "", "", "nodes", "proxy", "x"), true},
		{resource(asUser(KubeletClientUser), "delete", "", "", "nodes", "", "x"), false},
		{resource(asUser("system:kube-proxy"), "watch", "", "discovery.k8s.io", "endpointslices", "", ""), true},
		{resource(asUser("system:serviceaccount:kube-system:coredns"), "watch", "", "", "services", "", ""), true},
		{resource(asUser("system:serviceaccount:kube-system:bootstrap-signer"), "update", "kube-public", "", "configmaps", "", "cluster-info"), true},
	} {
		decision, _, _ := a.Authorize(t.Context(), test.attrs)
		if (decision == authorizer.DecisionAllow) != test.want {
			t.Errorf("%s: %+v: %v", test.attrs.User.GetName(), test.attrs, decision)
		}
	}
}

// TestPolicyIsValid lets the catalogue judge all objects, and checks that names are given once and roles exist.
func TestPolicyIsValid(t *testing.T) {
	p := DefaultPolicy(nil, nil)
	check := func(r *api.Resource, o object) {
		c := o.DeepCopyObject()
		if r.Default != nil {
			r.Default(c)
			if !equality.Semantic.DeepEqual(c, o) {
				t.Errorf("%T %s is not complete", o, o.GetName())
			}
		}
		for _, err := range r.Validate(t.Context(), c) {
			t.Errorf("%T %s: %v", o, o.GetName(), err)
		}
		if o.GetLabels()["kubernetes.io/bootstrapping"] != "rbac-defaults" || o.GetAnnotations()[rbacv1.AutoUpdateAnnotationKey] != "true" {
			t.Errorf("%T %s lacks the marks of a default", o, o.GetName())
		}
	}
	a := withPolicy(p)
	seen := map[roleKey]bool{}
	for _, o := range p.ClusterRoles {
		check(apirbac.ClusterRole(), o)
		if seen[keyOf(o)] {
			t.Errorf("%s is there twice", o.Name)
		}
		seen[keyOf(o)] = true
	}
	for _, o := range p.Roles {
		check(apirbac.Role(), o)
	}
	for _, o := range p.ClusterRoleBindings {
		check(apirbac.ClusterRoleBinding(), o)
		if _, ok := a.RoleRules(o.RoleRef, ""); !ok {
			t.Errorf("%s binds a role that isn't there", o.Name)
		}
	}
	for _, o := range p.RoleBindings {
		check(apirbac.RoleBinding(), o)
		if _, ok := a.RoleRules(o.RoleRef, o.Namespace); !ok {
			t.Errorf("%s binds a role that isn't there", o.Name)
		}
	}
}

// testCaches starts a store of the group's kinds.
func testCaches(t *testing.T) (Caches, context.Context) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	server, err := etcd.Start(ctx, etcd.Config{Dir: t.TempDir(), UnsafeNoFsync: true, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	st, err := store.Open(ctx, server.Client(), store.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.Close)
	resources := []*api.Resource{apirbac.Role(), apirbac.ClusterRole(), apirbac.RoleBinding(), apirbac.ClusterRoleBinding()}
	types := codec.NewTypes(resources)
	var caches []*store.Cache
	for _, r := range resources {
		caches = append(caches, st.Register(types.Stored(r)))
	}
	for _, c := range caches {
		if err := c.WaitReady(ctx); err != nil {
			t.Fatal(err)
		}
	}
	return Caches{Roles: caches[0], ClusterRoles: caches[1], RoleBindings: caches[2], ClusterRoleBindings: caches[3]}, ctx
}

func change[T object](t *testing.T, ctx context.Context, c *store.Cache, name string, fn func(T)) {
	t.Helper()
	_, err := c.Update(ctx, "", name, func(cur *store.Object) (runtime.Object, []store.Op, error) {
		obj, err := cur.Decoded()
		if err != nil {
			return nil, nil, err
		}
		o := obj.DeepCopyObject().(T)
		fn(o)
		return o, nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func stored[T object](t *testing.T, ctx context.Context, c *store.Cache, name string) T {
	t.Helper()
	o, err := c.Get(ctx, "", name, -1)
	if err != nil {
		t.Fatal(err)
	}
	obj, err := o.Decoded()
	if err != nil {
		t.Fatal(err)
	}
	return obj.(T)
}

// TestReconcile starts a cluster, starts it again, and starts it after somebody changed the defaults.
func TestReconcile(t *testing.T) {
	caches, ctx := testCaches(t)
	extra := []*rbacv1.ClusterRole{clusterRole("system:controller:x", rule("get", core, "pods"))}
	run := func(want int) {
		t.Helper()
		n, err := Reconcile(ctx, caches, DefaultPolicy(extra, nil))
		if err != nil {
			t.Fatal(err)
		}
		if n != want {
			t.Errorf("%d objects were written, not %d", n, want)
		}
	}
	p := DefaultPolicy(extra, nil)
	run(len(p.ClusterRoles) + len(p.ClusterRoleBindings) + len(p.Roles) + len(p.RoleBindings))
	if o := stored[*rbacv1.ClusterRole](t, ctx, caches.ClusterRoles, "view"); o.UID == "" || o.CreationTimestamp.IsZero() || len(o.Rules) == 0 {
		t.Errorf("incomplete: %+v", o)
	}
	run(0)

	change(t, ctx, caches.ClusterRoles, "system:discovery", func(o *rbacv1.ClusterRole) { o.Rules = []rbacv1.PolicyRule{rule("get", core, "pods")} })
	change(t, ctx, caches.ClusterRoles, "system:basic-user", func(o *rbacv1.ClusterRole) {
		o.Rules = nil
		o.Annotations[rbacv1.AutoUpdateAnnotationKey] = "false"
	})
	change(t, ctx, caches.ClusterRoles, "view", func(o *rbacv1.ClusterRole) { o.Rules = nil })
	change(t, ctx, caches.ClusterRoleBindings, "cluster-admin", func(o *rbacv1.ClusterRoleBinding) { o.Subjects = []rbacv1.Subject{userNamed("me")} })
	change(t, ctx, caches.ClusterRoleBindings, "system:discovery", func(o *rbacv1.ClusterRoleBinding) { o.RoleRef.Name = "view" })
	if _, err := caches.ClusterRoles.Delete(ctx, "", "system:node", func(*store.Object) ([]store.Op, error) { return nil, nil }); err != nil {
		t.Fatal(err)
	}
	run(4)
	if o := stored[*rbacv1.ClusterRole](t, ctx, caches.ClusterRoles, "system:discovery"); len(o.Rules) < 2 {
		t.Errorf("rules were not added to those that are there: %v", o.Rules)
	}
	if o := stored[*rbacv1.ClusterRole](t, ctx, caches.ClusterRoles, "system:basic-user"); len(o.Rules) > 0 {
		t.Errorf("a role that shall not be updated was: %v", o.Rules)
	}
	if o := stored[*rbacv1.ClusterRole](t, ctx, caches.ClusterRoles, "view"); len(o.Rules) > 0 {
		t.Errorf("an aggregated role was reconciled: %v", o.Rules)
	}
	if o := stored[*rbacv1.ClusterRoleBinding](t, ctx, caches.ClusterRoleBindings, "cluster-admin"); !slices.Equal(o.Subjects, []rbacv1.Subject{userNamed("me"), group(user.SystemPrivilegedGroup)}) {
		t.Errorf("subjects are %v", o.Subjects)
	}
	if o := stored[*rbacv1.ClusterRoleBinding](t, ctx, caches.ClusterRoleBindings, "system:discovery"); o.RoleRef.Name != "system:discovery" {
		t.Errorf("the binding refers to %v", o.RoleRef)
	}
	run(0)
}

// TestFollow sees a role and a binding through the store.
func TestFollow(t *testing.T) {
	caches, ctx := testCaches(t)
	if _, err := Reconcile(ctx, caches, DefaultPolicy(nil, nil)); err != nil {
		t.Fatal(err)
	}
	a := New()
	following, stop := context.WithCancel(ctx)
	ready, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		a.Follow(following, slog.New(slog.DiscardHandler), caches, func() { close(ready) })
	}()
	<-ready
	attrs := resource(asUser("ann"), "list", "dev", "", "pods", "", "")
	await := func(want authorizer.Decision) {
		t.Helper()
		for ctx.Err() == nil {
			if d, _, _ := a.Authorize(ctx, attrs); d == want {
				return
			}
			time.Sleep(time.Millisecond)
		}
		t.Fatalf("never decided %v", want)
	}
	if d, _, _ := a.Authorize(ctx, path(asUser("x", user.AllAuthenticated), "get", "/api")); d != authorizer.DecisionAllow {
		t.Error("the policy is not there when the authorizer is ready")
	}
	b := &rbacv1.RoleBinding{ObjectMeta: meta("dev", "b"), RoleRef: clusterRoleRef("view"), Subjects: []rbacv1.Subject{userNamed("ann")}}
	if _, err := caches.RoleBindings.Create(ctx, "dev", "b", b, nil); err != nil {
		t.Fatal(err)
	}
	await(authorizer.DecisionAllow)
	if _, err := caches.RoleBindings.Delete(ctx, "dev", "b", func(*store.Object) ([]store.Op, error) { return nil, nil }); err != nil {
		t.Fatal(err)
	}
	await(authorizer.DecisionNoOpinion)
	stop()
	<-done
}

func BenchmarkReconcileNothing(b *testing.B) {
	p := DefaultPolicy(nil, nil)
	for b.Loop() {
		for _, o := range p.ClusterRoles {
			if _, err := missingInClusterRole(o, o); err != nil {
				b.Fatal(err)
			}
		}
	}
}
