package controller

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/utils/clock"
)

// metrics are those of client-go's work queues, under their usual names. Depths and counts are read when somebody asks.
type metrics struct {
	queued, worked *prometheus.HistogramVec

	depth, adds, retries, unfinished, longest *prometheus.Desc

	mu     sync.Mutex
	queues map[string]*Queue
	active map[string]map[string]time.Time // by controller and key, since when
	clock  clock.PassiveClock
}

func newMetrics(c clock.PassiveClock) *metrics {
	histogram := func(name, help string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Subsystem: "workqueue", Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(1e-8, 10, 12),
		}, []string{"name"})
	}
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("workqueue_"+name, help, []string{"name"}, nil)
	}
	return &metrics{
		queued:     histogram("queue_duration_seconds", "How long in seconds an item stays in the queue before it is requested."),
		worked:     histogram("work_duration_seconds", "How long in seconds it takes to handle an item of the queue."),
		depth:      desc("depth", "Current depth of the queue."),
		adds:       desc("adds_total", "How many items were added to the queue."),
		retries:    desc("retries_total", "How many times an item was added again after a failure."),
		unfinished: desc("unfinished_work_seconds", "How many seconds of work are in progress."),
		longest:    desc("longest_running_processor_seconds", "How many seconds the longest running worker has been running."),
		queues:     make(map[string]*Queue),
		active:     make(map[string]map[string]time.Time),
		clock:      c,
	}
}

// queue makes the measured queue of a controller.
func (m *metrics) queue(name string, c clock.WithTicker) *Queue {
	waited := m.queued.WithLabelValues(name)
	q := newQueue(c, func(d time.Duration) { waited.Observe(d.Seconds()) })
	m.mu.Lock()
	defer m.mu.Unlock()
	m.queues[name], m.active[name] = q, make(map[string]time.Time)
	return q
}

// begin notes that a key is being handled; the function it returns, that it is done.
func (m *metrics) begin(name, key string) (end func()) {
	start := m.clock.Now()
	m.mu.Lock()
	m.active[name][key] = start
	m.mu.Unlock()
	return func() {
		m.mu.Lock()
		delete(m.active[name], key)
		m.mu.Unlock()
		m.worked.WithLabelValues(name).Observe(m.clock.Since(start).Seconds())
	}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	m.queued.Describe(ch)
	m.worked.Describe(ch)
	for _, d := range []*prometheus.Desc{m.depth, m.adds, m.retries, m.unfinished, m.longest} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	m.queued.Collect(ch)
	m.worked.Collect(ch)
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.clock.Now()
	for name, q := range m.queues {
		var sum, longest float64
		for _, since := range m.active[name] {
			d := now.Sub(since).Seconds()
			sum, longest = sum+d, max(longest, d)
		}
		gauge := func(d *prometheus.Desc, t prometheus.ValueType, v float64) {
			ch <- prometheus.MustNewConstMetric(d, t, v, name)
		}
		gauge(m.depth, prometheus.GaugeValue, float64(q.Len()))
		gauge(m.adds, prometheus.CounterValue, float64(q.backlog.adds.Load()))
		gauge(m.retries, prometheus.CounterValue, float64(q.retries.Load()))
		gauge(m.unfinished, prometheus.GaugeValue, sum)
		gauge(m.longest, prometheus.GaugeValue, longest)
	}
}
