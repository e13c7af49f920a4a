package server

import (
	stdx509 "crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	utilcache "k8s.io/apimachinery/pkg/util/cache"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/group"
	"k8s.io/apiserver/pkg/authentication/request/bearertoken"
	"k8s.io/apiserver/pkg/authentication/request/union"
	"k8s.io/apiserver/pkg/authentication/request/websocket"
	"k8s.io/apiserver/pkg/authentication/request/x509"
	"k8s.io/apiserver/pkg/authentication/token/cache"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// Answers of the API server are kept this long (the kubelet's defaults).
const (
	authenticationTTL = 2 * time.Minute
	allowTTL          = 5 * time.Minute
	denyTTL           = 30 * time.Second
)

// guard lets in who the API server says may use the node's API.
type guard struct {
	node  string
	authn authenticator.Request
	authz *accessReviewer
	log   *slog.Logger
}

func newGuard(cfg Config) (*guard, error) {
	g := &guard{node: cfg.NodeName, log: cfg.Log}
	var methods []authenticator.Request
	if len(cfg.ClientCA) > 0 {
		options := x509.DefaultVerifyOptions()
		options.Roots = stdx509.NewCertPool()
		if !options.Roots.AppendCertsFromPEM(cfg.ClientCA) {
			return nil, errors.New("the authorities of clients hold no certificate")
		}
		methods = append(methods, x509.New(options, x509.CommonNameUserConversion))
	}
	if cfg.Client == nil {
		return g, nil
	}
	tokens := cache.New(tokenReviewer{cfg.Client.AuthenticationV1().TokenReviews()}, false, authenticationTTL, authenticationTTL)
	methods = append(methods, bearertoken.New(tokens), websocket.NewProtocolAuthenticator(tokens))
	g.authn = group.NewAuthenticatedGroupAdder(union.New(methods...))
	g.authz = &accessReviewer{client: cfg.Client.AuthorizationV1().SubjectAccessReviews(), decisions: utilcache.NewLRUExpireCache(1024)}
	return g, nil
}

// admit returns the request, without its credentials, if it may be answered, and answers it otherwise.
func (g *guard) admit(w http.ResponseWriter, r *http.Request) (*http.Request, bool) {
	if g.authn == nil {
		http.Error(w, "Unauthorized", http.StatusUnauthorized)
		return nil, false
	}
	who, ok, err := g.authn.AuthenticateRequest(r)
	if err != nil || !ok {
		if err != nil {
			g.log.Warn("authenticating a request to the node's API", "from", r.RemoteAddr, "err", err)
		}
		http.Error(w, "Unauthorized", http.StatusUnauthorized)
		return nil, false
	}
	attributes := requestAttributes(who.User, g.node, r)
	var subresources []string
	for _, a := range attributes {
		subresources = append(subresources, a.GetSubresource())
		allowed, err := g.authz.allows(r.Context(), a)
		if err != nil {
			g.log.Warn("authorizing a request to the node's API", "user", who.User.GetName(), "err", err)
			http.Error(w, fmt.Sprintf("Authorization error (user=%s, verb=%s, resource=%s, subresource=%s)",
				a.GetUser().GetName(), a.GetVerb(), a.GetResource(), a.GetSubresource()), http.StatusInternalServerError)
			return nil, false
		}
		if allowed {
			return r, true
		}
	}
	a := attributes[0]
	http.Error(w, fmt.Sprintf("Forbidden (user=%s, verb=%s, resource=%s, subresource(s)=%v)",
		a.GetUser().GetName(), a.GetVerb(), a.GetResource(), subresources), http.StatusForbidden)
	return nil, false
}

// requestAttributes says what has to be allowed for a request: any one of the results. A path has its own subresource
// of the node where there is one, and is part of "proxy" otherwise (KEP-2862: the finer ones are tried before proxy).
func requestAttributes(who user.Info, node string, r *http.Request) []authorizer.Attributes {
	var subresources []string
	switch path := r.URL.Path; {
	case isBelow(path, "/stats"):
		subresources = []string{"stats"}
	case isBelow(path, "/metrics"):
		subresources = []string{"metrics"}
	case isBelow(path, "/logs"):
		subresources = []string{"log"}
	case isBelow(path, "/pods"), isBelow(path, "/runningpods"):
		subresources = []string{"pods", "proxy"}
	case isBelow(path, "/healthz"):
		subresources = []string{"healthz", "proxy"}
	default:
		subresources = []string{"proxy"}
	}
	verb := map[string]string{
		http.MethodPost: "create", http.MethodGet: "get", http.MethodPut: "update",
		http.MethodPatch: "patch", http.MethodDelete: "delete",
	}[r.Method]
	var attributes []authorizer.Attributes
	for _, subresource := range subresources {
		attributes = append(attributes, authorizer.AttributesRecord{
			User:            who,
			Verb:            verb,
			Namespace:       "",
			APIGroup:        "",
			APIVersion:      "v1",
			Resource:        "nodes",
			Subresource:     subresource,
			Name:            node,
			ResourceRequest: true,
			Path:            r.URL.Path,
		})
	}
	return attributes
}

// isBelow says whether path is root or below it.
func isBelow(path, root string) bool {
	rest, ok := strings.CutPrefix(path, root)
	return ok && (rest == "" || rest[0] == '/')
}
