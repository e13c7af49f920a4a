package rbac

import (
	"fmt"
	"slices"
	"sync"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
)

// roleKey names a Role, or with an empty namespace a ClusterRole.
type roleKey struct{ namespace, name string }

// subject is a user or a group, within a namespace or (empty) everywhere. Service accounts are the users that they
// authenticate as.
type subject struct {
	namespace string
	group     bool
	name      string
}

// grant is what one binding gives to one of its subjects. Grants never change.
type grant struct {
	binding roleKey // the RoleBinding or ClusterRoleBinding
	role    roleKey
	// reason is the whole text that explains a decision, made once and not for each request.
	reason string
}

// index answers which rules a user has, without looking at any binding that isn't theirs. It follows the objects.
type index struct {
	mu     sync.RWMutex
	roles  map[roleKey][]rbacv1.PolicyRule
	grants map[subject][]grant
	// subjects are those under which a binding's grants are found.
	subjects map[roleKey][]subject
}

func newIndex() *index {
	return &index{
		roles:    map[roleKey][]rbacv1.PolicyRule{},
		grants:   map[subject][]grant{},
		subjects: map[roleKey][]subject{},
	}
}

func (x *index) setRole(namespace, name string, rules []rbacv1.PolicyRule) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.roles[roleKey{namespace, name}] = rules
}

func (x *index) deleteRole(namespace, name string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.roles, roleKey{namespace, name})
}

// replaceRoles puts the given roles in the place of all ClusterRoles or all Roles.
func (x *index) replaceRoles(cluster bool, roles map[roleKey][]rbacv1.PolicyRule) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for k := range x.roles {
		if (k.namespace == "") == cluster {
			delete(x.roles, k)
		}
	}
	for k, rules := range roles {
		x.roles[k] = rules
	}
}

// binding is what RoleBinding and ClusterRoleBinding have in common; the namespace is empty for the latter.
type binding struct {
	key      roleKey
	roleRef  rbacv1.RoleRef
	subjects []rbacv1.Subject
}

func (x *index) setBinding(b binding) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.removeBinding(b.key)
	x.addBinding(b)
}

func (x *index) deleteBinding(key roleKey) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.removeBinding(key)
}

// replaceBindings puts the given bindings in the place of all ClusterRoleBindings or all RoleBindings.
func (x *index) replaceBindings(cluster bool, bindings []binding) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for k := range x.subjects {
		if (k.namespace == "") == cluster {
			x.removeBinding(k)
		}
	}
	for _, b := range bindings {
		x.addBinding(b)
	}
}

func (x *index) addBinding(b binding) {
	role, ok := roleOf(b)
	if !ok {
		return
	}
	for _, s := range b.subjects {
		key, ok := subjectOf(b.key.namespace, s)
		if !ok || slices.ContainsFunc(x.grants[key], func(g grant) bool { return g.binding == b.key }) {
			continue
		}
		x.grants[key] = append(x.grants[key], grant{binding: b.key, role: role, reason: reason(b, s)})
		x.subjects[b.key] = append(x.subjects[b.key], key)
	}
}

func (x *index) removeBinding(key roleKey) {
	for _, s := range x.subjects[key] {
		// Readers hold the lock while they walk a slice, so it may be changed in place.
		left := slices.DeleteFunc(x.grants[s], func(g grant) bool { return g.binding == key })
		if len(left) == 0 {
			delete(x.grants, s)
		} else {
			x.grants[s] = left
		}
	}
	delete(x.subjects, key)
}

// roleOf gives the role that a binding refers to. A ClusterRoleBinding that refers to a Role grants nothing.
func roleOf(b binding) (roleKey, bool) {
	switch {
	case b.roleRef.Kind == "ClusterRole":
		return roleKey{name: b.roleRef.Name}, true
	case b.roleRef.Kind == "Role" && b.key.namespace != "":
		return roleKey{b.key.namespace, b.roleRef.Name}, true
	}
	return roleKey{}, false
}

func subjectOf(namespace string, s rbacv1.Subject) (subject, bool) {
	switch s.Kind {
	case rbacv1.UserKind:
		return subject{namespace: namespace, name: s.Name}, true
	case rbacv1.GroupKind:
		return subject{namespace: namespace, group: true, name: s.Name}, true
	case rbacv1.ServiceAccountKind:
		of := s.Namespace
		if of == "" {
			of = namespace
		}
		if of == "" {
			return subject{}, false
		}
		return subject{namespace: namespace, name: serviceaccount.MakeUsername(of, s.Name)}, true
	}
	return subject{}, false
}

func reason(b binding, s rbacv1.Subject) string {
	kind, name := "ClusterRoleBinding", b.key.name
	if b.key.namespace != "" {
		kind, name = "RoleBinding", b.key.name+"/"+b.key.namespace
	}
	who := s.Name
	if s.Kind == rbacv1.ServiceAccountKind {
		of := s.Namespace
		if of == "" {
			of = b.key.namespace
		}
		who += "/" + of
	}
	return fmt.Sprintf("RBAC: allowed by %s %q of %s %q to %s %q", kind, name, b.roleRef.Kind, b.roleRef.Name, s.Kind, who)
}

// visit calls fn with every grant of the user that counts in the namespace, those of the whole cluster first, until it
// returns false. rules is nil and found false when the grant's role doesn't exist. The lock is held meanwhile.
func (x *index) visit(u user.Info, namespace string, fn func(g *grant, rules []rbacv1.PolicyRule, found bool) bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if x.visitNamespace(u, "", fn) && namespace != "" {
		x.visitNamespace(u, namespace, fn)
	}
}

func (x *index) visitNamespace(u user.Info, namespace string, fn func(g *grant, rules []rbacv1.PolicyRule, found bool) bool) bool {
	walk := func(s subject) bool {
		grants := x.grants[s]
		for i := range grants {
			rules, found := x.roles[grants[i].role]
			if !fn(&grants[i], rules, found) {
				return false
			}
		}
		return true
	}
	if !walk(subject{namespace: namespace, name: u.GetName()}) {
		return false
	}
	for _, g := range u.GetGroups() {
		if !walk(subject{namespace: namespace, group: true, name: g}) {
			return false
		}
	}
	return true
}

func keyOf(o metav1.Object) roleKey { return roleKey{o.GetNamespace(), o.GetName()} }
