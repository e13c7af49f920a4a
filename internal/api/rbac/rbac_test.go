package rbac

import (
	"slices"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/proa-k8s/proa/internal/api/apitest"
)

func TestRole(t *testing.T) {
	apitest.Run(t, Role(), `{metadata: {name: "a:b", namespace: default}}`, []apitest.Case{
		{Name: "empty"},
		{Name: "good", Patch: `{rules: [{verbs: [get], apiGroups: [""], resources: [pods]}]}`},
		{Name: "bad", Patch: `{rules: [{}, {verbs: [get], nonResourceURLs: [/x], resources: [pods]}]}`, Want: []string{
			"rules[0].verbs: Required value: verbs must contain at least one value",
			"rules[0].apiGroups: Required value: resource rules must supply at least one api group",
			"rules[0].resources: Required value: resource rules must supply at least one resource",
			`rules[1].nonResourceURLs: Invalid value: ["/x"]: namespaced rules cannot apply to non-resource URLs`,
			`rules[1].nonResourceURLs: Invalid value: ["/x"]: rules cannot apply to both regular resources and non-resource URLs`}},
	})
	apitest.Run(t, ClusterRole(), `{metadata: {name: a}}`, []apitest.Case{
		{Name: "URLs", Patch: `{rules: [{verbs: [get], nonResourceURLs: [/x]}]}`},
		{Name: "aggregation", Patch: `{aggregationRule: {clusterRoleSelectors: [{matchLabels: {a: b}}]}}`},
		{Name: "aggregation of nothing", Old: `{}`, Patch: `{aggregationRule: {}}`, Want: []string{
			"aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if aggregationRule is non-nil"}},
		{Name: "aggregation of rubbish", Patch: `{aggregationRule: {clusterRoleSelectors: [{matchExpressions: [{key: a, operator: In}]}]}}`, Want: []string{
			"aggregationRule.clusterRoleSelectors[0].matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
			`aggregationRule.clusterRoleSelectors[0]: Invalid value: {"matchExpressions":[{"key":"a","operator":"In"}]}: invalid label selector.`}},
	})
}

func TestBinding(t *testing.T) {
	base := `{metadata: {name: a, namespace: default}, roleRef: {kind: ClusterRole, name: view}, subjects: [{kind: User, name: u}, {kind: Group, name: g}, {kind: ServiceAccount, name: s, namespace: ns}]}`
	apitest.Run(t, RoleBinding(), base, []apitest.Case{
		{Name: "good"},
		{Name: "role", Patch: `{roleRef: {kind: Role}}`},
		{Name: "bad role", Patch: `{roleRef: {kind: Thing, apiGroup: x, name: a/b}}`, Want: []string{
			`roleRef.apiGroup: Unsupported value: "x": supported values: "rbac.authorization.k8s.io"`,
			`roleRef.kind: Unsupported value: "Thing": supported values: "Role", "ClusterRole"`,
			`roleRef.name: Invalid value: "a/b": may not contain '/'`}},
		{Name: "bad subjects", Patch: `{subjects: [{kind: X, name: x}, {kind: User, name: u, apiGroup: other}, {kind: ServiceAccount, name: A, apiGroup: z}, {kind: Group}]}`, Want: []string{
			`subjects[0].kind: Unsupported value: "X": supported values: "ServiceAccount", "User", "Group"`,
			`subjects[1].apiGroup: Unsupported value: "other": supported values: "rbac.authorization.k8s.io"`,
			`subjects[2].name: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')`,
			`subjects[2].apiGroup: Unsupported value: "z": supported values: ""`,
			`subjects[3].name: Required value`}},
		{Name: "role changes", Old: `{}`, Patch: `{roleRef: {name: edit}}`, Want: []string{
			`roleRef: Invalid value: {"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"edit"}: cannot change roleRef`}},
	})
	apitest.Run(t, ClusterRoleBinding(), base, []apitest.Case{
		{Name: "role of a namespace", Patch: `{roleRef: {kind: Role}}`, Want: []string{`roleRef.kind: Unsupported value: "Role": supported values: "ClusterRole"`}},
		{Name: "account of no namespace", Patch: `{subjects: [{kind: ServiceAccount, name: s}]}`, Want: []string{"subjects[0].namespace: Required value"}},
	})
	b := apitest.Decode(t, RoleBinding(), base, "").(*rbacv1.RoleBinding)
	if got, want := RoleBinding().Row(b), []any{"a", "ClusterRole/view", "<unknown>", "u", "g", "ns/s"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
