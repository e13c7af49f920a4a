package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apiserver/pkg/authentication/user"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"
)

// limit counts the requests of one kind that run at once.
type limit struct {
	max   int64 // 0: no limit
	now   atomic.Int64
	gauge prometheus.Gauge
}

func (l *limit) init(max, byDefault int, gauge prometheus.Gauge) {
	switch {
	case max == 0:
		l.max = int64(byDefault)
	case max > 0:
		l.max = int64(max)
	}
	l.gauge = gauge
}

func mutating(verb string) bool {
	switch verb {
	case "get", "list", "watch", "head", "options":
		return false
	}
	return true
}

// admitInFlight counts a request in, unless too many run already. Administrators are never kept out.
func (s *Server) admitInFlight(r *http.Request, info *apirequest.RequestInfo) (release func(), ok bool) {
	l := &s.reads
	if mutating(info.Verb) {
		l = &s.writes
	}
	if n := l.now.Add(1); l.max > 0 && n > l.max {
		u, _ := apirequest.UserFrom(r.Context())
		if u == nil || !slices.Contains(u.GetGroups(), user.SystemPrivilegedGroup) {
			l.now.Add(-1)
			return nil, false
		}
	}
	l.gauge.Inc()
	return func() {
		l.now.Add(-1)
		l.gauge.Dec()
	}, true
}

func tooMany(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "1")
	http.Error(w, "Too many requests, please try again later.", http.StatusTooManyRequests)
}

// checkCaches says whether every cache is filled.
func (s *Server) checkCaches(context.Context) error {
	for _, resources := range s.served.Load().routes {
		for _, e := range resources {
			if e.cache != nil && !e.cache.Ready() {
				return fmt.Errorf("the cache of %s is not filled yet", e.gr)
			}
		}
	}
	return nil
}

func (s *Server) checkShutdown(context.Context) error {
	if s.running.Err() != nil {
		return errors.New("process is shutting down")
	}
	return nil
}
