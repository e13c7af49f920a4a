package store

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// metrics are the store's, under the names that they have in Kubernetes where they have one there. What can be counted
// when asked is counted then.
type metrics struct {
	store    *Store
	requests *prometheus.HistogramVec
	count    *prometheus.CounterVec
	errors   *prometheus.CounterVec
	decodes  prometheus.Counter
}

// where are the labels of what is counted by resource.
var where = []string{"group", "resource"}

var (
	descObjects = prometheus.NewDesc("apiserver_resource_objects",
		"Number of stored objects by resource.", where, nil)
	descStorageObjects = prometheus.NewDesc("apiserver_storage_objects",
		"Number of stored objects by resource.", []string{"resource"}, nil)
	descWatchers = prometheus.NewDesc("apiserver_watch_cache_watchers",
		"Number of running watches by resource.", where, nil)
	descRevision = prometheus.NewDesc("apiserver_watch_cache_resource_version",
		"Revision up to which the caches have seen all changes.", where, nil)
	descEvents = prometheus.NewDesc("apiserver_watch_cache_events_received_total",
		"Number of changes that the caches received from etcd.", where, nil)
	descStored = prometheus.NewDesc("apiserver_storage_events_received_total",
		"Number of changes that were received from etcd.", where, nil)
	descTerminated = prometheus.NewDesc("apiserver_terminated_watchers_total",
		"Number of watches that were ended because they did not keep up.", where, nil)
	descSize = prometheus.NewDesc("apiserver_storage_size_bytes",
		"Size of etcd's file.", []string{"storage_cluster_id"}, nil)
	descWarm = prometheus.NewDesc("proa_store_encodings_bytes",
		"Size of the encodings of objects that are kept because they were asked for lately.", nil, nil)
)

func newMetrics(s *Store) *metrics {
	return &metrics{
		store: s,
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "etcd_request_duration_seconds", Help: "Latency of requests to etcd by operation and resource.",
			Buckets: []float64{0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60},
		}, append([]string{"operation"}, where...)),
		count: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "etcd_requests_total", Help: "Number of requests to etcd by operation and resource.",
		}, append([]string{"operation"}, where...)),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "etcd_request_errors_total", Help: "Number of requests to etcd that failed, by operation and resource.",
		}, append([]string{"operation"}, where...)),
		decodes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "proa_store_decodes_total", Help: "Number of stored objects that were decoded.",
		}),
	}
}

// observe counts a request to etcd that has ended.
func (m *metrics) observe(operation string, about schema.GroupResource, began time.Time, err error) {
	m.requests.WithLabelValues(operation, about.Group, about.Resource).Observe(time.Since(began).Seconds())
	m.count.WithLabelValues(operation, about.Group, about.Resource).Inc()
	if err != nil {
		m.errors.WithLabelValues(operation, about.Group, about.Resource).Inc()
	}
}

// Describe is of prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range []prometheus.Collector{m.requests, m.count, m.errors, m.decodes} {
		c.Describe(ch)
	}
	for _, d := range []*prometheus.Desc{descObjects, descStorageObjects, descWatchers, descRevision, descEvents, descStored, descTerminated, descSize, descWarm} {
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
	counter := func(d *prometheus.Desc, v int64, of schema.GroupResource) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), of.Group, of.Resource)
	}
	for _, c := range m.store.registered() {
		c.mu.RLock()
		objects, watchers := c.tree.Len(), len(c.watches.all)
		c.mu.RUnlock()
		of := c.measured()
		gauge(descObjects, int64(objects), of.Group, of.Resource)
		gauge(descStorageObjects, int64(objects), of.String())
		gauge(descWatchers, int64(watchers), of.Group, of.Resource)
		gauge(descRevision, m.store.fed.Load(), of.Group, of.Resource)
		counter(descEvents, c.events.Load(), of)
		counter(descStored, c.events.Load(), of)
		counter(descTerminated, c.terminated.Load(), of)
	}
	gauge(descWarm, m.store.warm.size.Load())
	if size, ok := m.store.fileSize(); ok {
		gauge(descSize, size, "etcd-0")
	}
}

// fileSize asks etcd for the size of its file.
func (s *Store) fileSize() (int64, bool) {
	endpoint := "" // of an etcd in this process
	if list := s.client.Endpoints(); len(list) > 0 {
		endpoint = list[0]
	}
	ctx, cancel := context.WithTimeout(s.ctx, time.Second)
	defer cancel()
	status, err := s.client.Status(ctx, endpoint)
	if err != nil {
		return 0, false
	}
	return status.DbSize, true
}

// measured is the resource as metrics name it.
func (c *Cache) measured() schema.GroupResource {
	if c.resource.GroupResource.Resource == "" {
		return schema.GroupResource{Resource: c.resource.Prefix}
	}
	return c.resource.GroupResource
}
