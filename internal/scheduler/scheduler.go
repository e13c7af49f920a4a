package scheduler

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	corelisters "k8s.io/client-go/listers/core/v1"
	policylisters "k8s.io/client-go/listers/policy/v1"
	"k8s.io/client-go/tools/events"

	"github.com/proa-k8s/proa/internal/scheduler/framework"
	"github.com/proa-k8s/proa/internal/scheduler/plugins"
	"github.com/proa-k8s/proa/internal/scheduler/preemption"
	"github.com/proa-k8s/proa/internal/scheduler/queue"
)

// Scheduler schedules. Make it with New.
type Scheduler struct {
	Config
	pods      corelisters.PodLister
	volumes   *plugins.Volumes
	budgets   policylisters.PodDisruptionBudgetLister
	profiles  map[string]*profile
	mailbox   *mailbox
	binder    *binder
	announcer *announcer
	statuses  *statusWriter
	synced    []<-chan struct{}
	metrics   *metrics
	// owned waits for all goroutines that Run starts.
	owned sync.WaitGroup

	// What follows belongs to the goroutine of Run.
	queue   *queue.Queue
	state   *framework.State
	binding map[types.UID]*attempt
	spare   []message
}

// New sets a scheduler up. The informers that it needs are requested here, so it must be called before they are started.
func New(c Config) (*Scheduler, error) {
	if err := c.complete(); err != nil {
		return nil, fmt.Errorf("configuring the scheduler: %w", err)
	}
	s := &Scheduler{
		Config: c, mailbox: newMailbox(), profiles: map[string]*profile{},
		state: framework.NewState(), binding: map[types.UID]*attempt{}, metrics: newMetrics(),
	}
	s.volumes = plugins.NewVolumes(c.Client, c.Informers)
	for _, p := range c.Profiles {
		s.profiles[p.SchedulerName] = &profile{name: p.SchedulerName, recorder: c.Recorder, decider: framework.Decider{
			Plugins: plugins.Default(p.Plugins, c.Informers, s.volumes), Percentage: p.PercentageOfNodesToScore, Rand: c.Rand,
		}}
	}
	if c.Registerer != nil {
		if err := s.metrics.register(c.Registerer); err != nil {
			return nil, fmt.Errorf("registering metrics: %w", err)
		}
	}
	s.queue = queue.New(s.preEnqueue)
	s.binder, s.announcer = newBinder(s), newAnnouncer(s)
	s.statuses = newStatusWriter(s)
	if err := s.listen(); err != nil {
		return nil, fmt.Errorf("listening to informers: %w", err)
	}
	return s, nil
}

// Run schedules until ctx ends. It may be called once.
func (s *Scheduler) Run(ctx context.Context) error {
	if s.Recorder == nil {
		broadcaster := events.NewBroadcaster(&events.EventSinkImpl{Interface: s.Client.EventsV1()})
		defer broadcaster.Shutdown()
		if err := broadcaster.StartRecordingToSinkWithContext(ctx); err != nil {
			return fmt.Errorf("starting to record events: %w", err)
		}
		for _, p := range s.profiles {
			p.recorder = broadcaster.NewRecorder(scheme.Scheme, p.name)
		}
	}
	defer s.owned.Wait()
	s.Informers.StartWithContext(ctx)
	for _, synced := range s.synced {
		select {
		case <-synced:
		case <-ctx.Done():
			return nil
		}
	}
	s.Log.Info("scheduling")
	for ctx.Err() == nil {
		s.applyMessages()
		if e := s.queue.Pop(s.Clock.Now()); e != nil {
			s.schedule(ctx, e)
		} else {
			s.wait(ctx)
		}
	}
	return nil
}

// applyMessages brings queue and state up to date.
func (s *Scheduler) applyMessages() {
	list := s.mailbox.take(s.spare)
	if list == nil {
		return
	}
	for _, msg := range list {
		msg(s)
	}
	if cap(list) > 4096 {
		list = nil // a burst is over
	}
	s.spare = list
}

// wait waits until there may be something to do.
func (s *Scheduler) wait(ctx context.Context) {
	s.metrics.count(s.queue.Counts())
	var due <-chan time.Time
	if next := s.queue.Next(); !next.IsZero() {
		timer := s.Clock.NewTimer(next.Sub(s.Clock.Now()))
		defer timer.Stop()
		due = timer.C()
	}
	select {
	case <-s.mailbox.ready:
	case <-due:
	case <-ctx.Done():
	}
}

// preEnqueue gives the first reason why a pod may not be looked at yet.
func (s *Scheduler) preEnqueue(p *corev1.Pod) *framework.Status {
	for _, plugin := range s.profiles[p.Spec.SchedulerName].decider.Plugins {
		if plugin.PreEnqueue != nil {
			if status := plugin.PreEnqueue(p); status != nil {
				return status
			}
		}
	}
	return nil
}

// attempt is one try to schedule a pod.
type attempt struct {
	*queue.Entry
	profile      *profile
	begun        time.Time
	node         string
	reservations []framework.Reservation
}

// schedule decides about one pod, and starts what follows from it.
func (s *Scheduler) schedule(ctx context.Context, e *queue.Entry) {
	a := &attempt{Entry: e, profile: s.profiles[e.Pod.Spec.SchedulerName]}
	if e.Pod.DeletionTimestamp != nil {
		a.profile.recorder.Eventf(e.Pod.Pod, nil, corev1.EventTypeWarning, "FailedScheduling", "Scheduling",
			"skip schedule deleting pod: %v/%v", e.Pod.Namespace, e.Pod.Name)
		return
	}
	a.begun = s.Clock.Now()
	result := resultError
	r := a.profile.decider.Decide(s.state, e.Pod)
	s.metrics.decision.Observe(s.Clock.Since(a.begun).Seconds())
	switch {
	case r.Err != nil:
		s.fail(a, r.Err.Error())
	case r.Node == nil:
		result = noNode
		s.unschedulable(ctx, a, &r.Diagnosis)
	default:
		if s.assume(ctx, a, r.Node) {
			return // it ends with the binding
		}
	}
	s.metrics.attempted(a.profile.name, result, s.Clock.Since(a.begun))
}

// assume puts the pod on the node as far as decisions go, and has it bound. It tells whether all plugins could reserve
// what they need for that.
func (s *Scheduler) assume(ctx context.Context, a *attempt, n *framework.Node) bool {
	c := &framework.Cycle{State: s.state, Pod: a.Pod}
	a.node = n.Name()
	for _, plugin := range a.profile.decider.Plugins {
		if plugin.Reserve == nil {
			continue
		}
		r, status := plugin.Reserve(c, n)
		if status != nil {
			a.unreserve()
			s.fail(a, fmt.Sprintf("running Reserve plugin %q: %s", plugin.Name, status.Message()))
			return false
		}
		if r != nil {
			a.reservations = append(a.reservations, r)
		}
	}
	s.state.Assume(a.Pod, a.node)
	s.state.Unnominate(a.Pod.UID)
	s.binding[a.Pod.UID] = a
	s.binder.start(ctx, a)
	return true
}

func (a *attempt) unreserve() {
	for _, r := range slices.Backward(a.reservations) {
		r.Unreserve()
	}
	a.reservations = nil
}

// onlyNodes stands for the want of any node among the failing plugins.
var onlyNodes = &framework.Plugin{Events: framework.NodeAdded}

// onlyRoom stands for victims that are not gone yet.
var onlyRoom = &framework.Plugin{Name: preemption.Name, Events: framework.PodRemoved}

// unschedulable tries to make room for the pod, and has it wait for an event that helps.
func (s *Scheduler) unschedulable(ctx context.Context, a *attempt, d *framework.Diagnosis) {
	var failing []*framework.Plugin
	if d.NoNodes {
		failing = append(failing, onlyNodes)
	}
	names := d.Plugins()
	for _, plugin := range a.profile.decider.Plugins {
		if slices.Contains(names, plugin.Name) {
			failing = append(failing, plugin)
		}
	}
	var nominated *string
	if !d.NoNodes {
		nominated, d.PostFilter = s.preempt(ctx, a, d)
	}
	if nominated != nil && *nominated != "" {
		failing = append(failing, onlyRoom)
	}
	s.queue.Wait(a.Entry, failing, s.Clock.Now())
	s.report(a, corev1.PodReasonUnschedulable, d.Message(), nominated)
}

// fail has the pod tried again after an error.
func (s *Scheduler) fail(a *attempt, message string) {
	s.Log.Warn("scheduling failed", "pod", a.Pod.Namespace+"/"+a.Pod.Name, "error", message)
	s.queue.Retry(a.Entry, s.Clock.Now())
	s.report(a, corev1.PodReasonSchedulerError, message, nil)
}
