package kubelet

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/proa-k8s/proa/internal/kubelet/cgroups"
	"github.com/proa-k8s/proa/internal/kubelet/cri"
	"github.com/proa-k8s/proa/internal/kubelet/plan"
	"github.com/proa-k8s/proa/internal/kubelet/podstatus"
)

// origin says where a pod comes from.
type origin int

const (
	fromAPI     origin = iota
	fromFile           // a static pod; its mirror in the API shows its status
	fromRemains        // known by its containers alone: it was deleted while the agent was away
)

// worker brings one pod to what is declared. Its loop alone touches the fields below "loop"; everything else reaches
// it by post.
type worker struct {
	k      *Kubelet
	uid    types.UID
	origin origin
	log    *slog.Logger
	ctx    context.Context // until the agent stops
	ended  chan struct{}   // closed when the loop has ended

	mu    sync.Mutex
	inbox []func()
	wake  chan struct{}

	claim claim

	// current is the pod with the status that was last made, for other goroutines.
	current atomic.Pointer[corev1.Pod]
	// evicted says that the node has decided to end the pod.
	evicted atomic.Bool

	// loop
	declared *corev1.Pod
	pod      *corev1.Pod // as declared, with the resources that are allocated to it; its status is the API's
	resize   resizing
	status   *corev1.PodStatus
	observed *cri.Pod
	dirty    bool // observed is out of date
	relist   bool // and something may exist whose ID is not known

	stop    *plan.Stop
	failure *podstatus.Reason
	// rejected says that the pod was refused and nothing of it was ever begun.
	rejected bool
	removed  bool // the object is gone
	down     bool // nothing of the pod runs, or will again

	busy        map[string]operation
	operations  int // how many goroutines work for the pod
	serial      int
	sandboxBusy bool
	cancelStart map[string]context.CancelFunc
	hooked      map[string]bool // IDs of containers whose postStart hook runs

	volumes     volumeState
	backoff     map[string]plan.Backoff
	hold        map[string]time.Time
	sandboxWait time.Duration // delay before the next attempt at a sandbox
	startFails  map[string]int
	waiting     map[string]podstatus.Reason
	restarting  map[string]bool // IDs of containers that were ended in order to be restarted
	probes      map[string]*probeSet

	writer  *statusWriter
	cleanup stage // of volumes and cgroup
	remains stage // of sandboxes, containers and logs
	gone    stage // of the API object
}

// operation is a plan.Operation that can be told from a later one on the same container.
type operation struct {
	plan.Operation
	serial int
}

// stage is how far a task of the end is.
type stage int

const (
	pending stage = iota
	underway
	finished
)

// volumeState is how far the volumes are.
type volumeState struct {
	ready  bool // they were all set up once
	busy   bool
	again  bool // something that they show has changed
	cancel context.CancelFunc
	at     time.Time // when to set up again
	delay  time.Duration
}

func newWorker(k *Kubelet, pod *corev1.Pod, from origin, observed *cri.Pod) *worker {
	w := &worker{
		k: k, uid: pod.UID, origin: from, ctx: k.ctx, pod: pod, declared: pod,
		log:         k.cfg.Log.With("pod", pod.Namespace+"/"+pod.Name),
		ended:       make(chan struct{}),
		wake:        make(chan struct{}, 1),
		observed:    observed,
		busy:        map[string]operation{},
		cancelStart: map[string]context.CancelFunc{},
		hooked:      map[string]bool{},
		backoff:     map[string]plan.Backoff{},
		hold:        map[string]time.Time{},
		startFails:  map[string]int{},
		waiting:     map[string]podstatus.Reason{},
		restarting:  map[string]bool{},
		probes:      map[string]*probeSet{},
	}
	if w.observed == nil {
		w.observed = &cri.Pod{UID: pod.UID, Namespace: pod.Namespace, Name: pod.Name}
	}
	w.status = pod.Status.DeepCopy()
	w.writer = newStatusWriter(w)
	w.current.Store(pod)
	return w
}

// post has f run by the loop.
func (w *worker) post(f func()) {
	w.mu.Lock()
	w.inbox = append(w.inbox, f)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// observe tells the worker that the runtime has news.
func (w *worker) observe() { w.post(func() { w.dirty = true }) }

// update gives the worker a new version of its pod.
func (w *worker) update(pod *corev1.Pod) { w.post(func() { w.setPod(pod) }) }

// remove tells the worker that its pod is no longer declared. last is its last version.
func (w *worker) remove(last *corev1.Pod) {
	w.post(func() {
		if last != nil {
			w.setPod(last)
		}
		w.removed = true
		w.writer.close()
		grace := w.grace()
		if w.origin == fromAPI {
			// Who removes a pod by force does not wait for it, but it gets a moment all the same.
			grace = min(grace, plan.MinimumGrace)
		}
		w.beginStop(grace, nil)
	})
}

// evict ends the pod for a reason of the node.
func (w *worker) evict(why podstatus.Reason, grace time.Duration, condition *corev1.PodCondition) {
	w.evicted.Store(true)
	w.post(func() {
		if w.stop != nil {
			return
		}
		if condition != nil {
			status := w.status.DeepCopy() // the old one is shared
			status.Conditions = append(status.Conditions, *condition)
			w.status = status
		}
		w.beginStop(grace, &why)
	})
}

func (w *worker) setPod(pod *corev1.Pod) {
	if w.volumes.ready && shownChanged(w.pod, pod) {
		w.volumes.again = true
	}
	w.setDeclared(pod)
	w.writer.setName(pod)
	if pod.DeletionTimestamp != nil {
		w.beginStop(w.grace(), nil)
	}
}

// shownChanged reports whether what volumes may show of the pod itself has changed.
func shownChanged(old, pod *corev1.Pod) bool {
	return showsItself(pod) && (!equalMaps(old.Labels, pod.Labels) || !equalMaps(old.Annotations, pod.Annotations))
}

// showsItself reports whether volumes may show something of the pod itself.
func showsItself(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.DownwardAPI != nil || v.Projected != nil })
}

// grace is the time that the pod is given to end.
func (w *worker) grace() time.Duration {
	for _, s := range []*int64{w.pod.DeletionGracePeriodSeconds, w.pod.Spec.TerminationGracePeriodSeconds} {
		if s != nil {
			return time.Duration(max(*s, 0)) * time.Second
		}
	}
	return 30 * time.Second
}

// beginStop ends the pod, or shortens the time that it has left.
func (w *worker) beginStop(grace time.Duration, failure *podstatus.Reason) {
	now := time.Now()
	if w.stop == nil {
		w.stop = &plan.Stop{Grace: grace, Since: now}
		w.failure = failure
		for _, cancel := range w.cancelStart {
			cancel()
		}
		if w.volumes.cancel != nil {
			w.volumes.cancel()
		}
		return
	}
	if now.Add(grace).Before(w.stop.Since.Add(w.stop.Grace)) {
		w.stop = &plan.Stop{Grace: grace, Since: now}
	}
}

// run is the loop. It returns when the agent stops or nothing of the pod is left.
func (w *worker) run() {
	defer close(w.ended)
	defer w.writer.wait()
	defer w.endProbes()
	if w.stop == nil && w.observed.Alive() {
		// The cgroup is there; its share in that of its class must be known again.
		limits := w.k.cgroups.Limits(w.pod)
		if w.resize.state != nil {
			limits = cgroups.Limits{} // they may be in the middle of being changed
		}
		if err := w.k.cgroups.UpdatePod(w.pod, limits); err != nil {
			w.log.Warn("taking over the cgroup of a pod", "err", err)
		}
	}
	if w.pod != w.declared {
		w.claimDeclared()
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-w.ctx.Done():
			return
		case <-w.wake:
		case <-timer.C:
		}
		w.mu.Lock()
		inbox := w.inbox
		w.inbox = nil
		w.mu.Unlock()
		for _, f := range inbox {
			f()
		}
		next, done := w.turn()
		if done {
			return
		}
		timer.Stop()
		if !next.IsZero() {
			timer.Reset(max(time.Until(next), time.Millisecond))
		}
	}
}

// turn looks at the pod once and begins what is to be done. next is when to look again at the latest; done says that
// nothing is left of it.
func (w *worker) turn() (next time.Time, done bool) {
	soonest := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	if !w.refresh() {
		soonest(time.Now().Add(time.Second))
		return next, false
	}
	w.syncProbes()
	now := time.Now()
	soonest(w.checkDeadline(now))
	actions, status, next2 := w.decide(now)
	soonest(next2)
	soonest(w.syncVolumes(now))
	w.publish(status)
	w.execute(&actions)
	if w.down {
		done = w.finish()
	}
	return next, done
}

// decide plans and makes the status. When by its containers' states the pod has ended, it plans the end.
func (w *worker) decide(now time.Time) (plan.Actions, *corev1.PodStatus, time.Time) {
	if phase := w.status.Phase; w.stop == nil && (phase == corev1.PodSucceeded || phase == corev1.PodFailed) {
		w.beginStop(w.grace(), nil)
	}
	for {
		in := w.planInput(now)
		actions := plan.Decide(in)
		if actions.Done && w.operations == 0 {
			w.down = true
		}
		w.noteBackoff(&actions)
		w.noteResize(&actions)
		status, ended := podstatus.Generate(w.statusInput(now, w.down))
		if ended && w.stop == nil {
			w.beginStop(w.grace(), nil)
			continue
		}
		return actions, status, actions.Next
	}
}

func (w *worker) planInput(now time.Time) *plan.Input {
	in := &plan.Input{
		Now: now, Pod: w.pod, Observed: w.observed, Stop: w.stop,
		Busy:         make(map[string]plan.Operation, len(w.busy)),
		SandboxBusy:  w.sandboxBusy,
		VolumesReady: w.volumes.ready,
		Started:      map[string]bool{},
		Unhealthy:    map[string]plan.Unhealthy{},
		Restarting:   w.restarting,
		Resizing:     w.resizeInput(),
		Backoff:      w.backoff,
		Hold:         w.hold,
	}
	for name, op := range w.busy {
		in.Busy[name] = op.Operation
	}
	for id, p := range w.probes {
		in.Started[id] = p.started
		if p.unhealthy != nil {
			in.Unhealthy[id] = *p.unhealthy
		}
	}
	return in
}

func (w *worker) statusInput(now time.Time, stopped bool) *podstatus.Input {
	in := &podstatus.Input{
		Now: now, Observed: w.visible(), HostIPs: w.k.node.HostIPs,
		Waiting: w.waiting, Started: map[string]bool{}, Ready: map[string]bool{},
		Failure: w.failure, Rejected: w.rejected, Stopped: stopped, Deleted: w.stop != nil,
		RecursiveReadOnly: w.k.node.RecursiveReadOnly,
	}
	for id, p := range w.probes {
		in.Started[id], in.Ready[id] = p.started, p.ready
	}
	pod := *w.pod
	pod.Status = *w.mergedStatus()
	in.Pod = &pod
	w.resizeStatus(in)
	return in
}

// mergedStatus is the status that was last made, with what others have written since.
func (w *worker) mergedStatus() *corev1.PodStatus {
	status := w.status.DeepCopy()
	api := &w.pod.Status
	status.NominatedNodeName = api.NominatedNodeName
	status.ResourceClaimStatuses = api.ResourceClaimStatuses
	status.ExtendedResourceClaimStatus = api.ExtendedResourceClaimStatus
	if api.QOSClass != "" {
		status.QOSClass = api.QOSClass
	}
	for _, c := range api.Conditions {
		if podstatus.Owned(c.Type) {
			continue
		}
		found := false
		for i := range status.Conditions {
			if status.Conditions[i].Type == c.Type {
				status.Conditions[i], found = c, true
			}
		}
		if !found {
			status.Conditions = append(status.Conditions, c)
		}
	}
	return status
}

// visible is what is observed, except that a container is not yet running while its postStart hook is.
func (w *worker) visible() *cri.Pod {
	if len(w.hooked) == 0 {
		return w.observed
	}
	seen := *w.observed
	seen.Containers = append([]cri.Container(nil), w.observed.Containers...)
	for i := range seen.Containers {
		if c := &seen.Containers[i]; w.hooked[c.ID] && c.State == cri.Running {
			c.State = cri.Created
		}
	}
	return &seen
}

// noteBackoff records which containers wait for their restart, and tells users once.
func (w *worker) noteBackoff(a *plan.Actions) {
	for _, b := range a.BackingOff {
		reason := podstatus.Reason{
			Reason:  "CrashLoopBackOff",
			Message: "back-off " + b.Delay.String() + " restarting failed container=" + b.Name + " pod=" + fullName(w.pod),
		}
		if w.waiting[b.Name] != reason {
			w.waiting[b.Name] = reason
			w.k.events.container(w.pod, b.Name, corev1.EventTypeWarning, "BackOff",
				"Back-off restarting failed container "+b.Name+" in pod "+fullName(w.pod))
		}
	}
}

// checkDeadline ends a pod that was active for too long, and returns when to look again.
func (w *worker) checkDeadline(now time.Time) time.Time {
	limit := w.pod.Spec.ActiveDeadlineSeconds
	if limit == nil || w.stop != nil || w.status.StartTime == nil {
		return time.Time{}
	}
	deadline := w.status.StartTime.Add(time.Duration(*limit) * time.Second)
	if now.Before(deadline) {
		return deadline
	}
	why := podstatus.Reason{Reason: "DeadlineExceeded", Message: "Pod was active on the node longer than the specified deadline"}
	w.k.events.pod(w.pod, corev1.EventTypeNormal, why.Reason, why.Message)
	w.beginStop(w.grace(), &why)
	return time.Time{}
}

// publish makes the status known, here at once and to the API as soon as it can be written.
func (w *worker) publish(status *corev1.PodStatus) {
	ends := final(status.Phase) && !final(w.status.Phase)
	w.status = status
	pod := *w.pod
	pod.Status = *status
	w.current.Store(&pod)
	if ends {
		w.k.serveResizes() // there is room now
	}
	if w.origin == fromRemains || w.removed {
		return
	}
	w.writer.set(status)
}

// final reports whether a pod in that phase has ended for good.
func final(phase corev1.PodPhase) bool {
	return phase == corev1.PodSucceeded || phase == corev1.PodFailed
}
