// Package probe asks containers how they are.
//
// What flows in are a container and the probe that it declares; what flows out is a Result each time it changes: the
// count of equal answers has reached the threshold. Each probe is one goroutine with a timer of its own.
package probe

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Kind is what a probe is for.
type Kind string

// The kinds of probes, as events name them.
const (
	Startup   Kind = "Startup"
	Readiness Kind = "Readiness"
	Liveness  Kind = "Liveness"
)

// Result is what a probe has found.
type Result int

// The results. Unknown is the result before the first, and of a probe that could not be made.
const (
	Unknown Result = iota
	Success
	Failure
)

// Target is the container that is probed.
type Target struct {
	Pod         *corev1.Pod
	Container   *corev1.Container
	ContainerID string
	PodIP       string
	Started     time.Time
}

// Prober makes probes. It may be used by many goroutines.
type Prober struct {
	// Exec runs a command in a container.
	Exec func(ctx context.Context, id string, command []string, timeout time.Duration) (output []byte, exitCode int32, err error)
	// Event is told what users are to see about a probe.
	Event func(t *Target, reason, message string)
}

// The reasons of events.
const (
	Unhealthy    = "Unhealthy"
	ProbeWarning = "ProbeWarning"
)

// counter turns answers into results by the thresholds of a probe.
type counter struct {
	last    Result
	run     int32
	current Result
}

// add takes an answer and reports whether the result has changed. decided is set once a threshold was reached.
func (c *counter) add(answer Result, p *corev1.Probe) (changed bool) {
	if answer == c.last {
		c.run++
	} else {
		c.last, c.run = answer, 1
	}
	need := max(p.FailureThreshold, 1)
	if answer == Success {
		need = max(p.SuccessThreshold, 1)
	}
	if c.run < need || c.current == answer {
		return false
	}
	c.current = answer
	return true
}

// Run probes the target until ctx is done, or until a startup or liveness probe has failed for good, or a startup probe
// has succeeded. initial is the result that is known already. report is called on each change, from this goroutine.
func (p *Prober) Run(ctx context.Context, t *Target, kind Kind, spec *corev1.Probe, initial Result, report func(Result)) {
	period := time.Duration(max(spec.PeriodSeconds, 1)) * time.Second
	first := time.Until(t.Started.Add(time.Duration(spec.InitialDelaySeconds) * time.Second))
	if age := time.Since(t.Started); age > period+time.Duration(spec.InitialDelaySeconds)*time.Second {
		// The container is older than the agent: many such begin to be probed at once.
		first = rand.N(period)
	}
	timer := time.NewTimer(max(first, 0))
	defer timer.Stop()
	c := counter{current: initial}
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		began := time.Now()
		answer, ok := p.once(ctx, t, kind, spec)
		if ctx.Err() != nil {
			return
		}
		if ok && c.add(answer, spec) {
			report(answer)
			if kind == Startup || kind == Liveness && answer == Failure {
				return
			}
		}
		timer.Reset(max(period-time.Since(began), 0))
	}
}

// once makes one probe, again at once if it could not be made, and tells users when it failed. ok is false when it says
// nothing.
func (p *Prober) once(ctx context.Context, t *Target, kind Kind, spec *corev1.Probe) (answer Result, ok bool) {
	const attempts = 3
	var output string
	var warning bool
	var err error
	for range attempts {
		if answer, output, warning, err = p.ask(ctx, t, spec); err == nil || ctx.Err() != nil {
			break
		}
	}
	switch {
	case ctx.Err() != nil:
		return Unknown, false
	case err != nil:
		p.Event(t, Unhealthy, fmt.Sprintf("%s probe errored and resulted in unknown state: %v", kind, err))
		return Unknown, false
	case answer == Failure:
		p.Event(t, Unhealthy, fmt.Sprintf("%s probe failed: %s", kind, output))
	case warning:
		p.Event(t, ProbeWarning, fmt.Sprintf("%s probe warning: %s", kind, output))
	}
	return answer, true
}

// ask makes one probe. err says that it could not be made.
func (p *Prober) ask(ctx context.Context, t *Target, spec *corev1.Probe) (answer Result, output string, warning bool, err error) {
	timeout := time.Duration(max(spec.TimeoutSeconds, 1)) * time.Second
	switch {
	case spec.Exec != nil:
		answer, output, err = p.exec(ctx, t, spec.Exec.Command, timeout)
	case spec.HTTPGet != nil:
		answer, output, warning, err = httpGet(ctx, t, spec.HTTPGet, timeout)
	case spec.TCPSocket != nil:
		answer, output, err = tcpSocket(ctx, t, spec.TCPSocket, timeout)
	case spec.GRPC != nil:
		answer, output = grpcCheck(ctx, t, spec.GRPC, timeout)
	default:
		err = fmt.Errorf("missing probe handler for %s:%s", t.Pod.Name, t.Container.Name)
	}
	return answer, output, warning, err
}
