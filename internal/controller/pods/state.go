package pods

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// IsActive tells whether the pod counts as a running replica, or will: it neither ended nor is being deleted.
func IsActive(p *corev1.Pod) bool {
	return !IsTerminal(p) && p.DeletionTimestamp == nil
}

// IsTerminating tells whether the pod is being deleted and still holds what it was given.
func IsTerminating(p *corev1.Pod) bool {
	return !IsTerminal(p) && p.DeletionTimestamp != nil
}

// IsTerminal tells whether the pod's containers have ended for good.
func IsTerminal(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// Condition gives the pod's condition of the type, or nil.
func Condition(p *corev1.Pod, t corev1.PodConditionType) *corev1.PodCondition {
	for i := range p.Status.Conditions {
		if p.Status.Conditions[i].Type == t {
			return &p.Status.Conditions[i]
		}
	}
	return nil
}

// IsReady tells whether the pod's Ready condition is true.
func IsReady(p *corev1.Pod) bool {
	c := Condition(p, corev1.PodReady)
	return c != nil && c.Status == corev1.ConditionTrue
}

// Availability tells whether the pod has been ready for minReadySeconds, and if it is ready but not for long enough, after
// what time it will be available.
func Availability(p *corev1.Pod, minReadySeconds int32, now time.Time) (available bool, in time.Duration) {
	c := Condition(p, corev1.PodReady)
	switch {
	case c == nil || c.Status != corev1.ConditionTrue:
		return false, 0
	case minReadySeconds == 0:
		return true, 0
	case c.LastTransitionTime.IsZero():
		return false, 0
	}
	in = c.LastTransitionTime.Add(time.Duration(minReadySeconds) * time.Second).Sub(now)
	return in <= 0, max(in, 0)
}
