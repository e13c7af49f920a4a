// Package server is the node's HTTPS API, by default on port 10250: what stands behind `kubectl logs`, `exec`, `attach`
// and `port-forward`, and what metrics-server and Prometheus read.
//
// In flow requests from the API server and from scrapers, authenticated by client certificate or TokenReview and
// authorized by SubjectAccessReview on the node's subresources; out flow the logs that the container runtime wrote,
// streams that the runtime serves, and figures from CRI and the node's own files.
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Config is what a Server needs.
type Config struct {
	// NodeName is the name of the Node that requests are authorized on.
	NodeName string
	// Certificate returns the serving certificate; it is asked for each connection, so that it can be rotated.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// ClientCA holds the certificates (PEM) of the authorities whose client certificates are accepted. Without it, only
	// bearer tokens are.
	ClientCA []byte
	// Client asks the API server to review tokens and access. If nil, every request is refused.
	Client kubernetes.Interface
	// Runtime and Images are the CRI services of this node.
	Runtime criapi.RuntimeServiceClient
	Images  criapi.ImageServiceClient
	// Pods returns the pods of this node with their current status, Pod one of them or nil. They are not changed.
	Pods func() []*corev1.Pod
	Pod  func(namespace, name string) *corev1.Pod
	// RootDir is the kubelet's directory; its file system is the "nodefs" of the statistics.
	RootDir string
	// PodLogDir holds the logs of containers (/var/log/pods).
	PodLogDir string
	// SystemLogDir is served below /logs/; /var/log by default.
	SystemLogDir string
	// Ready says whether the node works, for /healthz; nil counts as yes.
	Ready func() error
	Log   *slog.Logger
}

// Server serves the node's API.
type Server struct {
	cfg     Config
	auth    *guard
	handler http.Handler
	rates   rates
	streams streams
}

// New checks cfg and prepares a Server.
func New(cfg Config) (*Server, error) {
	if cfg.NodeName == "" || cfg.Certificate == nil || cfg.Runtime == nil || cfg.Pod == nil || cfg.Pods == nil {
		return nil, errors.New("kubelet server: node name, certificate, runtime and pods are required")
	}
	if cfg.SystemLogDir == "" {
		cfg.SystemLogDir = "/var/log"
	}
	if cfg.RootDir == "" {
		cfg.RootDir = "/"
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	auth, err := newGuard(cfg)
	if err != nil {
		return nil, fmt.Errorf("kubelet server: %w", err)
	}
	s := &Server{cfg: cfg, auth: auth, rates: rates{last: map[string]sample{}}}
	s.handler = s.routes()
	return s, nil
}

// ServeHTTP authenticates, authorizes and answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r, ok := s.auth.admit(w, r); ok {
		s.handler.ServeHTTP(w, r)
	}
}

// Serve accepts connections from listener, which is a plain TCP listener, until ctx is done, and returns when all
// requests have ended; streams that are still open then are cut.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	base, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	server := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 30 * time.Second,
		IdleTimeout:       90 * time.Second,
		ErrorLog:          slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext:       withConnection,
		TLSConfig: &tls.Config{
			MinVersion:     tls.VersionTLS12,
			GetCertificate: s.cfg.Certificate,
			// Certificates are verified by the authenticator, so that a request with none, or a strange one, can
			// present a token.
			ClientAuth: tls.RequestClientCert,
		},
	}
	ended := make(chan error, 1)
	go func() { ended <- server.ServeTLS(listener, "", "") }()
	select {
	case err := <-ended:
		s.streams.close()
		return fmt.Errorf("serving the node's API: %w", err)
	case <-ctx.Done():
	}
	cancel(errors.New("the node agent is stopping"))
	s.streams.close()
	last, done := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer done()
	err := server.Shutdown(last)
	if err != nil {
		err = errors.Join(err, server.Close())
	}
	<-ended
	return err
}

// shutdownTimeout is how long requests may take to end after they were cancelled.
const shutdownTimeout = 5 * time.Second
