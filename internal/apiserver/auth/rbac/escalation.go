package rbac

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/component-helpers/auth/rbac/validation"
)

// Escalation refuses writes of roles and bindings by which a user would give away permissions that they don't have
// themselves, unless they may "escalate" the role, or "bind" it. It is a validating part of admission.
type Escalation struct {
	rules *Authorizer
	authz authorizer.Authorizer
}

// NewEscalation returns a check that knows what users have by rules, and asks authz whether they may escalate or bind.
func NewEscalation(rules *Authorizer, authz authorizer.Authorizer) *Escalation {
	return &Escalation{rules: rules, authz: authz}
}

// Handles implements admission.Interface.
func (e *Escalation) Handles(op admission.Operation) bool {
	return op == admission.Create || op == admission.Update
}

// Validate implements admission.ValidationInterface.
func (e *Escalation) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if a.GetResource().Group != rbacv1.GroupName || a.GetSubresource() != "" {
		return nil
	}
	u := a.GetUserInfo()
	if u == nil {
		return apierrors.NewForbidden(a.GetResource().GroupResource(), a.GetName(), errors.New("no user on request"))
	}
	if slices.Contains(u.GetGroups(), user.SystemPrivilegedGroup) || onlyForGarbageCollection(a) {
		return nil
	}
	switch o := a.GetObject().(type) {
	case *rbacv1.Role:
		return e.checkRole(ctx, a, o.Name, o.Rules, false)
	case *rbacv1.ClusterRole:
		old, _ := a.GetOldObject().(*rbacv1.ClusterRole)
		return e.checkRole(ctx, a, o.Name, o.Rules, aggregates(o) || aggregates(old))
	case *rbacv1.RoleBinding:
		return e.checkBinding(ctx, a, o.Name, o.RoleRef)
	case *rbacv1.ClusterRoleBinding:
		return e.checkBinding(ctx, a, o.Name, o.RoleRef)
	}
	return nil
}

func aggregates(r *rbacv1.ClusterRole) bool {
	return r != nil && r.AggregationRule != nil && len(r.AggregationRule.ClusterRoleSelectors) > 0
}

// everything is what one must have to let a role gather rules by labels.
var everything = []rbacv1.PolicyRule{
	{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}},
	{Verbs: []string{"*"}, NonResourceURLs: []string{"*"}},
}

func (e *Escalation) checkRole(ctx context.Context, a admission.Attributes, name string, rules []rbacv1.PolicyRule, aggregated bool) error {
	if e.may(ctx, a, "escalate", a.GetResource().Resource, a.GetName()) {
		return nil
	}
	gr := a.GetResource().GroupResource()
	if err := e.covered(a, rules); err != nil {
		return apierrors.NewForbidden(gr, name, err)
	}
	if aggregated && e.covered(a, everything) != nil {
		return apierrors.NewForbidden(gr, name, errors.New("must have cluster-admin privileges to use the aggregationRule"))
	}
	return nil
}

func (e *Escalation) checkBinding(ctx context.Context, a admission.Attributes, name string, ref rbacv1.RoleRef) error {
	resource := map[string]string{"Role": "roles", "ClusterRole": "clusterroles"}[ref.Kind]
	if resource != "" && e.may(ctx, a, "bind", resource, ref.Name) {
		return nil
	}
	rules, found := e.rules.RoleRules(ref, a.GetNamespace())
	if !found {
		return apierrors.NewNotFound(schema.GroupResource{Group: rbacv1.GroupName, Resource: strings.ToLower(ref.Kind)}, ref.Name)
	}
	if err := e.covered(a, rules); err != nil {
		return apierrors.NewForbidden(a.GetResource().GroupResource(), name, err)
	}
	return nil
}

// may asks whether the user may use one of the special verbs on a role.
func (e *Escalation) may(ctx context.Context, a admission.Attributes, verb, resource, name string) bool {
	decision, _, _ := e.authz.Authorize(ctx, authorizer.AttributesRecord{
		User:            a.GetUserInfo(),
		Verb:            verb,
		Namespace:       a.GetNamespace(),
		APIGroup:        rbacv1.GroupName,
		APIVersion:      "*",
		Resource:        resource,
		Name:            name,
		ResourceRequest: true,
	})
	return decision == authorizer.DecisionAllow
}

// covered returns an error that lists what is in the rules and what the user doesn't have.
func (e *Escalation) covered(a admission.Attributes, rules []rbacv1.PolicyRule) error {
	u := a.GetUserInfo()
	have, resolution := e.rules.Rules(u, a.GetNamespace())
	ok, missing := validation.Covers(have, rules)
	if ok {
		return nil
	}
	var lines []string
	for _, r := range compact(missing) {
		lines = append(lines, describe(r))
	}
	slices.Sort(lines)
	msg := fmt.Sprintf("user %q (groups=%q) is attempting to grant RBAC permissions not currently held:\n%s",
		u.GetName(), u.GetGroups(), strings.Join(slices.Compact(lines), "\n"))
	if resolution != nil {
		msg += fmt.Sprintf("; resolution errors: [%v]", resolution)
	}
	return errors.New(msg)
}

// compact joins rules that differ only in their verbs, where they speak of one resource of one group.
func compact(rules []rbacv1.PolicyRule) []rbacv1.PolicyRule {
	var out []rbacv1.PolicyRule
	at := map[string]int{}
	for _, r := range rules {
		if len(r.APIGroups) != 1 || len(r.Resources) != 1 || len(r.NonResourceURLs) != 0 || len(r.ResourceNames) > 1 {
			out = append(out, r)
			continue
		}
		key := r.APIGroups[0] + "\x00" + r.Resources[0]
		if len(r.ResourceNames) == 1 {
			key += "\x00" + r.ResourceNames[0]
		}
		i, ok := at[key]
		if !ok {
			at[key] = len(out)
			out = append(out, *r.DeepCopy())
			continue
		}
		for _, v := range r.Verbs {
			if !slices.Contains(out[i].Verbs, v) {
				out[i].Verbs = append(out[i].Verbs, v)
			}
		}
	}
	return out
}

// describe writes a rule on one line: {APIGroups:["apps"], Resources:["deployments"], Verbs:["get"]}.
func describe(r rbacv1.PolicyRule) string {
	var parts []string
	add := func(name string, values []string) {
		if len(values) > 0 {
			parts = append(parts, fmt.Sprintf("%s:%q", name, values))
		}
	}
	add("APIGroups", r.APIGroups)
	add("Resources", r.Resources)
	add("NonResourceURLs", r.NonResourceURLs)
	add("ResourceNames", r.ResourceNames)
	add("Verbs", r.Verbs)
	return "{" + strings.Join(parts, ", ") + "}"
}

// onlyForGarbageCollection says that an update touches nothing but owners and finalizers, which the garbage collector
// must be able to do whatever is in the role.
func onlyForGarbageCollection(a admission.Attributes) bool {
	if a.GetOperation() != admission.Update || a.GetOldObject() == nil {
		return false
	}
	before, ok1 := a.GetOldObject().DeepCopyObject().(metav1.Object)
	after, ok2 := a.GetObject().DeepCopyObject().(metav1.Object)
	if !ok1 || !ok2 {
		return false
	}
	for _, o := range []metav1.Object{before, after} {
		o.SetOwnerReferences(nil)
		o.SetFinalizers(nil)
		o.SetManagedFields(nil)
		o.SetResourceVersion("")
	}
	return equality.Semantic.DeepEqual(before, after)
}
