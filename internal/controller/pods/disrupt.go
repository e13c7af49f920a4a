package pods

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// WithCondition gives a copy of the pod with the condition set; changed is false if the pod has it already. The time of
// transition changes with the status only.
func WithCondition(p *corev1.Pod, c corev1.PodCondition, now time.Time) (copied *corev1.Pod, changed bool) {
	c.LastTransitionTime = metav1.NewTime(now)
	if c.ObservedGeneration == 0 {
		c.ObservedGeneration = p.Generation
	}
	i := slices.IndexFunc(p.Status.Conditions, func(o corev1.PodCondition) bool { return o.Type == c.Type })
	if i >= 0 {
		was := p.Status.Conditions[i]
		if was.Status == c.Status {
			c.LastTransitionTime = was.LastTransitionTime
			if was.Reason == c.Reason && was.Message == c.Message {
				return p, false
			}
		}
	}
	p = p.DeepCopy()
	if i >= 0 {
		p.Status.Conditions[i] = c
	} else {
		p.Status.Conditions = append(p.Status.Conditions, c)
	}
	return p, true
}

// Disruption is the condition that says who is about to delete a pod, and why (KEP-3329).
func Disruption(reason, message string) corev1.PodCondition {
	return corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: reason, Message: message}
}
