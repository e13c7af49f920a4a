package scheduler

import (
	"strconv"
	"time"

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
	pending     *prometheus.GaugeVec
	attempts    *prometheus.CounterVec
	duration    *prometheus.HistogramVec
	decision    prometheus.Histogram
	waited      *prometheus.HistogramVec
	tries       prometheus.Histogram
	preemptions prometheus.Counter
	victims     prometheus.Histogram
}

func newMetrics() *metrics {
	return &metrics{
		pending: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "scheduler_pending_pods",
			Help: "Pods that wait, by place: active, backoff, unschedulable, gated."}, []string{"queue"}),
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "scheduler_schedule_attempts_total",
			Help: "Attempts to schedule pods, by result: scheduled, unschedulable, error."}, []string{"profile", "result"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "scheduler_scheduling_attempt_duration_seconds",
			Help: "How long attempts take, with binding.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 15)}, []string{"profile", "result"}),
		decision: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "scheduler_scheduling_algorithm_duration_seconds",
			Help: "How long decisions take, without binding.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 15)}),
		waited: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "scheduler_pod_scheduling_sli_duration_seconds",
			Help: "Time from a pod's arrival in the queue until it is bound, by how many attempts that took.", Buckets: prometheus.ExponentialBuckets(0.01, 2, 20)},
			[]string{"attempts"}),
		tries: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "scheduler_pod_scheduling_attempts",
			Help: "How many attempts it took until pods were bound.", Buckets: prometheus.ExponentialBuckets(1, 2, 5)}),
		preemptions: prometheus.NewCounter(prometheus.CounterOpts{Name: "scheduler_preemption_attempts_total",
			Help: "How often others were looked for that could go for a pod."}),
		victims: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "scheduler_preemption_victims",
			Help: "Pods that had to go for one.", Buckets: prometheus.ExponentialBuckets(1, 2, 7)}),
	}
}

func (m *metrics) register(r prometheus.Registerer) error {
	for _, c := range []prometheus.Collector{m.pending, m.attempts, m.duration, m.decision, m.waited, m.tries, m.preemptions, m.victims} {
		if err := r.Register(c); err != nil {
			return err
		}
	}
	return nil
}

// attempted counts an attempt that has ended.
func (m *metrics) attempted(profile, result string, took time.Duration) {
	m.attempts.WithLabelValues(profile, result).Inc()
	m.duration.WithLabelValues(profile, result).Observe(took.Seconds())
}

// mostAttempts is from where numbers of attempts are not told apart.
const mostAttempts = 15

// bound counts a pod that has its node.
func (m *metrics) bound(attempts int, took time.Duration) {
	label := strconv.Itoa(attempts)
	if attempts >= mostAttempts {
		label = strconv.Itoa(mostAttempts) + "+"
	}
	m.waited.WithLabelValues(label).Observe(took.Seconds())
	m.tries.Observe(float64(attempts))
}

// count sets the numbers of waiting pods.
func (m *metrics) count(c queue.Counts) {
	m.pending.WithLabelValues("active").Set(float64(c.Active))
	m.pending.WithLabelValues("backoff").Set(float64(c.Backoff))
	m.pending.WithLabelValues("unschedulable").Set(float64(c.Unschedulable))
	m.pending.WithLabelValues("gated").Set(float64(c.Gated))
}
