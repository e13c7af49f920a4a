package authn

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/utils/ptr"

	"github.com/proa-k8s/proa/internal/apiserver/lookup"
	"github.com/proa-k8s/proa/internal/store"
)

const issuer = "https://kubernetes.default.svc.cluster.local"

// world is the objects that tokens are bound to, and the clock.
type world struct {
	now     time.Time
	objects map[string]metav1.Object
	tokens  *Tokens
}

func getter[T metav1.Object](w *world, kind string) lookup.Getter[T] {
	return func(_ context.Context, namespace, name string) (T, error) {
		o, ok := w.objects[kind+"/"+namespace+"/"+name]
		if !ok {
			var none T
			return none, store.ErrNotFound
		}
		return o.(T), nil
	}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func objectMeta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID("uid-of-" + name)}
}

func newWorld(t testing.TB) *world {
	w := &world{now: time.Now().Truncate(time.Second), objects: map[string]metav1.Object{
		"sa/dev/bot":     &corev1.ServiceAccount{ObjectMeta: objectMeta("dev", "bot")},
		"pod/dev/pod":    &corev1.Pod{ObjectMeta: objectMeta("dev", "pod"), Spec: corev1.PodSpec{ServiceAccountName: "bot", NodeName: "edge"}},
		"pod/dev/other":  &corev1.Pod{ObjectMeta: objectMeta("dev", "other"), Spec: corev1.PodSpec{ServiceAccountName: "somebody"}},
		"pod/dev/lost":   &corev1.Pod{ObjectMeta: objectMeta("dev", "lost"), Spec: corev1.PodSpec{ServiceAccountName: "bot", NodeName: "gone"}},
		"secret/dev/sec": &corev1.Secret{ObjectMeta: objectMeta("dev", "sec")},
		"node//edge":     &corev1.Node{ObjectMeta: objectMeta("", "edge")},
	}}
	var err error
	w.tokens, err = NewTokens(TokensConfig{
		Issuer: issuer, Key: newKey(t), Now: func() time.Time { return w.now },
		Objects: Objects{
			ServiceAccounts: getter[*corev1.ServiceAccount](w, "sa"), Secrets: getter[*corev1.Secret](w, "secret"),
			Pods: getter[*corev1.Pod](w, "pod"), Nodes: getter[*corev1.Node](w, "node"),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) request(t *testing.T, spec authenticationv1.TokenRequestSpec) *authenticationv1.TokenRequest {
	t.Helper()
	out, err := w.tokens.TokenRequest(t.Context(), "dev", "bot", &authenticationv1.TokenRequest{Spec: spec}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return out.(*authenticationv1.TokenRequest)
}

func bindTo(kind, name string) *authenticationv1.BoundObjectReference {
	return &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: kind, Name: name}
}

func TestBoundTokens(t *testing.T) {
	deleted := func(ago time.Duration) func(w *world, key string) {
		return func(w *world, key string) {
			w.objects[key].SetDeletionTimestamp(&metav1.Time{Time: w.now.Add(-ago)})
		}
	}
	gone := func(w *world, key string) { delete(w.objects, key) }
	replaced := func(w *world, key string) { w.objects[key].SetUID("another") }
	for name, test := range map[string]struct {
		ref     *authenticationv1.BoundObjectReference
		seconds int64
		change  func(w *world, key string)
		key     string
		later   time.Duration
		want    string // error
		extra   map[string][]string
	}{
		"unbound":          {},
		"account gone":     {change: gone, key: "sa/dev/bot", want: "not found"},
		"account replaced": {change: replaced, key: "sa/dev/bot", want: "does not match"},
		"account going":    {change: deleted(30 * time.Second), key: "sa/dev/bot"},
		"account deleted":  {change: deleted(61 * time.Second), key: "sa/dev/bot", want: "has been deleted"},
		"almost expired":   {later: 59*time.Minute + 59*time.Second},
		"expired":          {later: time.Hour + time.Second, want: "has expired"},
		"too early":        {later: -time.Minute, want: "not valid yet"},
		"pod": {ref: bindTo("Pod", "pod"), extra: map[string][]string{
			"authentication.kubernetes.io/pod-name": {"pod"}, "authentication.kubernetes.io/pod-uid": {"uid-of-pod"},
			"authentication.kubernetes.io/node-name": {"edge"}, "authentication.kubernetes.io/node-uid": {"uid-of-edge"},
		}},
		"pod gone":     {ref: bindTo("Pod", "pod"), change: gone, key: "pod/dev/pod", want: "not found"},
		"pod replaced": {ref: bindTo("Pod", "pod"), change: replaced, key: "pod/dev/pod", want: "does not match"},
		"pod's node gone": {ref: bindTo("Pod", "pod"), change: gone, key: "node//edge", extra: map[string][]string{
			"authentication.kubernetes.io/pod-name": {"pod"}, "authentication.kubernetes.io/pod-uid": {"uid-of-pod"},
			"authentication.kubernetes.io/node-name": {"edge"}, "authentication.kubernetes.io/node-uid": {"uid-of-edge"},
		}},
		"pod on a node that isn't there": {ref: bindTo("Pod", "lost"), extra: map[string][]string{
			"authentication.kubernetes.io/pod-name": {"lost"}, "authentication.kubernetes.io/pod-uid": {"uid-of-lost"},
			"authentication.kubernetes.io/node-name": {"gone"},
		}},
		"secret":          {ref: bindTo("Secret", "sec")},
		"secret gone":     {ref: bindTo("Secret", "sec"), change: gone, key: "secret/dev/sec", want: "not found"},
		"secret replaced": {ref: bindTo("Secret", "sec"), change: replaced, key: "secret/dev/sec", want: "does not match"},
		"node": {ref: bindTo("Node", "edge"), extra: map[string][]string{
			"authentication.kubernetes.io/node-name": {"edge"}, "authentication.kubernetes.io/node-uid": {"uid-of-edge"},
		}},
		"node gone":                {ref: bindTo("Node", "edge"), change: gone, key: "node//edge", want: "not found"},
		"of a token volume, later": {seconds: projectedSeconds, later: 300 * 24 * time.Hour},
		"of a token volume, old":   {seconds: projectedSeconds, later: 366 * 24 * time.Hour, want: "has expired"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			spec := authenticationv1.TokenRequestSpec{BoundObjectRef: test.ref}
			if test.seconds > 0 {
				spec.ExpirationSeconds = &test.seconds
			}
			r := w.request(t, spec)
			seconds := *r.Spec.ExpirationSeconds
			if want := w.now.Add(time.Duration(seconds) * time.Second); !r.Status.ExpirationTimestamp.Time.Equal(want) {
				t.Errorf("expires %v, not %v", r.Status.ExpirationTimestamp, want)
			}
			if test.change != nil {
				test.change(w, test.key)
			}
			w.now = w.now.Add(test.later)
			resp, ok, err := w.tokens.AuthenticateToken(t.Context(), r.Status.Token)
			if test.want != "" {
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("got %v %v, want an error with %q", resp, err, test.want)
				}
				return
			}
			if err != nil || !ok {
				t.Fatalf("not accepted: %v", err)
			}
			u := resp.User
			if u.GetName() != "system:serviceaccount:dev:bot" || u.GetUID() != "uid-of-bot" || !reflect.DeepEqual(u.GetGroups(), []string{"system:serviceaccounts", "system:serviceaccounts:dev"}) {
				t.Errorf("got %v", u)
			}
			extra := u.GetExtra()
			if id := extra[user.CredentialIDKey]; len(id) != 1 || !strings.HasPrefix(id[0], "JTI=") {
				t.Errorf("credential id is %v", id)
			}
			delete(extra, user.CredentialIDKey)
			if len(extra)+len(test.extra) > 0 && !reflect.DeepEqual(extra, test.extra) {
				t.Errorf("extra is %v, not %v", extra, test.extra)
			}
		})
	}
}

func TestAudiences(t *testing.T) {
	w := newWorld(t)
	own, vault := w.request(t, authenticationv1.TokenRequestSpec{}), w.request(t, authenticationv1.TokenRequestSpec{Audiences: []string{"vault", "other"}})
	if !reflect.DeepEqual(own.Spec.Audiences, []string{issuer}) {
		t.Errorf("default audiences are %v", own.Spec.Audiences)
	}
	for name, test := range map[string]struct {
		token  string
		wanted []string
		want   []string
	}{
		"own for the server":       {own.Status.Token, nil, []string{issuer}},
		"own for vault":            {own.Status.Token, []string{"vault"}, nil},
		"vault's for the server":   {vault.Status.Token, nil, nil},
		"vault's for vault":        {vault.Status.Token, []string{"vault"}, []string{"vault"}},
		"vault's for vault and us": {vault.Status.Token, []string{"vault", issuer}, []string{"vault"}},
	} {
		ctx := t.Context()
		if test.wanted != nil {
			ctx = authenticator.WithAudiences(ctx, test.wanted)
		}
		resp, ok, err := w.tokens.AuthenticateToken(ctx, test.token)
		switch {
		case test.want == nil && (ok || err == nil || !strings.Contains(err.Error(), "is invalid for the target audiences")):
			t.Errorf("%s: got %v %v", name, resp, err)
		case test.want != nil && (!ok || !reflect.DeepEqual([]string(resp.Audiences), test.want)):
			t.Errorf("%s: got %v %v", name, resp, err)
		}
	}
	// A token volume for others is not extended.
	foreign := w.request(t, authenticationv1.TokenRequestSpec{Audiences: []string{"vault"}, ExpirationSeconds: ptr.To[int64](projectedSeconds)})
	w.now = w.now.Add(2 * time.Hour)
	if _, ok, _ := w.tokens.AuthenticateToken(authenticator.WithAudiences(t.Context(), []string{"vault"}), foreign.Status.Token); ok {
		t.Error("a token for others lives longer than asked for")
	}
}

func TestTokenRequestErrors(t *testing.T) {
	withUID := bindTo("Pod", "pod")
	withUID.UID = "wrong"
	for name, test := range map[string]struct {
		account string
		meta    metav1.ObjectMeta
		spec    authenticationv1.TokenRequestSpec
		is      func(error) bool
		want    string
	}{
		"no account":     {account: "nobody", is: apierrors.IsNotFound, want: `serviceaccounts "nobody" not found`},
		"short":          {spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To[int64](599)}, is: apierrors.IsInvalid, want: "spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes"},
		"long":           {spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To[int64](1<<32 + 1)}, is: apierrors.IsInvalid, want: "may not specify a duration larger than 2^32 seconds"},
		"other name":     {meta: metav1.ObjectMeta{Name: "x"}, is: apierrors.IsInvalid, want: "metadata.name"},
		"no pod":         {spec: authenticationv1.TokenRequestSpec{BoundObjectRef: bindTo("Pod", "x")}, is: apierrors.IsNotFound, want: `pods "x" not found`},
		"another's pod":  {spec: authenticationv1.TokenRequestSpec{BoundObjectRef: bindTo("Pod", "other")}, is: apierrors.IsBadRequest, want: `cannot bind token for serviceaccount "bot" to pod running with different serviceaccount name.`},
		"no secret":      {spec: authenticationv1.TokenRequestSpec{BoundObjectRef: bindTo("Secret", "x")}, is: apierrors.IsNotFound, want: `secrets "x" not found`},
		"no node":        {spec: authenticationv1.TokenRequestSpec{BoundObjectRef: bindTo("Node", "x")}, is: apierrors.IsNotFound, want: `nodes "x" not found`},
		"wrong kind":     {spec: authenticationv1.TokenRequestSpec{BoundObjectRef: bindTo("ConfigMap", "x")}, is: apierrors.IsBadRequest, want: "cannot bind token to object of type /v1, Kind=ConfigMap"},
		"a pod replaced": {spec: authenticationv1.TokenRequestSpec{BoundObjectRef: withUID}, is: apierrors.IsConflict, want: "the UID in the bound object reference (wrong) does not match the UID in record. The object might have been deleted and then recreated"},
	} {
		w := newWorld(t)
		account := test.account
		if account == "" {
			account = "bot"
		}
		_, err := w.tokens.TokenRequest(t.Context(), "dev", account, &authenticationv1.TokenRequest{ObjectMeta: test.meta, Spec: test.spec}, nil)
		if err == nil || !test.is(err) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}
}

func TestLegacyTokens(t *testing.T) {
	for name, test := range map[string]struct {
		change func(w *world, secret *corev1.Secret)
		want   string
	}{
		"good":              {},
		"secret gone":       {change: func(w *world, _ *corev1.Secret) { delete(w.objects, "secret/dev/sec") }, want: "not found"},
		"another in secret": {change: func(_ *world, s *corev1.Secret) { s.Data["token"] = []byte("x") }, want: "does not match the one in its secret"},
		"account replaced":  {change: func(w *world, _ *corev1.Secret) { w.objects["sa/dev/bot"].SetUID("x") }, want: "does not match"},
		"account gone":      {change: func(w *world, _ *corev1.Secret) { delete(w.objects, "sa/dev/bot") }, want: "not found"},
		"marked as invalid": {change: func(_ *world, s *corev1.Secret) {
			s.Labels = map[string]string{"kubernetes.io/legacy-token-invalid-since": "2026-01-01"}
		}, want: "marked as invalid"},
	} {
		w := newWorld(t)
		secret := w.objects["secret/dev/sec"].(*corev1.Secret)
		token, err := w.tokens.Legacy(w.objects["sa/dev/bot"].(*corev1.ServiceAccount), "sec")
		if err != nil {
			t.Fatal(err)
		}
		secret.Data = map[string][]byte{"token": []byte(token)}
		if test.change != nil {
			test.change(w, secret)
		}
		w.now = w.now.Add(10 * 365 * 24 * time.Hour)
		resp, ok, err := w.tokens.AuthenticateToken(t.Context(), token)
		if test.want == "" {
			if !ok || resp.User.GetName() != "system:serviceaccount:dev:bot" || !reflect.DeepEqual([]string(resp.Audiences), []string{issuer}) {
				t.Errorf("%s: got %v %v", name, resp, err)
			}
		} else if ok || err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v %v, want %q", name, resp, err, test.want)
		}
	}
}

// TestForgery tries tokens that were not issued by this cluster, or not as they are.
func TestForgery(t *testing.T) {
	w := newWorld(t)
	good := w.request(t, authenticationv1.TokenRequestSpec{}).Status.Token
	parts := strings.Split(good, ".")
	stranger := newWorld(t)
	strange := stranger.request(t, authenticationv1.TokenRequestSpec{}).Status.Token
	sign := func(key any, alg jose.SignatureAlgorithm, kid string, public jwt.Claims, private any) string {
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: key, KeyID: kid}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		s, err := jwt.Signed(signer).Claims(public).Claims(private).Serialize()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	public := jwt.Claims{Issuer: issuer, Subject: "system:serviceaccount:dev:bot", Audience: []string{issuer}, Expiry: jwt.NewNumericDate(w.now.Add(time.Hour))}
	private := claims{Kubernetes: &binding{Namespace: "dev", ServiceAccount: reference{"bot", "uid-of-bot"}}}
	admin := public
	admin.Subject = "system:serviceaccount:kube-system:admin"
	forever := public
	forever.Expiry = nil
	elsewhere := public
	elsewhere.Issuer = "https://elsewhere"
	own := func(public jwt.Claims, private any) string {
		s, err := jwt.Signed(w.tokens.signer).Claims(public).Claims(private).Serialize()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if _, ok, err := w.tokens.AuthenticateToken(t.Context(), own(public, private)); !ok {
		t.Fatalf("the test's own token is not good: %v", err)
	}
	for name, test := range map[string]struct {
		token string
		mine  bool // an error is expected, not only no opinion
	}{
		"empty":              {"", false},
		"garbage":            {"a.b.c", false},
		"a bootstrap token":  {"abcdef.0123456789abcdef", false},
		"another issuer":     {own(elsewhere, private), false},
		"another key":        {strange, true},
		"without signature":  {parts[0] + "." + parts[1] + ".", true},
		"another's payload":  {parts[0] + "." + strings.Split(own(admin, private), ".")[1] + "." + parts[2], true},
		"symmetric key":      {sign([]byte(strings.Repeat("k", 32)), jose.HS256, w.tokens.keys[0].KeyID, public, private), false},
		"our key id":         {sign(newKey(t), jose.ES256, w.tokens.keys[0].KeyID, public, private), true},
		"subject not theirs": {own(admin, private), true},
		"no expiry":          {own(forever, private), true},
		"no account":         {own(public, claims{}), true},
		"no uid":             {own(public, claims{Kubernetes: &binding{Namespace: "dev", ServiceAccount: reference{Name: "bot"}}}), true},
		"legacy claims":      {own(jwt.Claims{Issuer: legacyIssuer, Subject: "system:serviceaccount:dev:bot"}, claims{LegacyNamespace: "dev"}), true},
	} {
		resp, ok, err := w.tokens.AuthenticateToken(t.Context(), test.token)
		if ok || resp != nil || (err != nil) != test.mine {
			t.Errorf("%s: got %v %v %v", name, resp, ok, err)
		}
	}
}

func FuzzAuthenticateToken(f *testing.F) {
	f.Add("a.b.c")
	f.Add("eyJhbGciOiJub25lIn0.eyJpc3MiOiJodHRwczovL2t1YmVybmV0ZXMifQ.")
	w := newWorld(&testing.T{})
	f.Fuzz(func(t *testing.T, token string) {
		if _, ok, _ := w.tokens.AuthenticateToken(context.Background(), token); ok {
			t.Error("accepted")
		}
	})
}

func TestOtherKeys(t *testing.T) {
	old := newWorld(t)
	token := old.request(t, authenticationv1.TokenRequestSpec{}).Status.Token
	w := newWorld(t)
	tokens, err := NewTokens(TokensConfig{Issuer: "https://new", OtherIssuers: []string{issuer}, Key: newKey(t), Audiences: []string{"https://new", issuer},
		OtherKeys: []crypto.PublicKey{old.tokens.keys[0].Key}, Objects: w.tokens.objects})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok, err := tokens.AuthenticateToken(t.Context(), token); !ok {
		t.Errorf("a token of the former issuer and key is refused: %v", err)
	}
}

func BenchmarkAuthenticateToken(b *testing.B) {
	w := newWorld(&testing.T{})
	out, err := w.tokens.TokenRequest(b.Context(), "dev", "bot", &authenticationv1.TokenRequest{}, nil)
	if err != nil {
		b.Fatal(err)
	}
	a, err := New(Config{Tokens: w.tokens})
	if err != nil {
		b.Fatal(err)
	}
	req := httptest.NewRequest(http.MethodGet, "/api", nil)
	b.ReportAllocs()
	for b.Loop() {
		req.Header.Set("Authorization", "Bearer "+out.(*authenticationv1.TokenRequest).Status.Token)
		if _, ok, err := a.AuthenticateRequest(req); !ok {
			b.Fatal(err)
		}
	}
}
