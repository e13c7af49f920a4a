package authn

import (
	"context"
	"crypto/subtle"
	"errors"
	"regexp"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/proa-k8s/proa/internal/apiserver/lookup"
	"github.com/proa-k8s/proa/internal/store"
)

// SecretGetter reads a Secret.
type SecretGetter = lookup.Getter[*corev1.Secret]

var (
	bootstrapToken = regexp.MustCompile(`^([a-z0-9]{6})\.([a-z0-9]{16})$`)
	bootstrapGroup = regexp.MustCompile(`^system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]$`)
)

// bootstrapTokens authenticates nodes that want to join, by tokens "<id>.<secret>" that are kept in the Secrets
// kube-system/bootstrap-token-<id> (https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/).
type bootstrapTokens struct {
	secrets SecretGetter
	now     func() time.Time
}

// AuthenticateToken implements authenticator.Token.
func (b *bootstrapTokens) AuthenticateToken(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	parts := bootstrapToken.FindStringSubmatch(token)
	if parts == nil {
		return nil, false, nil
	}
	id := parts[1]
	secret, err := b.secrets(ctx, metav1.NamespaceSystem, "bootstrap-token-"+id)
	if errors.Is(err, store.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	groups, ok := checkBootstrapSecret(secret, id, parts[2], b.now())
	if !ok {
		return nil, false, nil
	}
	return &authenticator.Response{User: &user.DefaultInfo{Name: "system:bootstrap:" + id, Groups: groups}}, true, nil
}

// checkBootstrapSecret decides whether the Secret holds this token, for authentication, at this time, and for which groups.
func checkBootstrapSecret(s *corev1.Secret, id, secret string, now time.Time) ([]string, bool) {
	value := func(key string) string { return string(s.Data[key]) }
	if s.Type != corev1.SecretTypeBootstrapToken || s.DeletionTimestamp != nil ||
		value("token-id") != id || value("usage-bootstrap-authentication") != "true" ||
		subtle.ConstantTimeCompare([]byte(value("token-secret")), []byte(secret)) != 1 {
		return nil, false
	}
	if at := value("expiration"); at != "" {
		expires, err := time.Parse(time.RFC3339, at)
		if err != nil || !now.Before(expires) {
			return nil, false
		}
	}
	groups := []string{"system:bootstrappers"}
	if extra := value("auth-extra-groups"); extra != "" {
		for _, g := range strings.Split(extra, ",") {
			if !bootstrapGroup.MatchString(g) {
				return nil, false
			}
			groups = append(groups, g)
		}
	}
	return groups, true
}
