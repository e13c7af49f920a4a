package apiserver

import (
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/version"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"
)

// metrics are the request metrics, by upstream's names.
type metrics struct {
	requests   *prometheus.CounterVec
	duration   *prometheus.HistogramVec
	sli        *prometheus.HistogramVec
	sizes      *prometheus.HistogramVec
	current    *prometheus.GaugeVec
	long       *prometheus.GaugeVec
	deprecated *prometheus.GaugeVec
	sent       *prometheus.CounterVec
	sentSizes  *prometheus.HistogramVec
	build      *prometheus.GaugeVec

	mu     sync.RWMutex
	series map[requestLabels]*series
}

// requestLabels are those of a request. Finding what counts the requests that have the same takes much longer in the vectors.
type requestLabels struct {
	verb, dry, group, version, resource, sub, scope string
	code                                            int
}

// series are what counts the requests that have the same labels; what doesn't count them is nil.
type series struct {
	requests             prometheus.Counter
	duration, sli, sizes prometheus.Observer
}

// The bounds of how long requests take, in seconds. The shortest ones are of interest in one metric only.
var durations = []float64{0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60}

// component is the part of the control plane that has answered.
const component = "apiserver"

// newMetrics registers the metrics; with nil they are counted and never read.
func newMetrics(registerer prometheus.Registerer) *metrics {
	kind := []string{"group", "version", "resource"}
	where := append(slices.Clone(kind), "subresource", "scope", "component")
	with := func(names ...string) []string { return append(names, where...) }
	m := &metrics{
		series: map[requestLabels]*series{},
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "apiserver_request_total",
			Help: "Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.",
		}, with("verb", "dry_run", "code")),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "apiserver_request_duration_seconds",
			Help:    "Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.",
			Buckets: durations,
		}, with("verb", "dry_run")),
		sli: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "apiserver_request_sli_duration_seconds",
			Help:    "How long requests take that change what they say, without what the server cannot help.",
			Buckets: durations[2:],
		}, with("verb")),
		sizes: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "apiserver_response_sizes",
			Help:    "Sizes of the answers to requests that read, in bytes.",
			Buckets: prometheus.ExponentialBuckets(1000, 10, 7),
		}, with("verb")),
		current: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "apiserver_current_inflight_requests",
			Help: "Number of requests that are being served, per request kind.",
		}, []string{"request_kind"}),
		long: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "apiserver_longrunning_requests",
			Help: "Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and component.",
		}, with("verb")),
		deprecated: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "apiserver_requested_deprecated_apis",
			Help: "Deprecated versions that somebody has asked for, with the release that they go in.",
		}, append(slices.Clone(kind), "subresource", "removed_release")),
		sent: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "apiserver_watch_events_total", Help: "Number of events that were sent to watching clients.",
		}, kind),
		sentSizes: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "apiserver_watch_events_sizes", Help: "Sizes of the events that were sent to watching clients, in bytes.",
			Buckets: prometheus.ExponentialBuckets(1024, 2, 8),
		}, kind),
		build: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "kubernetes_build_info", Help: "What this is and how it was built, in the labels; the value is 1.",
		}, []string{"major", "minor", "git_version", "git_commit", "git_tree_state", "build_date", "go_version", "compiler", "platform"}),
	}
	if registerer != nil {
		registerer.MustRegister(m.requests, m.duration, m.sli, m.sizes, m.current, m.long, m.deprecated, m.sent, m.sentSizes, m.build)
	}
	return m
}

func (m *metrics) inflight(kind string) prometheus.Gauge { return m.current.WithLabelValues(kind) }

// is says what is being measured.
func (m *metrics) is(v *version.Info) {
	compiler, platform := v.Compiler, v.Platform
	if compiler == "" {
		compiler, platform = runtime.Compiler, runtime.GOOS+"/"+runtime.GOARCH
	}
	m.build.WithLabelValues(v.Major, v.Minor, v.GitVersion, v.GitCommit, v.GitTreeState, v.BuildDate, runtime.Version(), compiler, platform).Set(1)
}

// done counts a request. What is not known to be served is counted without its name: whatever clients make up must not
// become labels.
func (m *metrics) done(r *http.Request, info *apirequest.RequestInfo, known bool, rec *recorder, took time.Duration) {
	l := requestLabels{
		verb: metricVerb(info, r), dry: dryRun(r), group: info.APIGroup, version: info.APIVersion, resource: info.Resource,
		sub: info.Subresource, scope: scopeOf(info), code: rec.code,
	}
	if !known {
		l.group, l.version, l.resource, l.sub = "", "", "", pathLabel(info)
	}
	s := m.of(&l)
	s.requests.Inc()
	s.duration.Observe(took.Seconds())
	if s.sli != nil {
		s.sli.Observe(took.Seconds())
	}
	if s.sizes != nil {
		s.sizes.Observe(float64(rec.size))
	}
}

// of finds what counts the requests that have these labels.
func (m *metrics) of(l *requestLabels) *series {
	m.mu.RLock()
	s := m.series[*l]
	m.mu.RUnlock()
	if s != nil {
		return s
	}
	s = &series{
		requests: m.requests.WithLabelValues(l.verb, l.dry, strconv.Itoa(l.code), l.group, l.version, l.resource, l.sub, l.scope, component),
		duration: m.duration.WithLabelValues(l.verb, l.dry, l.group, l.version, l.resource, l.sub, l.scope, component),
	}
	if l.dry == "" {
		s.sli = m.sli.WithLabelValues(l.verb, l.group, l.version, l.resource, l.sub, l.scope, component)
	}
	if l.verb == "GET" || l.verb == "LIST" {
		s.sizes = m.sizes.WithLabelValues(l.verb, l.group, l.version, l.resource, l.sub, l.scope, component)
	}
	m.mu.Lock()
	m.series[*l] = s
	m.mu.Unlock()
	return s
}

func (m *metrics) longRunning(q *request, delta float64) {
	info := q.info
	m.long.WithLabelValues(metricVerb(info, q.http), info.APIGroup, info.APIVersion, info.Resource, info.Subresource, scopeOf(info), component).Add(delta)
}

// outdated takes note of a request for a version that is deprecated.
func (m *metrics) outdated(info *apirequest.RequestInfo, removed string) {
	m.deprecated.WithLabelValues(info.APIGroup, info.APIVersion, info.Resource, info.Subresource, removed).Set(1)
}

// connects are the subresources that are called connections in metrics, however they are asked for.
var connects = []string{"log", "exec", "portforward", "attach", "proxy"}

// metricVerb is how upstream calls a verb in metrics.
func metricVerb(info *apirequest.RequestInfo, r *http.Request) string {
	if info.IsResourceRequest && slices.Contains(connects, info.Subresource) {
		return "CONNECT"
	}
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

// dryRun is whether a request was to change nothing.
func dryRun(r *http.Request) string {
	if !strings.Contains(r.URL.RawQuery, "dryRun") {
		return ""
	}
	value := ""
	for _, v := range r.URL.Query()["dryRun"] {
		if v != "All" {
			return "invalid"
		}
		value = v
	}
	return value
}

// pathLabel is the label of paths that are asked for time and again.
func pathLabel(info *apirequest.RequestInfo) string {
	switch info.Path {
	case "/healthz", "/livez", "/readyz":
		return info.Path
	}
	return ""
}

func scopeOf(info *apirequest.RequestInfo) string {
	switch {
	case info.Name != "", info.Verb == "create":
		return "resource"
	case info.Namespace != "":
		return "namespace"
	case info.IsResourceRequest:
		return "cluster"
	default:
		return ""
	}
}
