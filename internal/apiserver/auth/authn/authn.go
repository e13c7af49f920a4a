// Package authn finds out who sends a request: by client certificate, service account token, bootstrap or static token, the
// headers of a trusted front proxy, or as system:anonymous. It also issues the tokens of service accounts and serves the
// reviews of the API group authentication.k8s.io.
//
// What flows in are requests and the objects that tokens are bound to; what flows out are users, tokens and reviews.
package authn

import (
	"crypto/x509"
	"net/http"
	"time"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/group"
	"k8s.io/apiserver/pkg/authentication/request/anonymous"
	"k8s.io/apiserver/pkg/authentication/request/bearertoken"
	"k8s.io/apiserver/pkg/authentication/request/headerrequest"
	"k8s.io/apiserver/pkg/authentication/request/union"
	"k8s.io/apiserver/pkg/authentication/request/websocket"
	x509request "k8s.io/apiserver/pkg/authentication/request/x509"
	"k8s.io/apiserver/pkg/authentication/token/cache"
	"k8s.io/apiserver/pkg/authentication/token/tokenfile"
	tokenunion "k8s.io/apiserver/pkg/authentication/token/union"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
)

// tokenTTL is how long a token that was checked is good without a further check: upstream's value.
const tokenTTL = 10 * time.Second

// userHeader is where a front proxy names the user.
const userHeader = "X-Remote-User"

// Config is what an Authenticator is made of.
type Config struct {
	// ClientCAs signed the certificates of clients: the common name is the user, the organizations are the groups.
	ClientCAs *x509.CertPool
	// FrontProxyCAs signed the certificates of proxies that name users in X-Remote-User, X-Remote-Uid, X-Remote-Group and
	// X-Remote-Extra-; FrontProxyNames are the common names they may have (empty: any). Nil: no proxy is trusted.
	FrontProxyCAs   *x509.CertPool
	FrontProxyNames []string
	// Tokens checks the tokens of service accounts.
	Tokens *Tokens
	// BootstrapSecrets reads the Secrets of kube-system, for tokens of type bootstrap.kubernetes.io/token. Nil: none are
	// accepted.
	BootstrapSecrets SecretGetter
	// StaticTokens are the users of fixed tokens.
	StaticTokens map[string]*user.DefaultInfo
	// DenyAnonymous refuses requests without credentials. By default they are of the user system:anonymous, who may
	// do what is granted to the group system:unauthenticated: version and health.
	DenyAnonymous bool
}

// Authenticator finds out who sends a request. It is safe for concurrent use.
type Authenticator struct {
	request   authenticator.Request
	tokens    authenticator.Request // bearer tokens only, for TokenReview
	audiences authenticator.Audiences
}

// New returns an Authenticator.
func New(c Config) (*Authenticator, error) {
	a := &Authenticator{audiences: c.Tokens.audiences}

	var parts []authenticator.Token
	if len(c.StaticTokens) > 0 {
		parts = append(parts, authenticator.WrapAudienceAgnosticToken(a.audiences, tokenfile.New(c.StaticTokens)))
	}
	parts = append(parts, c.Tokens)
	if c.BootstrapSecrets != nil {
		parts = append(parts, authenticator.WrapAudienceAgnosticToken(a.audiences, &bootstrapTokens{secrets: c.BootstrapSecrets, now: c.Tokens.now}))
	}
	tokens := cache.New(tokenunion.New(parts...), true, tokenTTL, 0)
	a.tokens = group.NewAuthenticatedGroupAdder(bearertoken.New(tokens))

	requests := []authenticator.Request{authenticator.RequestFunc(inProcess)}
	if c.FrontProxyCAs != nil {
		requests = append(requests, proxied{headerrequest.NewDynamicVerifyOptionsSecure(
			x509request.StaticVerifierFn(clientOptions(c.FrontProxyCAs)), headerrequest.StaticStringSlice(c.FrontProxyNames),
			headerrequest.StaticStringSlice{userHeader}, headerrequest.StaticStringSlice{"X-Remote-Uid"},
			headerrequest.StaticStringSlice{"X-Remote-Group"}, headerrequest.StaticStringSlice{"X-Remote-Extra-"})})
	}
	if c.ClientCAs != nil {
		verify := group.NewAuthenticatedGroupAdder(x509request.New(clientOptions(c.ClientCAs), x509request.CommonNameUserConversion))
		requests = append(requests, &certificates{verify: verify, now: c.Tokens.now})
	}
	requests = append(requests, bearertoken.New(tokens), websocket.NewProtocolAuthenticator(tokens))

	a.request = group.NewAuthenticatedGroupAdder(union.New(requests...))
	if !c.DenyAnonymous {
		// Bad credentials are refused, not taken for none.
		a.request = union.NewFailOnError(a.request, anonymous.NewAuthenticator(nil))
	}
	return a, nil
}

func clientOptions(roots *x509.CertPool) x509.VerifyOptions {
	o := x509request.DefaultVerifyOptions()
	o.Roots = roots
	return o
}

// AuthenticateRequest implements authenticator.Request. Without an error and without ok, nobody knows the sender: 401.
func (a *Authenticator) AuthenticateRequest(req *http.Request) (*authenticator.Response, bool, error) {
	return a.request.AuthenticateRequest(req)
}

// Audiences are the names by which the API server calls itself in tokens.
func (a *Authenticator) Audiences() authenticator.Audiences { return a.audiences }

// inProcess takes the user that is in the request's context already, which only code of this process can have put there.
func inProcess(req *http.Request) (*authenticator.Response, bool, error) {
	u, ok := request.UserFrom(req.Context())
	if !ok {
		return nil, false, nil
	}
	return &authenticator.Response{User: u}, true, nil
}
