// Package authz answers what a user may do: it joins the authorizers in their order, and serves the reviews of the API group
// authorization.k8s.io.
//
// What flows in are requests' attributes and review objects; what flows out are decisions and filled-in reviews.
package authz

import (
	"context"
	"slices"

	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// Part is one authorizer that can also list rules; one that can't lists none and says so.
type Part interface {
	authorizer.Authorizer
	authorizer.RuleResolver
}

// Authorizer asks its parts one after the other until one allows or denies. Members of system:masters are always allowed.
type Authorizer struct {
	authorizer.AuthorizerFunc
	parts []Part
}

// New joins authorizers: node before rbac.
func New(parts ...Part) *Authorizer {
	a := &Authorizer{parts: parts}
	a.AuthorizerFunc = a.authorize
	return a
}

func (a *Authorizer) authorize(ctx context.Context, attrs authorizer.Attributes) (authorizer.Decision, string, error) {
	if u := attrs.GetUser(); u != nil && slices.Contains(u.GetGroups(), user.SystemPrivilegedGroup) {
		return authorizer.DecisionAllow, "", nil
	}
	var why string
	var errs []error
	for _, p := range a.parts {
		decision, reason, err := p.Authorize(ctx, attrs)
		if err != nil {
			errs = append(errs, err)
		}
		if reason != "" {
			if why != "" {
				why += "\n"
			}
			why += reason
		}
		switch decision {
		case authorizer.DecisionAllow, authorizer.DecisionDeny:
			return decision, reason, err
		}
	}
	return authorizer.DecisionNoOpinion, why, utilerrors.NewAggregate(errs)
}

// RulesFor implements authorizer.RuleResolver.
func (a *Authorizer) RulesFor(ctx context.Context, u user.Info, namespace string) ([]authorizer.ResourceRuleInfo, []authorizer.NonResourceRuleInfo, bool, error) {
	var resources []authorizer.ResourceRuleInfo
	var paths []authorizer.NonResourceRuleInfo
	incomplete := false
	var errs []error
	for _, p := range a.parts {
		r, n, inc, err := p.RulesFor(ctx, u, namespace)
		resources, paths = append(resources, r...), append(paths, n...)
		incomplete = incomplete || inc
		if err != nil {
			errs = append(errs, err)
		}
	}
	return resources, paths, incomplete, utilerrors.NewAggregate(errs)
}
