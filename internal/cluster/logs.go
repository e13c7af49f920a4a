package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/klog/v2"
)

// routeLogs sends what libraries log, through klog or the standard logger, to the one log. The function that is returned undoes
// it.
func routeLogs(log *slog.Logger) (restore func()) {
	slog.SetDefault(log)
	klog.SetSlogLogger(slog.New(quietHandler{log.Handler()}))
	return func() { klog.SetLogger(logr.Discard()) }
}

// quietHandler drops what libraries log as information: it is about them and not about the cluster. It also takes for what it is
// that a client has ended its stream, which some libraries call an error.
type quietHandler struct{ slog.Handler }

// disconnects are how libraries report the end of a stream (exec, attach, port-forward).
var disconnects = []string{"Error on socket receive", "Error proxying data from client to backend", "Error proxying data from backend to client"}

// Handle implements slog.Handler.
func (h quietHandler) Handle(ctx context.Context, r slog.Record) error {
	if slices.Contains(disconnects, r.Message) {
		r.Level = slog.LevelDebug
	}
	if !h.Enabled(ctx, r.Level) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

// Enabled implements slog.Handler.
func (h quietHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.Handler.Enabled(ctx, level) && (level >= slog.LevelWarn || h.Handler.Enabled(ctx, slog.LevelDebug))
}

// WithAttrs implements slog.Handler.
func (h quietHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return quietHandler{h.Handler.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (h quietHandler) WithGroup(name string) slog.Handler {
	return quietHandler{h.Handler.WithGroup(name)}
}

// handshakeErrors takes what net/http's server has to say about connections: clients that go away or distrust the certificate
// are their own affair, and a note for who looks closely.
type handshakeErrors struct{ slog.Handler }

// Handle implements slog.Handler.
func (h handshakeErrors) Handle(ctx context.Context, r slog.Record) error {
	if !strings.Contains(r.Message, "TLS handshake error") && !strings.Contains(r.Message, "http2:") {
		r.Level = slog.LevelWarn
	}
	if !h.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

// Enabled implements slog.Handler; Handle decides, since the level depends on the message.
func (handshakeErrors) Enabled(context.Context, slog.Level) bool { return true }

func newRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// publicKubeconfig is a kubeconfig without credentials.
func publicKubeconfig(server string, ca []byte) ([]byte, error) {
	data, err := clientcmd.Write(clientcmdapi.Config{
		Clusters: map[string]*clientcmdapi.Cluster{"": {Server: server, CertificateAuthorityData: ca}},
	})
	if err != nil {
		return nil, fmt.Errorf("making the kubeconfig of cluster-info: %w", err)
	}
	return data, nil
}
