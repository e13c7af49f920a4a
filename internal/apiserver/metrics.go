package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apiserver/pkg/authentication/user"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"
)

// metrics are the request metrics, by upstream's names.
type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	current  *prometheus.GaugeVec
	long     *prometheus.GaugeVec
}

// newMetrics registers the metrics; with nil they are counted and never read.
func newMetrics(registerer prometheus.Registerer) *metrics {
	where := []string{"group", "version", "resource", "subresource", "scope", "component"}
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "apiserver_request_total",
			Help: "Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.",
		}, append([]string{"verb", "dry_run", "code"}, where...)),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "apiserver_request_duration_seconds",
			Help:    "Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.",
			Buckets: []float64{0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60},
		}, append([]string{"verb", "dry_run"}, where...)),
		current: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "apiserver_current_inflight_requests",
			Help: "Number of requests that are being served, per request kind.",
		}, []string{"request_kind"}),
		long: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "apiserver_longrunning_requests",
			Help: "Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and component.",
		}, append([]string{"verb"}, where...)),
	}
	if registerer != nil {
		registerer.MustRegister(m.requests, m.duration, m.current, m.long)
	}
	return m
}

func (m *metrics) inflight(kind string) prometheus.Gauge { return m.current.WithLabelValues(kind) }

// done counts a request. What is not known to be served is counted without its name: whatever clients make up must not
// become labels.
func (m *metrics) done(r *http.Request, info *apirequest.RequestInfo, known bool, code int, took time.Duration) {
	verb := metricVerb(info, r)
	dry := ""
	if strings.Contains(r.URL.RawQuery, "dryRun=All") {
		dry = "All"
	}
	group, version, resource, sub := info.APIGroup, info.APIVersion, info.Resource, info.Subresource
	if !known {
		group, version, resource, sub = "", "", "", ""
	}
	s := scopeOf(info)
	m.requests.WithLabelValues(verb, dry, strconv.Itoa(code), group, version, resource, sub, s, "apiserver").Inc()
	if verb != "WATCH" && verb != "CONNECT" {
		m.duration.WithLabelValues(verb, dry, group, version, resource, sub, s, "apiserver").Observe(took.Seconds())
	}
}

func (m *metrics) longRunning(info *apirequest.RequestInfo, delta float64) {
	m.long.WithLabelValues(strings.ToUpper(info.Verb), info.APIGroup, info.APIVersion, info.Resource, info.Subresource, scopeOf(info), "apiserver").Add(delta)
}

// metricVerb is how upstream calls a verb in metrics.
func metricVerb(info *apirequest.RequestInfo, r *http.Request) string {
	switch info.Verb {
	case "create":
		return "POST"
	case "update":
		return "PUT"
	case "patch":
		if strings.HasPrefix(r.Header.Get("Content-Type"), "application/apply-patch") {
			return "APPLY"
		}
		return "PATCH"
	case "get", "list", "watch", "delete", "deletecollection", "post", "put":
		return strings.ToUpper(info.Verb)
	default:
		return "other"
	}
}

func scopeOf(info *apirequest.RequestInfo) string {
	switch {
	case info.Name != "":
		return "resource"
	case info.Namespace != "":
		return "namespace"
	case info.IsResourceRequest:
		return "cluster"
	default:
		return ""
	}
}

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
