package store

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the store's, under the names that they have in Kubernetes where they have one there. What can be counted
// when asked is counted then.
type metrics struct {
	store    *Store
	requests *prometheus.HistogramVec
	count    *prometheus.CounterVec
	errors   *prometheus.CounterVec
	decodes  prometheus.Counter

	events, terminated atomic.Int64
}

var (
	descObjects = prometheus.NewDesc("apiserver_resource_objects",
		"Number of stored objects by resource.", []string{"group", "resource"}, nil)
	descStorageObjects = prometheus.NewDesc("apiserver_storage_objects",
		"Number of stored objects by resource.", []string{"resource"}, nil)
	descWatchers = prometheus.NewDesc("apiserver_watch_cache_watchers",
		"Number of running watches by resource.", []string{"group", "resource"}, nil)
	descRevision = prometheus.NewDesc("apiserver_watch_cache_resource_version",
		"Revision up to which the caches have seen all changes.", nil, nil)
	descEvents = prometheus.NewDesc("apiserver_watch_cache_events_received_total",
		"Number of changes that the caches received from etcd.", nil, nil)
	descTerminated = prometheus.NewDesc("apiserver_terminated_watchers_total",
		"Number of watches that were ended because they did not keep up.", nil, nil)
	descWarm = prometheus.NewDesc("proa_store_encodings_bytes",
		"Size of the encodings of objects that are kept because they were asked for lately.", nil, nil)
)

func newMetrics(s *Store) *metrics {
	return &metrics{
		store: s,
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "etcd_request_duration_seconds", Help: "Latency of requests to etcd by operation and resource.",
			Buckets: []float64{0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"operation", "type"}),
		count: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "etcd_requests_total", Help: "Number of requests to etcd by operation and resource.",
		}, []string{"operation", "type"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "etcd_request_errors_total", Help: "Number of requests to etcd that failed, by operation and resource.",
		}, []string{"operation", "type"}),
		decodes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "proa_store_decodes_total", Help: "Number of stored objects that were decoded.",
		}),
	}
}

func (m *metrics) observe(operation, resource string, began time.Time) {
	m.requests.WithLabelValues(operation, resource).Observe(time.Since(began).Seconds())
	m.count.WithLabelValues(operation, resource).Inc()
}

func (m *metrics) failed(operation, resource string) {
	m.errors.WithLabelValues(operation, resource).Inc()
}

// Describe is of prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range []prometheus.Collector{m.requests, m.count, m.errors, m.decodes} {
		c.Describe(ch)
	}
	for _, d := range []*prometheus.Desc{descObjects, descStorageObjects, descWatchers, descRevision, descEvents, descTerminated, descWarm} {
		ch <- d
	}
}

// Collect is of prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range []prometheus.Collector{m.requests, m.count, m.errors, m.decodes} {
		c.Collect(ch)
	}
	gauge := func(d *prometheus.Desc, v int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	for _, c := range m.store.registered() {
		c.mu.RLock()
		objects, watchers := c.tree.Len(), len(c.watches.all)
		c.mu.RUnlock()
		group, resource := c.resource.GroupResource.Group, c.resource.GroupResource.Resource
		if resource == "" {
			resource = c.resource.Prefix
		}
		gauge(descObjects, int64(objects), group, resource)
		gauge(descStorageObjects, int64(objects), c.metricName())
		gauge(descWatchers, int64(watchers), group, resource)
	}
	gauge(descRevision, m.store.fed.Load())
	gauge(descWarm, m.store.warm.size.Load())
	ch <- prometheus.MustNewConstMetric(descEvents, prometheus.CounterValue, float64(m.events.Load()))
	ch <- prometheus.MustNewConstMetric(descTerminated, prometheus.CounterValue, float64(m.terminated.Load()))
}

// metricName is the resource's name in metrics: "deployments.apps".
func (c *Cache) metricName() string {
	if c.resource.GroupResource.Resource == "" {
		return c.resource.Prefix
	}
	return c.resource.GroupResource.String()
}
