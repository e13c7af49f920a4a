package rbac

import (
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
)

func TestEscalation(t *testing.T) {
	a := New()
	readPods := rule("get list", core, "pods")
	for _, o := range []any{
		clusterRole("reader", readPods),
		clusterRole("root", everything...),
		clusterRole("escalator", rule("escalate bind", rbacv1.GroupName, "roles clusterroles")),
		clusterRole("binder", rule("bind", rbacv1.GroupName, "clusterroles", "root")),
		&rbacv1.ClusterRoleBinding{ObjectMeta: meta("", "1"), RoleRef: clusterRoleRef("reader"), Subjects: []rbacv1.Subject{userNamed("ann")}},
		&rbacv1.ClusterRoleBinding{ObjectMeta: meta("", "2"), RoleRef: clusterRoleRef("root"), Subjects: []rbacv1.Subject{userNamed("root")}},
		&rbacv1.ClusterRoleBinding{ObjectMeta: meta("", "3"), RoleRef: clusterRoleRef("escalator"), Subjects: []rbacv1.Subject{userNamed("esc")}},
		&rbacv1.ClusterRoleBinding{ObjectMeta: meta("", "4"), RoleRef: clusterRoleRef("binder"), Subjects: []rbacv1.Subject{userNamed("bind")}},
		&rbacv1.RoleBinding{ObjectMeta: meta("dev", "5"), RoleRef: clusterRoleRef("root"), Subjects: []rbacv1.Subject{userNamed("devroot")}},
	} {
		a.Set(o)
	}
	e := NewEscalation(a, a)
	role := func(rules ...rbacv1.PolicyRule) *rbacv1.Role {
		return &rbacv1.Role{ObjectMeta: meta("dev", "r"), Rules: rules}
	}
	aggregated := &rbacv1.ClusterRole{ObjectMeta: meta("", "agg"), AggregationRule: &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{{}}}}
	bind := func(ref rbacv1.RoleRef) *rbacv1.RoleBinding {
		return &rbacv1.RoleBinding{ObjectMeta: meta("dev", "b"), RoleRef: ref, Subjects: []rbacv1.Subject{userNamed("x")}}
	}
	owned := role(rule("delete", core, "nodes"))
	owned.OwnerReferences = []metav1.OwnerReference{{Name: "x"}}
	deleteNodes := rule("delete", core, "nodes")
	for name, test := range map[string]struct {
		user     string
		groups   []string
		obj, old runtime.Object
		want     string
	}{
		"has it":                 {user: "ann", obj: role(readPods)},
		"has part":               {user: "ann", obj: role(rule("get", core, "pods", "one"))},
		"has more verbs":         {user: "ann", obj: role(rule("delete get patch", core, "pods")), want: "roles.rbac.authorization.k8s.io \"r\" is forbidden: user \"ann\" (groups=[]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\" \"patch\"]}"},
		"groups in the message":  {user: "eve", groups: []string{"a", "b"}, obj: role(paths("get", "/x"), rule("get", "apps", "deployments")), want: "user \"eve\" (groups=[\"a\" \"b\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"apps\"], Resources:[\"deployments\"], Verbs:[\"get\"]}\n{NonResourceURLs:[\"/x\"], Verbs:[\"get\"]}"},
		"masters":                {user: "ann", groups: []string{user.SystemPrivilegedGroup}, obj: role(deleteNodes)},
		"may escalate":           {user: "esc", obj: role(deleteNodes)},
		"update changes nothing": {user: "eve", obj: owned, old: role(deleteNodes)},
		"update adds":            {user: "eve", obj: role(deleteNodes), old: role(), want: "not currently held"},
		"cluster rights don't come from a namespace": {user: "devroot", obj: clusterRole("c", readPods), want: "clusterroles.rbac.authorization.k8s.io \"c\" is forbidden"},
		"rights in the namespace":                    {user: "devroot", obj: role(deleteNodes)},
		"aggregation":                                {user: "ann", obj: aggregated, want: "must have cluster-admin privileges to use the aggregationRule"},
		"aggregation is taken away":                  {user: "ann", obj: clusterRole("agg"), old: aggregated, want: "must have cluster-admin privileges to use the aggregationRule"},
		"aggregation by root":                        {user: "root", obj: aggregated},
		"binds what it has":                          {user: "ann", obj: bind(clusterRoleRef("reader"))},
		"binds more":                                 {user: "ann", obj: bind(clusterRoleRef("root")), want: "rolebindings.rbac.authorization.k8s.io \"b\" is forbidden: user \"ann\" (groups=[]) is attempting to grant"},
		"may bind":                                   {user: "bind", obj: bind(clusterRoleRef("root"))},
		"may bind this one only":                     {user: "bind", obj: bind(clusterRoleRef("reader")), want: "not currently held"},
		"binds in the namespace":                     {user: "devroot", obj: bind(clusterRoleRef("root"))},
		"binds what isn't there":                     {user: "ann", obj: bind(clusterRoleRef("gone")), want: `clusterrole.rbac.authorization.k8s.io "gone" not found`},
		"binds a role that isn't there":              {user: "ann", obj: bind(roleRef("gone")), want: `role.rbac.authorization.k8s.io "gone" not found`},
		"binds for the whole cluster": {user: "devroot", obj: &rbacv1.ClusterRoleBinding{ObjectMeta: meta("", "b"), RoleRef: clusterRoleRef("reader")},
			want: `clusterrolebindings.rbac.authorization.k8s.io "b" is forbidden`},
	} {
		t.Run(name, func(t *testing.T) {
			o := test.obj.(object)
			resource := map[bool]string{true: "roles", false: "clusterroles"}
			plural := resource[o.GetNamespace() != ""]
			switch test.obj.(type) {
			case *rbacv1.RoleBinding:
				plural = "rolebindings"
			case *rbacv1.ClusterRoleBinding:
				plural = "clusterrolebindings"
			}
			op := admission.Create
			if test.old != nil {
				op = admission.Update
			}
			attrs := admission.NewAttributesRecord(test.obj, test.old, schema.GroupVersionKind{}, o.GetNamespace(), o.GetName(),
				rbacv1.SchemeGroupVersion.WithResource(plural), "", op, nil, false, asUser(test.user, test.groups...))
			err := e.Validate(t.Context(), attrs, nil)
			switch {
			case test.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("got %v, want an error with %q", err, test.want)
			}
		})
	}
}
