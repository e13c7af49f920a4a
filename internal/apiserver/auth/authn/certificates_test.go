package authn

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/proa-k8s/proa/internal/cluster/pki"
)

// TestCertificatesAreVerifiedOnce wants a certificate to be verified again when the check is old, when the certificate has
// expired, and when the last one failed; and never to be taken for another.
func TestCertificatesAreVerifiedOnce(t *testing.T) {
	start := time.Now()
	now := start
	checks := 0
	c := &certificates{now: func() time.Time { return now }, verify: authenticator.RequestFunc(func(r *http.Request) (*authenticator.Response, bool, error) {
		checks++
		leaf := r.TLS.PeerCertificates[0]
		if now.After(leaf.NotAfter) || string(leaf.Raw) == "bad" {
			return nil, false, errors.New("verifying failed")
		}
		return &authenticator.Response{User: &user.DefaultInfo{Name: string(leaf.Raw)}}, true, nil
	})}
	for _, step := range []struct {
		name   string
		cert   string
		at     time.Duration
		life   time.Duration
		checks int // from here on
		fails  bool
	}{
		{"first", "ann", 0, time.Hour, 1, false},
		{"again", "ann", time.Second, time.Hour, 1, false},
		{"another", "bob", time.Second, time.Hour, 2, false},
		{"bad", "bad", time.Second, time.Hour, 3, true},
		{"bad again", "bad", time.Second, time.Hour, 4, true},
		{"old", "ann", certificateTTL, time.Hour, 5, false},
		{"again then", "ann", certificateTTL, time.Hour, 5, false},
		{"short-lived", "eve", certificateTTL, certificateTTL + time.Second, 6, false},
		{"expired", "eve", certificateTTL + 2*time.Second, certificateTTL + time.Second, 7, true},
	} {
		now = start.Add(step.at)
		req := httptest.NewRequest(http.MethodGet, "/api", nil)
		req.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{Raw: []byte(step.cert), NotAfter: start.Add(step.life)}}}
		resp, ok, err := c.AuthenticateRequest(req)
		if ok == step.fails || ok && resp.User.GetName() != step.cert || step.fails && err == nil {
			t.Errorf("%s: got %v %v %v", step.name, resp, ok, err)
		}
		if checks != step.checks {
			t.Errorf("%s: verified %d times, want %d", step.name, checks, step.checks)
		}
	}
	if _, ok, err := c.AuthenticateRequest(httptest.NewRequest(http.MethodGet, "/api", nil)); ok || err != nil {
		t.Errorf("without a certificate: %v %v", ok, err)
	}
}

// TestCertificatesAreForgotten wants the memory to be bounded.
func TestCertificatesAreForgotten(t *testing.T) {
	c := &certificates{}
	for i := range maxCertificates + 10 {
		c.remember(&x509.Certificate{Raw: []byte{byte(i), byte(i >> 8)}, NotAfter: time.Now()}, nil, time.Now())
	}
	if len(c.known) != 10 {
		t.Errorf("%d are remembered", len(c.known))
	}
}

// BenchmarkCertificate is the cost of authentication for requests of one connection.
func BenchmarkCertificate(b *testing.B) {
	keys, err := pki.Load(b.TempDir(), pki.Options{})
	if err != nil {
		b.Fatal(err)
	}
	a, err := New(Config{ClientCAs: keys.ClientCAs(), FrontProxyCAs: keys.FrontProxyCAs(), Tokens: newWorld(b).tokens})
	if err != nil {
		b.Fatal(err)
	}
	c, err := keys.ClientCert("ann", nil)
	if err != nil {
		b.Fatal(err)
	}
	req := httptest.NewRequest(http.MethodGet, "/api", nil)
	req.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{c.Leaf}}
	b.ReportAllocs()
	for b.Loop() {
		if _, ok, err := a.AuthenticateRequest(req); !ok {
			b.Fatal(err)
		}
	}
}
