package podstatus

import (
	"cmp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-k8s/proa/internal/kubelet/cri"
	"github.com/proa-k8s/proa/internal/kubelet/criconfig"
	"github.com/proa-k8s/proa/internal/kubelet/plan"
)

// ContainerID is a container's ID as users see it.
func ContainerID(id string) string { return "containerd://" + id }

type generator struct {
	*Input
	old *corev1.PodStatus
}

func (g *generator) list(containers []corev1.Container, old []corev1.ContainerStatus, init bool) []corev1.ContainerStatus {
	var list []corev1.ContainerStatus
	for i := range containers {
		c := &containers[i]
		kind := plan.Main
		if init {
			kind = plan.Init
			if plan.Restartable(c) {
				kind = plan.Sidecar
			}
		}
		list = append(list, g.container(c, find(old, c.Name), kind))
	}
	return list
}

func (g *generator) ephemeral() []corev1.ContainerStatus {
	var list []corev1.ContainerStatus
	for i := range g.Pod.Spec.EphemeralContainers {
		c := corev1.Container(g.Pod.Spec.EphemeralContainers[i].EphemeralContainerCommon)
		list = append(list, g.container(&c, find(g.old.EphemeralContainerStatuses, c.Name), plan.Ephemeral))
	}
	slices.SortFunc(list, func(a, b corev1.ContainerStatus) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// container is the status of one container.
func (g *generator) container(c *corev1.Container, old *corev1.ContainerStatus, kind plan.ContainerType) corev1.ContainerStatus {
	all := g.Observed.All(c.Name)
	if len(all) > 0 && all[0].State == cri.Created {
		all = all[1:] // created and not started: it is as good as not there
	}
	if len(all) == 0 {
		return g.absent(c, old, kind)
	}
	current := all[0]
	s := corev1.ContainerStatus{
		Name:         c.Name,
		RestartCount: int32(current.Attempt),
		Image:        current.Image,
		ImageID:      current.ImageRef,
		ContainerID:  ContainerID(current.ID),
		State:        state(current),
		StopSignal:   stopSignal(c, current),
	}
	if len(all) > 1 {
		s.LastTerminationState.Terminated = state(all[1]).Terminated
	} else if old != nil && old.ContainerID != "" && old.ContainerID == s.ContainerID {
		s.LastTerminationState = old.LastTerminationState // the one before was removed meanwhile
	} else if old != nil && old.State.Terminated != nil {
		s.LastTerminationState = old.State
	}
	if current.Name == c.Name && current.Image == "" {
		s.Image = c.Image
	}
	if why, ok := g.Waiting[c.Name]; ok && s.State.Running == nil && !g.Stopped && !g.Deleted {
		if s.State.Terminated != nil {
			s.LastTerminationState = s.State
		}
		s.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: why.Reason, Message: why.Message}}
	}
	started := s.State.Running != nil && (kind == plan.Init || kind == plan.Ephemeral || g.Started[current.ID])
	switch kind {
	case plan.Init:
		s.Ready = s.State.Terminated != nil && s.State.Terminated.ExitCode == 0
		s.Started = &started
	case plan.Ephemeral:
		// neither probed nor counted
	default:
		s.Ready = started && g.Ready[current.ID]
		s.Started = &started
	}
	if s.State.Running != nil {
		s.User = user(current)
	}
	if kind == plan.Main || kind == plan.Sidecar { // the others are never resized
		s.AllocatedResources = c.Resources.Requests.DeepCopy()
		s.Resources = g.resources(c, current)
	}
	s.VolumeMounts = volumeMounts(c, g.RecursiveReadOnly)
	return s
}

// absent is the status of a container of which the runtime knows nothing: one that was not started yet, or whose
// remains were removed.
func (g *generator) absent(c *corev1.Container, old *corev1.ContainerStatus, kind plan.ContainerType) corev1.ContainerStatus {
	started := false
	s := corev1.ContainerStatus{Name: c.Name, Image: c.Image, VolumeMounts: volumeMounts(c, g.RecursiveReadOnly)}
	if kind != plan.Ephemeral {
		s.Started = &started
	}
	reason := ContainerCreating
	if len(g.Pod.Spec.InitContainers) > 0 && kind != plan.Ephemeral {
		reason = PodInitializing
	}
	s.State.Waiting = &corev1.ContainerStateWaiting{Reason: reason}
	if old != nil {
		s.RestartCount, s.LastTerminationState = old.RestartCount, old.LastTerminationState
		if old.State.Terminated != nil {
			kept := *old
			return kept
		}
		if old.State.Running != nil {
			s.LastTerminationState = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
				Reason:   statusUnknown,
				Message:  "The container could not be located when the pod was deleted.  The container used to be Running",
				ExitCode: 137,
			}}
			s.RestartCount++
		}
	}
	if why, ok := g.Waiting[c.Name]; ok {
		s.State.Waiting = &corev1.ContainerStateWaiting{Reason: why.Reason, Message: why.Message}
	}
	return s
}

func state(c *cri.Container) corev1.ContainerState {
	switch c.State {
	case cri.Running:
		return corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: seconds(c.StartedAt)}}
	case cri.Exited:
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
			ExitCode:    c.ExitCode,
			Reason:      c.Reason,
			Message:     c.Message,
			StartedAt:   seconds(c.StartedAt),
			FinishedAt:  seconds(c.FinishedAt),
			ContainerID: ContainerID(c.ID),
		}}
	case cri.Unknown:
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
			ExitCode: 137, Reason: statusUnknown,
			Message:     "The container could not be located when the pod was terminated",
			ContainerID: ContainerID(c.ID),
		}}
	}
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: ContainerCreating}}
}

// seconds cuts a time to what the API can hold, so that a status that was read back compares equal.
func seconds(t time.Time) metav1.Time {
	if t.IsZero() {
		return metav1.Unix(0, 0)
	}
	return metav1.NewTime(t.Truncate(time.Second))
}

func stopSignal(c *corev1.Container, current *cri.Container) *corev1.Signal {
	if c.Lifecycle == nil || c.Lifecycle.StopSignal == nil {
		return nil
	}
	s := criconfig.SignalName(current.StopSignal)
	if s == "" {
		return nil
	}
	return &s
}

func user(c *cri.Container) *corev1.ContainerUser {
	if c.User == nil {
		return nil
	}
	return &corev1.ContainerUser{Linux: &corev1.LinuxContainerUser{
		UID: c.User.Uid, GID: c.User.Gid, SupplementalGroups: slices.Clone(c.User.SupplementalGroups),
	}}
}

// resources are those that the container has: what it was given last, corrected by what the runtime reports. One that does
// not run will get what is allocated to it.
func (g *generator) resources(c *corev1.Container, current *cri.Container) *corev1.ResourceRequirements {
	r := c.Resources.DeepCopy()
	r.Claims = nil
	if current.State != cri.Running {
		return r
	}
	if g.Resize != nil {
		if own, ok := g.Resize.Actuated[current.ID]; ok {
			r = own.DeepCopy()
		}
	}
	actual := current.Resources
	if actual == nil {
		return r
	}
	if q, ok := r.Limits[corev1.ResourceCPU]; ok && actual.CpuQuota > 0 && actual.CpuPeriod > 0 {
		if milli := actual.CpuQuota * 1000 / actual.CpuPeriod; milli != q.MilliValue() && q.MilliValue() > 10 {
			r.Limits[corev1.ResourceCPU] = *resource.NewMilliQuantity(milli, resource.DecimalSI)
		}
	}
	if q, ok := r.Limits[corev1.ResourceMemory]; ok && actual.MemoryLimitInBytes > 0 && actual.MemoryLimitInBytes != q.Value() {
		r.Limits[corev1.ResourceMemory] = *resource.NewQuantity(actual.MemoryLimitInBytes, resource.BinarySI)
	}
	return r
}

func volumeMounts(c *corev1.Container, recursiveReadOnly bool) []corev1.VolumeMountStatus {
	var list []corev1.VolumeMountStatus
	for i := range c.VolumeMounts {
		m := &c.VolumeMounts[i]
		s := corev1.VolumeMountStatus{Name: m.Name, MountPath: m.MountPath, ReadOnly: m.ReadOnly}
		if m.ReadOnly {
			mode := corev1.RecursiveReadOnlyDisabled
			if m.RecursiveReadOnly != nil && (*m.RecursiveReadOnly == corev1.RecursiveReadOnlyEnabled ||
				*m.RecursiveReadOnly == corev1.RecursiveReadOnlyIfPossible && recursiveReadOnly) {
				mode = corev1.RecursiveReadOnlyEnabled
			}
			s.RecursiveReadOnly = &mode
		}
		list = append(list, s)
	}
	return list
}
