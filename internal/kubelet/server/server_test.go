package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// authority makes certificates for a test.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	issued := a.issue("test-ca")
	cert, err := x509.ParseCertificate(issued.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	a.cert, a.key = cert, issued.PrivateKey.(*ecdsa.PrivateKey)
	a.pem = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: issued.Certificate[0]})
	return a
}

// issue makes a certificate for both ends; the first one made is the authority's own.
func (a *authority) issue(name string, groups ...string) tls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(time.Now().UnixNano()),
		Subject:               pkix.Name{CommonName: name, Organization: groups},
		NotBefore:             time.Now().Add(-time.Minute),
		NotAfter:              time.Now().Add(time.Hour),
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  a.cert == nil,
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// reviews is an API server that knows one token and whom to allow what.
type reviews struct {
	mu            sync.Mutex
	tokens, asked int
	allow         map[string][]string // user → subresources
}

func (r *reviews) client() *fake.Clientset {
	c := fake.NewClientset()
	c.PrependReactor("create", "tokenreviews", func(a clienttesting.Action) (bool, runtime.Object, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.tokens++
		review := a.(clienttesting.CreateAction).GetObject().(*authenticationv1.TokenReview)
		if review.Spec.Token == "good" {
			review.Status = authenticationv1.TokenReviewStatus{Authenticated: true, User: authenticationv1.UserInfo{Username: "prometheus"}}
		}
		return true, review, nil
	})
	c.PrependReactor("create", "subjectaccessreviews", func(a clienttesting.Action) (bool, runtime.Object, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.asked++
		review := a.(clienttesting.CreateAction).GetObject().(*authorizationv1.SubjectAccessReview)
		want := review.Spec.ResourceAttributes
		if want.Resource == "nodes" && want.Name == "n1" {
			for _, s := range r.allow[review.Spec.User] {
				review.Status.Allowed = review.Status.Allowed || s == want.Verb+" "+want.Subresource || s == "*"
			}
		}
		return true, review, nil
	})
	return c
}

// serve runs a Server on a loopback port until the test ends.
func serve(t *testing.T, a *authority, change func(*Config)) string {
	t.Helper()
	cert := a.issue("node")
	cfg := Config{
		NodeName:    "n1",
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &cert, nil },
		ClientCA:    a.pem,
		Runtime:     criapi.NewRuntimeServiceClient(nil),
		Pods:        func() []*corev1.Pod { return nil },
		Pod:         func(string, string) *corev1.Pod { return nil },
	}
	change(&cfg)
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("the server ended with %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Error("the server does not end")
		}
	})
	return "https://" + listener.Addr().String()
}

func (a *authority) httpClient(certs ...tls.Certificate) *http.Client {
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: certs}}
	a.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 30 * time.Second}
}

func get(t *testing.T, c *http.Client, url, token string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

// TestAccess goes through who may see what.
func TestAccess(t *testing.T) {
	a, strangers := newAuthority(t), newAuthority(t)
	r := &reviews{allow: map[string][]string{
		"apiserver":  {"*"},
		"prometheus": {"get metrics", "get healthz", "get pods"},
		"old":        {"get proxy"},
	}}
	base := serve(t, a, func(cfg *Config) { cfg.Client = r.client() })
	apiserver, old := a.issue("apiserver", "system:masters"), a.issue("old")
	tests := []struct {
		name, token, path string
		certs             []tls.Certificate
		code              int
		body              string
	}{
		{name: "nobody", path: "/healthz", code: 401, body: "Unauthorized"},
		{name: "bad token", token: "bad", path: "/healthz", code: 401, body: "Unauthorized"},
		{name: "certificate of strangers", certs: []tls.Certificate{strangers.issue("apiserver")}, path: "/healthz", code: 401},
		{name: "certificate", certs: []tls.Certificate{apiserver}, path: "/healthz", code: 200, body: "ok"},
		{name: "token, own subresource", token: "good", path: "/pods", code: 200, body: `{"kind":"PodList","apiVersion":"v1","metadata":{},"items":[]}`},
		{name: "token, healthz", token: "good", path: "/healthz/ping", code: 200, body: "ok"},
		{name: "token, own metrics", token: "good", path: "/metrics", code: 200},
		{name: "token, forbidden", token: "good", path: "/stats/summary", code: 403, body: "Forbidden (user=prometheus, verb=get, resource=nodes, subresource(s)=[stats])"},
		{name: "proxy allows the fine ones", certs: []tls.Certificate{old}, path: "/pods/", code: 200},
		{name: "proxy does not allow logs", certs: []tls.Certificate{old}, path: "/logs/", code: 403, body: "Forbidden (user=old, verb=get, resource=nodes, subresource(s)=[log])"},
		{name: "fine does not allow proxy", token: "good", path: "/podsfoo", code: 403, body: "Forbidden (user=prometheus, verb=get, resource=nodes, subresource(s)=[proxy])"},
		{name: "no such path", certs: []tls.Certificate{apiserver}, path: "/nonsense", code: 404},
		{name: "no such pod", certs: []tls.Certificate{apiserver}, path: "/containerLogs/a/b/c", code: 404, body: "pod does not exist"},
		{name: "bad query", certs: []tls.Certificate{apiserver}, path: "/containerLogs/a/b/c?tailLines=x", code: 422, body: `tailLines: Invalid value: "x"`},
		{name: "exec without streams", certs: []tls.Certificate{apiserver}, path: "/exec/a/b/c?command=ls", code: 400, body: "you must specify at least 1 of stdin, stdout, stderr"},
		{name: "exec in no pod", certs: []tls.Certificate{apiserver}, path: "/exec/a/b/c?command=ls&output=1", code: 404, body: "pod does not exist"},
		{name: "bad port", certs: []tls.Certificate{apiserver}, path: "/portForward/a/b?port=70000", code: 400, body: `unable to parse "70000" as a port`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			code, body := get(t, a.httpClient(test.certs...), base+test.path, test.token)
			if code != test.code || !strings.HasPrefix(body, test.body) {
				t.Errorf("got %d %s, want %d %s", code, body, test.code, test.body)
			}
		})
	}
	r.mu.Lock()
	asked, tokens := r.asked, r.tokens
	r.mu.Unlock()
	for range 3 {
		get(t, a.httpClient(), base+"/healthz", "good")
		get(t, a.httpClient(), base+"/stats/summary", "good")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tokens != tokens || r.asked > asked {
		t.Errorf("answers are not remembered: %d more token reviews, %d more access reviews", r.tokens-tokens, r.asked-asked)
	}
}

// TestNoClient refuses everyone when there is nobody to ask.
func TestNoClient(t *testing.T) {
	a := newAuthority(t)
	base := serve(t, a, func(*Config) {})
	if code, _ := get(t, a.httpClient(a.issue("apiserver", "system:masters")), base+"/healthz", ""); code != 401 {
		t.Errorf("got %d", code)
	}
}
