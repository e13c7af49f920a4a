package server

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"

	"k8s.io/apimachinery/pkg/util/proxy"
	translate "k8s.io/apiserver/pkg/util/proxy"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/streaming/pkg/httpstream/wsstream"
)

// The runtime serves streams itself, on a local address with a token: the handlers here get such an address and pass
// the client's connection on to it. WebSocket protocols that the runtime does not know (KEP-4006) are translated.

func (s *Server) exec(w http.ResponseWriter, r *http.Request) {
	s.remoteCommand(w, r, func(ctx context.Context, id string, o *remotecommand.Options) (string, error) {
		response, err := s.cfg.Runtime.Exec(ctx, &criapi.ExecRequest{
			ContainerId: id, Cmd: r.Form[commandParam],
			Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr, Tty: o.TTY,
		})
		return response.GetUrl(), err
	})
}

func (s *Server) attach(w http.ResponseWriter, r *http.Request) {
	s.remoteCommand(w, r, func(ctx context.Context, id string, o *remotecommand.Options) (string, error) {
		response, err := s.cfg.Runtime.Attach(ctx, &criapi.AttachRequest{
			ContainerId: id, Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr, Tty: o.TTY,
		})
		return response.GetUrl(), err
	})
}

// commandParam is the query parameter that holds one word of a command; it is repeated.
const commandParam = "command"

// remoteCommand finds the running container that the request names, has open ask the runtime for a stream, and connects
// the client to it.
func (s *Server) remoteCommand(w http.ResponseWriter, r *http.Request,
	open func(context.Context, string, *remotecommand.Options) (string, error)) {
	o, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	pod, ok := s.pod(w, r)
	if !ok {
		return
	}
	id, err := s.runningContainer(r.Context(), pod, r.PathValue("container"))
	if err != nil {
		writeError(w, err)
		return
	}
	location, err := open(r.Context(), id, o)
	if err != nil {
		writeError(w, err)
		return
	}
	s.connect(w, r, location, wsstream.IsWebSocketRequestWithStreamCloseProtocol, func(target *url.URL, _ http.Handler) http.Handler {
		return translate.NewStreamTranslatorHandler(target, nil, 0,
			translate.Options{Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr, Tty: o.TTY})
	})
}

func (s *Server) portForward(w http.ResponseWriter, r *http.Request) {
	var ports []int32
	// SPDY clients name ports by streams; the parameter is for WebSockets.
	for _, text := range r.URL.Query()["port"] {
		port, err := strconv.ParseUint(text, 10, 16)
		if err != nil || port == 0 {
			http.Error(w, fmt.Sprintf("unable to parse %q as a port", text), http.StatusBadRequest)
			return
		}
		ports = append(ports, int32(port))
	}
	pod, ok := s.pod(w, r)
	if !ok {
		return
	}
	sandbox, err := s.sandbox(r.Context(), pod)
	if err != nil {
		writeError(w, err)
		return
	}
	response, err := s.cfg.Runtime.PortForward(r.Context(), &criapi.PortForwardRequest{PodSandboxId: sandbox, Port: ports})
	if err != nil {
		writeError(w, err)
		return
	}
	s.connect(w, r, response.Url, wsstream.IsWebSocketRequestWithTunnelingProtocol, func(_ *url.URL, direct http.Handler) http.Handler {
		return translate.NewTunnelingHandler(direct)
	})
}

// connect passes the client's connection on to location, through translator if needs says so, until either side ends it
// or the server stops.
func (s *Server) connect(w http.ResponseWriter, r *http.Request, location string, needs func(*http.Request) bool,
	translator func(target *url.URL, direct http.Handler) http.Handler) {
	target, err := url.Parse(location)
	if err != nil {
		writeError(w, fmt.Errorf("the runtime answered with a bad address: %w", err))
		return
	}
	leave, ok := s.streams.enter(r)
	if !ok {
		http.Error(w, "the node agent is stopping", http.StatusServiceUnavailable)
		return
	}
	defer leave()
	// What the client proved to us is none of the runtime's business.
	r.Header.Del("Authorization")
	direct := proxy.NewUpgradeAwareHandler(target, nil, false, true, responder{})
	translate.NewTranslatingHandler(direct, translator(target, direct), needs).ServeHTTP(w, r)
}

// responder answers when the runtime cannot be connected to.
type responder struct{}

func (responder) Error(w http.ResponseWriter, _ *http.Request, err error) {
	http.Error(w, fmt.Sprintf("Error while proxying request: %v", err), http.StatusInternalServerError)
}

// streams are the connections that handlers have taken over from the HTTP server. It forgets those, so they are kept
// here to be cut when the server stops.
type streams struct {
	mu     sync.Mutex
	closed bool
	open   map[net.Conn]struct{}
	group  sync.WaitGroup
}

type connectionKey struct{}

// withConnection is for http.Server.ConnContext: it lets enter find the connection of a request.
func withConnection(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connectionKey{}, conn)
}

// enter registers the connection of a request until leave is called. It says no once the server is stopping.
func (s *streams) enter(r *http.Request) (leave func(), ok bool) {
	conn, known := r.Context().Value(connectionKey{}).(net.Conn)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, false
	}
	s.group.Add(1)
	if known {
		if s.open == nil {
			s.open = map[net.Conn]struct{}{}
		}
		s.open[conn] = struct{}{}
	}
	return func() {
		s.mu.Lock()
		delete(s.open, conn)
		s.mu.Unlock()
		s.group.Done()
	}, true
}

// close cuts all connections and waits until their handlers have returned.
func (s *streams) close() {
	s.mu.Lock()
	s.closed = true
	for conn := range s.open {
		conn.Close()
	}
	s.mu.Unlock()
	s.group.Wait()
}
