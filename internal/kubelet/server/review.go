package server

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilcache "k8s.io/apimachinery/pkg/util/cache"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	authenticationclient "k8s.io/client-go/kubernetes/typed/authentication/v1"
	authorizationclient "k8s.io/client-go/kubernetes/typed/authorization/v1"
)

// reviewTimeout bounds one question to the API server.
const reviewTimeout = 10 * time.Second

// tokenReviewer asks the API server whose a token is.
type tokenReviewer struct {
	client authenticationclient.TokenReviewInterface
}

// AuthenticateToken implements authenticator.Token.
func (t tokenReviewer) AuthenticateToken(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, reviewTimeout)
	defer cancel()
	review, err := t.client.Create(ctx, &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, false, fmt.Errorf("reviewing a token: %w", err)
	}
	if !review.Status.Authenticated {
		if review.Status.Error != "" {
			return nil, false, errors.New(review.Status.Error)
		}
		return nil, false, nil
	}
	who := review.Status.User
	extra := map[string][]string{}
	for key, values := range who.Extra {
		extra[key] = values
	}
	return &authenticator.Response{User: &user.DefaultInfo{
		Name: who.Username, UID: who.UID, Groups: who.Groups, Extra: extra,
	}}, true, nil
}

// accessReviewer asks the API server what is allowed, and remembers the answers for a while.
type accessReviewer struct {
	client    authorizationclient.SubjectAccessReviewInterface
	decisions *utilcache.LRUExpireCache
}

func (a *accessReviewer) allows(ctx context.Context, request authorizer.Attributes) (bool, error) {
	who := request.GetUser()
	spec := authorizationv1.SubjectAccessReviewSpec{
		User: who.GetName(), Groups: who.GetGroups(), UID: who.GetUID(),
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Verb: request.GetVerb(), Group: request.GetAPIGroup(), Version: request.GetAPIVersion(),
			Resource: request.GetResource(), Subresource: request.GetSubresource(), Name: request.GetName(),
		},
	}
	if extra := who.GetExtra(); len(extra) > 0 {
		spec.Extra = map[string]authorizationv1.ExtraValue{}
		for key, values := range extra {
			spec.Extra[key] = values
		}
	}
	data, err := spec.Marshal()
	if err != nil {
		return false, err
	}
	key := string(data)
	if decision, ok := a.decisions.Get(key); ok {
		return decision.(bool), nil
	}
	ctx, cancel := context.WithTimeout(ctx, reviewTimeout)
	defer cancel()
	review, err := a.client.Create(ctx, &authorizationv1.SubjectAccessReview{Spec: spec}, metav1.CreateOptions{})
	if err != nil {
		return false, fmt.Errorf("reviewing access: %w", err)
	}
	if review.Status.EvaluationError != "" && !review.Status.Allowed {
		return false, errors.New(strings.TrimSpace(review.Status.EvaluationError))
	}
	allowed := review.Status.Allowed && !review.Status.Denied
	ttl := denyTTL
	if allowed {
		ttl = allowTTL
	}
	a.decisions.Add(key, allowed, ttl)
	return allowed, nil
}
