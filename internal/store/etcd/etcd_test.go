package etcd

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// crashDir makes the test binary the process that is killed: a server that writes until then.
const crashDir = "PROA_TEST_CRASH_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		writeUntilKilled(dir)
	}
	os.Exit(m.Run())
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func start(t testing.TB, cfg Config) *Server {
	t.Helper()
	s, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// TestRestart starts again on more history than is kept in memory, and on less.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	var log bytes.Buffer
	cfg := Config{Dir: dir, Logger: slog.New(slog.NewTextHandler(&log, nil)), UnsafeNoFsync: true}
	var rev int64
	for _, writes := range []int{0, 1, snapshotCount / 2, snapshotCount + 10, catchUpAlone + snapshotCount/2, 5} {
		began := time.Now()
		s, err := Start(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("after %d writes in all: started in %v", rev, time.Since(began))
		if now, err := s.Rev(t.Context()); err != nil || now < rev {
			t.Fatalf("revision %d, %v; it was %d", now, err, rev)
		}
		for i := range writes {
			resp, err := s.Client().Put(t.Context(), fmt.Sprintf("/registry/x%d", i%100), "value")
			if err != nil {
				t.Fatal(err)
			}
			rev = resp.Header.Revision
		}
		if now, err := s.Rev(t.Context()); err != nil || writes > 0 && now != rev {
			t.Fatalf("revision %d, %v; want %d", now, err, rev)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if log.Len() > 0 {
		t.Errorf("it is not quiet:\n%s", log.String())
	}
}

// TestCrash kills a server that several clients write to, and starts it again: everything that was acknowledged must be
// there.
func TestCrash(t *testing.T) {
	dir := t.TempDir()
	for round := range 3 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), crashDir+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		acknowledged := map[string]string{}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			key, value, _ := strings.Cut(lines.Text(), " ")
			acknowledged[key] = value
			if n == 1500 {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		cmd.Wait() // says that it was killed
		if len(acknowledged) < 100 {
			t.Fatalf("only %d keys were written", len(acknowledged))
		}
		began := time.Now()
		s, err := Start(t.Context(), Config{Dir: dir, Logger: quiet()})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("round %d: started in %v", round, time.Since(began))
		resp, err := s.Client().Get(t.Context(), "/registry/", clientv3.WithPrefix())
		if err != nil {
			t.Fatal(err)
		}
		for _, kv := range resp.Kvs {
			// A later write may be there without having been acknowledged.
			if string(kv.Value) >= acknowledged[string(kv.Key)] {
				delete(acknowledged, string(kv.Key))
			}
		}
		for key, value := range acknowledged {
			t.Errorf("%s=%s is lost", key, value)
		}
		if _, err := s.Client().Put(t.Context(), "/registry/after", "0"); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func writeUntilKilled(dir string) {
	s, err := Start(context.Background(), Config{Dir: dir, Logger: quiet()})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	rev, err := s.Rev(context.Background())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var mu sync.Mutex
	for w := range 8 {
		go func() {
			for i := 0; ; i++ {
				key := fmt.Sprintf("/registry/pods/ns/%d-%d", w, i%50)
				value := fmt.Sprintf("%020d", rev*1000000+int64(i))
				if _, err := s.Client().Put(context.Background(), key, value); err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				mu.Lock()
				fmt.Println(key, value) // one write, which the reader has even if the process is gone
				mu.Unlock()
			}
		}()
	}
	select {}
}

func TestSnapshot(t *testing.T) {
	dir := t.TempDir()
	s := start(t, Config{Dir: filepath.Join(dir, "etcd"), Logger: quiet(), UnsafeNoFsync: true})
	if _, err := s.Client().Put(t.Context(), "/registry/a", "b"); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "backup")
	if err := s.Snapshot(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Size() == 0 || info.Mode().Perm() != 0o600 {
		t.Errorf("snapshot is %v, %v", info, err)
	}
	if err := s.Snapshot(t.Context(), filepath.Join(dir, "none", "backup")); err == nil {
		t.Error("a snapshot into a missing directory succeeded")
	}
}

func TestBadConfig(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, cfg := range map[string]Config{
		"no directory":        {},
		"directory is a file": {Dir: file},
		"no such CA":          {Endpoints: []string{"https://127.0.0.1:1"}, CAFile: file + "x"},
		"nobody listens":      {Endpoints: []string{"http://127.0.0.1:1"}},
		"bad peer URL":        {Dir: t.TempDir(), Peers: &Peers{Listen: "::"}},
	} {
		cfg.Logger = quiet()
		if s, err := Start(ctx, cfg); err == nil {
			s.Close()
			t.Errorf("%s: it started", name)
		}
	}
}

// TestExternal connects to an etcd with TLS, as one that is run elsewhere.
func TestExternal(t *testing.T) {
	dir := t.TempDir()
	ca, cert, key := writeCertificate(t, dir)
	ec := embed.NewConfig()
	ec.Dir = filepath.Join(dir, "etcd")
	ec.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	ec.UnsafeNoFsync = true
	ec.ListenPeerUrls = nil
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := url.URL{Scheme: "https", Host: l.Addr().String()}
	l.Close()
	ec.ListenClientUrls, ec.AdvertiseClientUrls = []url.URL{u}, []url.URL{u}
	ec.ClientTLSInfo = transport.TLSInfo{CertFile: cert, KeyFile: key, TrustedCAFile: ca, ClientCertAuth: true}
	e, err := embed.StartEtcd(ec)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	<-e.Server.ReadyNotify()

	s := start(t, Config{Endpoints: []string{u.String()}, CAFile: ca, CertFile: cert, KeyFile: key, Logger: quiet()})
	resp, err := s.Client().Put(t.Context(), "/registry/a", "b")
	if err != nil {
		t.Fatal(err)
	}
	if rev, err := s.Rev(t.Context()); err != nil || rev != resp.Header.Revision {
		t.Errorf("revision %d, %v; want %d", rev, err, resp.Header.Revision)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if s, err := Start(ctx, Config{Endpoints: []string{u.String()}, CAFile: ca, Logger: quiet()}); err == nil {
		s.Close()
		t.Error("connected without a certificate")
	}
}

// writeCertificate makes a certificate that is its own authority.
func writeCertificate(t *testing.T, dir string) (ca, cert, key string) {
	t.Helper()
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &priv.PublicKey, priv)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{
		cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "EC PRIVATE KEY", Bytes: keyDER},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, cert, key
}

// TestMembers forms a cluster of three members and takes one of them away.
func TestMembers(t *testing.T) {
	urls := make([]string, 3)
	initial := ""
	for i := range urls {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		urls[i] = "http://" + l.Addr().String()
		initial += fmt.Sprintf(",m%d=%s", i, urls[i])
		l.Close()
	}
	servers := make([]*Server, 3)
	var wg sync.WaitGroup
	for i := range servers {
		wg.Go(func() {
			var err error
			servers[i], err = Start(t.Context(), Config{
				Dir: t.TempDir(), Name: fmt.Sprintf("m%d", i), Logger: quiet(), UnsafeNoFsync: true,
				Peers: &Peers{Listen: urls[i], Advertise: urls[i], Initial: initial[1:]},
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	defer func() {
		for _, s := range servers[:2] {
			s.Close()
		}
	}()
	put := func(s *Server) int64 {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		for { // a new leader may have to be elected
			resp, err := s.Client().Put(ctx, "/registry/a", "b")
			if err == nil {
				return resp.Header.Revision
			}
			if ctx.Err() != nil {
				t.Fatal(err)
			}
		}
	}
	rev := put(servers[0])
	for i, s := range servers {
		if got, err := s.Rev(t.Context()); err != nil || got < rev {
			t.Errorf("member %d is at %d, %v; want %d", i, got, err, rev)
		}
	}
	servers[2].Close()
	if got := put(servers[0]); got <= rev {
		t.Errorf("revision %d after %d", got, rev)
	}
}
