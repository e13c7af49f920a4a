package wire

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"
)

// handshakeTimeout is how long a client may take to agree on TLS.
const handshakeTimeout = 30 * time.Second

// listener hands out connections when their handshake is through.
type listener struct {
	net.Listener
	config *tls.Config

	ready   chan net.Conn
	failure error // of accepting, set before failed is closed
	failed  chan struct{}

	running    context.Context // ends when the listener is closed
	stop       context.CancelFunc
	handshakes sync.WaitGroup
}

// Serve serves TLS, with the server's configuration of it, on what l accepts, until the server is shut down. Where the
// configuration offers h2, HTTP/2 is spoken, too. Requests know of TLS what they always do.
func Serve(server *http.Server, l net.Listener) error {
	server.Protocols = new(http.Protocols)
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true) // on connections whose encryption it does not see
	server.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		if c, ok := c.(*conn); ok {
			return context.WithValue(ctx, stateKey{}, &c.state)
		}
		return ctx
	}
	handler := server.Handler
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if state, ok := r.Context().Value(stateKey{}).(*tls.ConnectionState); ok {
			r.TLS = state
		}
		handler.ServeHTTP(w, r)
	})
	return server.Serve(listen(l, server.TLSConfig))
}

// stateKey finds what is known of TLS in the context of a connection.
type stateKey struct{}

// listen begins to accept connections and to make them ready. Close cuts off handshakes that are not through, and closes l.
func listen(l net.Listener, config *tls.Config) net.Listener {
	s := &listener{Listener: l, config: config, ready: make(chan net.Conn), failed: make(chan struct{})}
	s.running, s.stop = context.WithCancel(context.Background())
	s.handshakes.Go(s.accept)
	return s
}

func (s *listener) accept() {
	defer close(s.failed)
	for {
		c, err := s.Listener.Accept()
		if err != nil {
			if t, ok := err.(interface{ Temporary() bool }); ok && t.Temporary() && s.pause() {
				continue // too many open files, for example
			}
			s.failure = err
			return
		}
		s.handshakes.Go(func() { s.handshake(c) })
	}
}

// pause waits before the system is asked again for connections, and says whether the listener is still open.
func (s *listener) pause() bool {
	t := time.NewTimer(100 * time.Millisecond)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.running.Done():
		return false
	}
}

// handshake makes a connection ready. One that fails is handed out, too: the HTTP server finds the failure and tells of it.
func (s *listener) handshake(raw net.Conn) {
	below := &cork{Conn: raw}
	secure := tls.Server(below, s.config)
	ctx, cancel := context.WithTimeout(s.running, handshakeTimeout)
	err := secure.HandshakeContext(ctx)
	cancel()
	var c net.Conn = secure
	if state := secure.ConnectionState(); err == nil && state.NegotiatedProtocol == "h2" {
		c = newConn(secure, below, state)
	}
	select {
	case s.ready <- c:
	case <-s.running.Done():
		_ = raw.Close() // nobody serves it any more
	}
}

// Accept waits for a connection whose handshake is through: a *tls.Conn, or for HTTP/2 one of this package.
func (s *listener) Accept() (net.Conn, error) {
	select {
	case c := <-s.ready:
		return c, nil
	case <-s.failed:
		return nil, s.failure
	}
}

// Close ends the listening, and returns when no handshake runs.
func (s *listener) Close() error {
	s.stop()
	err := s.Listener.Close()
	s.handshakes.Wait()
	return err
}
