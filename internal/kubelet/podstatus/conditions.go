package podstatus

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-k8s/proa/internal/kubelet/cri"
	"github.com/proa-k8s/proa/internal/kubelet/plan"
)

const (
	reasonCompleted     = "PodCompleted"
	reasonFailed        = "PodFailed"
	reasonNotReady      = "ContainersNotReady"
	reasonUninitialized = "ContainersNotInitialized"
	reasonGates         = "ReadinessGatesNotReady"
	reasonUnknown       = "UnknownContainerStatuses"
)

// conditions sets those that the kubelet owns, in the order that users know, and keeps the others behind them.
func conditions(in *Input, status *corev1.PodStatus) {
	containers := containersReady(in.Pod, status)
	own := []corev1.PodCondition{
		sandboxReady(in),
		initializedCondition(in.Pod, status),
		podReady(in.Pod, status, containers),
		containers,
		{Type: corev1.PodScheduled, Status: corev1.ConditionTrue},
	}
	own = append(own, resizeConditions(in.Resize)...)
	var list []corev1.PodCondition
	for _, c := range own {
		c.ObservedGeneration = in.Pod.Generation
		c.LastTransitionTime = metav1.NewTime(in.Now.Truncate(1e9))
		if old := condition(in.Pod.Status.Conditions, c.Type); old != nil && old.Status == c.Status {
			c.LastTransitionTime = old.LastTransitionTime
		}
		list = append(list, c)
	}
	for _, c := range in.Pod.Status.Conditions {
		if condition(own, c.Type) == nil && c.Type != corev1.PodResizePending && c.Type != corev1.PodResizeInProgress {
			list = append(list, c)
		}
	}
	status.Conditions = list
}

// resizeConditions are there only while there is something to say.
func resizeConditions(r *Resize) []corev1.PodCondition {
	var list []corev1.PodCondition
	if r == nil {
		return nil
	}
	if r.Pending != nil {
		list = append(list, corev1.PodCondition{
			Type: corev1.PodResizePending, Status: corev1.ConditionTrue, Reason: r.Pending.Reason, Message: r.Pending.Message,
		})
	}
	if r.InProgress {
		c := corev1.PodCondition{Type: corev1.PodResizeInProgress, Status: corev1.ConditionTrue}
		if r.Problem != "" {
			c.Reason, c.Message = corev1.PodReasonError, r.Problem
		}
		list = append(list, c)
	}
	return list
}

// Owned reports whether the kubelet is the one that sets a condition.
func Owned(t corev1.PodConditionType) bool {
	switch t {
	case corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.PodReady, corev1.ContainersReady, corev1.PodScheduled,
		corev1.PodResizePending, corev1.PodResizeInProgress:
		return true
	}
	return false
}

func condition(list []corev1.PodCondition, t corev1.PodConditionType) *corev1.PodCondition {
	for i := range list {
		if list[i].Type == t {
			return &list[i]
		}
	}
	return nil
}

func sandboxReady(in *Input) corev1.PodCondition {
	c := corev1.PodCondition{Type: corev1.PodReadyToStartContainers, Status: corev1.ConditionFalse}
	if s := in.Observed.ReadySandbox(); s != nil && s.State == cri.Running && (in.Pod.Spec.HostNetwork || len(s.IPs) > 0) {
		c.Status = corev1.ConditionTrue
	}
	return c
}

// initialized reports whether a main container runs or ran, which means that initialization was completed.
func initialized(pod *corev1.Pod, status *corev1.PodStatus) bool {
	for i := range status.ContainerStatuses {
		s := &status.ContainerStatuses[i]
		if s.State.Running != nil || s.Started != nil && *s.Started ||
			s.State.Terminated != nil && s.ContainerID != "" || s.LastTerminationState.Terminated != nil {
			return true
		}
	}
	return len(pod.Spec.InitContainers) == 0
}

func initializedCondition(pod *corev1.Pod, status *corev1.PodStatus) corev1.PodCondition {
	c := corev1.PodCondition{Type: corev1.PodInitialized, Status: corev1.ConditionTrue}
	if status.Phase == corev1.PodSucceeded {
		c.Reason = reasonCompleted
		return c
	}
	if initialized(pod, status) {
		return c
	}
	var unknown, incomplete []string
	for i := range pod.Spec.InitContainers {
		spec := &pod.Spec.InitContainers[i]
		s := find(status.InitContainerStatuses, spec.Name)
		switch {
		case s == nil:
			unknown = append(unknown, spec.Name)
		case plan.Restartable(spec):
			if s.Started == nil || !*s.Started {
				incomplete = append(incomplete, spec.Name)
			}
		case !s.Ready:
			incomplete = append(incomplete, spec.Name)
		}
	}
	if message := describe(unknown, incomplete, "incomplete"); message != "" {
		c.Status, c.Reason, c.Message = corev1.ConditionFalse, reasonUninitialized, message
	}
	return c
}

func describe(unknown, not []string, what string) string {
	var parts []string
	if len(unknown) > 0 {
		parts = append(parts, fmt.Sprintf("containers with unknown status: %s", unknown))
	}
	if len(not) > 0 {
		parts = append(parts, fmt.Sprintf("containers with %s status: %s", what, not))
	}
	return strings.Join(parts, ", ")
}

func containersReady(pod *corev1.Pod, status *corev1.PodStatus) corev1.PodCondition {
	c := corev1.PodCondition{Type: corev1.ContainersReady, Status: corev1.ConditionFalse}
	switch status.Phase {
	case corev1.PodSucceeded:
		c.Reason = reasonCompleted
		return c
	case corev1.PodFailed:
		c.Reason = reasonFailed
		return c
	}
	if len(status.ContainerStatuses) == 0 {
		c.Reason = reasonUnknown
		return c
	}
	var unknown, unready []string
	check := func(spec *corev1.Container, s *corev1.ContainerStatus) {
		if s == nil {
			unknown = append(unknown, spec.Name)
		} else if !s.Ready {
			unready = append(unready, spec.Name)
		}
	}
	for i := range pod.Spec.InitContainers {
		if spec := &pod.Spec.InitContainers[i]; plan.Restartable(spec) {
			check(spec, find(status.InitContainerStatuses, spec.Name))
		}
	}
	for i := range pod.Spec.Containers {
		check(&pod.Spec.Containers[i], find(status.ContainerStatuses, pod.Spec.Containers[i].Name))
	}
	if message := describe(unknown, unready, "unready"); message != "" {
		c.Reason, c.Message = reasonNotReady, message
		return c
	}
	c.Status = corev1.ConditionTrue
	return c
}

// podReady is ContainersReady and the pod's readiness gates (KEP-580).
func podReady(pod *corev1.Pod, status *corev1.PodStatus, containers corev1.PodCondition) corev1.PodCondition {
	c := corev1.PodCondition{Type: corev1.PodReady, Status: containers.Status, Reason: containers.Reason, Message: containers.Message}
	if c.Status != corev1.ConditionTrue {
		return c
	}
	var messages []string
	for _, gate := range pod.Spec.ReadinessGates {
		switch got := condition(status.Conditions, gate.ConditionType); {
		case got == nil:
			messages = append(messages, fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist.", string(gate.ConditionType)))
		case got.Status != corev1.ConditionTrue:
			messages = append(messages, fmt.Sprintf("the status of pod readiness gate %q is not %q, but %v", string(gate.ConditionType), "True", got.Status))
		}
	}
	if len(messages) > 0 {
		c.Status, c.Reason, c.Message = corev1.ConditionFalse, reasonGates, strings.Join(messages, ", ")
	}
	return c
}
