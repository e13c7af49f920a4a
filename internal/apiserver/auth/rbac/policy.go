package rbac

import (
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
)

// Policy is a set of roles and bindings.
type Policy struct {
	ClusterRoles        []*rbacv1.ClusterRole
	ClusterRoleBindings []*rbacv1.ClusterRoleBinding
	Roles               []*rbacv1.Role
	RoleBindings        []*rbacv1.RoleBinding
}

// KubeletClientUser is who the API server is when it talks to kubelets.
const KubeletClientUser = "kube-apiserver-kubelet-client"

// DefaultPolicy is what every cluster starts with and is brought back to at each start: upstream's default roles and
// bindings, and the given ones (those of the controllers). All of them carry upstream's label and annotation.
func DefaultPolicy(roles []*rbacv1.ClusterRole, bindings []*rbacv1.ClusterRoleBinding) *Policy {
	p := &Policy{
		ClusterRoles:        slices.Concat(userRoles(), systemRoles(), aggregatedRoles(), roles),
		ClusterRoleBindings: slices.Concat(clusterRoleBindings(), bindings),
		Roles:               namespaceRoles(),
		RoleBindings:        namespaceRoleBindings(),
	}
	p.aggregate()
	for _, o := range p.ClusterRoles {
		markDefault(&o.ObjectMeta)
	}
	for _, o := range p.ClusterRoleBindings {
		markDefault(&o.ObjectMeta)
	}
	for _, o := range p.Roles {
		markDefault(&o.ObjectMeta)
	}
	for _, o := range p.RoleBindings {
		markDefault(&o.ObjectMeta)
	}
	return p
}

func markDefault(m *metav1.ObjectMeta) {
	if m.Labels == nil {
		m.Labels = map[string]string{}
	}
	if m.Annotations == nil {
		m.Annotations = map[string]string{}
	}
	m.Labels["kubernetes.io/bootstrapping"] = "rbac-defaults"
	m.Annotations[rbacv1.AutoUpdateAnnotationKey] = "true"
}

// aggregate fills in the rules of aggregated roles as the controller of aggregation would, so that they are right from
// the first moment: selectors in their order, roles by name, each rule once. It goes on until nothing changes, because
// aggregated roles are aggregated further (view into edit into admin).
func (p *Policy) aggregate() {
	byName := slices.Clone(p.ClusterRoles)
	slices.SortFunc(byName, func(a, b *rbacv1.ClusterRole) int { return strings.Compare(a.Name, b.Name) })
	for changed := true; changed; {
		changed = false
		for _, role := range p.ClusterRoles {
			if role.AggregationRule == nil {
				continue
			}
			rules := aggregateRules(role, byName)
			if len(rules) != len(role.Rules) {
				role.Rules, changed = rules, true
			}
		}
	}
}

func aggregateRules(role *rbacv1.ClusterRole, byName []*rbacv1.ClusterRole) []rbacv1.PolicyRule {
	var rules []rbacv1.PolicyRule
	for i := range role.AggregationRule.ClusterRoleSelectors {
		selector, err := metav1.LabelSelectorAsSelector(&role.AggregationRule.ClusterRoleSelectors[i])
		if err != nil {
			continue // validation of the API refuses it
		}
		for _, other := range byName {
			if other.Name == role.Name || !selector.Matches(labelSet(other.Labels)) {
				continue
			}
			for _, r := range other.Rules {
				if !slices.ContainsFunc(rules, func(have rbacv1.PolicyRule) bool { return sameRule(have, r) }) {
					rules = append(rules, r)
				}
			}
		}
	}
	return rules
}

func sameRule(a, b rbacv1.PolicyRule) bool {
	return slices.Equal(a.Verbs, b.Verbs) && slices.Equal(a.APIGroups, b.APIGroups) && slices.Equal(a.Resources, b.Resources) &&
		slices.Equal(a.ResourceNames, b.ResourceNames) && slices.Equal(a.NonResourceURLs, b.NonResourceURLs)
}

// The verbs of rules, as the functions below take them.
const (
	read      = "get list watch"
	watch     = "list watch"
	write     = "create delete deletecollection patch update"
	readWrite = "create delete deletecollection get list patch update watch"
)

// core is how the functions below are told the group without a name.
const core = "core"

// rule makes a rule from lists of words, separated by spaces. The names are those of objects.
func rule(verbs, groups, resources string, names ...string) rbacv1.PolicyRule {
	g := strings.Fields(groups)
	for i := range g {
		if g[i] == core {
			g[i] = ""
		}
	}
	return rbacv1.PolicyRule{Verbs: strings.Fields(verbs), APIGroups: g, Resources: strings.Fields(resources), ResourceNames: names}
}

// paths makes a rule for paths that are not resources.
func paths(verbs, urls string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{Verbs: strings.Fields(verbs), NonResourceURLs: strings.Fields(urls)}
}

func events() rbacv1.PolicyRule { return rule("create patch update", core+" events.k8s.io", "events") }

func clusterRole(name string, rules ...rbacv1.PolicyRule) *rbacv1.ClusterRole {
	return &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules}
}

func aggregateTo(what string) map[string]string {
	return map[string]string{"rbac.authorization.k8s.io/aggregate-to-" + what: "true"}
}

// aggregatedRoles are the roles for users, put together from all roles with the fitting label.
func aggregatedRoles() []*rbacv1.ClusterRole {
	of := func(name string, labels map[string]string) *rbacv1.ClusterRole {
		return &rbacv1.ClusterRole{
			ObjectMeta:      metav1.ObjectMeta{Name: name, Labels: labels},
			AggregationRule: &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{{MatchLabels: aggregateTo(name)}}},
		}
	}
	return []*rbacv1.ClusterRole{of("admin", nil), of("edit", aggregateTo("admin")), of("view", aggregateTo("edit"))}
}

func group(name string) rbacv1.Subject {
	return rbacv1.Subject{Kind: rbacv1.GroupKind, APIGroup: rbacv1.GroupName, Name: name}
}

func userNamed(name string) rbacv1.Subject {
	return rbacv1.Subject{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: name}
}

func systemAccount(name string) rbacv1.Subject {
	return rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: metav1.NamespaceSystem, Name: name}
}

func clusterRoleBindings() []*rbacv1.ClusterRoleBinding {
	bind := func(role string, subjects ...rbacv1.Subject) *rbacv1.ClusterRoleBinding {
		return &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: role},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
			Subjects:   subjects,
		}
	}
	return []*rbacv1.ClusterRoleBinding{
		bind("cluster-admin", group(user.SystemPrivilegedGroup)),
		bind("system:monitoring", group(user.MonitoringGroup)),
		bind("system:discovery", group(user.AllAuthenticated)),
		bind("system:basic-user", group(user.AllAuthenticated)),
		bind("system:public-info-viewer", group(user.AllAuthenticated), group(user.AllUnauthenticated)),
		bind("system:node-proxier", userNamed(user.KubeProxy)),
		bind("system:kube-controller-manager", userNamed(user.KubeControllerManager)),
		bind("system:kube-scheduler", userNamed(user.KubeScheduler)),
		bind("system:volume-scheduler", userNamed(user.KubeScheduler)),
		bind("system:kube-dns", systemAccount("kube-dns")),
		bind("system:coredns", systemAccount("coredns")),
		bind("system:kubelet-api-admin", userNamed(KubeletClientUser)),
		bind("system:service-account-issuer-discovery", group("system:serviceaccounts")),
		bind("system:cluster-trust-bundle-discovery", group("system:serviceaccounts")),
		// Nodes are authorized by what runs on them; the binding is there for whoever wants to add subjects.
		bind("system:node"),
	}
}

func namespaceRoles() []*rbacv1.Role {
	role := func(namespace, name string, rules ...rbacv1.PolicyRule) *rbacv1.Role {
		return &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Rules: rules}
	}
	elections := []rbacv1.PolicyRule{
		rule("create get list update watch", "coordination.k8s.io", "leases"),
		rule("create get list update watch", "coordination.k8s.io", "leasecandidates"),
	}
	return []*rbacv1.Role{
		role(metav1.NamespaceSystem, "extension-apiserver-authentication-reader",
			rule(read, core, "configmaps", "extension-apiserver-authentication")),
		role(metav1.NamespaceSystem, "system:controller:bootstrap-signer", rule(read, core, "secrets")),
		role(metav1.NamespaceSystem, "system:controller:cloud-provider", rule("create get list watch", core, "configmaps")),
		role(metav1.NamespaceSystem, "system:controller:token-cleaner", rule("delete get list watch", core, "secrets"), events()),
		role(metav1.NamespaceSystem, "system::leader-locking-kube-controller-manager", elections...),
		role(metav1.NamespaceSystem, "system::leader-locking-kube-scheduler", elections...),
		role(metav1.NamespacePublic, "system:controller:bootstrap-signer",
			rule(read, core, "configmaps"), rule("update", core, "configmaps", "cluster-info"), events()),
	}
}

func namespaceRoleBindings() []*rbacv1.RoleBinding {
	bind := func(namespace, name, role string, subjects ...rbacv1.Subject) *rbacv1.RoleBinding {
		return &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role},
			Subjects:   subjects,
		}
	}
	manager, scheduler := userNamed(user.KubeControllerManager), userNamed(user.KubeScheduler)
	bound := func(namespace, name string, subjects ...rbacv1.Subject) *rbacv1.RoleBinding {
		return bind(namespace, name, name, subjects...)
	}
	return []*rbacv1.RoleBinding{
		bind(metav1.NamespaceSystem, "system::extension-apiserver-authentication-reader", "extension-apiserver-authentication-reader", manager, scheduler),
		bound(metav1.NamespaceSystem, "system:controller:bootstrap-signer", systemAccount("bootstrap-signer")),
		bound(metav1.NamespaceSystem, "system:controller:cloud-provider", systemAccount("cloud-provider")),
		bound(metav1.NamespaceSystem, "system:controller:token-cleaner", systemAccount("token-cleaner")),
		bound(metav1.NamespaceSystem, "system::leader-locking-kube-controller-manager", manager,
			systemAccount("kube-controller-manager"), systemAccount("leader-election-controller")),
		bound(metav1.NamespaceSystem, "system::leader-locking-kube-scheduler", scheduler, systemAccount("kube-scheduler")),
		bound(metav1.NamespacePublic, "system:controller:bootstrap-signer", systemAccount("bootstrap-signer")),
	}
}
