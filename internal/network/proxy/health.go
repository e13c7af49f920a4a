package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// healthChecks answers the health checks of load balancers: each service with externalTrafficPolicy Local has a port on every
// node, and a node without endpoints of it says so, that nothing is sent there.
type healthChecks struct {
	log     *slog.Logger
	servers map[types.NamespacedName]*healthServer
	running sync.WaitGroup
}

type healthServer struct {
	port  uint16
	local atomic.Int64
	http  *http.Server
}

func newHealthChecks(log *slog.Logger) *healthChecks {
	return &healthChecks{log: log, servers: map[types.NamespacedName]*healthServer{}}
}

// set starts, changes or ends (with nil) the health check of a service.
func (h *healthChecks) set(ctx context.Context, service types.NamespacedName, c *healthCheck) {
	s := h.servers[service]
	if s != nil && (c == nil || c.port != s.port) {
		s.http.Close()
		delete(h.servers, service)
		s = nil
	}
	if c == nil {
		return
	}
	if s == nil {
		var err error
		if s, err = h.start(ctx, service, c.port); err != nil {
			h.log.Error("can't answer the health checks of a service", "service", service, "port", c.port, "error", err)
			return
		}
		h.servers[service] = s
	}
	s.local.Store(int64(c.local))
}

func (h *healthChecks) start(ctx context.Context, service types.NamespacedName, port uint16) (*healthServer, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", ":"+strconv.Itoa(int(port)))
	if err != nil {
		return nil, err
	}
	s := &healthServer{port: port}
	s.http = &http.Server{Handler: s.handler(service), ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(h.log.Handler(), slog.LevelDebug)}
	h.running.Go(func() {
		if err := s.http.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			h.log.Error("answering the health checks of a service", "service", service, "error", err)
		}
	})
	return s, nil
}

// handler answers as kube-proxy does: 200 when the node has endpoints, else 503.
func (s *healthServer) handler(service types.NamespacedName) http.Handler {
	type body struct {
		Service struct {
			Namespace string `json:"namespace"`
			Name      string `json:"name"`
		} `json:"service"`
		LocalEndpoints      int64 `json:"localEndpoints"`
		ServiceProxyHealthy bool  `json:"serviceProxyHealthy"`
	}
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		b := body{LocalEndpoints: s.local.Load(), ServiceProxyHealthy: true}
		b.Service.Namespace, b.Service.Name = service.Namespace, service.Name
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("X-Load-Balancing-Endpoint-Weight", strconv.FormatInt(b.LocalEndpoints, 10))
		if b.LocalEndpoints == 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		if err := json.NewEncoder(w).Encode(b); err != nil {
			return // the client has gone
		}
	})
}

// close ends all health checks and waits for them.
func (h *healthChecks) close() {
	for _, s := range h.servers {
		s.http.Close()
	}
	h.running.Wait()
}
