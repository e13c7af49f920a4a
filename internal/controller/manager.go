package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"

	"github.com/proa-k8s/proa/internal/client"
)

// Config is what a Manager is made of.
type Config struct {
	// REST gives the configuration of a client that acts as the user (client.NewConfig).
	REST func(user.Info) *rest.Config
	// Informers is the factory that the whole process shares (client.Informers).
	Informers informers.SharedInformerFactory
	// Resources are all stored resources of the server.
	Resources *client.Resources
	// Registerer takes the metrics; nil drops them.
	Registerer prometheus.Registerer
	// Log is slog's default when nil.
	Log *slog.Logger
	// Clock is the real one when nil.
	Clock clock.WithTicker
	// LeaderElection has several managers of a cluster agree on one that works; nil when there is only one, which then
	// starts at once and writes no lease.
	LeaderElection *LeaderElection
}

// LeaderElection says how the working manager is elected: by the lease kube-system/kube-controller-manager.
type LeaderElection struct {
	// Identity tells the managers apart: hostname and something random.
	Identity string
	// LeaseDuration, RenewDeadline and RetryPeriod are 15 s, 10 s and 2 s when zero.
	LeaseDuration, RenewDeadline, RetryPeriod time.Duration
}

// Manager runs controllers.
type Manager struct {
	config  Config
	metrics *metrics
	runners []runner
	events  record.EventBroadcaster
	sink    kubernetes.Interface
}

type runner struct {
	Controller
	env  *Env
	sync Sync
}

// NewManager sets up the controllers; nothing runs yet.
func NewManager(config Config, controllers []Controller) (*Manager, error) {
	if config.Clock == nil {
		config.Clock = clock.RealClock{}
	}
	if config.Log == nil {
		config.Log = slog.Default()
	}
	if config.Resources == nil {
		config.Resources = new(client.Resources)
	}
	sink, err := kubernetes.NewForConfig(config.REST(manager()))
	if err != nil {
		return nil, fmt.Errorf("making the controller manager's client: %w", err)
	}
	m := &Manager{
		config: config, sink: sink, metrics: newMetrics(config.Clock),
		events: record.NewBroadcaster(),
	}
	for _, c := range controllers {
		env, err := m.env(c)
		if err != nil {
			return nil, fmt.Errorf("controller %s: %w", c.Name, err)
		}
		sync, err := c.Setup(env)
		if err != nil {
			return nil, fmt.Errorf("setting up controller %s: %w", c.Name, err)
		}
		m.runners = append(m.runners, runner{c, env, sync})
	}
	if config.Registerer != nil {
		if err := config.Registerer.Register(m.metrics); err != nil {
			return nil, fmt.Errorf("registering metrics: %w", err)
		}
	}
	return m, nil
}

// env makes the surroundings of a controller.
func (m *Manager) env(c Controller) (*Env, error) {
	conf := m.config.REST(identity(c.Name))
	clientset, err := kubernetes.NewForConfig(conf)
	if err != nil {
		return nil, fmt.Errorf("making its client: %w", err)
	}
	reads := sets.New(c.Reads...)
	return &Env{
		Name: c.Name, Client: clientset, REST: conf,
		Informers: client.Restrict(m.config.Informers, "controller "+c.Name, func(obj runtime.Object) bool {
			return reads.Has(resourceOf(obj))
		}),
		Resources: m.config.Resources,
		Events:    m.events.NewRecorder(scheme.Scheme, corev1.EventSource{Component: account(c.Name)}),
		Queue:     m.metrics.queue(c.Name, m.config.Clock),
		Clock:     m.config.Clock,
		Log:       m.config.Log.With("controller", c.Name),
	}, nil
}

// resourceOf is the resource of a type of client-go.
func resourceOf(obj runtime.Object) schema.GroupVersionResource {
	kinds, _, err := scheme.Scheme.ObjectKinds(obj)
	if err != nil {
		return schema.GroupVersionResource{}
	}
	plural, _ := meta.UnsafeGuessKindToResource(kinds[0])
	return plural
}

// Run runs the controllers until ctx ends, and returns when all of them have ended. It returns an error when the manager
// lost the leadership, after which it can't be run again.
func (m *Manager) Run(ctx context.Context) error {
	recording := m.events.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: m.sink.CoreV1().Events("")})
	defer m.events.Shutdown()
	defer recording.Stop()
	if m.config.LeaderElection == nil {
		m.run(ctx)
		return nil
	}
	return m.elect(ctx)
}

// elect runs the controllers while this manager leads. The lease is given back when all controllers have ended.
func (m *Manager) elect(ctx context.Context) error {
	electing, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var led sync.WaitGroup
	led.Add(1)
	started := make(chan struct{})
	e := *m.config.LeaderElection
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: "kube-controller-manager"},
			Client:     m.sink.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: e.Identity},
		},
		LeaseDuration:   cmp.Or(e.LeaseDuration, 15*time.Second),
		RenewDeadline:   cmp.Or(e.RenewDeadline, 10*time.Second),
		RetryPeriod:     cmp.Or(e.RetryPeriod, 2*time.Second),
		ReleaseOnCancel: true,
		Name:            "kube-controller-manager",
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(leading context.Context) {
				close(started)
				defer led.Done()
				leading, end := context.WithCancel(leading)
				defer context.AfterFunc(ctx, end)()
				defer end()
				m.run(leading)
				stop()
			},
			OnStoppedLeading: func() {},
		},
	})
	if err != nil {
		return fmt.Errorf("setting up leader election: %w", err)
	}
	// Before the election is won there is nothing to wait for; afterwards stop is called when all controllers ended.
	defer context.AfterFunc(ctx, func() {
		select {
		case <-started:
		default:
			stop()
		}
	})()
	elector.Run(electing)
	select {
	case <-started:
		led.Wait()
	default:
	}
	if ctx.Err() == nil {
		return ErrLostLeadership
	}
	return nil
}

// run starts the informers, waits until the handlers have seen all that is there, and works until ctx ends.
func (m *Manager) run(ctx context.Context) {
	m.config.Informers.StartWithContext(ctx)
	var group sync.WaitGroup
	for _, r := range m.runners {
		group.Go(func() { r.run(ctx, m.metrics) })
	}
	group.Wait()
}

// run is the life of one controller.
func (r runner) run(ctx context.Context, m *metrics) {
	stop := context.AfterFunc(ctx, r.env.Queue.ShutDown)
	defer stop()
	if !cache.WaitFor(ctx, "", r.env.synced...) {
		return
	}
	var group sync.WaitGroup
	for _, fn := range r.env.background {
		group.Go(func() { fn(ctx) })
	}
	for range max(1, r.Workers) {
		group.Go(func() {
			for r.next(ctx, m) {
			}
		})
	}
	group.Wait()
}

// next handles one key; it returns false when the queue is shut down.
func (r runner) next(ctx context.Context, m *metrics) bool {
	key, quit := r.env.Queue.Get()
	if quit {
		return false
	}
	defer r.env.Queue.Done(key)
	end := m.begin(r.Name, key)
	err := r.try(ctx, key)
	end()
	switch {
	case err == nil:
		r.env.Queue.Forget(key)
		return true
	case ctx.Err() != nil:
		return true
	case apierrors.IsConflict(err), apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause), errors.Is(err, ErrStale):
		r.env.Log.Debug("trying again", "key", key, "err", err)
	default:
		r.env.Log.Warn("trying again", "key", key, "err", err)
	}
	r.env.Queue.AddRateLimited(key)
	return true
}

// try calls the controller and turns a panic into an error: a fault in one controller must not end all others.
func (r runner) try(ctx context.Context, key string) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return r.sync(ctx, key)
}

// ErrStale is for a Sync to return when the informers don't show its own writes yet: it is called again a little later.
var ErrStale = errors.New("the informers do not show the last writes yet")

// ErrLostLeadership is returned by Run when another manager has taken over.
var ErrLostLeadership = errors.New("the leadership was lost")
