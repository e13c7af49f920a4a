package kubelet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/proa-k8s/proa/internal/kubelet/cri"
	"github.com/proa-k8s/proa/internal/kubelet/criconfig"
	"github.com/proa-k8s/proa/internal/kubelet/images"
	"github.com/proa-k8s/proa/internal/kubelet/plan"
	"github.com/proa-k8s/proa/internal/kubelet/podstatus"
	"github.com/proa-k8s/proa/internal/kubelet/volumes"
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
	w.sandboxBusy = true
	w.operate(func() func() {
		sandbox, err := w.makeSandbox(pod, attempt)
		return func() {
			w.sandboxBusy = false
			if err == nil {
				w.sandboxWait = 0
				delete(w.hold, "")
				w.observed.Sandboxes = append([]cri.Sandbox{*sandbox}, w.observed.Sandboxes...)
				return
			}
			w.relist = true
			w.log.Warn("making the sandbox of a pod failed", "err", err)
			w.k.events.pod(pod, corev1.EventTypeWarning, "FailedCreatePodSandBox", "Failed to create pod sandbox: "+err.Error())
			w.sandboxWait = min(max(2*w.sandboxWait, firstRetry), lastRetry)
			w.hold[""] = time.Now().Add(w.sandboxWait)
		}
	})
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
			} else if !stopping {
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
	if old := containerStatus(w.status, name); old != nil && s.Attempt == 0 && old.ContainerID != "" {
		job.Attempt = uint32(old.RestartCount) + 1 // its earlier instances were removed
	}
	if last := w.observed.Newest(name); last != nil && last.State == cri.Created {
		job.stale = last.ID
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
	w.log.Info("a container could not be started", "container", name, "reason", e.Reason.Reason, "err", e.Message)
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

// startJob is the start of one container. It runs beside the loop and has what it needs of the loop's state.
type startJob struct {
	plan.Start
	w      *worker
	pod    *corev1.Pod
	podIPs []string
	stale  string // ID of a container that was made by an earlier attempt and never started
}

func (j *startJob) run(ctx context.Context) error {
	k, c := j.w.k, j.Container
	sandbox, err := k.node.Sandbox(j.pod, 0)
	if err != nil {
		return err
	}
	spec, user, imageVolumes, err := j.images(ctx, sandbox)
	if err != nil {
		return err
	}
	config, err := j.config(ctx, spec, user, imageVolumes)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return &startError{Reason: podstatus.Reason{Reason: "CreateContainerConfigError", Message: err.Error()}, event: "Error: " + err.Error()}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	// From here on the start is not interrupted: a request that is cut off would leave it unknown what exists.
	request, cancel := j.w.request(0)
	defer cancel()
	if j.stale != "" {
		if _, err := k.runtime.Runtime.RemoveContainer(request, &runtimeapi.RemoveContainerRequest{ContainerId: j.stale}); err != nil {
			return fmt.Errorf("removing the container of an earlier attempt: %w", err)
		}
	}
	created, err := k.runtime.Runtime.CreateContainer(request, &runtimeapi.CreateContainerRequest{
		PodSandboxId: j.SandboxID, Config: config, SandboxConfig: sandbox,
	})
	if err != nil {
		text := cri.ErrorText(err)
		return &startError{Reason: podstatus.Reason{Reason: "CreateContainerError", Message: text}, event: "Error: " + text}
	}
	id := created.ContainerId
	hook := (*corev1.LifecycleHandler)(nil)
	if c.Lifecycle != nil {
		hook = c.Lifecycle.PostStart
	}
	attempt := j.Attempt
	j.w.post(func() {
		w := j.w
		w.observed.Containers = append([]cri.Container{{
			ID: id, Name: c.Name, SandboxID: j.SandboxID, Attempt: attempt, State: cri.Created, CreatedAt: time.Now(),
		}}, w.observed.Containers...)
		if hook != nil {
			w.hooked[id] = true
		}
	})
	k.events.container(j.pod, c.Name, corev1.EventTypeNormal, "Created", "Container created")
	if _, err := k.runtime.Runtime.StartContainer(request, &runtimeapi.StartContainerRequest{ContainerId: id}); err != nil {
		text := cri.ErrorText(err)
		j.w.post(func() { delete(j.w.hooked, id) })
		return &startError{Reason: podstatus.Reason{Reason: "RunContainerError", Message: text}, event: "Error: " + text}
	}
	k.events.container(j.pod, c.Name, corev1.EventTypeNormal, "Started", "Container started")
	if hook == nil {
		return nil
	}
	defer j.w.post(func() { delete(j.w.hooked, id) })
	return j.postStart(ctx, hook, id)
}

// postStart runs the hook; a container whose hook fails is ended.
func (j *startJob) postStart(ctx context.Context, hook *corev1.LifecycleHandler, id string) error {
	k, c := j.w.k, j.Container
	ip := ""
	if len(j.podIPs) > 0 {
		ip = j.podIPs[0]
	}
	err := k.hooks.Run(ctx, hook, c, id, ip)
	if err == nil || ctx.Err() != nil {
		return nil // the end of the pod ends the container
	}
	j.w.log.Warn("a postStart hook failed", "container", c.Name, "err", err)
	k.events.container(j.pod, c.Name, corev1.EventTypeWarning, "FailedPostStartHook", "PostStartHook failed")
	k.events.container(j.pod, c.Name, corev1.EventTypeNormal, "Killing", "FailedPostStartHook")
	grace := int64(30)
	if s := j.pod.Spec.TerminationGracePeriodSeconds; s != nil {
		grace = *s
	}
	request, cancel := j.w.request(time.Duration(grace) * time.Second)
	defer cancel()
	if _, err := k.runtime.Runtime.StopContainer(request, &runtimeapi.StopContainerRequest{ContainerId: id, Timeout: grace}); err != nil && !cri.IsNotFound(err) {
		j.w.log.Warn("ending a container after its postStart hook failed", "container", c.Name, "err", err)
	}
	return &startError{Reason: podstatus.Reason{Reason: "PostStartHookError", Message: err.Error()}, retry: time.Millisecond}
}

// images makes the image of the container, and those of its volumes, be there.
func (j *startJob) images(ctx context.Context, sandbox *runtimeapi.PodSandboxConfig) (*runtimeapi.ImageSpec, criconfig.ImageUser, map[string]*runtimeapi.ImageSpec, error) {
	k := j.w.k
	handler, err := k.runtimeHandler(ctx, j.pod)
	if err != nil {
		return nil, criconfig.ImageUser{}, nil, err
	}
	request := &images.Request{
		Pod: j.pod, Container: j.Container.Name, Image: j.Container.Image, Policy: j.Container.ImagePullPolicy,
		Sandbox: sandbox, Secrets: k.pullSecrets(ctx, j.pod), RuntimeHandler: handler,
	}
	spec, user, err := k.images.Ensure(ctx, request)
	if err != nil {
		return nil, user, nil, imageStartError(err)
	}
	volumeImages := map[string]*runtimeapi.ImageSpec{}
	for i := range j.Container.VolumeMounts {
		v := volumeByName(j.pod, j.Container.VolumeMounts[i].Name)
		if v == nil || v.Image == nil || volumeImages[v.Name] != nil {
			continue
		}
		request.Image, request.Policy = v.Image.Reference, v.Image.PullPolicy
		if volumeImages[v.Name], _, err = k.images.Ensure(ctx, request); err != nil {
			return nil, user, nil, imageStartError(err)
		}
	}
	return spec, user, volumeImages, nil
}

func imageStartError(err error) error {
	var e *images.Error
	if !errors.As(err, &e) {
		return err
	}
	return &startError{Reason: podstatus.Reason{Reason: e.Reason, Message: e.Message}, retry: e.Retry, event: "Error: " + e.Reason}
}

// config makes the configuration of the container, with its environment and mounts.
func (j *startJob) config(ctx context.Context, spec *runtimeapi.ImageSpec, user criconfig.ImageUser, imageVolumes map[string]*runtimeapi.ImageSpec) (*runtimeapi.ContainerConfig, error) {
	k, c := j.w.k, j.Container
	if j.w.origin != fromFile { // a static pod runs without the API
		if err := k.services.wait(ctx); err != nil {
			return nil, err
		}
	}
	env, err := k.node.Env(ctx, k.sources(j.pod), j.pod, c, j.podIPs)
	if err != nil {
		return nil, err
	}
	values := make(map[string]string, len(env))
	for _, kv := range env {
		values[kv.Key] = string(kv.Value)
	}
	mounts, err := k.volumes.Mounts(j.pod, c, volumes.MountOptions{
		RecursiveReadOnly: k.node.RecursiveReadOnly,
		Images:            imageVolumes,
		Expand:            func(s string) (string, error) { return criconfig.ExpandStrict(s, values) },
	})
	if err != nil {
		return nil, err
	}
	mounted := criconfig.Mounted{Mounts: mounts}
	if mounted.HostsFile, err = j.hostsFile(); err != nil {
		return nil, err
	}
	if mounted.TerminationLog, err = j.terminationLog(); err != nil {
		return nil, err
	}
	config, err := k.node.Container(ctx, j.pod, c, j.Attempt, spec, user, env, mounted)
	if err != nil {
		return nil, err
	}
	if o := config.Linux.SecurityContext.NamespaceOptions; o.Pid == runtimeapi.NamespaceMode_TARGET {
		target := j.w.targetID(o.TargetId)
		if target == "" {
			return nil, fmt.Errorf("unable to find target container %q", o.TargetId)
		}
		o.TargetId = target
	}
	recordHook(config, c)
	return config, nil
}

// hostsFile writes the /etc/hosts that the pod's containers share.
func (j *startJob) hostsFile() (string, error) {
	k := j.w.k
	var host []byte
	if j.pod.Spec.HostNetwork {
		var err error
		if host, err = os.ReadFile("/etc/hosts"); err != nil && !os.IsNotExist(err) {
			return "", err
		}
	} else if len(j.podIPs) == 0 {
		return "", nil
	}
	text, err := k.node.Hosts(j.pod, j.podIPs, host)
	if err != nil {
		return "", err
	}
	path := filepath.Join(k.volumes.PodDir(j.pod.UID), "etc-hosts")
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return "", err
	}
	if err := os.WriteFile(path, text, 0o644); err != nil {
		return "", err
	}
	return path, os.Chmod(path, 0o644)
}

// terminationLog makes the file that the container may leave its last words in.
func (j *startJob) terminationLog() (string, error) {
	if j.Container.TerminationMessagePath == "" {
		return "", nil
	}
	path := filepath.Join(j.w.k.volumes.PodDir(j.pod.UID), "containers", j.Container.Name, fmt.Sprintf("%08x", j.Attempt))
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return "", err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_RDONLY, 0o666)
	if err != nil {
		return "", err
	}
	return path, errors.Join(f.Chmod(0o666), f.Close())
}
