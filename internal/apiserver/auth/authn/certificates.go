package authn

import (
	"crypto/x509"
	"net/http"
	"sync"
	"time"

	"k8s.io/apiserver/pkg/authentication/authenticator"
)

const (
	// certificateTTL is how long a certificate that was verified is good without a further check, unless it expires
	// before.
	certificateTTL = tokenTTL
	// maxCertificates is how many certificates are remembered.
	maxCertificates = 4096
)

// certificates remembers whose the client certificates are that were verified lately: to verify the authority's signature
// with every request would be an eighth of all the work of creating a pod. That the client has the certificate's key was
// proved when the connection was made.
type certificates struct {
	verify authenticator.Request
	now    func() time.Time

	mu    sync.RWMutex
	known map[string]verified // by the certificate in DER
}

// verified is the outcome of a verification.
type verified struct {
	response *authenticator.Response
	until    time.Time
}

// AuthenticateRequest implements authenticator.Request. Failures are not remembered.
func (c *certificates) AuthenticateRequest(req *http.Request) (*authenticator.Response, bool, error) {
	if req.TLS == nil || len(req.TLS.PeerCertificates) == 0 {
		return nil, false, nil
	}
	leaf, now := req.TLS.PeerCertificates[0], c.now()
	c.mu.RLock()
	v, ok := c.known[string(leaf.Raw)]
	c.mu.RUnlock()
	if ok && now.Before(v.until) {
		return v.response, true, nil
	}
	response, ok, err := c.verify.AuthenticateRequest(req)
	if ok && err == nil {
		c.remember(leaf, response, now)
	}
	return response, ok, err
}

func (c *certificates) remember(leaf *x509.Certificate, response *authenticator.Response, now time.Time) {
	v := verified{response: response, until: now.Add(certificateTTL)}
	if leaf.NotAfter.Before(v.until) {
		v.until = leaf.NotAfter
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil || len(c.known) >= maxCertificates {
		c.known = map[string]verified{}
	}
	c.known[string(leaf.Raw)] = v
}

// proxied asks about a front proxy only where a request says that it comes through one. A certificate that is neither a proxy's
// nor a client's is refused by those who know the clients'.
type proxied struct {
	verify authenticator.Request
}

// AuthenticateRequest implements authenticator.Request.
func (p proxied) AuthenticateRequest(req *http.Request) (*authenticator.Response, bool, error) {
	if len(req.Header[userHeader]) == 0 {
		return nil, false, nil
	}
	return p.verify.AuthenticateRequest(req)
}
