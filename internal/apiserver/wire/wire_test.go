package wire

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"testing"
	"time"
)

// pair is a connection of this package, and its other end, both with TLS.
func pair(t testing.TB) (*conn, net.Conn) {
	t.Helper()
	tcp, server, config := configs(t)
	l := listen(tcp, server)
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			t.Error(err)
		}
		accepted <- c
	}()
	other, err := tls.Dial("tcp", l.Addr().String(), config)
	if err != nil {
		t.Fatal(err)
	}
	c, ok := (<-accepted).(*conn)
	if !ok {
		t.Fatal("a connection that speaks HTTP/2 doesn't gather what is written")
	}
	t.Cleanup(func() {
		other.Close()
		c.Close()
	})
	return c, other
}

// configs listens on the loopback, and gives configurations of a server and of its clients.
func configs(t testing.TB) (l net.Listener, server, client *tls.Config) {
	t.Helper()
	certs := httptest.NewUnstartedServer(nil)
	certs.StartTLS()
	defer certs.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	trusted := x509.NewCertPool()
	trusted.AddCert(certs.Certificate())
	server = &tls.Config{Certificates: certs.TLS.Certificates, NextProtos: []string{"h2", "http/1.1"}, ClientAuth: tls.RequestClientCert}
	client = &tls.Config{RootCAs: trusted, NextProtos: []string{"h2"}, Certificates: certs.TLS.Certificates}
	return l, server, client
}

// plain is a connection of this package without TLS.
func plain(c net.Conn) *conn {
	below := &cork{Conn: c}
	return newConn(below, below, tls.ConnectionState{})
}

// TestAllArrives writes in pieces of all sizes, more than fits anywhere, and closes at once.
func TestAllArrives(t *testing.T) {
	c, other := pair(t)
	want := make([]byte, 0, 8<<20)
	for n := 1; len(want) < 7<<20; n = n%40000 + 97 {
		want = append(want, bytes.Repeat([]byte{byte(n)}, n)...)
	}
	failed := make(chan error, 1)
	go func() {
		rest := want
		for n := 1; len(rest) > 0; n = n*3%70001 + 1 {
			n = min(n, len(rest))
			piece := bytes.Clone(rest[:n])
			if _, err := c.Write(piece); err != nil {
				failed <- err
				break
			}
			clear(piece) // it belongs to the writer again
			rest = rest[n:]
		}
		failed <- c.Close()
	}()
	if got, err := io.ReadAll(other); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d of %d bytes arrived, or others: %v", len(got), len(want), err)
	}
	if err := <-failed; err != nil {
		t.Error(err)
	}
}

// TestGathers wants what is written while the system is busy to be sent by one call.
func TestGathers(t *testing.T) {
	slow := &gate{started: make(chan struct{}, 1), open: make(chan struct{})}
	c := plain(slow)
	if _, err := c.Write([]byte("a")); err != nil {
		t.Fatal(err)
	}
	<-slow.started
	for range 1000 {
		if _, err := c.Write([]byte("b")); err != nil {
			t.Fatal(err)
		}
	}
	close(slow.open)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if len(slow.sizes) != 2 || slow.sizes[0] != 1 || slow.sizes[1] != 1000 {
		t.Errorf("sent in pieces of %v", slow.sizes)
	}
}

// TestWritersWait wants writers to wait for a reader who doesn't keep up, until the connection is closed.
func TestWritersWait(t *testing.T) {
	slow := &gate{started: make(chan struct{}, 1), open: make(chan struct{}), closed: func(g *gate) { close(g.open) }}
	c := plain(slow)
	if _, err := c.Write(make([]byte, maxPending)); err != nil {
		t.Fatal(err)
	}
	<-slow.started
	if _, err := c.Write(make([]byte, maxPending)); err != nil {
		t.Fatal(err)
	}
	failed := make(chan error)
	go func() {
		_, err := c.Write([]byte("too much"))
		failed <- err
	}()
	c.mu.Lock()
	for c.waiting == 0 {
		c.mu.Unlock()
		select {
		case err := <-failed:
			t.Fatalf("the writer did not wait: %v", err)
		default:
			runtime.Gosched()
		}
		c.mu.Lock()
	}
	c.mu.Unlock()
	// A writer is cut off: closing must not wait for the reader.
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; !errors.Is(err, net.ErrClosed) {
		t.Errorf("the writer got %v", err)
	}
}

// TestErrors wants a failure in sending to be told to a later writer, and closing not to hang.
func TestErrors(t *testing.T) {
	c := plain(&gate{err: io.ErrUnexpectedEOF, open: closedChannel()})
	var err error
	for err == nil {
		_, err = c.Write([]byte("x"))
	}
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// TestServes wants HTTP/2 and HTTP/1.1 to be served with what TLS knows of the client, and shutting down to end all.
func TestServes(t *testing.T) {
	l, serverConfig, config := configs(t)
	server := &http.Server{TLSConfig: serverConfig, ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Proto, " ", r.TLS != nil && len(r.TLS.PeerCertificates) == 1)
	})}
	ended := make(chan error, 1)
	go func() { ended <- Serve(server, l) }()
	for _, test := range []struct{ proto, want string }{{"h2", "HTTP/2.0 true"}, {"http/1.1", "HTTP/1.1 true"}} {
		config := config.Clone()
		config.NextProtos = []string{test.proto}
		transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: test.proto == "h2"}
		resp, err := (&http.Client{Transport: transport}).Get("https://" + l.Addr().String())
		if err != nil {
			t.Fatal(test.proto, err)
		}
		got, err := io.ReadAll(resp.Body)
		if resp.Body.Close(); err != nil || string(got) != test.want {
			t.Errorf("%s: got %q, %v; want %q", test.proto, got, err, test.want)
		}
		transport.CloseIdleConnections()
	}
	if resp, err := http.Get("http://" + l.Addr().String()); err != nil || resp.StatusCode != http.StatusBadRequest {
		t.Errorf("a client without TLS got %v, %v", resp, err)
	} else {
		resp.Body.Close()
	}
	if err := server.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
}

// TestCloseListener wants a handshake that is not through to be cut off when the listener is closed.
func TestCloseListener(t *testing.T) {
	tcp, server, _ := configs(t)
	l := listen(tcp, server)
	silent, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accepting after the end: %v", err)
	}
	if _, err := silent.Read(make([]byte, 1)); err == nil {
		t.Error("the connection is still open")
	}
}

// gate is a connection whose writes wait until it is open.
type gate struct {
	net.Conn
	open    chan struct{}
	started chan struct{} // gets a token with each write
	closed  func(*gate)
	err     error
	sizes   []int
}

func (g *gate) Write(p []byte) (int, error) {
	select {
	case g.started <- struct{}{}:
	default:
	}
	<-g.open
	g.sizes = append(g.sizes, len(p))
	return len(p), g.err
}

func (g *gate) SetWriteDeadline(time.Time) error { return nil }

func (g *gate) Close() error {
	if g.closed != nil {
		g.closed(g)
	}
	return nil
}

func closedChannel() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}
