package kubelet

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/proa-k8s/proa/internal/kubelet/cri"
	"github.com/proa-k8s/proa/internal/kubelet/criconfig"
	"github.com/proa-k8s/proa/internal/kubelet/logs"
	"github.com/proa-k8s/proa/internal/kubelet/plan"
	"github.com/proa-k8s/proa/internal/kubelet/probe"
	"github.com/proa-k8s/proa/internal/kubelet/volumes"
)

// How much of a termination message is kept, in bytes and, if it is taken from the log, in lines.
const (
	maxTerminationMessage = 4096
	maxLogMessage         = 2048
	maxLogLines           = 80
)

// refresh brings what is observed up to date, and reports whether it is.
func (w *worker) refresh() bool {
	if !w.dirty && !w.relist {
		return true
	}
	var fresh *cri.Pod
	var err error
	if w.relist {
		fresh, err = w.k.runtime.ListPod(w.ctx, w.uid)
	} else {
		fresh, err = w.k.runtime.Refresh(w.ctx, w.observed)
	}
	if err != nil {
		if w.ctx.Err() == nil {
			w.log.Warn("asking the runtime about a pod failed", "err", err)
		}
		return false
	}
	fresh.Namespace, fresh.Name = w.pod.Namespace, w.pod.Name
	for i := range fresh.Containers {
		c := &fresh.Containers[i]
		old := w.observed.Container(c.ID)
		switch {
		case c.State != cri.Exited:
		case old != nil && old.State == cri.Exited:
			*c = *old // with its message
		default:
			w.k.terminationMessage(w.pod, c)
		}
	}
	w.observed, w.dirty, w.relist = fresh, false, false
	return true
}

// terminationMessage finds the last words of a container that has ended.
func (k *Kubelet) terminationMessage(pod *corev1.Pod, c *cri.Container) {
	path, policy := c.Annotations[criconfig.TerminationMessagePath], c.Annotations[criconfig.TerminationMessagePolicy]
	if path == "" {
		return
	}
	text := ""
	for _, m := range c.Mounts {
		if m.ContainerPath == path {
			text = readStart(m.HostPath, maxTerminationMessage)
		}
	}
	if text == "" && policy == string(corev1.TerminationMessageFallbackToLogsOnError) && c.ExitCode != 0 && c.LogPath != "" {
		text = logs.Tail(c.LogPath, maxLogLines, maxLogMessage)
	}
	switch {
	case text == "":
	case c.Message == "":
		c.Message = text
	default:
		c.Message += ": " + text
	}
}

func readStart(path string, limit int64) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit))
	if err != nil {
		return ""
	}
	return string(bytes.ToValidUTF8(data, nil))
}

// syncVolumes sets the volumes up, or brings them up to date, when that is due, and returns when it will be.
func (w *worker) syncVolumes(now time.Time) time.Time {
	v := &w.volumes
	if w.stop != nil || v.busy {
		return time.Time{}
	}
	if v.ready && !v.again {
		if v.at.IsZero() || now.Before(v.at) {
			return v.at
		}
	} else if now.Before(v.at) && v.delay > 0 {
		return v.at // after a failure
	}
	v.busy, v.again = true, false
	ctx, cancel := context.WithCancel(w.ctx)
	v.cancel = cancel
	pod := w.pod
	if len(pod.Spec.Volumes) == 0 {
		cancel()
		v.busy, v.ready, v.at, v.cancel = false, true, time.Time{}, nil
		w.post(func() {}) // decide again, now that containers can be started
		return time.Time{}
	}
	w.operate(func() func() {
		refresh, err := w.k.volumes.Setup(ctx, pod)
		return func() {
			v.busy, v.cancel = false, nil
			stopped := ctx.Err() != nil
			cancel()
			if err == nil {
				v.ready, v.at, v.delay = true, refresh, 0
				return
			}
			if stopped {
				return
			}
			w.complain(v.delay == 0, "setting up the volumes of a pod failed", "err", err)
			v.delay = min(max(2*v.delay, firstRetry), volumesRetry)
			v.at = time.Now().Add(v.delay)
			v.again = v.ready // what is there stays in use meanwhile
			for _, e := range volumeErrors(err) {
				w.k.events.pod(pod, corev1.EventTypeWarning, "FailedMount", e)
			}
		}
	})
	return time.Time{}
}

// volumeErrors are the texts of the errors of single volumes.
func volumeErrors(err error) []string {
	var list []string
	var one *volumes.Error
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range many.Unwrap() {
			if errors.As(e, &one) {
				list = append(list, one.Error())
			}
		}
		return list
	}
	return []string{err.Error()}
}

// probeSet is what is known from the probes of one running container.
type probeSet struct {
	cancel  context.CancelFunc // of all
	ctx     context.Context
	started bool
	ready   bool
	// unhealthy is set when the container must be ended.
	unhealthy  *plan.Unhealthy
	stopping   bool // only readiness is asked for any more
	stopOthers context.CancelFunc
}

// syncProbes begins the probes of containers that run and ends those of containers that do not.
func (w *worker) syncProbes() {
	running := map[string]bool{}
	for i := range w.observed.Containers {
		c := &w.observed.Containers[i]
		if c.State != cri.Running || w.hooked[c.ID] {
			continue
		}
		running[c.ID] = true
		if w.probes[c.ID] == nil {
			w.beginProbes(c)
		}
	}
	for id, p := range w.probes {
		if !running[id] {
			p.cancel()
			delete(w.probes, id)
		} else if w.stop != nil && !p.stopping {
			p.stopping = true
			p.stopOthers()
		}
	}
}

func (w *worker) endProbes() {
	for _, p := range w.probes {
		p.cancel()
	}
}

func (w *worker) beginProbes(c *cri.Container) {
	spec := containerByName(w.pod, c.Name)
	p := &probeSet{started: true, ready: true}
	p.ctx, p.cancel = context.WithCancel(w.ctx)
	var others context.Context
	others, p.stopOthers = context.WithCancel(p.ctx)
	w.probes[c.ID] = p
	if spec == nil || w.stop != nil {
		return
	}
	p.started, p.ready = spec.StartupProbe == nil, spec.ReadinessProbe == nil
	// What was reported of the very same container by an earlier run of the agent holds until a probe says otherwise.
	if old := containerStatus(w.status, c.Name); old != nil && old.ContainerID == "containerd://"+c.ID {
		p.started = p.started || old.Started != nil && *old.Started
		p.ready = p.ready || old.Ready
	}
	target := &probe.Target{Pod: w.pod, Container: spec, ContainerID: c.ID, PodIP: w.podIP(), Started: c.StartedAt}
	rest := func() {
		if spec.LivenessProbe != nil {
			w.runProbe(others, target, probe.Liveness, spec.LivenessProbe, probe.Success, func(r probe.Result) {
				if r == probe.Failure {
					p.unhealthy = &plan.Unhealthy{Probe: "liveness", Grace: spec.LivenessProbe.TerminationGracePeriodSeconds}
				}
			})
		}
		if spec.ReadinessProbe != nil {
			initial := probe.Failure
			if p.ready {
				initial = probe.Success
			}
			w.runProbe(p.ctx, target, probe.Readiness, spec.ReadinessProbe, initial, func(r probe.Result) { p.ready = r == probe.Success })
		}
	}
	if p.started {
		rest()
		return
	}
	w.runProbe(others, target, probe.Startup, spec.StartupProbe, probe.Unknown, func(r probe.Result) {
		if r == probe.Failure {
			p.unhealthy = &plan.Unhealthy{Probe: "startup", Grace: spec.StartupProbe.TerminationGracePeriodSeconds}
			return
		}
		p.started = true
		rest()
	})
}

// runProbe runs one probe; its results are taken by the loop.
func (w *worker) runProbe(ctx context.Context, t *probe.Target, kind probe.Kind, spec *corev1.Probe, initial probe.Result, report func(probe.Result)) {
	w.k.wg.Go(func() {
		w.k.prober.Run(ctx, t, kind, spec, initial, func(r probe.Result) {
			w.post(func() {
				if ctx.Err() == nil {
					report(r)
				}
			})
		})
	})
}
