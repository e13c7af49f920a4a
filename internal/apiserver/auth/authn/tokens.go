package authn

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"

	"github.com/proa-k8s/proa/internal/apiserver/lookup"
)

const (
	// legacyIssuer is in the tokens that Secrets of type kubernetes.io/service-account-token hold.
	legacyIssuer = "kubernetes/serviceaccount"

	// projectedSeconds is the life that admission asks for in the token volumes it adds to pods, a number by which such
	// requests are told from others; extendedLife is what they get instead, for clients that never read the file again.
	projectedSeconds = 60*60 + 7
	extendedLife     = 365 * 24 * time.Hour
)

// Objects are read to check what a token is bound to. Their errors are store.ErrNotFound when there is no such object.
type Objects struct {
	ServiceAccounts lookup.Getter[*corev1.ServiceAccount]
	Secrets         lookup.Getter[*corev1.Secret]
	Pods            lookup.Getter[*corev1.Pod]
	Nodes           lookup.Getter[*corev1.Node]
}

// TokensConfig is what Tokens are made of.
type TokensConfig struct {
	// Issuer is the URL that names this cluster in tokens: https://kubernetes.default.svc.cluster.local. The others are
	// accepted, too, while it changes.
	Issuer       string
	OtherIssuers []string
	// Key signs tokens; tokens signed with one of the others are accepted, too (ECDSA or RSA).
	Key       *ecdsa.PrivateKey
	OtherKeys []crypto.PublicKey
	// Audiences by which the API server calls itself; the issuer when empty.
	Audiences []string
	Objects   Objects
	// Now is the clock; time.Now when nil.
	Now func() time.Time
}

// Tokens issues and checks the tokens of service accounts. It is safe for concurrent use.
type Tokens struct {
	issuer    string
	issuers   []string
	audiences []string
	signer    jose.Signer
	keys      []jose.JSONWebKey // public, the signing one first
	objects   Objects
	now       func() time.Time
}

// NewTokens returns Tokens.
func NewTokens(c TokensConfig) (*Tokens, error) {
	t := &Tokens{
		issuer: c.Issuer, issuers: append([]string{c.Issuer}, c.OtherIssuers...),
		audiences: c.Audiences, objects: c.Objects, now: c.Now,
	}
	if c.Issuer == "" || c.Issuer == legacyIssuer {
		return nil, fmt.Errorf("%q can't be the issuer of service account tokens", c.Issuer)
	}
	if len(t.audiences) == 0 {
		t.audiences = []string{c.Issuer}
	}
	if t.now == nil {
		t.now = time.Now
	}
	for _, pub := range append([]crypto.PublicKey{c.Key.Public()}, c.OtherKeys...) {
		key, err := publicKey(pub)
		if err != nil {
			return nil, err
		}
		t.keys = append(t.keys, key)
	}
	var err error
	t.signer, err = jose.NewSigner(jose.SigningKey{
		Algorithm: jose.SignatureAlgorithm(t.keys[0].Algorithm),
		Key:       jose.JSONWebKey{Key: c.Key, KeyID: t.keys[0].KeyID},
	}, nil)
	if err != nil {
		return nil, fmt.Errorf("signing service account tokens: %w", err)
	}
	return t, nil
}

// publicKey describes a key as the key set and the tokens' headers do: its id is the hash of its DER form, as upstream's.
func publicKey(pub crypto.PublicKey) (jose.JSONWebKey, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return jose.JSONWebKey{}, fmt.Errorf("describing the key of service account tokens: %w", err)
	}
	algorithm := jose.RS256
	if ec, ok := pub.(*ecdsa.PublicKey); ok {
		switch size := ec.Curve.Params().BitSize; size {
		case 256:
			algorithm = jose.ES256
		case 384:
			algorithm = jose.ES384
		case 521:
			algorithm = jose.ES512
		default:
			return jose.JSONWebKey{}, fmt.Errorf("ECDSA keys of %d bits can't sign service account tokens", size)
		}
	}
	id := sha256.Sum256(der)
	return jose.JSONWebKey{Key: pub, KeyID: base64.RawURLEncoding.EncodeToString(id[:]), Algorithm: string(algorithm), Use: "sig"}, nil
}

// algorithms are those that tokens may be signed with.
var algorithms = []jose.SignatureAlgorithm{jose.ES256, jose.ES384, jose.ES512, jose.RS256}

// reference names an object in a token.
type reference struct {
	Name string    `json:"name,omitempty"`
	UID  types.UID `json:"uid,omitempty"`
}

// binding is the claim "kubernetes.io" of a token that TokenRequest gave.
type binding struct {
	Namespace      string           `json:"namespace,omitempty"`
	ServiceAccount reference        `json:"serviceaccount"`
	Pod            *reference       `json:"pod,omitempty"`
	Secret         *reference       `json:"secret,omitempty"`
	Node           *reference       `json:"node,omitempty"`
	WarnAfter      *jwt.NumericDate `json:"warnafter,omitempty"`
}

// claims are those of both kinds of tokens beside the registered ones.
type claims struct {
	Kubernetes *binding `json:"kubernetes.io,omitempty"`

	LegacyNamespace   string `json:"kubernetes.io/serviceaccount/namespace,omitempty"`
	LegacySecret      string `json:"kubernetes.io/serviceaccount/secret.name,omitempty"`
	LegacyAccountName string `json:"kubernetes.io/serviceaccount/service-account.name,omitempty"`
	LegacyAccountUID  string `json:"kubernetes.io/serviceaccount/service-account.uid,omitempty"`
}

func (t *Tokens) sign(public jwt.Claims, private claims) (string, error) {
	token, err := jwt.Signed(t.signer).Claims(public).Claims(private).Serialize()
	if err != nil {
		return "", fmt.Errorf("signing a token of %s: %w", public.Subject, err)
	}
	return token, nil
}

// Legacy makes the token that a Secret of type kubernetes.io/service-account-token holds under the key "token". It is valid
// as long as the Secret and the account exist.
func (t *Tokens) Legacy(account *corev1.ServiceAccount, secret string) (string, error) {
	return t.sign(
		jwt.Claims{Issuer: legacyIssuer, Subject: serviceaccount.MakeUsername(account.Namespace, account.Name)},
		claims{
			LegacyNamespace: account.Namespace, LegacySecret: secret,
			LegacyAccountName: account.Name, LegacyAccountUID: string(account.UID),
		})
}

// bound makes a token for an account: valid for the life, bound to what b names.
func (t *Tokens) bound(account *corev1.ServiceAccount, audiences []string, life time.Duration, b binding) (token, id string, err error) {
	now := t.now()
	id = string(uuid.NewUUID())
	b.Namespace = account.Namespace
	b.ServiceAccount = reference{account.Name, account.UID}
	token, err = t.sign(jwt.Claims{
		Issuer:    t.issuer,
		Subject:   serviceaccount.MakeUsername(account.Namespace, account.Name),
		Audience:  audiences,
		IssuedAt:  jwt.NewNumericDate(now),
		NotBefore: jwt.NewNumericDate(now),
		Expiry:    jwt.NewNumericDate(now.Add(life)),
		ID:        id,
	}, claims{Kubernetes: &b})
	return token, id, err
}

var errNoKey = errors.New("no key fits the token's signature")

// verify checks a token's signature and gives its claims. mine is false when it is no token of this cluster's issuers.
func (t *Tokens) verify(data string) (public jwt.Claims, private claims, mine bool, err error) {
	token, err := jwt.ParseSigned(data, algorithms)
	if err != nil {
		return public, private, false, nil // another kind of token
	}
	if err := token.UnsafeClaimsWithoutVerification(&public); err != nil {
		return public, private, false, nil
	}
	if public.Issuer != legacyIssuer && !slices.Contains(t.issuers, public.Issuer) {
		return public, private, false, nil
	}
	kid := token.Headers[0].KeyID
	known := slices.ContainsFunc(t.keys, func(k jose.JSONWebKey) bool { return k.KeyID == kid })
	for _, key := range t.keys {
		if known && key.KeyID != kid || token.Headers[0].Algorithm != key.Algorithm {
			continue
		}
		public, private = jwt.Claims{}, claims{}
		if err = token.Claims(key.Key, &public, &private); err == nil {
			return public, private, true, nil
		}
	}
	return public, private, true, errNoKey
}

// credentialID is how a token is named in the extra of its user.
func credentialID(id string) string {
	if id == "" {
		return ""
	}
	return "JTI=" + id
}

// get reads an object that a token refers to; ok is false when the token can't be valid any more: the object is gone, is
// another of the same name, or was deleted longer ago than the leeway.
func get[T interface {
	GetUID() types.UID
	GetDeletionTimestamp() *metav1.Time
}](ctx context.Context, from lookup.Getter[T], namespace string, ref reference, now time.Time) (T, error) {
	obj, err := from(ctx, namespace, ref.Name)
	if err != nil {
		return obj, fmt.Errorf("%T %q of the token: %w", obj, ref.Name, err)
	}
	if deleted := obj.GetDeletionTimestamp(); deleted != nil && deleted.Time.Before(now.Add(-deletionLeeway)) {
		return obj, fmt.Errorf("%T %q of the token has been deleted", obj, ref.Name)
	}
	if ref.UID != "" && obj.GetUID() != ref.UID {
		return obj, fmt.Errorf("%T UID (%s) does not match the UID (%s) in the token", obj, obj.GetUID(), ref.UID)
	}
	return obj, nil
}
