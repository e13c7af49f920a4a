package authn

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
)

// TokenReview serves the creation of authentication.k8s.io/tokenreviews: whose token is this?
func (a *Authenticator) TokenReview(ctx context.Context, _, _ string, obj runtime.Object, _ *metav1.CreateOptions) (runtime.Object, error) {
	r, ok := obj.(*authenticationv1.TokenReview)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a TokenReview: %T", obj))
	}
	if r.Namespace != "" {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("namespace is not allowed on this type: %v", r.Namespace))
	}
	if r.Spec.Token == "" {
		return nil, apierrors.NewBadRequest("token is required for TokenReview in authentication")
	}
	wanted := authenticator.Audiences(r.Spec.Audiences)
	if len(wanted) == 0 {
		wanted = a.audiences
	}
	// The request's context names the caller; it must not be taken for the token's owner.
	fake := (&http.Request{Header: http.Header{"Authorization": {"Bearer " + r.Spec.Token}}}).
		WithContext(authenticator.WithAudiences(ctx, wanted))
	resp, ok, err := a.tokens.AuthenticateRequest(fake)
	r.Status = authenticationv1.TokenReviewStatus{Authenticated: ok}
	if err != nil {
		r.Status.Error = err.Error()
	}
	if resp == nil || resp.User == nil {
		return r, nil
	}
	r.Status.User = userInfo(resp.User)
	r.Status.Audiences = resp.Audiences
	if len(resp.Audiences) == 0 {
		// An authenticator that knows no audiences speaks for the API server's only.
		if len(wanted.Intersect(a.audiences)) == 0 {
			return nil, apierrors.NewInternalError(errors.New("token authenticator does not support audiences"))
		}
		r.Status.Audiences = wanted.Intersect(a.audiences)
	}
	return r, nil
}

// SelfSubjectReview serves the creation of authentication.k8s.io/selfsubjectreviews: who am I?
func (a *Authenticator) SelfSubjectReview(ctx context.Context, _, _ string, obj runtime.Object, _ *metav1.CreateOptions) (runtime.Object, error) {
	r, ok := obj.(*authenticationv1.SelfSubjectReview)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a SelfSubjectReview: %T", obj))
	}
	u, ok := request.UserFrom(ctx)
	if !ok {
		return nil, apierrors.NewBadRequest("no user found on request")
	}
	r.Status = authenticationv1.SelfSubjectReviewStatus{UserInfo: userInfo(u)}
	return r, nil
}

func userInfo(u user.Info) authenticationv1.UserInfo {
	info := authenticationv1.UserInfo{Username: u.GetName(), UID: u.GetUID(), Groups: u.GetGroups()}
	if extra := u.GetExtra(); len(extra) > 0 {
		info.Extra = make(map[string]authenticationv1.ExtraValue, len(extra))
		for k, v := range extra {
			info.Extra[k] = v
		}
	}
	return info
}
