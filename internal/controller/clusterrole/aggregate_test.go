package clusterrole

import (
	"fmt"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestAggregate(t *testing.T) {
	role := func(name, label string, verbs ...string) *rbacv1.ClusterRole {
		r := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{label: "true"}}}
		for _, v := range verbs {
			r.Rules = append(r.Rules, rbacv1.PolicyRule{Verbs: []string{v}})
		}
		return r
	}
	admin := role("admin", "to-admin", "stale")
	admin.AggregationRule = &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{
		{MatchLabels: map[string]string{"to-admin": "true"}}, {MatchLabels: map[string]string{"to-edit": "true"}},
	}}
	all := []*rbacv1.ClusterRole{role("z", "to-admin", "get", "list"), admin, role("b", "to-edit", "list", "watch"), role("a", "to-admin", "create"), role("c", "other", "delete")}
	rules, err := Aggregate(admin, all)
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, r := range rules {
		got += fmt.Sprint(r.Verbs)
	}
	if got != "[create][get][list][watch]" {
		t.Errorf("rules are %s", got)
	}
	if !concerns(admin, all[0]) || concerns(admin, all[4]) || !concerns(admin, admin) || concerns(all[0], admin) || concerns(admin, nil) {
		t.Error("the wrong roles concern it")
	}
}
