package kubelet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/proa-k8s/proa/internal/kubelet/cri"
	"github.com/proa-k8s/proa/internal/kubelet/plan"
	"github.com/proa-k8s/proa/internal/kubelet/podstatus"
)

// The delays between attempts at what failed.
const (
	firstRetry   = 500 * time.Millisecond
	lastRetry    = 10 * time.Second
	volumesRetry = 2 * time.Minute
)

// requestTimeout bounds a request to the runtime, which may have to wait for a slow disk or network plugin.
const requestTimeout = 4 * time.Minute

// request bounds a request to the runtime that is to take at most extra longer than usual. It is not cut off by the end
// of the pod, which would leave it unknown what exists.
func (w *worker) request(extra time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(w.ctx, requestTimeout+extra)
}

// operate runs f beside the loop. What f returns is run by the loop.
func (w *worker) operate(f func() func()) {
	w.operations++
	w.k.wg.Go(func() {
		after := f()
		w.post(func() {
			w.operations--
			if after != nil {
				after()
			}
		})
	})
}

// execute begins what was planned.
func (w *worker) execute(a *plan.Actions) {
	maps.Copy(w.backoff, a.Backoff)
	if len(a.StopSandboxes) > 0 && !w.sandboxBusy {
		w.stopSandboxes(a.StopSandboxes)
	}
	if a.CreateSandbox {
		w.createSandbox(a.SandboxAttempt)
	}
	for i := range a.Kill {
		w.kill(a.Kill[i])
	}
	for i := range a.Start {
		w.start(a.Start[i])
	}
	if a.Resize != nil {
		w.resizeInPlace(a.Resize)
	}
}

// createSandbox makes a sandbox: the pod's cgroup, its namespaces and its network.
func (w *worker) createSandbox(attempt uint32) {
	if !w.pod.Spec.HostNetwork && !w.k.networkReady.Load() {
		if w.sandboxWait == 0 {
			w.k.events.pod(w.pod, corev1.EventTypeWarning, "NetworkNotReady", "network is not ready: container runtime network not ready")
		}
		w.sandboxWait = firstRetry
		w.hold[""] = time.Now().Add(lastRetry) // the network's readiness wakes everyone
		return
	}
	pod := w.pod
	if len(w.observed.Sandboxes) > 0 {
		w.k.events.pod(pod, corev1.EventTypeNormal, "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.")
	}
	w.sandboxBusy = true
	w.operate(func() func() {
		sandbox, err := w.makeSandbox(pod, attempt)
		return func() {
			w.sandboxBusy = false
			if err == nil {
				w.sandboxWait = 0
				delete(w.hold, "")
				if state := w.resize.state; state != nil {
					state.Cgroup, state.Pod = w.k.cgroups.Limits(pod), pod.Spec.Resources
					w.saveAllocation()
				}
				w.observed.Sandboxes = append([]cri.Sandbox{*sandbox}, w.observed.Sandboxes...)
				return
			}
			w.relist = true
			w.complain(w.sandboxWait == 0, "making the sandbox of a pod failed", "err", err)
			w.k.events.pod(pod, corev1.EventTypeWarning, "FailedCreatePodSandBox", "Failed to create pod sandbox: "+err.Error())
			w.sandboxWait = min(max(2*w.sandboxWait, firstRetry), lastRetry)
			w.hold[""] = time.Now().Add(w.sandboxWait)
		}
	})
}

// complain logs what failed: the first time as a warning, then, when it fails again, for debugging only. Events tell users of
// each attempt.
func (w *worker) complain(first bool, message string, attrs ...any) {
	level := slog.LevelDebug
	if first {
		level = slog.LevelWarn
	}
	w.log.Log(w.ctx, level, message, attrs...)
}

func (w *worker) makeSandbox(pod *corev1.Pod, attempt uint32) (*cri.Sandbox, error) {
	if pod.Spec.HostUsers != nil && !*pod.Spec.HostUsers {
		return nil, errors.New("user namespaces (hostUsers: false) are not supported by this node")
	}
	config, err := w.k.node.Sandbox(pod, attempt)
	if err != nil {
		return nil, err
	}
	if err := w.k.cgroups.SetupPod(pod); err != nil {
		return nil, fmt.Errorf("making the pod's cgroup: %w", err)
	}
	if err := os.MkdirAll(config.LogDirectory, 0o755); err != nil {
		return nil, err
	}
	handler, err := w.k.runtimeHandler(w.ctx, pod)
	if err != nil {
		return nil, err
	}
	ctx, cancel := w.request(0)
	defer cancel()
	made, err := w.k.runtime.Runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: config, RuntimeHandler: handler})
	if err != nil {
		return nil, err
	}
	answer, err := w.k.runtime.Runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: made.PodSandboxId})
	if err != nil {
		return nil, err
	}
	sandbox := cri.SandboxFrom(answer.Status)
	return &sandbox, nil
}

// stopSandboxes takes down sandboxes with their network.
func (w *worker) stopSandboxes(ids []string) {
	w.sandboxBusy = true
	w.operate(func() func() {
		var errs []error
		ctx, cancel := w.request(0)
		defer cancel()
		for _, id := range ids {
			_, err := w.k.runtime.Runtime.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: id})
			if err != nil && !cri.IsNotFound(err) {
				errs = append(errs, err)
			}
		}
		err := errors.Join(errs...)
		return func() {
			w.sandboxBusy, w.dirty = false, true
			if err == nil {
				delete(w.hold, "")
				return
			}
			w.log.Warn("stopping the sandbox of a pod failed", "err", err)
			w.k.events.pod(w.pod, corev1.EventTypeWarning, "FailedKillPod", "error killing pod: failed to \"KillPodSandbox\": "+err.Error())
			w.sandboxWait = min(max(2*w.sandboxWait, firstRetry), lastRetry)
			w.hold[""] = time.Now().Add(w.sandboxWait)
		}
	})
}

// begin notes an operation on a container; the function that it returns notes its end.
func (w *worker) begin(name string, op plan.Operation) (end func()) {
	w.serial++
	serial := w.serial
	w.busy[name] = operation{op, serial}
	return func() {
		if w.busy[name].serial == serial {
			delete(w.busy, name)
		}
	}
}

// kill ends a container: its preStop hook, its stop signal, and force when its grace is over.
func (w *worker) kill(a plan.Kill) {
	pod, podIP := w.pod, w.podIP()
	container := containerByName(pod, a.Name)
	running := w.observed.Container(a.ID)
	if w.origin == fromRemains && running != nil {
		container = withRecordedHook(container, running.Annotations)
	}
	again := w.busy[a.Name].Kind == plan.Killing
	end := w.begin(a.Name, plan.Operation{Kind: plan.Killing, Deadline: time.Now().Add(a.Grace)})
	if !again {
		w.k.events.container(pod, a.Name, corev1.EventTypeNormal, "Killing", a.Message)
	}
	stopping := w.stop != nil
	if a.Restart {
		// However it ends, it has not come to its end.
		w.restarting[a.ID] = true
		w.waiting[a.Name] = podstatus.Reason{Reason: podstatus.ContainerCreating}
	}
	w.operate(func() func() {
		deadline := time.Now().Add(a.Grace)
		if hook := preStop(container); hook != nil && a.Grace > 0 && !again {
			ctx, cancel := context.WithDeadline(w.ctx, deadline)
			err := w.k.hooks.Run(ctx, hook, container, a.ID, podIP)
			cancel()
			if err != nil && w.ctx.Err() == nil {
				w.log.Warn("a preStop hook failed", "container", a.Name, "err", err)
				w.k.events.container(pod, a.Name, corev1.EventTypeWarning, "FailedPreStopHook", "PreStopHook failed")
			}
		}
		left := time.Until(deadline)
		if a.Grace > 0 {
			left = max(left, min(plan.MinimumGrace, a.Grace)) // a hook may not use up all of it
		}
		ctx, cancel := w.request(left)
		defer cancel()
		_, err := w.k.runtime.Runtime.StopContainer(ctx, &runtimeapi.StopContainerRequest{
			ContainerId: a.ID, Timeout: int64((max(left, 0) + time.Second - 1) / time.Second),
		})
		return func() {
			end()
			w.dirty = true
			delete(w.hold, a.Name)
			if err != nil && !cri.IsNotFound(err) {
				w.log.Warn("ending a container failed", "container", a.Name, "err", err)
				w.k.events.container(pod, a.Name, corev1.EventTypeWarning, "FailedKillPod", "error killing container: "+err.Error())
				w.hold[a.Name] = time.Now().Add(firstRetry)
			} else if !stopping && !a.Restart {
				delete(w.waiting, a.Name)
			}
		}
	})
}

func preStop(c *corev1.Container) *corev1.LifecycleHandler {
	if c == nil || c.Lifecycle == nil {
		return nil
	}
	return c.Lifecycle.PreStop
}

// startError is why a container could not be started: what its status shows.
type startError struct {
	podstatus.Reason
	retry time.Duration // 0: by growing delay
	// event is the text of the Failed event; empty when users were told already.
	event string
}

func (e *startError) Error() string { return e.Reason.Reason + ": " + e.Message }

// start makes and starts a container.
func (w *worker) start(s plan.Start) {
	ctx, cancel := context.WithCancel(w.ctx)
	name := s.Container.Name
	w.cancelStart[name] = cancel
	end := w.begin(name, plan.Operation{Kind: plan.Starting})
	job := startJob{w: w, pod: w.pod, Start: s, podIPs: w.podIPs()}
	replaced := ""
	if old := containerStatus(w.status, name); old != nil && s.Attempt == 0 && old.ContainerID != "" {
		job.Attempt = uint32(old.RestartCount) + 1 // its earlier instances were removed
	}
	if last := w.observed.Newest(name); last != nil {
		replaced = last.ID
		if last.State == cri.Created {
			job.stale = last.ID
		}
	}
	w.operate(func() func() {
		err := job.run(ctx)
		return func() {
			cancel()
			end()
			delete(w.cancelStart, name)
			w.dirty = true
			if err == nil {
				delete(w.waiting, name)
				delete(w.hold, name)
				delete(w.startFails, name)
				delete(w.restarting, replaced)
				return
			}
			w.startFailed(&job, err)
		}
	})
}

// startFailed records why, and when to try again.
func (w *worker) startFailed(job *startJob, err error) {
	w.relist = true
	if w.stop != nil {
		return
	}
	name := job.Container.Name
	var e *startError
	if !errors.As(err, &e) {
		e = &startError{Reason: podstatus.Reason{Reason: "CreateContainerError", Message: err.Error()}, event: "Error: " + err.Error()}
	}
	w.complain(w.startFails[name] == 0 || w.waiting[name].Reason != e.Reason.Reason,
		"a container could not be started", "container", name, "reason", e.Reason.Reason, "err", e.Message)
	if e.event != "" {
		w.k.events.container(job.pod, name, corev1.EventTypeWarning, "Failed", e.event)
	}
	w.waiting[name] = e.Reason
	w.startFails[name]++
	if e.retry == 0 {
		e.retry = min(firstRetry<<min(w.startFails[name], 6), lastRetry)
	}
	w.hold[name] = time.Now().Add(e.retry)
}
