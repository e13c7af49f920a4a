package kubelet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/proa-k8s/proa/internal/kubelet/allocation"
	"github.com/proa-k8s/proa/internal/kubelet/cri"
	"github.com/proa-k8s/proa/internal/kubelet/criconfig"
	"github.com/proa-k8s/proa/internal/kubelet/images"
	"github.com/proa-k8s/proa/internal/kubelet/plan"
	"github.com/proa-k8s/proa/internal/kubelet/podstatus"
	"github.com/proa-k8s/proa/internal/kubelet/volumes"
)

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
	config.Annotations[allocation.Annotation] = allocation.Recorded(&c.Resources)
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
