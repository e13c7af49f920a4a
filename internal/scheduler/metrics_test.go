package scheduler

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func TestMetrics(t *testing.T) {
	m, registry := newMetrics(), prometheus.NewRegistry()
	if err := m.register(registry); err != nil {
		t.Fatal(err)
	}
	m.attempted("default-scheduler", noNode, time.Second)
	m.bound(3, 2*time.Second)
	m.bound(15, time.Minute)
	m.preemptions.Inc()
	m.decision.Observe(1)
	m.victims.Observe(1)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	type shape struct {
		labels  string
		buckets int
		least   float64
	}
	got := map[string]shape{}
	for _, f := range families {
		for _, series := range f.Metric {
			s := shape{}
			for _, l := range series.Label {
				s.labels += l.GetName() + "=" + l.GetValue() + " "
			}
			if h := series.Histogram; h != nil {
				s.buckets, s.least = len(h.Bucket), h.Bucket[0].GetUpperBound()
			}
			got[f.GetName()+" "+s.labels] = s
		}
	}
	for name, want := range map[string]shape{
		"scheduler_schedule_attempts_total profile=default-scheduler result=unschedulable ":             {buckets: 0},
		"scheduler_scheduling_attempt_duration_seconds profile=default-scheduler result=unschedulable ": {buckets: 15, least: 0.001},
		"scheduler_scheduling_algorithm_duration_seconds ":                                              {buckets: 15, least: 0.001},
		"scheduler_pod_scheduling_sli_duration_seconds attempts=3 ":                                     {buckets: 20, least: 0.01},
		"scheduler_pod_scheduling_sli_duration_seconds attempts=15+ ":                                   {buckets: 20, least: 0.01},
		"scheduler_pod_scheduling_attempts ":                                                            {buckets: 5, least: 1},
		"scheduler_preemption_attempts_total ":                                                          {},
		"scheduler_preemption_victims ":                                                                 {buckets: 7, least: 1},
	} {
		s, ok := got[name]
		if !ok || s.buckets != want.buckets || s.least != want.least {
			t.Errorf("%s: got %+v, %v, want %+v", name, s, ok, want)
		}
	}
}
