package authn

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/proa-k8s/proa/internal/cluster/pki"
)

func TestBootstrapTokens(t *testing.T) {
	now := time.Now()
	data := func(changes ...string) map[string][]byte {
		m := map[string][]byte{"token-id": []byte("abcdef"), "token-secret": []byte("0123456789abcdef"), "usage-bootstrap-authentication": []byte("true")}
		for i := 0; i < len(changes); i += 2 {
			m[changes[i]] = []byte(changes[i+1])
		}
		return m
	}
	for name, test := range map[string]struct {
		token  string
		secret *corev1.Secret
		groups []string
	}{
		"good":     {secret: &corev1.Secret{Data: data()}, groups: []string{"system:bootstrappers"}},
		"groups":   {secret: &corev1.Secret{Data: data("auth-extra-groups", "system:bootstrappers:a,system:bootstrappers:b")}, groups: []string{"system:bootstrappers", "system:bootstrappers:a", "system:bootstrappers:b"}},
		"in time":  {secret: &corev1.Secret{Data: data("expiration", now.Add(time.Hour).Format(time.RFC3339))}, groups: []string{"system:bootstrappers"}},
		"expired":  {secret: &corev1.Secret{Data: data("expiration", now.Add(-time.Hour).Format(time.RFC3339))}},
		"bad time": {secret: &corev1.Secret{Data: data("expiration", "soon")}},
		"masters":  {secret: &corev1.Secret{Data: data("auth-extra-groups", "system:masters")}},
		"no usage": {secret: &corev1.Secret{Data: data("usage-bootstrap-authentication", "false")}},
		"other id": {secret: &corev1.Secret{Data: data("token-id", "xxxxxx")}},
		"wrong":    {token: "abcdef.xxxxxxxxxxxxxxxx", secret: &corev1.Secret{Data: data()}},
		"deleted":  {secret: &corev1.Secret{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &metav1.Time{Time: now}}, Data: data()}},
		"opaque":   {secret: &corev1.Secret{Type: corev1.SecretTypeOpaque, Data: data()}},
		"missing":  {},
		"no token": {token: "ABCDEF.0123456789abcdef", secret: &corev1.Secret{Data: data()}},
	} {
		w := &world{objects: map[string]metav1.Object{}}
		if test.secret != nil {
			if test.secret.Type == "" {
				test.secret.Type = corev1.SecretTypeBootstrapToken
			}
			w.objects["secret/kube-system/bootstrap-token-abcdef"] = test.secret
		}
		if test.token == "" {
			test.token = "abcdef.0123456789abcdef"
		}
		b := &bootstrapTokens{secrets: getter[*corev1.Secret](w, "secret"), now: func() time.Time { return now }}
		resp, ok, err := b.AuthenticateToken(t.Context(), test.token)
		if err != nil || ok != (test.groups != nil) || ok && (resp.User.GetName() != "system:bootstrap:abcdef" || !reflect.DeepEqual(resp.User.GetGroups(), test.groups)) {
			t.Errorf("%s: got %v %v %v", name, resp, ok, err)
		}
	}
}

// TestAuthenticator sends all kinds of credentials.
func TestAuthenticator(t *testing.T) {
	keys, err := pki.Load(t.TempDir(), pki.Options{})
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := pki.Load(t.TempDir(), pki.Options{})
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	config := Config{
		ClientCAs: keys.ClientCAs(), FrontProxyCAs: keys.FrontProxyCAs(), FrontProxyNames: []string{pki.FrontProxyUser}, Tokens: w.tokens,
		StaticTokens: map[string]*user.DefaultInfo{"fixed": {Name: "ci", Groups: []string{"robots"}}},
	}
	a, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	config.DenyAnonymous = true
	strict, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	cert := func(c *pki.Certificate, err error) *tls.ConnectionState {
		if err != nil {
			t.Fatal(err)
		}
		return &tls.ConnectionState{PeerCertificates: []*x509.Certificate{c.Leaf}}
	}
	token := w.request(t, authenticationv1.TokenRequestSpec{}).Status.Token
	vault := w.request(t, authenticationv1.TokenRequestSpec{Audiences: []string{"vault"}}).Status.Token
	proxied := http.Header{"X-Remote-User": {"ann"}, "X-Remote-Group": {"staff"}, "X-Remote-Extra-Scope": {"a"}}
	for name, test := range map[string]struct {
		header http.Header
		tls    *tls.ConnectionState
		ctx    context.Context
		user   string
		groups []string
		fails  bool
	}{
		"nothing":           {user: "system:anonymous", groups: []string{"system:unauthenticated"}},
		"certificate":       {tls: cert(keys.ClientCert("ann", []string{"staff"})), user: "ann", groups: []string{"staff", "system:authenticated"}},
		"node":              {tls: cert(keys.NodeClientCert("edge")), user: "system:node:edge", groups: []string{"system:nodes", "system:authenticated"}},
		"strange CA":        {tls: cert(stranger.ClientCert("ann", nil)), fails: true},
		"server's":          {tls: cert(keys.NodeServingCert("edge", nil)), fails: true},
		"token":             {header: http.Header{"Authorization": {"Bearer " + token}}, user: "system:serviceaccount:dev:bot", groups: []string{"system:serviceaccounts", "system:serviceaccounts:dev", "system:authenticated"}},
		"token for others":  {header: http.Header{"Authorization": {"Bearer " + vault}}, fails: true},
		"bad token":         {header: http.Header{"Authorization": {"Bearer nonsense"}}, fails: true},
		"password":          {header: http.Header{"Authorization": {"Basic YTpi"}}, user: "system:anonymous", groups: []string{"system:unauthenticated"}},
		"static":            {header: http.Header{"Authorization": {"Bearer fixed"}}, user: "ci", groups: []string{"robots", "system:authenticated"}},
		"websocket":         {header: http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Protocol": {"base64url.bearer.authorization.k8s.io.Zml4ZWQ, v4.channel.k8s.io"}}, user: "ci", groups: []string{"robots", "system:authenticated"}},
		"proxy":             {header: proxied.Clone(), tls: cert(keys.FrontProxyClientCert()), user: "ann", groups: []string{"staff", "system:authenticated"}},
		"proxy by client":   {header: proxied.Clone(), tls: cert(keys.ClientCert("eve", nil)), user: "eve", groups: []string{"system:authenticated"}},
		"proxy by nobody":   {header: proxied.Clone(), user: "system:anonymous", groups: []string{"system:unauthenticated"}},
		"in this process":   {ctx: request.WithUser(t.Context(), &user.DefaultInfo{Name: "controller"}), user: "controller", groups: []string{"system:authenticated"}},
		"proxy, wrong name": {header: proxied.Clone(), tls: cert(keys.FrontProxy.Issue(pki.Request{CommonName: "x", Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})), fails: true},
	} {
		req := httptest.NewRequest(http.MethodGet, "/api", nil)
		if test.header != nil {
			req.Header = test.header.Clone()
		}
		req.TLS = test.tls
		if test.ctx != nil {
			req = req.WithContext(test.ctx)
		}
		resp, ok, err := a.AuthenticateRequest(req)
		if test.fails {
			if ok || err == nil {
				t.Errorf("%s: got %v %v", name, resp, err)
			}
			continue
		}
		if err != nil || !ok || resp.User.GetName() != test.user || !reflect.DeepEqual(resp.User.GetGroups(), test.groups) {
			t.Errorf("%s: got %+v %v", name, resp, err)
			continue
		}
		if test.user == user.Anonymous {
			if resp, ok, _ := strict.AuthenticateRequest(req); ok {
				t.Errorf("%s: accepted as %v though anonymous requests are denied", name, resp.User)
			}
		}
	}
}

func TestTokenReview(t *testing.T) {
	w := newWorld(t)
	a, err := New(Config{Tokens: w.tokens, StaticTokens: map[string]*user.DefaultInfo{"fixed": {Name: "ci"}}})
	if err != nil {
		t.Fatal(err)
	}
	// The caller's identity is in the context of the request.
	ctx := request.WithUser(t.Context(), &user.DefaultInfo{Name: "caller"})
	own, vault := w.request(t, authenticationv1.TokenRequestSpec{}).Status.Token, w.request(t, authenticationv1.TokenRequestSpec{Audiences: []string{"vault"}}).Status.Token
	for name, test := range map[string]struct {
		spec      authenticationv1.TokenReviewSpec
		user      string
		audiences []string
	}{
		"own":                   {authenticationv1.TokenReviewSpec{Token: own}, "system:serviceaccount:dev:bot", []string{issuer}},
		"own for vault":         {authenticationv1.TokenReviewSpec{Token: own, Audiences: []string{"vault"}}, "", nil},
		"vault":                 {authenticationv1.TokenReviewSpec{Token: vault, Audiences: []string{"vault"}}, "system:serviceaccount:dev:bot", []string{"vault"}},
		"vault for us":          {authenticationv1.TokenReviewSpec{Token: vault}, "", nil},
		"without audiences":     {authenticationv1.TokenReviewSpec{Token: "fixed"}, "ci", []string{issuer}},
		"without, but for some": {authenticationv1.TokenReviewSpec{Token: "fixed", Audiences: []string{"vault"}}, "", nil},
		"nonsense":              {authenticationv1.TokenReviewSpec{Token: "nonsense"}, "", nil},
	} {
		out, err := a.TokenReview(ctx, "", "", &authenticationv1.TokenReview{Spec: test.spec}, nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		status := out.(*authenticationv1.TokenReview).Status
		if status.Authenticated != (test.user != "") || status.User.Username != test.user || !reflect.DeepEqual(status.Audiences, test.audiences) || (status.Error != "") != (test.user == "") {
			t.Errorf("%s: got %+v", name, status)
		}
	}
	if _, err := a.TokenReview(ctx, "", "", &authenticationv1.TokenReview{}, nil); err == nil || err.Error() != "token is required for TokenReview in authentication" {
		t.Errorf("no token: %v", err)
	}
	out, err := a.SelfSubjectReview(ctx, "", "", &authenticationv1.SelfSubjectReview{}, nil)
	if err != nil || out.(*authenticationv1.SelfSubjectReview).Status.UserInfo.Username != "caller" {
		t.Errorf("who am I: %v %v", out, err)
	}
}

// TestDiscovery lets a stranger check a token with nothing but the published documents.
func TestDiscovery(t *testing.T) {
	w := newWorld(t)
	handlers, err := w.tokens.Discovery("")
	if err != nil {
		t.Fatal(err)
	}
	get := func(path, contentType string, into any) {
		t.Helper()
		rec := httptest.NewRecorder()
		handlers[path].ServeHTTP(rec, httptest.NewRequest(http.MethodGet, path, nil))
		if rec.Code != http.StatusOK || rec.Header().Get("Content-Type") != contentType || rec.Header().Get("Cache-Control") != "public, max-age=3600" {
			t.Errorf("%s: got %d %v", path, rec.Code, rec.Header())
		}
		if err := json.Unmarshal(rec.Body.Bytes(), into); err != nil {
			t.Error(err)
		}
	}
	var configuration map[string]any
	get("/.well-known/openid-configuration", "application/json", &configuration)
	want := map[string]any{
		"issuer": issuer, "jwks_uri": issuer + "/openid/v1/jwks", "response_types_supported": []any{"id_token"},
		"subject_types_supported": []any{"public"}, "id_token_signing_alg_values_supported": []any{"ES256"},
	}
	if !reflect.DeepEqual(configuration, want) {
		t.Errorf("got %v", configuration)
	}
	var set jose.JSONWebKeySet
	get("/openid/v1/jwks", "application/jwk-set+json", &set)
	token, err := jwt.ParseSigned(w.request(t, authenticationv1.TokenRequestSpec{}).Status.Token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	var c jwt.Claims
	if err := token.Claims(set, &c); err != nil || c.Subject != "system:serviceaccount:dev:bot" {
		t.Errorf("got %v %v", c, err)
	}
	if strings.Contains(string(mustJSON(t, set)), `"d":`) {
		t.Error("a private key is published")
	}
	rec := httptest.NewRecorder()
	handlers[KeysPath].ServeHTTP(rec, httptest.NewRequest(http.MethodPost, KeysPath, nil))
	if rec.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: got %d", rec.Code)
	}
	w.tokens.issuer = "http://insecure"
	if handlers, err := w.tokens.Discovery(""); err != nil || handlers != nil {
		t.Errorf("documents of an issuer that nobody can trust: %v %v", handlers, err)
	}
}

func mustJSON(t *testing.T, v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
