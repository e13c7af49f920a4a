package pki

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
)

func load(t *testing.T, dir string, o Options) *PKI {
	t.Helper()
	p, err := Load(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestLoadKeepsWhatItMade(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	a, b := load(t, dir, Options{}), load(t, dir, Options{})
	if !a.Cluster.Certificate().Equal(b.Cluster.Certificate()) || !a.FrontProxy.Certificate().Equal(b.FrontProxy.Certificate()) {
		t.Error("an authority changed")
	}
	if !a.ServiceAccountKey().Equal(b.ServiceAccountKey()) {
		t.Error("the service account key changed")
	}
	modes := map[string]os.FileMode{".": 0o700 | os.ModeDir, "ca.key": 0o600, "front-proxy-ca.key": 0o600, "sa.key": 0o600, "ca.crt": 0o644, "front-proxy-ca.crt": 0o644, "sa.pub": 0o644}
	for name, mode := range modes {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		} else if info.Mode() != mode {
			t.Errorf("%s has mode %v, not %v", name, info.Mode(), mode)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(modes)-1 {
		t.Errorf("files that nobody needs: %v", entries)
	}
}

func TestLoadRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		breaks func(t *testing.T, dir string)
		now    time.Time
		want   string
	}{
		"key taken away": {
			breaks: func(t *testing.T, dir string) { remove(t, dir, "ca.key") },
			want:   "put the key back",
		},
		"key of another authority": {
			breaks: func(t *testing.T, dir string) {
				remove(t, dir, "ca.key")
				if err := os.Link(filepath.Join(dir, "front-proxy-ca.key"), filepath.Join(dir, "ca.key")); err != nil {
					t.Fatal(err)
				}
			},
			want: "does not belong to the key",
		},
		"not a key": {
			breaks: func(t *testing.T, dir string) {
				if err := os.WriteFile(filepath.Join(dir, "sa.key"), []byte("x"), 0o600); err != nil {
					t.Fatal(err)
				}
			},
			want: "sa.key",
		},
		"expired authority": {
			breaks: func(*testing.T, string) {},
			now:    time.Now().Add(authorityLife + time.Hour),
			want:   "expired on",
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			load(t, dir, Options{})
			test.breaks(t, dir)
			o := Options{}
			if !test.now.IsZero() {
				o.Now = func() time.Time { return test.now }
			}
			if _, err := Load(dir, o); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error with %q", err, test.want)
			}
		})
	}
	if _, err := Load(t.TempDir(), Options{ExtraSANs: []string{"no name!"}}); err == nil || !strings.Contains(err.Error(), "no name!") {
		t.Errorf("a bad name was accepted: %v", err)
	}
}

func remove(t *testing.T, dir, name string) {
	if err := os.Remove(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

// TestLoadAtOnce starts on an empty directory many times at once: all must end with the same keys.
func TestLoadAtOnce(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	all := make([]*PKI, 8)
	for i := range all {
		wg.Go(func() {
			p, err := Load(dir, Options{})
			if err != nil {
				t.Error(err)
			}
			all[i] = p
		})
	}
	wg.Wait()
	for _, p := range all {
		if p == nil || !p.Cluster.Certificate().Equal(all[0].Cluster.Certificate()) || !p.ServiceAccountKey().Equal(all[0].ServiceAccountKey()) {
			t.Fatal("two callers got different keys")
		}
	}
}

const crashDir = "PROA_PKI_CRASH_DIR"

// TestCrash kills a process that makes key material again and again, and demands that every directory it left can be
// loaded and that what was complete did not change.
func TestCrash(t *testing.T) {
	if dir := os.Getenv(crashDir); dir != "" {
		for i := 0; ; i++ {
			if _, err := Load(filepath.Join(dir, fmt.Sprint(i)), Options{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 5 {
		dir := t.TempDir()
		child := exec.Command(os.Args[0], "-test.run=^TestCrash$")
		child.Env = append(os.Environ(), crashDir+"="+dir)
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Duration(30+rand.IntN(100))*time.Millisecond, func() { _ = child.Process.Kill() })
		_ = child.Wait()
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			dir := filepath.Join(dir, e.Name())
			before, _ := os.ReadFile(filepath.Join(dir, "ca.crt"))
			p := load(t, dir, Options{})
			if len(before) > 0 && !slices.Equal(before, p.CAPEM()) {
				t.Fatal("the authority changed")
			}
		}
	}
}

func TestServerTLS(t *testing.T) {
	now := time.Now()
	p := load(t, t.TempDir(), Options{
		ServiceIPs: []net.IP{net.ParseIP("10.96.0.1")}, NodeIPs: []net.IP{net.ParseIP("192.0.2.7")},
		Hostname: "Edge-1", ExtraSANs: []string{"api.example.org", "192.0.2.9", "*.proa.example"},
		Now: func() time.Time { return now },
	})
	config := p.ServerTLS()
	c, err := config.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
		"localhost", "edge-1", "api.example.org", "x.proa.example", "127.0.0.1", "::1", "10.96.0.1", "192.0.2.7", "192.0.2.9"} {
		if _, err := c.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: p.ClientCAs(), CurrentTime: now}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if again, _ := config.GetCertificate(nil); again != c {
		t.Error("a fresh certificate was renewed")
	}
	now = now.Add(leafLife * 3 / 4)
	if again, _ := config.GetCertificate(nil); again == c || !again.Leaf.NotAfter.After(c.Leaf.NotAfter) {
		t.Error("an old certificate was not renewed")
	}
}

// TestConnections talks TLS both ways: by kubeconfig to the server, and as a component.
func TestConnections(t *testing.T) {
	p := load(t, t.TempDir(), Options{})
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		subject := r.TLS.PeerCertificates[0].Subject
		fmt.Fprint(w, subject.CommonName, subject.Organization)
	}))
	server.Listener = tls.NewListener(server.Listener, p.ServerTLS())
	server.Start()
	defer server.Close()
	url := "https://" + server.Listener.Addr().String()

	data, err := p.Kubeconfig("proa", url, "admin", []string{"system:masters"})
	if err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(data)
	if err != nil {
		t.Fatal(err)
	}
	if config.Host != url || string(config.CAData) != string(p.CAPEM()) {
		t.Errorf("kubeconfig says %s", config.Host)
	}
	cert, err := tls.X509KeyPair(config.CertData, config.KeyData)
	if err != nil {
		t.Fatal(err)
	}
	for want, c := range map[string]*tls.Config{
		"admin[system:masters]":                  {RootCAs: p.ClientCAs(), Certificates: []tls.Certificate{cert}},
		"system:kube-scheduler[]":                p.ClientTLS("system:kube-scheduler", nil),
		"system:node:a[system:nodes]":            p.ClientTLS("system:node:a", []string{"system:nodes"}),
		"kube-apiserver-kubelet-client[tenants]": p.ClientTLS("kube-apiserver-kubelet-client", []string{"tenants"}),
	} {
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: c, DisableKeepAlives: true}}
		resp, err := client.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if string(body) != want {
			t.Errorf("the server saw %s, not %s", body, want)
		}
	}
}

func TestIssue(t *testing.T) {
	p := load(t, t.TempDir(), Options{})
	node, err := p.NodeServingCert("edge-1", []net.IP{net.ParseIP("192.0.2.7")})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"edge-1", "192.0.2.7"} {
		if _, err := node.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: p.ClientCAs()}); err != nil {
			t.Error(err)
		}
	}
	client := x509.VerifyOptions{Roots: p.ClientCAs(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if _, err := node.Leaf.Verify(client); err == nil {
		t.Error("the certificate of a server is good for a client")
	}
	front, err := p.FrontProxyClientCert()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := front.Leaf.Verify(client); err == nil {
		t.Error("a front proxy is a client of the cluster's authority")
	}
	client.Roots = p.FrontProxyCAs()
	if _, err := front.Leaf.Verify(client); err != nil {
		t.Error(err)
	}
	long, err := p.Cluster.Issue(Request{CommonName: "x", Life: 2 * authorityLife})
	if err != nil {
		t.Fatal(err)
	}
	if long.Leaf.NotAfter.After(p.Cluster.Certificate().NotAfter) {
		t.Error("a certificate outlives its authority")
	}
	if _, err := tls.X509KeyPair(long.CertPEM, long.KeyPEM); err != nil {
		t.Error(err)
	}
}

func BenchmarkFirstLoad(b *testing.B) {
	dir := b.TempDir()
	for i := 0; b.Loop(); i++ {
		if _, err := Load(filepath.Join(dir, fmt.Sprint(i)), Options{}); err != nil {
			b.Fatal(err)
		}
	}
}
