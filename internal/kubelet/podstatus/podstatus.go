// Package podstatus makes the status of a pod from what is observed.
//
// What flows in are the pod with the status that was last reported, its sandboxes and containers, and what the kubelet
// knows about them beside; what flows out is the status to report. Everything here is pure.
package podstatus

import (
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	resourcehelper "k8s.io/component-helpers/resource"
	"k8s.io/kubectl/pkg/util/qos"

	"github.com/proa-k8s/proa/internal/kubelet/cri"
	"github.com/proa-k8s/proa/internal/kubelet/plan"
)

// Reason says why a container waits, or why a pod has ended.
type Reason struct {
	Reason  string
	Message string
}

// Input is everything that a status rests on.
type Input struct {
	Now time.Time
	// Pod carries the last reported status.
	Pod      *corev1.Pod
	Observed *cri.Pod
	HostIPs  []string

	// Waiting says why a container that should run does not, by name.
	Waiting map[string]Reason
	// Started and Ready are the IDs of running containers whose startup and readiness probes are satisfied, or which
	// have none.
	Started map[string]bool
	Ready   map[string]bool

	// Failure is set when the pod was ended by the node: evicted, past its deadline, refused.
	Failure *Reason
	// Rejected says that the pod was refused before anything of it was begun: its containers have no status.
	Rejected bool
	// Stopped says that nothing of the pod runs or will run.
	Stopped bool
	// Deleted says that the pod is to be deleted, so that its containers are not started again.
	Deleted bool
	// Resize is nil unless the resources of the pod were changed after it was accepted. Those that Pod declares are the ones
	// that are allocated to it.
	Resize *Resize
	// RecursiveReadOnly says whether the runtime makes mounts recursively read-only.
	RecursiveReadOnly bool
}

// Resize is how far the resizing of a pod is (KEP-1287).
type Resize struct {
	// Pending says why what the pod declares was not allocated to it.
	Pending *Reason
	// InProgress says that containers do not have yet what is allocated to them; Problem is what is in the way.
	InProgress bool
	Problem    string
	// Actuated are the resources that containers have, by ID. Those that are missing have what is allocated to them.
	Actuated map[string]corev1.ResourceRequirements
	// Pod are the resources that the pod as a whole has.
	Pod *corev1.ResourceRequirements
}

// The reasons that users know from Kubernetes.
const (
	ContainerCreating = "ContainerCreating"
	PodInitializing   = "PodInitializing"
	statusUnknown     = "ContainerStatusUnknown"
)

// Generate gives the status of the pod. ended reports that by its containers' states it has succeeded or failed,
// even if the phase does not say so yet because something of it still runs.
func Generate(in *Input) (status *corev1.PodStatus, ended bool) {
	status = in.Pod.Status.DeepCopy()
	status.ObservedGeneration = in.Pod.Generation
	addresses(in, status)
	if status.StartTime == nil {
		t := metav1.NewTime(in.Now.Truncate(time.Second))
		status.StartTime = &t
	}
	if status.QOSClass == "" {
		status.QOSClass = qos.ComputePodQOS(in.Pod)
	}

	if in.Rejected {
		status.Phase = corev1.PodFailed
		status.Reason, status.Message = in.Failure.Reason, in.Failure.Message
		conditions(in, status)
		return status, true
	}
	g := generator{Input: in, old: &in.Pod.Status}
	status.InitContainerStatuses = g.list(in.Pod.Spec.InitContainers, g.old.InitContainerStatuses, true)
	status.ContainerStatuses = g.list(in.Pod.Spec.Containers, g.old.ContainerStatuses, false)
	slices.SortFunc(status.ContainerStatuses, func(a, b corev1.ContainerStatus) int { return strings.Compare(a.Name, b.Name) })
	status.EphemeralContainerStatuses = g.ephemeral()
	podResources(in, status)
	if in.Stopped {
		terminate(status.ContainerStatuses)
		if !initialized(in.Pod, status) {
			terminate(status.InitContainerStatuses)
		}
	}

	phase := Phase(in.Pod, status, in.Stopped)
	if in.Failure != nil {
		phase = corev1.PodFailed
	}
	ended = phase == corev1.PodSucceeded || phase == corev1.PodFailed
	switch old := in.Pod.Status.Phase; {
	case old == corev1.PodSucceeded || old == corev1.PodFailed:
		phase, ended = old, true // final
	case ended && !in.Stopped:
		// A final phase means that nothing runs any more; until then the phase stays what it was, and why it will be another
		// is not told.
		if phase = old; phase == "" || phase == corev1.PodUnknown {
			phase = corev1.PodPending
		}
	case in.Stopped && !ended:
		phase, ended = corev1.PodFailed, true
	}
	status.Phase = phase
	if in.Failure != nil && in.Stopped {
		status.Reason, status.Message = in.Failure.Reason, in.Failure.Message
	}
	conditions(in, status)
	return status, ended
}

// podResources tells what is allocated to the pod, and, if it has resources as a whole, what it has of them (KEP-5419).
func podResources(in *Input, status *corev1.PodStatus) {
	status.AllocatedResources, status.Resources = nil, nil
	if list := resourcehelper.PodRequests(in.Pod, resourcehelper.PodResourcesOptions{ExcludeOverhead: true}); len(list) > 0 {
		status.AllocatedResources = list
	}
	if resourcehelper.IsPodLevelResourcesSet(in.Pod) {
		status.Resources = in.Pod.Spec.Resources.DeepCopy()
		if in.Resize != nil && in.Resize.Pod != nil {
			status.Resources = in.Resize.Pod.DeepCopy()
		}
	}
}

// addresses sets the addresses of the host and of the pod; those of a sandbox that is gone stay.
func addresses(in *Input, status *corev1.PodStatus) {
	status.HostIPs = nil
	for _, ip := range in.HostIPs {
		status.HostIPs = append(status.HostIPs, corev1.HostIP{IP: ip})
	}
	if len(in.HostIPs) > 0 {
		status.HostIP = in.HostIPs[0]
	}
	var ips []string
	if in.Pod.Spec.HostNetwork {
		if len(in.Observed.Sandboxes) > 0 {
			ips = in.HostIPs
		}
	} else if sandbox := in.Observed.ReadySandbox(); sandbox != nil {
		ips = OrderIPs(sandbox.IPs, in.HostIPs)
	}
	if len(ips) == 0 {
		return
	}
	status.PodIP = ips[0]
	status.PodIPs = nil
	for _, ip := range ips {
		status.PodIPs = append(status.PodIPs, corev1.PodIP{IP: ip})
	}
}

// OrderIPs puts the address of the family of the node's primary address first and keeps one of each family.
func OrderIPs(ips, hostIPs []string) []string {
	v6 := func(ip string) bool { return strings.Contains(ip, ":") }
	primary := len(hostIPs) > 0 && v6(hostIPs[0])
	var first, second string
	for _, ip := range ips {
		if v6(ip) == primary && first == "" {
			first = ip
		} else if v6(ip) != primary && second == "" {
			second = ip
		}
	}
	return slices.DeleteFunc([]string{first, second}, func(ip string) bool { return ip == "" })
}

// Phase is the phase that the states of the containers amount to.
func Phase(pod *corev1.Pod, status *corev1.PodStatus, stopped bool) corev1.PodPhase {
	var pendingInit, failedInit int
	sidecarPending := false
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		s := find(status.InitContainerStatuses, c.Name)
		if plan.Restartable(c) {
			if s == nil || s.State.Running != nil && (s.Started == nil || !*s.Started) ||
				s.State.Waiting != nil && s.LastTerminationState.Terminated == nil {
				sidecarPending = true
			}
			continue
		}
		t := (*corev1.ContainerStateTerminated)(nil)
		if s != nil {
			if t = s.State.Terminated; s.State.Waiting != nil {
				t = s.LastTerminationState.Terminated
			}
		}
		switch {
		case t == nil:
			pendingInit++
		case t.ExitCode != 0:
			if plan.ShouldRestart(pod, c, t.ExitCode) {
				pendingInit++
			} else {
				failedInit++
			}
		}
	}
	if failedInit > 0 {
		return corev1.PodFailed
	}
	var unknown, running, waiting, ended, succeeded, restarts int
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		s := find(status.ContainerStatuses, c.Name)
		switch {
		case s == nil:
			unknown++
		case s.State.Running != nil:
			running++
		case s.State.Terminated != nil:
			ended++
			if s.State.Terminated.ExitCode == 0 {
				succeeded++
			}
			if plan.ShouldRestart(pod, c, s.State.Terminated.ExitCode) {
				restarts++
			}
		case s.LastTerminationState.Terminated != nil:
			ended++
			restarts++
		default:
			waiting++
		}
	}
	initializing := pendingInit > 0 || sidecarPending && running == 0 && ended == 0
	switch {
	case initializing && !stopped:
		return corev1.PodPending
	case waiting > 0:
		return corev1.PodPending
	case running > 0 && unknown == 0:
		return corev1.PodRunning
	case ended > 0 && unknown == 0 && running == 0:
		switch {
		case stopped && ended == succeeded, !stopped && restarts == 0 && ended == succeeded:
			return corev1.PodSucceeded
		case stopped, restarts == 0:
			return corev1.PodFailed
		}
		return corev1.PodRunning
	}
	return corev1.PodPending
}

// terminate gives an end to containers that have none although their pod has ended.
func terminate(list []corev1.ContainerStatus) {
	for i := range list {
		s := &list[i]
		if s.State.Terminated != nil {
			continue
		}
		no := false
		s.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
			Reason:   statusUnknown,
			Message:  "The container could not be located when the pod was terminated",
			ExitCode: 137,
		}}
		s.Ready, s.Started = false, &no
	}
}

func find(list []corev1.ContainerStatus, name string) *corev1.ContainerStatus {
	for i := range list {
		if list[i].Name == name {
			return &list[i]
		}
	}
	return nil
}
