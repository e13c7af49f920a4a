// Package rbac authorizes requests by the roles and bindings of the API group rbac.authorization.k8s.io, keeps users from
// giving away more than they have, and holds the policy that a cluster starts with.
//
// What flows in are roles and bindings as they change (Follow), and requests; what flows out are decisions. The bindings are
// indexed by who they are for, so that the cost of a decision does not depend on how many others there are.
package rbac

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/proa-k8s/proa/internal/apiserver/lookup"
	"github.com/proa-k8s/proa/internal/store"
)

// Authorizer decides by roles and bindings. It has an opinion only when it allows. It is safe for concurrent use.
type Authorizer struct {
	authorizer.AuthorizerFunc
	index *index
}

// New returns an Authorizer that knows no roles yet: see Follow and the methods Set and Delete.
func New() *Authorizer {
	a := &Authorizer{index: newIndex()}
	a.AuthorizerFunc = a.authorize
	return a
}

// authorize looks for a rule that allows the request. Roles that bindings of the user name, and that don't exist, are
// told in the reason.
func (a *Authorizer) authorize(_ context.Context, attrs authorizer.Attributes) (authorizer.Decision, string, error) {
	u := attrs.GetUser()
	if u == nil {
		return authorizer.DecisionNoOpinion, "no user", nil
	}
	full := fullResource(attrs)
	var why string
	var missing []string
	a.index.visit(u, attrs.GetNamespace(), func(g *grant, rules []rbacv1.PolicyRule, found bool) bool {
		if !found {
			missing = append(missing, g.role.notFound())
			return true
		}
		for i := range rules {
			if ruleAllows(attrs, full, &rules[i]) {
				why = g.reason
				return false
			}
		}
		return true
	})
	if why != "" {
		return authorizer.DecisionAllow, why, nil
	}
	if len(missing) > 0 {
		return authorizer.DecisionNoOpinion, "RBAC: " + aggregate(missing), nil
	}
	return authorizer.DecisionNoOpinion, "", nil
}

func (k roleKey) notFound() string {
	kind := "clusterrole"
	if k.namespace != "" {
		kind = "role"
	}
	return fmt.Sprintf("%s.rbac.authorization.k8s.io %q not found", kind, k.name)
}

// aggregate words several errors as apimachinery's aggregate does, each once.
func aggregate(msgs []string) string {
	seen := make(map[string]bool, len(msgs))
	unique := msgs[:0]
	for _, m := range msgs {
		if !seen[m] {
			seen[m] = true
			unique = append(unique, m)
		}
	}
	if len(unique) == 1 {
		return unique[0]
	}
	return "[" + strings.Join(unique, ", ") + "]"
}

// Rules gives all rules that the user has in the namespace (those of the whole cluster included), and the errors of roles
// that are missing. The rules are shared and must not be changed.
func (a *Authorizer) Rules(u user.Info, namespace string) ([]rbacv1.PolicyRule, error) {
	var all []rbacv1.PolicyRule
	var missing []string
	a.index.visit(u, namespace, func(g *grant, rules []rbacv1.PolicyRule, found bool) bool {
		if !found {
			missing = append(missing, g.role.notFound())
		}
		all = append(all, rules...)
		return true
	})
	if len(missing) > 0 {
		return all, fmt.Errorf("%s", aggregate(missing))
	}
	return all, nil
}

// RoleRules gives the rules of the role that a binding in the namespace (empty: a ClusterRoleBinding) refers to, and
// whether there is such a role.
func (a *Authorizer) RoleRules(ref rbacv1.RoleRef, namespace string) ([]rbacv1.PolicyRule, bool) {
	role, ok := roleOf(binding{key: roleKey{namespace: namespace}, roleRef: ref})
	if !ok {
		return nil, false
	}
	a.index.mu.RLock()
	defer a.index.mu.RUnlock()
	rules, ok := a.index.roles[role]
	return rules, ok
}

// RulesFor implements authorizer.RuleResolver.
func (a *Authorizer) RulesFor(_ context.Context, u user.Info, namespace string) ([]authorizer.ResourceRuleInfo, []authorizer.NonResourceRuleInfo, bool, error) {
	rules, err := a.Rules(u, namespace)
	var resources []authorizer.ResourceRuleInfo
	var paths []authorizer.NonResourceRuleInfo
	for _, r := range rules {
		if len(r.Resources) > 0 {
			resources = append(resources, &authorizer.DefaultResourceRuleInfo{Verbs: r.Verbs, APIGroups: r.APIGroups, Resources: r.Resources, ResourceNames: r.ResourceNames})
		}
		if len(r.NonResourceURLs) > 0 {
			paths = append(paths, &authorizer.DefaultNonResourceRuleInfo{Verbs: r.Verbs, NonResourceURLs: r.NonResourceURLs})
		}
	}
	return resources, paths, false, err
}

// Set takes over a Role, ClusterRole, RoleBinding or ClusterRoleBinding, which must not be changed afterwards.
func (a *Authorizer) Set(obj any) {
	switch o := obj.(type) {
	case *rbacv1.Role:
		a.index.setRole(o.Namespace, o.Name, o.Rules)
	case *rbacv1.ClusterRole:
		a.index.setRole("", o.Name, o.Rules)
	case *rbacv1.RoleBinding:
		a.index.setBinding(ofRoleBinding(o))
	case *rbacv1.ClusterRoleBinding:
		a.index.setBinding(ofClusterRoleBinding(o))
	default:
		panic(fmt.Sprintf("rbac: a %T is neither role nor binding", obj))
	}
}

// Delete drops what Set took over.
func (a *Authorizer) Delete(obj any) {
	switch o := obj.(type) {
	case *rbacv1.Role:
		a.index.deleteRole(o.Namespace, o.Name)
	case *rbacv1.ClusterRole:
		a.index.deleteRole("", o.Name)
	case *rbacv1.RoleBinding:
		a.index.deleteBinding(keyOf(o))
	case *rbacv1.ClusterRoleBinding:
		a.index.deleteBinding(keyOf(o))
	default:
		panic(fmt.Sprintf("rbac: a %T is neither role nor binding", obj))
	}
}

func ofRoleBinding(o *rbacv1.RoleBinding) binding {
	return binding{key: keyOf(o), roleRef: o.RoleRef, subjects: o.Subjects}
}

func ofClusterRoleBinding(o *rbacv1.ClusterRoleBinding) binding {
	return binding{key: roleKey{name: o.Name}, roleRef: o.RoleRef, subjects: o.Subjects}
}

// Caches are the four caches of the group.
type Caches struct {
	Roles, ClusterRoles, RoleBindings, ClusterRoleBindings *store.Cache
}

// Follow keeps the authorizer in step with the store until the context ends. ready is called once, when the state of all
// four caches is taken over.
func (a *Authorizer) Follow(ctx context.Context, log *slog.Logger, c Caches, ready func()) {
	var pending sync.WaitGroup
	pending.Add(4)
	var all sync.WaitGroup
	all.Go(func() {
		followRoles(ctx, log, a, c.Roles, false, func(o *rbacv1.Role) []rbacv1.PolicyRule { return o.Rules }, pending.Done)
	})
	all.Go(func() {
		followRoles(ctx, log, a, c.ClusterRoles, true, func(o *rbacv1.ClusterRole) []rbacv1.PolicyRule { return o.Rules }, pending.Done)
	})
	all.Go(func() { followBindings(ctx, log, a, c.RoleBindings, false, ofRoleBinding, pending.Done) })
	all.Go(func() { followBindings(ctx, log, a, c.ClusterRoleBindings, true, ofClusterRoleBinding, pending.Done) })
	all.Go(func() {
		pending.Wait()
		if ctx.Err() == nil {
			ready()
		}
	})
	all.Wait()
}

func followRoles[T object](ctx context.Context, log *slog.Logger, a *Authorizer, c *store.Cache, cluster bool, rules func(T) []rbacv1.PolicyRule, done func()) {
	done = sync.OnceFunc(done)
	defer done()
	_ = lookup.Follow(ctx, log, c, lookup.Handler[T]{
		Replace: func(all []T) {
			roles := make(map[roleKey][]rbacv1.PolicyRule, len(all))
			for _, o := range all {
				roles[keyOf(o)] = rules(o)
			}
			a.index.replaceRoles(cluster, roles)
			done()
		},
		Set:    func(o T) { a.Set(o) },
		Delete: func(o T) { a.Delete(o) },
	})
}

func followBindings[T object](ctx context.Context, log *slog.Logger, a *Authorizer, c *store.Cache, cluster bool, of func(T) binding, done func()) {
	done = sync.OnceFunc(done)
	defer done()
	_ = lookup.Follow(ctx, log, c, lookup.Handler[T]{
		Replace: func(all []T) {
			bindings := make([]binding, len(all))
			for i, o := range all {
				bindings[i] = of(o)
			}
			a.index.replaceBindings(cluster, bindings)
			done()
		},
		Set:    func(o T) { a.Set(o) },
		Delete: func(o T) { a.Delete(o) },
	})
}
