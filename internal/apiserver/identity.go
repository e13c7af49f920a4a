package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"
)

// proxyHeaders are where an authenticating proxy names the user: handlers never see them.
var proxyHeaders = []string{"X-Remote-User", "X-Remote-Uid", "X-Remote-Group"}

const proxyExtraPrefix = "X-Remote-Extra-"

// authenticate finds out who asks. A user that is in the context already was put there by code of this process.
func (s *Server) authenticate(w http.ResponseWriter, r *http.Request) (*http.Request, error) {
	if _, ok := apirequest.UserFrom(r.Context()); ok {
		return r, nil
	}
	answer, ok, err := s.config.Authenticator.AuthenticateRequest(r)
	if err != nil || !ok {
		if err != nil {
			s.log.Warn("authentication failed", "path", r.URL.Path, "remote", r.RemoteAddr, "error", err)
		}
		degrade(w, r)
		return nil, apierrors.NewUnauthorized("Unauthorized")
	}
	if answer.User.GetName() == user.Anonymous {
		degrade(w, r)
	}
	r.Header.Del("Authorization")
	for _, name := range proxyHeaders {
		r.Header.Del(name)
	}
	deletePrefixed(r.Header, proxyExtraPrefix)
	return r.WithContext(apirequest.WithUser(r.Context(), answer.User)), nil
}

// degrade takes HTTP/2's long connections from those who have not said who they are (CVE-2023-44487).
func degrade(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 2 {
		w.Header().Set("Connection", "close")
	}
}

func deletePrefixed(h http.Header, prefix string) {
	for name := range h {
		if strings.HasPrefix(name, prefix) {
			h.Del(name)
		}
	}
}

// impersonate lets the user act as another one, if they may.
func (s *Server) impersonate(r *http.Request) (*http.Request, error) {
	wanted, err := impersonations(r.Header)
	if err != nil || len(wanted) == 0 {
		return r, err
	}
	self, _ := apirequest.UserFrom(r.Context())
	for _, one := range wanted {
		a := one.attributes(self)
		decision, reason, err := s.config.Authorizer.Authorize(r.Context(), a)
		if err != nil || decision != authorizer.DecisionAllow {
			return nil, forbidden(a, reason)
		}
	}
	for _, name := range []string{
		authenticationv1.ImpersonateUserHeader, authenticationv1.ImpersonateGroupHeader, authenticationv1.ImpersonateUIDHeader,
	} {
		r.Header.Del(name)
	}
	deletePrefixed(r.Header, authenticationv1.ImpersonateUserExtraHeaderPrefix)
	return r.WithContext(apirequest.WithUser(r.Context(), actAs(wanted))), nil
}

// impersonation is one thing that a request wants to be: a user, a group...
type impersonation struct {
	resource, group string // of authorization: "users", "userextras"
	namespace       string
	name            string
	key             string // of an extra
}

func (i impersonation) attributes(self user.Info) authorizer.AttributesRecord {
	a := authorizer.AttributesRecord{
		User: self, Verb: "impersonate", APIGroup: i.group, Resource: i.resource, Subresource: i.key,
		Namespace: i.namespace, Name: i.name, ResourceRequest: true,
	}
	if i.group != "" {
		a.APIVersion = authenticationv1.SchemeGroupVersion.Version
	}
	return a
}

// impersonations reads what a request wants to be from its headers.
func impersonations(h http.Header) ([]impersonation, error) {
	var list []impersonation
	name := h.Get(authenticationv1.ImpersonateUserHeader)
	if name != "" {
		if namespace, account, err := serviceaccount.SplitUsername(name); err == nil {
			list = append(list, impersonation{resource: "serviceaccounts", namespace: namespace, name: account})
		} else {
			list = append(list, impersonation{resource: "users", name: name})
		}
	}
	for _, group := range h[authenticationv1.ImpersonateGroupHeader] {
		list = append(list, impersonation{resource: "groups", name: group})
	}
	for header, values := range h {
		key, ok := strings.CutPrefix(header, authenticationv1.ImpersonateUserExtraHeaderPrefix)
		if !ok {
			continue
		}
		key = strings.ToLower(key)
		if plain, err := url.PathUnescape(key); err == nil {
			key = plain
		}
		for _, value := range values {
			list = append(list, impersonation{resource: "userextras", group: authenticationv1.GroupName, key: key, name: value})
		}
	}
	if uid := h.Get(authenticationv1.ImpersonateUIDHeader); uid != "" {
		list = append(list, impersonation{resource: "uids", group: authenticationv1.GroupName, name: uid})
	}
	if len(list) > 0 && name == "" {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("requested %v without impersonating a user", references(list)))
	}
	return list, nil
}

// references are impersonations as upstream shows them.
func references(list []impersonation) []corev1.ObjectReference {
	kinds := map[string]string{"groups": "Group", "userextras": "UserExtra", "uids": "UID"}
	refs := make([]corev1.ObjectReference, len(list))
	for i, one := range list {
		refs[i] = corev1.ObjectReference{Kind: kinds[one.resource], Name: one.name, FieldPath: one.key}
		if one.group != "" {
			refs[i].APIVersion = authenticationv1.SchemeGroupVersion.String()
		}
	}
	return refs
}

// actAs makes the user that a request wants to be. Groups that are not named are those that the user would have.
func actAs(wanted []impersonation) user.Info {
	as := &user.DefaultInfo{Extra: map[string][]string{}}
	for _, one := range wanted {
		switch one.resource {
		case "users":
			as.Name = one.name
		case "serviceaccounts":
			as.Name = serviceaccount.MakeUsername(one.namespace, one.name)
		case "groups":
			as.Groups = append(as.Groups, one.name)
		case "userextras":
			as.Extra[one.key] = append(as.Extra[one.key], one.name)
		case "uids":
			as.UID = one.name
		}
	}
	if first := wanted[0]; first.resource == "serviceaccounts" && len(as.Groups) == 0 {
		as.Groups = serviceaccount.MakeGroupNames(first.namespace)
	}
	unknown := slices.Contains(as.Groups, user.AllUnauthenticated)
	switch {
	case as.Name == user.Anonymous && !unknown:
		as.Groups = append(as.Groups, user.AllUnauthenticated)
	case as.Name != user.Anonymous && !unknown && !slices.Contains(as.Groups, user.AllAuthenticated):
		as.Groups = append(as.Groups, user.AllAuthenticated)
	}
	return as
}

// authorize asks whether the user may do what the request wants.
func (s *Server) authorize(r *http.Request, info *apirequest.RequestInfo) error {
	u, _ := apirequest.UserFrom(r.Context())
	a := authorizer.AttributesRecord{
		User: u, Verb: info.Verb, Namespace: info.Namespace, APIGroup: info.APIGroup, APIVersion: info.APIVersion,
		Resource: info.Resource, Subresource: info.Subresource, Name: info.Name, ResourceRequest: info.IsResourceRequest, Path: info.Path,
	}
	if info.FieldSelector != "" {
		selector, err := fields.ParseSelector(info.FieldSelector)
		if a.FieldSelectorParsingErr = err; err == nil {
			a.FieldSelectorRequirements = selector.Requirements()
		}
	}
	if info.LabelSelector != "" {
		selector, err := labels.Parse(info.LabelSelector)
		if a.LabelSelectorParsingErr = err; err == nil {
			a.LabelSelectorRequirements, _ = selector.Requirements()
		}
	}
	return s.ask(r.Context(), a)
}

func (s *Server) ask(ctx context.Context, a authorizer.AttributesRecord) error {
	decision, reason, err := s.config.Authorizer.Authorize(ctx, a)
	if decision == authorizer.DecisionAllow {
		return nil
	}
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	return forbidden(a, reason)
}

// authorizeCreate asks whether the user may create an object that their update or apply did not find.
func (s *Server) authorizeCreate(q *request, name string) error {
	return s.ask(q.ctx(), authorizer.AttributesRecord{
		User: q.user, Verb: "create", Namespace: q.info.Namespace, APIGroup: q.info.APIGroup, APIVersion: q.info.APIVersion,
		Resource: q.info.Resource, Subresource: q.info.Subresource, Name: name, ResourceRequest: true, Path: q.info.Path,
	})
}

// sanitizer keeps what users write into URLs from being taken for HTML.
var sanitizer = strings.NewReplacer(`&`, "&amp;", `<`, "&lt;", `>`, "&gt;")

// forbidden is the error of a request that the user may not make.
func forbidden(a authorizer.AttributesRecord, reason string) error {
	name := ""
	if a.User != nil {
		name = a.User.GetName()
	}
	var message string
	if !a.ResourceRequest {
		message = fmt.Sprintf("User %q cannot %s path %q", name, a.Verb, a.Path)
	} else {
		resource := a.Resource
		if a.Subresource != "" {
			resource += "/" + a.Subresource
		}
		scope := "at the cluster scope"
		if a.Namespace != "" {
			scope = fmt.Sprintf("in the namespace %q", a.Namespace)
		}
		message = fmt.Sprintf("User %q cannot %s resource %q in API group %q %s", name, a.Verb, resource, a.APIGroup, scope)
	}
	message = sanitizer.Replace(message)
	if reason != "" {
		message += ": " + reason
	}
	return apierrors.NewForbidden(schema.GroupResource{Group: a.APIGroup, Resource: a.Resource}, a.Name, errors.New(message))
}
