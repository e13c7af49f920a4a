// Package clusterrole keeps the rules of aggregated ClusterRoles: the union of the rules of the roles that their selectors
// match.
package clusterrole

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/proa-k8s/proa/internal/controller"
)

// New declares the controller.
func New() controller.Controller {
	return controller.Controller{
		Name:   "clusterrole-aggregation",
		Reads:  []schema.GroupVersionResource{rbacv1.SchemeGroupVersion.WithResource("clusterroles")},
		Writes: []rbacv1.PolicyRule{controller.Rule(rbacv1.GroupName, []string{"clusterroles"}, "escalate", "update")},
		Setup: func(env *controller.Env) (controller.Sync, error) {
			informer := env.Informers.Rbac().V1().ClusterRoles()
			lister := informer.Lister()
			controller.Watch(env, informer.Informer(), func(old, role *rbacv1.ClusterRole) {
				if old != nil && role != nil && sameForOthers(old, role) {
					return
				}
				all, err := lister.List(labels.Everything())
				if err != nil {
					env.Log.Error("listing cluster roles", "err", err)
				}
				for _, r := range all {
					if concerns(r, old) || concerns(r, role) {
						env.Queue.Add(r.Name)
					}
				}
			})
			return func(ctx context.Context, name string) error {
				role, err := lister.Get(name)
				if apierrors.IsNotFound(err) || err == nil && role.AggregationRule == nil {
					return nil
				}
				if err != nil {
					return err
				}
				all, err := lister.List(labels.Everything())
				if err != nil {
					return fmt.Errorf("listing cluster roles: %w", err)
				}
				rules, err := Aggregate(role, all)
				if err != nil || equality.Semantic.DeepEqual(rules, role.Rules) {
					return err
				}
				role = role.DeepCopy()
				role.Rules = rules
				_, err = env.Client.RbacV1().ClusterRoles().Update(ctx, role, metav1.UpdateOptions{})
				return err
			}, nil
		},
	}
}

// sameForOthers tells whether two states of a role are the same for its own rules and for the roles that take it in.
func sameForOthers(a, b *rbacv1.ClusterRole) bool {
	return a.ResourceVersion == b.ResourceVersion || labels.Equals(a.Labels, b.Labels) &&
		equality.Semantic.DeepEqual(a.Rules, b.Rules) && equality.Semantic.DeepEqual(a.AggregationRule, b.AggregationRule)
}

// concerns tells whether the aggregated role takes in the other, or is it.
func concerns(aggregated, other *rbacv1.ClusterRole) bool {
	if aggregated.AggregationRule == nil || other == nil {
		return false
	}
	return aggregated.Name == other.Name || slices.ContainsFunc(aggregated.AggregationRule.ClusterRoleSelectors,
		func(s metav1.LabelSelector) bool {
			selector, err := metav1.LabelSelectorAsSelector(&s)
			return err == nil && selector.Matches(labels.Set(other.Labels))
		})
}

// Aggregate gives the rules of an aggregated role: those of the roles that each selector matches, in order of the roles'
// names, every rule once.
func Aggregate(role *rbacv1.ClusterRole, all []*rbacv1.ClusterRole) ([]rbacv1.PolicyRule, error) {
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b *rbacv1.ClusterRole) int { return cmp.Compare(a.Name, b.Name) })
	var rules []rbacv1.PolicyRule
	for i := range role.AggregationRule.ClusterRoleSelectors {
		selector, err := metav1.LabelSelectorAsSelector(&role.AggregationRule.ClusterRoleSelectors[i])
		if err != nil {
			return nil, fmt.Errorf("converting the selector: %w", err)
		}
		for _, r := range all {
			if r.Name == role.Name || !selector.Matches(labels.Set(r.Labels)) {
				continue
			}
			for _, rule := range r.Rules {
				if !slices.ContainsFunc(rules, func(o rbacv1.PolicyRule) bool { return equality.Semantic.DeepEqual(o, rule) }) {
					rules = append(rules, rule)
				}
			}
		}
	}
	return rules, nil
}
