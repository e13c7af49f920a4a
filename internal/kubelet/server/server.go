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
	"log/slog"
	"net"

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
	cfg Config
}

// New checks cfg and prepares a Server.
func New(cfg Config) (*Server, error) {
	if cfg.NodeName == "" || cfg.Certificate == nil || cfg.Runtime == nil || cfg.Pod == nil || cfg.Pods == nil {
		return nil, errors.New("kubelet server: node name, certificate, runtime and pods are required")
	}
	if cfg.SystemLogDir == "" {
		cfg.SystemLogDir = "/var/log"
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{cfg: cfg}, nil
}

// Serve accepts connections from listener, which is a plain TCP listener, until ctx is done, and returns when all
// requests have ended.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	<-ctx.Done()
	return listener.Close()
}
