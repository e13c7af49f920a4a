package rbac

import (
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// ruleAllows says whether one rule allows the request. fullResource is "pods" or "pods/log".
func ruleAllows(a authorizer.Attributes, fullResource string, rule *rbacv1.PolicyRule) bool {
	if !contains(rule.Verbs, a.GetVerb(), rbacv1.VerbAll) {
		return false
	}
	if !a.IsResourceRequest() {
		return pathMatches(rule.NonResourceURLs, a.GetPath())
	}
	return contains(rule.APIGroups, a.GetAPIGroup(), rbacv1.APIGroupAll) &&
		resourceMatches(rule.Resources, fullResource, a.GetSubresource()) &&
		(len(rule.ResourceNames) == 0 || slices.Contains(rule.ResourceNames, a.GetName()))
}

// fullResource joins resource and subresource as rules write them.
func fullResource(a authorizer.Attributes) string {
	if sub := a.GetSubresource(); sub != "" {
		return a.GetResource() + "/" + sub
	}
	return a.GetResource()
}

func contains(list []string, value, all string) bool {
	for _, v := range list {
		if v == all || v == value {
			return true
		}
	}
	return false
}

// resourceMatches knows three forms: "*", the exact name, and "*/scale" for one subresource of everything.
func resourceMatches(list []string, full, subresource string) bool {
	for _, r := range list {
		if r == rbacv1.ResourceAll || r == full {
			return true
		}
		if subresource != "" && len(r) == len(subresource)+2 && strings.HasPrefix(r, "*/") && r[2:] == subresource {
			return true
		}
	}
	return false
}

// pathMatches knows three forms: "*", the exact path, and a prefix that ends with a star.
func pathMatches(list []string, path string) bool {
	for _, p := range list {
		if p == rbacv1.NonResourceAll || p == path {
			return true
		}
		if prefix, ok := strings.CutSuffix(p, "*"); ok && strings.HasPrefix(path, prefix) {
			return true
		}
	}
	return false
}

// RulesAllow says whether one of the rules allows the request.
func RulesAllow(a authorizer.Attributes, rules []rbacv1.PolicyRule) bool {
	full := fullResource(a)
	for i := range rules {
		if ruleAllows(a, full, &rules[i]) {
			return true
		}
	}
	return false
}
