package scheduler

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"

	"github.com/proa-k8s/proa/internal/scheduler/framework"
	"github.com/proa-k8s/proa/internal/scheduler/plugins"
)

// Config is what a scheduler needs.
type Config struct {
	// Client is used for all writes, under the scheduler's own identity.
	Client kubernetes.Interface
	// Informers are read; Run starts those that it needs.
	Informers informers.SharedInformerFactory
	Log       *slog.Logger
	// Profiles are the schedulers that pods can ask for by name; none stands for one that is called default-scheduler.
	Profiles []Profile
	// Recorder records events about pods that are not scheduled; nil stands for one that writes events.k8s.io/v1 by Client.
	Recorder events.EventRecorder
	// Registerer takes the metrics; nil means that nobody asks for them.
	Registerer prometheus.Registerer
	// Clock is the time; nil stands for the real one.
	Clock clock.WithTicker
	// Rand gives a number below n, by which ties are broken; nil stands for a random one.
	Rand func(n int) int
}

// Profile is a scheduler as pods see it (spec.schedulerName).
type Profile struct {
	SchedulerName string
	// PercentageOfNodesToScore is how many percent of the nodes are searched for feasible ones before the best of them is
	// chosen; 0 adapts to the number of nodes.
	PercentageOfNodesToScore int
	// Plugins configures the plugins.
	Plugins plugins.Config
}

// profile is a Profile that is set up.
type profile struct {
	name     string
	recorder events.EventRecorder
	decider  framework.Decider
}

func (c *Config) complete() error {
	if c.Client == nil || c.Informers == nil {
		return errors.New("a client and informers are needed")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	if c.Rand == nil {
		c.Rand = rand.IntN
	}
	if len(c.Profiles) == 0 {
		c.Profiles = []Profile{{SchedulerName: corev1.DefaultSchedulerName}}
	}
	seen := map[string]bool{}
	for _, p := range c.Profiles {
		switch {
		case p.SchedulerName == "":
			return errors.New("a profile needs a scheduler name")
		case seen[p.SchedulerName]:
			return fmt.Errorf("two profiles are called %q", p.SchedulerName)
		case p.PercentageOfNodesToScore < 0 || p.PercentageOfNodesToScore > 100:
			return fmt.Errorf("percentageOfNodesToScore of %q: %d is not in the range 0-100", p.SchedulerName, p.PercentageOfNodesToScore)
		}
		seen[p.SchedulerName] = true
	}
	return nil
}
