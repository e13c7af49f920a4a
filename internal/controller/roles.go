package controller

import (
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
)

// account is the service account of a controller, and the source of its events: the name with the suffix "-controller",
// unless it ends as upstream's collectors and publishers do, which have none.
func account(name string) string {
	if strings.HasSuffix(name, "-collector") || strings.HasSuffix(name, "-publisher") {
		return name
	}
	return name + "-controller"
}

// identity is the user that a controller acts as.
func identity(name string) user.Info {
	return serviceaccount.UserInfo(metav1.NamespaceSystem, account(name), "")
}

// manager is the user that the frame itself acts as: it records events and takes the lease of the leader.
func manager() user.Info {
	return &user.DefaultInfo{Name: user.KubeControllerManager, Groups: []string{user.AllAuthenticated}}
}

// Roles derives the cluster roles of the controllers, and their bindings, from what the controllers declare.
func Roles(controllers []Controller) ([]*rbacv1.ClusterRole, []*rbacv1.ClusterRoleBinding) {
	roles := make([]*rbacv1.ClusterRole, 0, len(controllers))
	bindings := make([]*rbacv1.ClusterRoleBinding, 0, len(controllers))
	for _, c := range controllers {
		meta := func() metav1.ObjectMeta {
			return metav1.ObjectMeta{
				Name:        "system:controller:" + account(c.Name),
				Labels:      map[string]string{"kubernetes.io/bootstrapping": "rbac-defaults"},
				Annotations: map[string]string{rbacv1.AutoUpdateAnnotationKey: "true"},
			}
		}
		roles = append(roles, &rbacv1.ClusterRole{ObjectMeta: meta(), Rules: append(readRules(c), c.Writes...)})
		bindings = append(bindings, &rbacv1.ClusterRoleBinding{
			ObjectMeta: meta(),
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: meta().Name},
			Subjects: []rbacv1.Subject{{
				Kind: rbacv1.ServiceAccountKind, Namespace: metav1.NamespaceSystem, Name: account(c.Name),
			}},
		})
	}
	return roles, bindings
}

// readRules lets a controller read its inputs: one rule per API group, in order.
func readRules(c Controller) []rbacv1.PolicyRule {
	byGroup := map[string][]string{}
	for _, r := range c.Reads {
		if !slices.Contains(byGroup[r.Group], r.Resource) {
			byGroup[r.Group] = append(byGroup[r.Group], r.Resource)
		}
	}
	rules := make([]rbacv1.PolicyRule, 0, len(byGroup))
	for group, resources := range byGroup {
		slices.Sort(resources)
		rules = append(rules, rbacv1.PolicyRule{
			APIGroups: []string{group}, Resources: resources, Verbs: []string{"get", "list", "watch"},
		})
	}
	slices.SortFunc(rules, func(a, b rbacv1.PolicyRule) int { return slices.Compare(a.APIGroups, b.APIGroups) })
	return rules
}

// Rule is a rule for Controller.Writes on resources of one group.
func Rule(group string, resources []string, verbs ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: []string{group}, Resources: resources, Verbs: verbs}
}
