// Package plan decides what to do next for one pod.
//
// What flows in is what is declared (the pod), what is observed (its sandboxes and containers, the results of its
// probes) and what is under way; what flows out are the actions to begin now and the time at which to decide again if
// nothing else happens. Everything here is pure.
package plan

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/proa-k8s/proa/internal/kubelet/cri"
)

// MinimumGrace is what a container is given to end when the grace period of its pod is used up.
const MinimumGrace = 2 * time.Second

// OperationKind is what is being done with a container.
type OperationKind int

// The operations on a container.
const (
	Starting OperationKind = iota + 1
	Killing
)

// Operation is something under way for a container. At most one of each kind is under way for a container name.
type Operation struct {
	Kind OperationKind
	// Deadline of a Killing is when the container is killed by force.
	Deadline time.Time
}

// Stop says that the pod is to end, and since when.
type Stop struct {
	Grace time.Duration
	Since time.Time
}

// Input is everything that a decision rests on.
type Input struct {
	Now      time.Time
	Pod      *corev1.Pod
	Observed *cri.Pod
	// Stop is nil while the pod shall run.
	Stop *Stop

	// Busy are the operations under way, by container name; SandboxBusy says that a sandbox is being made or stopped.
	Busy        map[string]Operation
	SandboxBusy bool
	// VolumesReady says that containers can be started as far as volumes go.
	VolumesReady bool

	// Started are the IDs of running containers whose startup probe, if any, has succeeded.
	Started map[string]bool
	// Unhealthy are the IDs of running containers whose liveness or startup probe failed for good.
	Unhealthy map[string]Unhealthy

	// Restarting are the IDs of containers that were ended in order to be restarted, whatever their exit code.
	Restarting map[string]bool
	// Resizing is nil unless the resources of the pod were changed after its containers were made.
	Resizing *Resizing

	// Backoff is the state of restarts and Hold the earliest time of the next attempt after a failed start, by container name.
	Backoff map[string]Backoff
	Hold    map[string]time.Time
}

// Unhealthy says which probe failed.
type Unhealthy struct {
	Probe string // "liveness" or "startup"
	Grace *int64 // terminationGracePeriodSeconds of the probe, in seconds
}

// Start is a container to start.
type Start struct {
	Container *corev1.Container
	Type      ContainerType
	SandboxID string
	Attempt   uint32
}

// Kill is a container to end. Message is that of the Killing event.
type Kill struct {
	ID      string
	Name    string
	Grace   time.Duration
	Message string
	// Restart says that the container is to be started again, even if by its exit code it would not be.
	Restart bool
}

// BackingOff is a container that must wait for its restart.
type BackingOff struct {
	Name  string
	Delay time.Duration
}

// Actions are what to begin now. They are independent of each other.
type Actions struct {
	CreateSandbox  bool
	SandboxAttempt uint32
	StopSandboxes  []string

	Start []Start
	Kill  []Kill

	// Resize is nil when nothing can be resized now. Resizing says that something is left to resize.
	Resize   *Resize
	Resizing bool

	// BackingOff are the containers that would be started but for their back-off, and Backoff is the state to keep of those
	// that are started again.
	BackingOff []BackingOff
	Backoff    map[string]Backoff

	// Done says that nothing of the pod runs and nothing is under way. Only with Stop.
	Done bool

	// Next is when to decide again at the latest; zero means never.
	Next time.Time
}

func (a *Actions) wakeAt(t time.Time) {
	if a.Next.IsZero() || t.Before(a.Next) {
		a.Next = t
	}
}

// Decide gives the actions that bring the pod nearer to what is declared.
func Decide(in *Input) Actions {
	a := Actions{Backoff: map[string]Backoff{}}
	if in.Stop != nil {
		decideStop(in, &a)
		return a
	}
	sandbox := decideSandbox(in, &a)
	if sandbox == nil {
		return a
	}
	d := decider{Input: in, a: &a, sandbox: sandbox.ID}
	d.tooNarrow = d.resize()
	if d.initialize() {
		for i := range in.Pod.Spec.Containers {
			d.main(&in.Pod.Spec.Containers[i])
		}
	}
	for i := range in.Pod.Spec.EphemeralContainers {
		d.ephemeral(&in.Pod.Spec.EphemeralContainers[i])
	}
	return a
}

// decideSandbox returns the sandbox to run containers in, or nil while there is none.
func decideSandbox(in *Input, a *Actions) *cri.Sandbox {
	if in.SandboxBusy {
		return nil
	}
	sandbox := in.Observed.ReadySandbox()
	if sandbox != nil && !in.Pod.Spec.HostNetwork && len(sandbox.IPs) == 0 {
		sandbox = nil // it lost its network
	}
	for i := range in.Observed.Sandboxes {
		s := &in.Observed.Sandboxes[i]
		if s.State != cri.Exited && s != sandbox {
			a.StopSandboxes = append(a.StopSandboxes, s.ID)
		}
	}
	if sandbox != nil || len(a.StopSandboxes) > 0 {
		return sandbox
	}
	// Containers cannot outlive their sandbox; those that seem to are ended first.
	alive := false
	for i := range in.Observed.Containers {
		if c := &in.Observed.Containers[i]; c.State == cri.Running || c.State == cri.Unknown {
			alive = true
			killOnce(in, a, c, graceOf(in.Pod), fmt.Sprintf("Stopping container %s", c.Name))
		}
	}
	if alive || !worthSandbox(in) {
		return nil
	}
	if at, held := in.Hold[""]; held && in.Now.Before(at) {
		a.wakeAt(at)
		return nil
	}
	a.CreateSandbox = true
	for i := range in.Observed.Sandboxes {
		a.SandboxAttempt = max(a.SandboxAttempt, in.Observed.Sandboxes[i].Attempt+1)
	}
	return nil
}

// worthSandbox reports whether a container is left to start in a new sandbox.
func worthSandbox(in *Input) bool {
	if len(in.Observed.Sandboxes) == 0 || len(in.Observed.Containers) == 0 {
		return true
	}
	if in.Pod.Spec.RestartPolicy == corev1.RestartPolicyNever && !anyRestartable(in.Pod) {
		return false
	}
	for i := range in.Pod.Spec.Containers {
		c := &in.Pod.Spec.Containers[i]
		last := in.Observed.Newest(c.Name)
		if last == nil || last.State != cri.Exited || ShouldRestart(in.Pod, c, last.ExitCode) {
			return true
		}
	}
	return false
}

func anyRestartable(pod *corev1.Pod) bool {
	for i := range pod.Spec.Containers {
		if c := &pod.Spec.Containers[i]; c.RestartPolicy != nil && *c.RestartPolicy != corev1.ContainerRestartPolicyNever ||
			len(c.RestartPolicyRules) > 0 {
			return true
		}
	}
	return false
}

// decider decides about the containers in a sandbox that is ready.
type decider struct {
	*Input
	a       *Actions
	sandbox string
	// tooNarrow says that containers are not started before the cgroup of the pod has room for them.
	tooNarrow bool
}

// current is the newest container of that name in the sandbox.
func (d *decider) current(name string) *cri.Container {
	if c := d.Observed.Newest(name); c != nil && c.SandboxID == d.sandbox {
		return c
	}
	return nil
}

// initialize takes care of init containers and reports whether the main containers may run.
func (d *decider) initialize() bool {
	initialized := Initialized(d.Pod, d.Observed)
	for i := range d.Pod.Spec.InitContainers {
		c := &d.Pod.Spec.InitContainers[i]
		last := d.current(c.Name)
		if Restartable(c) {
			running := d.keep(c, Sidecar, last)
			if !initialized && (!running || !d.Started[last.ID]) {
				return false
			}
			continue
		}
		if initialized {
			continue
		}
		switch {
		case last == nil || last.State == cri.Created:
			d.start(c, Init, last)
			return false
		case last.State != cri.Exited:
			d.keep(c, Init, last)
			return false
		case last.ExitCode != 0 || d.Restarting[last.ID]:
			if d.Restarting[last.ID] || ShouldRestart(d.Pod, c, last.ExitCode) {
				d.start(c, Init, last)
			}
			return false
		}
		if _, busy := d.Busy[c.Name]; busy {
			return false // it ended but its start is not yet accounted for
		}
	}
	return true
}

// keep keeps a container running that restarts whatever its exit code was, and reports whether it is running.
func (d *decider) keep(c *corev1.Container, kind ContainerType, last *cri.Container) bool {
	if last == nil || last.State == cri.Created || last.State == cri.Exited {
		d.start(c, kind, last)
		return false
	}
	return d.check(c, last, true)
}

// main takes care of a main container.
func (d *decider) main(c *corev1.Container) {
	last := d.current(c.Name)
	switch {
	case last == nil:
		// A container that ended in an earlier sandbox is not run again for the sandbox's sake alone.
		if old := d.Observed.Newest(c.Name); old != nil && old.State == cri.Exited && !old.StartedAt.IsZero() &&
			!ShouldRestart(d.Pod, c, old.ExitCode) {
			return
		}
		d.start(c, Main, nil)
	case last.State == cri.Created:
		d.start(c, Main, last)
	case last.State == cri.Exited:
		if d.Restarting[last.ID] || ShouldRestart(d.Pod, c, last.ExitCode) {
			d.start(c, Main, last)
		}
	default:
		d.check(c, last, ShouldRestart(d.Pod, c, 137))
	}
}

// check ends a running container that must not go on, and reports whether it may.
func (d *decider) check(c *corev1.Container, last *cri.Container, restarts bool) bool {
	grace := graceOf(d.Pod)
	var why string
	if last.State == cri.Unknown {
		killOnce(d.Input, d.a, last, grace, "Container is in unknown state, try killing it before restart")
		return false
	}
	if hash := last.Annotations[HashAnnotation]; hash != "" && hash != Hash(c) {
		why, restarts = fmt.Sprintf("Container %s definition changed", c.Name), true
	} else if bad, ok := d.Unhealthy[last.ID]; ok {
		why = fmt.Sprintf("Container %s failed %s probe", c.Name, bad.Probe)
		if bad.Grace != nil {
			grace = time.Duration(*bad.Grace) * time.Second
		}
	}
	if why == "" {
		return true
	}
	if restarts {
		killToRestart(d.Input, d.a, last, grace, why+", will be restarted")
	} else {
		killOnce(d.Input, d.a, last, grace, why)
	}
	return false
}

// ephemeral starts an ephemeral container; it is never started twice.
func (d *decider) ephemeral(e *corev1.EphemeralContainer) {
	if last := d.Observed.Newest(e.Name); last == nil || last.State == cri.Created {
		c := corev1.Container(e.EphemeralContainerCommon)
		d.start(&c, Ephemeral, last)
	}
}

// start starts a container unless something is in the way.
func (d *decider) start(c *corev1.Container, kind ContainerType, last *cri.Container) {
	if _, busy := d.Busy[c.Name]; busy || !d.VolumesReady || d.tooNarrow || kind == Main && d.earlierStarting(c.Name) {
		return
	}
	if at, held := d.Hold[c.Name]; held && d.Now.Before(at) {
		d.a.wakeAt(at)
		return
	}
	if last != nil && last.State == cri.Exited && !d.restartsForResize(c, last) {
		b := d.Backoff[c.Name]
		if until := b.Until(last.FinishedAt); d.Now.Before(until) {
			d.a.BackingOff = append(d.a.BackingOff, BackingOff{Name: c.Name, Delay: b.Delay})
			d.a.wakeAt(until)
			return
		}
		d.a.Backoff[c.Name] = b.Next(d.Now, last.FinishedAt)
	}
	var attempt uint32
	if before := d.Observed.Newest(c.Name); before != nil {
		attempt = before.Attempt + 1
	}
	d.a.Start = append(d.a.Start, Start{Container: c, Type: kind, SandboxID: d.sandbox, Attempt: attempt})
}

// earlierStarting reports whether a main container that is declared before name is being started, or is about to: they
// are started one after the other, so that a postStart hook holds up those that follow.
func (d *decider) earlierStarting(name string) bool {
	for i := range d.Pod.Spec.Containers {
		c := &d.Pod.Spec.Containers[i]
		if c.Name == name {
			return false
		}
		if d.Busy[c.Name].Kind == Starting {
			return true
		}
		for j := range d.a.Start {
			if d.a.Start[j].Container.Name == c.Name {
				return true
			}
		}
	}
	return false
}

// killOnce ends a container unless that is under way already and will not take longer.
func killOnce(in *Input, a *Actions, c *cri.Container, grace time.Duration, message string) {
	if op, busy := in.Busy[c.Name]; busy {
		if op.Kind != Killing || !in.Now.Add(grace).Before(op.Deadline) {
			return
		}
	}
	a.Kill = append(a.Kill, Kill{ID: c.ID, Name: c.Name, Grace: grace, Message: message})
}

// killToRestart ends a container in order to start it again.
func killToRestart(in *Input, a *Actions, c *cri.Container, grace time.Duration, message string) {
	before := len(a.Kill)
	killOnce(in, a, c, grace, message)
	for i := before; i < len(a.Kill); i++ {
		a.Kill[i].Restart = true
	}
}

// graceOf is the grace period of the pod while it is not being deleted.
func graceOf(pod *corev1.Pod) time.Duration {
	if s := pod.Spec.TerminationGracePeriodSeconds; s != nil {
		return time.Duration(*s) * time.Second
	}
	return 30 * time.Second
}
