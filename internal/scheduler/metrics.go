package scheduler

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/proa-k8s/proa/internal/scheduler/queue"
)

// The results of attempts, as metrics name them.
const (
	scheduled   = "scheduled"
	noNode      = "unschedulable"
	resultError = "error"
)

// metrics are the scheduler's metrics, by the names of Kubernetes.
type metrics struct {
	pending  *prometheus.GaugeVec
	attempts *prometheus.CounterVec
	duration *prometheus.HistogramVec
	waited   prometheus.Histogram
	victims  prometheus.Histogram
}

func newMetrics() *metrics {
	return &metrics{
		pending: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "scheduler_pending_pods",
			Help: "Pods that wait, by place: active, backoff, unschedulable, gated."}, []string{"queue"}),
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "scheduler_schedule_attempts_total",
			Help: "Attempts to schedule pods, by result: scheduled, unschedulable, error."}, []string{"profile", "result"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "scheduler_scheduling_attempt_duration_seconds",
			Help: "How long decisions take, without binding.", Buckets: prometheus.ExponentialBuckets(1e-5, 2, 16)}, []string{"profile", "result"}),
		waited: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "scheduler_pod_scheduling_sli_duration_seconds",
			Help: "Time from a pod's arrival in the queue until it is bound.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 20)}),
		victims: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "scheduler_preemption_victims",
			Help: "Pods that had to go for one.", Buckets: prometheus.ExponentialBuckets(1, 2, 7)}),
	}
}

func (m *metrics) register(r prometheus.Registerer) error {
	for _, c := range []prometheus.Collector{m.pending, m.attempts, m.duration, m.waited, m.victims} {
		if err := r.Register(c); err != nil {
			return err
		}
	}
	return nil
}

// count sets the numbers of waiting pods.
func (m *metrics) count(c queue.Counts) {
	m.pending.WithLabelValues("active").Set(float64(c.Active))
	m.pending.WithLabelValues("backoff").Set(float64(c.Backoff))
	m.pending.WithLabelValues("unschedulable").Set(float64(c.Unschedulable))
	m.pending.WithLabelValues("gated").Set(float64(c.Gated))
}
