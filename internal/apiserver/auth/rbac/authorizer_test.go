package rbac

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

func asUser(name string, groups ...string) user.Info {
	return &user.DefaultInfo{Name: name, Groups: groups}
}

func meta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name}
}

func clusterRoleRef(name string) rbacv1.RoleRef {
	return rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name}
}

func roleRef(name string) rbacv1.RoleRef {
	return rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name}
}

func account(namespace, name string) rbacv1.Subject {
	return rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: name}
}

func resource(u user.Info, verb, namespace, group, resource, sub, name string) authorizer.AttributesRecord {
	return authorizer.AttributesRecord{User: u, Verb: verb, Namespace: namespace, APIGroup: group, Resource: resource, Subresource: sub, Name: name, ResourceRequest: true}
}

func path(u user.Info, verb, path string) authorizer.AttributesRecord {
	return authorizer.AttributesRecord{User: u, Verb: verb, Path: path}
}

func TestAuthorize(t *testing.T) {
	a := New()
	for _, o := range []any{
		clusterRole("reader", rule("get list", "core apps", "pods deployments")),
		clusterRole("scaler", rule("update", "*", "*/scale")),
		clusterRole("one", rule("get", core, "secrets", "tls")),
		clusterRole("paths", paths("get", "/healthz /api/*")),
		&rbacv1.Role{ObjectMeta: meta("dev", "logs"), Rules: []rbacv1.PolicyRule{rule("*", core, "pods/log")}},
		&rbacv1.ClusterRoleBinding{ObjectMeta: meta("", "readers"), RoleRef: clusterRoleRef("reader"), Subjects: []rbacv1.Subject{userNamed("ann"), group("staff"), group("staff")}},
		&rbacv1.ClusterRoleBinding{ObjectMeta: meta("", "scalers"), RoleRef: clusterRoleRef("scaler"), Subjects: []rbacv1.Subject{userNamed("sam")}},
		&rbacv1.ClusterRoleBinding{ObjectMeta: meta("", "paths"), RoleRef: clusterRoleRef("paths"), Subjects: []rbacv1.Subject{userNamed("sam")}},
		&rbacv1.ClusterRoleBinding{ObjectMeta: meta("", "broken"), RoleRef: clusterRoleRef("gone"), Subjects: []rbacv1.Subject{userNamed("bob")}},
		&rbacv1.ClusterRoleBinding{ObjectMeta: meta("", "to a role"), RoleRef: roleRef("logs"), Subjects: []rbacv1.Subject{userNamed("eve")}},
		&rbacv1.ClusterRoleBinding{ObjectMeta: meta("", "nowhere"), RoleRef: clusterRoleRef("reader"), Subjects: []rbacv1.Subject{account("", "bot")}},
		&rbacv1.RoleBinding{ObjectMeta: meta("dev", "logs"), RoleRef: roleRef("logs"), Subjects: []rbacv1.Subject{userNamed("ann"), account("", "bot"), account("ci", "bot")}},
		&rbacv1.RoleBinding{ObjectMeta: meta("dev", "one"), RoleRef: clusterRoleRef("one"), Subjects: []rbacv1.Subject{userNamed("ann")}},
	} {
		a.Set(o)
	}
	ann, sam := asUser("ann"), asUser("sam")
	for _, test := range []struct {
		attrs  authorizer.AttributesRecord
		reason string // of the permission; empty: none
		no     string // reason of no opinion
	}{
		{attrs: resource(ann, "get", "x", "", "pods", "", "a"), reason: `RBAC: allowed by ClusterRoleBinding "readers" of ClusterRole "reader" to User "ann"`},
		{attrs: resource(ann, "list", "", "apps", "deployments", "", ""), reason: `RBAC: allowed by ClusterRoleBinding "readers" of ClusterRole "reader" to User "ann"`},
		{attrs: resource(asUser("x", "staff"), "list", "y", "", "pods", "", ""), reason: `RBAC: allowed by ClusterRoleBinding "readers" of ClusterRole "reader" to Group "staff"`},
		{attrs: resource(asUser("staff"), "list", "y", "", "pods", "", "")},
		{attrs: resource(asUser("x", "ann"), "list", "y", "", "pods", "", "")},
		{attrs: resource(ann, "delete", "x", "", "pods", "", "a")},
		{attrs: resource(ann, "get", "x", "batch", "pods", "", "a")},
		{attrs: resource(ann, "get", "x", "", "pods", "log", "a")},
		{attrs: resource(ann, "get", "dev", "", "pods", "log", "a"), reason: `RBAC: allowed by RoleBinding "logs/dev" of Role "logs" to User "ann"`},
		{attrs: resource(ann, "get", "", "", "pods", "log", "a")},
		{attrs: resource(asUser("system:serviceaccount:dev:bot"), "get", "dev", "", "pods", "log", "a"), reason: `RBAC: allowed by RoleBinding "logs/dev" of Role "logs" to ServiceAccount "bot/dev"`},
		{attrs: resource(asUser("system:serviceaccount:ci:bot"), "get", "dev", "", "pods", "log", "a"), reason: `RBAC: allowed by RoleBinding "logs/dev" of Role "logs" to ServiceAccount "bot/ci"`},
		{attrs: resource(asUser("system:serviceaccount::bot"), "get", "dev", "", "pods", "", "a")},
		{attrs: resource(asUser("bot"), "get", "dev", "", "pods", "log", "a")},
		{attrs: resource(ann, "get", "dev", "", "secrets", "", "tls"), reason: `RBAC: allowed by RoleBinding "one/dev" of ClusterRole "one" to User "ann"`},
		{attrs: resource(ann, "get", "dev", "", "secrets", "", "other")},
		{attrs: resource(ann, "get", "dev", "", "secrets", "", "")},
		{attrs: resource(sam, "update", "x", "apps", "deployments", "scale", "a"), reason: `RBAC: allowed by ClusterRoleBinding "scalers" of ClusterRole "scaler" to User "sam"`},
		{attrs: resource(sam, "update", "x", "apps", "deployments", "", "a")},
		{attrs: resource(sam, "update", "x", "apps", "deployments", "autoscale", "a")},
		{attrs: path(sam, "get", "/healthz"), reason: `RBAC: allowed by ClusterRoleBinding "paths" of ClusterRole "paths" to User "sam"`},
		{attrs: path(sam, "get", "/api/v1"), reason: `RBAC: allowed by ClusterRoleBinding "paths" of ClusterRole "paths" to User "sam"`},
		{attrs: path(sam, "get", "/healthz/ping")},
		{attrs: path(sam, "post", "/healthz")},
		{attrs: path(ann, "get", "/healthz")},
		{attrs: resource(asUser("bob"), "get", "x", "", "pods", "", "a"), no: `RBAC: clusterrole.rbac.authorization.k8s.io "gone" not found`},
		{attrs: resource(asUser("eve"), "get", "dev", "", "pods", "log", "a")},
		{attrs: authorizer.AttributesRecord{Verb: "get", Path: "/healthz"}, no: "no user"},
	} {
		decision, reason, err := a.Authorize(t.Context(), test.attrs)
		if err != nil {
			t.Error(err)
		}
		want, why := authorizer.DecisionNoOpinion, test.no
		if test.reason != "" {
			want, why = authorizer.DecisionAllow, test.reason
		}
		if decision != want || reason != why {
			t.Errorf("%+v: got %v %q, want %v %q", test.attrs, decision, reason, want, why)
		}
	}
}

func TestRulesFor(t *testing.T) {
	a := New()
	a.Set(clusterRole("mixed", rule("get", core, "pods", "a"), paths("get", "/healthz")))
	a.Set(&rbacv1.ClusterRoleBinding{ObjectMeta: meta("", "a"), RoleRef: clusterRoleRef("mixed"), Subjects: []rbacv1.Subject{group("all")}})
	a.Set(&rbacv1.RoleBinding{ObjectMeta: meta("dev", "b"), RoleRef: roleRef("gone"), Subjects: []rbacv1.Subject{userNamed("ann")}})
	resources, urls, incomplete, err := a.RulesFor(t.Context(), asUser("ann", "all"), "dev")
	if incomplete || err == nil || err.Error() != `role.rbac.authorization.k8s.io "gone" not found` {
		t.Errorf("got %v, %v", incomplete, err)
	}
	if len(resources) != 1 || !slices.Equal(resources[0].GetResourceNames(), []string{"a"}) || !slices.Equal(resources[0].GetAPIGroups(), []string{""}) {
		t.Errorf("got resources %v", resources)
	}
	if len(urls) != 1 || !slices.Equal(urls[0].GetNonResourceURLs(), []string{"/healthz"}) {
		t.Errorf("got paths %v", urls)
	}
}

// TestIndex changes random bindings and roles and compares the index with a search through all of them, while others ask.
func TestIndex(t *testing.T) {
	a := New()
	ctx, cancel := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for ctx.Err() == nil {
				_, _, _ = a.Authorize(ctx, resource(asUser("u1", "g1", "g2"), "get", "n1", "", "pods", "", ""))
			}
		})
	}
	defer readers.Wait()
	defer cancel()

	r := rand.New(rand.NewPCG(1, 2))
	pick := func(prefix string) string { return fmt.Sprint(prefix, r.IntN(3)) }
	roles := map[roleKey][]rbacv1.PolicyRule{}
	bindings := map[roleKey]binding{}
	for step := range 3000 {
		namespace := ""
		if r.IntN(2) == 0 {
			namespace = pick("n")
		}
		key := roleKey{namespace, pick("x")}
		switch r.IntN(5) {
		case 0, 1:
			b := binding{key: key, roleRef: clusterRoleRef(pick("x"))}
			if namespace != "" && r.IntN(2) == 0 {
				b.roleRef = roleRef(pick("x"))
			}
			for range r.IntN(4) {
				b.subjects = append(b.subjects, []rbacv1.Subject{userNamed(pick("u")), group(pick("g")), account(pick("n"), pick("s"))}[r.IntN(3)])
			}
			bindings[key] = b
			a.index.setBinding(b)
		case 2:
			delete(bindings, key)
			a.index.deleteBinding(key)
		case 3:
			roles[key] = []rbacv1.PolicyRule{rule(pick("v"), core, pick("r"))}
			a.index.setRole(key.namespace, key.name, roles[key])
		case 4:
			if r.IntN(20) > 0 {
				delete(roles, key)
				a.index.deleteRole(key.namespace, key.name)
				break
			}
			cluster := namespace == ""
			of := func(k roleKey) bool { return (k.namespace == "") == cluster }
			maps.DeleteFunc(bindings, func(k roleKey, _ binding) bool { return of(k) && r.IntN(2) == 0 })
			var left []binding
			for k, b := range bindings {
				if of(k) {
					left = append(left, b)
				}
			}
			a.index.replaceBindings(cluster, left)
			leftRoles := map[roleKey][]rbacv1.PolicyRule{}
			for k, rules := range roles {
				if of(k) {
					leftRoles[k] = rules
				}
			}
			a.index.replaceRoles(cluster, leftRoles)
		}
		u := asUser(pick("u"), pick("g"))
		if r.IntN(3) == 0 {
			u = asUser("system:serviceaccount:" + pick("n") + ":" + pick("s"))
		}
		attrs := resource(u, pick("v"), pick("n"), "", pick("r"), "", "")
		decision, _, _ := a.Authorize(t.Context(), attrs)
		if want := search(roles, bindings, attrs); (decision == authorizer.DecisionAllow) != want {
			t.Fatalf("step %d: %+v: index says %v, all bindings say %v", step, attrs, decision, want)
		}
	}
	for k := range bindings {
		a.index.deleteBinding(k)
	}
	if len(a.index.grants) != 0 || len(a.index.subjects) != 0 {
		t.Errorf("left behind: %v, %v", a.index.grants, a.index.subjects)
	}
}

// search decides by going through everything.
func search(roles map[roleKey][]rbacv1.PolicyRule, bindings map[roleKey]binding, attrs authorizer.AttributesRecord) bool {
	for key, b := range bindings {
		if key.namespace != "" && key.namespace != attrs.Namespace {
			continue
		}
		mine := slices.ContainsFunc(b.subjects, func(s rbacv1.Subject) bool {
			switch s.Kind {
			case rbacv1.UserKind:
				return s.Name == attrs.User.GetName()
			case rbacv1.GroupKind:
				return slices.Contains(attrs.User.GetGroups(), s.Name)
			}
			return attrs.User.GetName() == "system:serviceaccount:"+s.Namespace+":"+s.Name
		})
		if !mine {
			continue
		}
		role := roleKey{name: b.roleRef.Name}
		if b.roleRef.Kind == "Role" {
			role.namespace = key.namespace
		}
		if RulesAllow(attrs, roles[role]) {
			return true
		}
	}
	return false
}

// BenchmarkAuthorize decides for a controller in a cluster with many bindings of others.
func BenchmarkAuthorize(b *testing.B) {
	a := New()
	p := DefaultPolicy(nil, nil)
	for _, o := range p.ClusterRoles {
		a.Set(o)
	}
	for _, o := range p.ClusterRoleBindings {
		a.Set(o)
	}
	for i := range 10000 {
		a.Set(&rbacv1.RoleBinding{ObjectMeta: meta(fmt.Sprint("n", i), "x"), RoleRef: clusterRoleRef("edit"), Subjects: []rbacv1.Subject{account("", "default")}})
	}
	attrs := authorizer.Attributes(resource(asUser(user.KubeScheduler, user.AllAuthenticated), "create", "default", "", "pods", "binding", "x"))
	b.ReportAllocs()
	for b.Loop() {
		if d, _, _ := a.Authorize(b.Context(), attrs); d != authorizer.DecisionAllow {
			b.Fatal(d)
		}
	}
}
