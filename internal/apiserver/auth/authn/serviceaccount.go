package authn

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
)

// deletionLeeway is how long a token lives on when the object it is bound to is being deleted, so that a pod can finish.
const deletionLeeway = time.Minute

// AuthenticateToken implements authenticator.Token. Tokens that this cluster didn't issue are left to others.
func (t *Tokens) AuthenticateToken(ctx context.Context, data string) (*authenticator.Response, bool, error) {
	public, private, mine, err := t.verify(data)
	if !mine {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	wanted, ok := authenticator.AudiencesFrom(ctx)
	if !ok {
		wanted = t.audiences
	}
	audiences := authenticator.Audiences(public.Audience)
	check := t.checkBound
	if public.Issuer == legacyIssuer {
		check = t.checkLegacy
		if len(audiences) == 0 {
			audiences = t.audiences
		}
	}
	fitting := audiences.Intersect(wanted)
	if len(fitting) == 0 {
		return nil, false, fmt.Errorf("token audiences %q is invalid for the target audiences %q", audiences, wanted)
	}
	info, err := check(ctx, data, public, private)
	if err != nil {
		return nil, false, err
	}
	return &authenticator.Response{User: info, Audiences: fitting}, true, nil
}

// checkBound checks a token of TokenRequest: its time, and that the account and what it is bound to still exist.
func (t *Tokens) checkBound(ctx context.Context, _ string, public jwt.Claims, private claims) (user.Info, error) {
	now := t.now()
	switch err := public.ValidateWithLeeway(jwt.Expected{Time: now}, 0); {
	case errors.Is(err, jwt.ErrExpired):
		return nil, errors.New("service account token has expired")
	case errors.Is(err, jwt.ErrNotValidYet), errors.Is(err, jwt.ErrIssuedInTheFuture):
		return nil, errors.New("service account token is not valid yet")
	case err != nil:
		return nil, fmt.Errorf("service account token claims could not be validated: %w", err)
	}
	b := private.Kubernetes
	if b == nil || b.Namespace == "" || b.ServiceAccount.Name == "" || b.ServiceAccount.UID == "" || public.Expiry == nil {
		return nil, errors.New("service account token lacks claims")
	}
	if public.Subject != serviceaccount.MakeUsername(b.Namespace, b.ServiceAccount.Name) {
		return nil, errors.New("service account token is for somebody else")
	}
	if _, err := get(ctx, t.objects.ServiceAccounts, b.Namespace, b.ServiceAccount, now); err != nil {
		return nil, err
	}
	info := serviceaccount.ServiceAccountInfo{
		Namespace: b.Namespace, Name: b.ServiceAccount.Name, UID: string(b.ServiceAccount.UID),
		CredentialID: credentialID(public.ID),
	}
	if b.Secret != nil {
		if _, err := get(ctx, t.objects.Secrets, b.Namespace, *b.Secret, now); err != nil {
			return nil, err
		}
	}
	if b.Pod != nil {
		if _, err := get(ctx, t.objects.Pods, b.Namespace, *b.Pod, now); err != nil {
			return nil, err
		}
		info.PodName, info.PodUID = b.Pod.Name, string(b.Pod.UID)
	}
	if b.Node != nil {
		// With a pod, the node only tells where the pod was when the token was made.
		if b.Pod == nil {
			if _, err := get(ctx, t.objects.Nodes, "", *b.Node, now); err != nil {
				return nil, err
			}
		}
		info.NodeName, info.NodeUID = b.Node.Name, string(b.Node.UID)
	}
	if b.WarnAfter != nil && now.After(b.WarnAfter.Time()) {
		audit.AddAuditAnnotation(ctx, "authentication.k8s.io/stale-token", fmt.Sprintf(
			"subject: %s, seconds after warning threshold: %.0f", public.Subject, now.Sub(b.WarnAfter.Time()).Seconds()))
	}
	return info.UserInfo(), nil
}

// checkLegacy checks a token without expiry: it must be the one in its Secret, and the account the one it was made for.
func (t *Tokens) checkLegacy(ctx context.Context, data string, public jwt.Claims, private claims) (user.Info, error) {
	namespace, name := private.LegacyNamespace, private.LegacyAccountName
	if namespace == "" || name == "" || private.LegacyAccountUID == "" || private.LegacySecret == "" {
		return nil, errors.New("service account token lacks claims")
	}
	if public.Subject != serviceaccount.MakeUsername(namespace, name) {
		return nil, errors.New("service account token is for somebody else")
	}
	now := t.now()
	secret, err := get(ctx, t.objects.Secrets, namespace, reference{Name: private.LegacySecret}, now)
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare(secret.Data[corev1.ServiceAccountTokenKey], []byte(data)) != 1 {
		return nil, errors.New("service account token does not match the one in its secret")
	}
	if secret.Labels["kubernetes.io/legacy-token-invalid-since"] != "" {
		return nil, errors.New("the token in its secret was marked as invalid")
	}
	account := reference{Name: name, UID: types.UID(private.LegacyAccountUID)}
	if _, err := get(ctx, t.objects.ServiceAccounts, namespace, account, now); err != nil {
		return nil, err
	}
	audit.AddAuditAnnotation(ctx, "authentication.k8s.io/legacy-token", public.Subject)
	return serviceaccount.UserInfo(namespace, name, private.LegacyAccountUID), nil
}
