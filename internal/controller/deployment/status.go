package deployment

import (
	"fmt"
	"math"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// The reasons of conditions; clients (kubectl rollout status) read them.
const (
	reasonAvailable    = "MinimumReplicasAvailable"
	reasonUnavailable  = "MinimumReplicasUnavailable"
	reasonPaused       = "DeploymentPaused"
	reasonResumed      = "DeploymentResumed"
	reasonFound        = "FoundNewReplicaSet"
	reasonCreated      = "NewReplicaSetCreated"
	reasonCreateFailed = "ReplicaSetCreateError"
	reasonUpdated      = "ReplicaSetUpdated"
	reasonComplete     = "NewReplicaSetAvailable"
	reasonTimedOut     = "ProgressDeadlineExceeded"
)

// condition gives the condition of the type, or nil.
func condition(s *appsv1.DeploymentStatus, t appsv1.DeploymentConditionType) *appsv1.DeploymentCondition {
	for i := range s.Conditions {
		if s.Conditions[i].Type == t {
			return &s.Conditions[i]
		}
	}
	return nil
}

// setCondition sets a condition, unless it has this status and reason already. The time of transition changes with the
// status only.
func setCondition(s *appsv1.DeploymentStatus, c appsv1.DeploymentCondition, now time.Time) {
	c.LastUpdateTime, c.LastTransitionTime = metav1.NewTime(now), metav1.NewTime(now)
	if was := condition(s, c.Type); was != nil {
		if was.Status == c.Status && was.Reason == c.Reason {
			return
		}
		if was.Status == c.Status {
			c.LastTransitionTime = was.LastTransitionTime
		}
	}
	dropCondition(s, c.Type)
	s.Conditions = append(s.Conditions, c)
}

func dropCondition(s *appsv1.DeploymentStatus, t appsv1.DeploymentConditionType) {
	s.Conditions = slices.DeleteFunc(s.Conditions, func(c appsv1.DeploymentCondition) bool { return c.Type == t })
}

func progressing(status corev1.ConditionStatus, reason, message string) appsv1.DeploymentCondition {
	return appsv1.DeploymentCondition{Type: appsv1.DeploymentProgressing, Status: status, Reason: reason, Message: message}
}

// hasDeadline tells whether roll-outs of the deployment can time out.
func hasDeadline(d *appsv1.Deployment) bool {
	return ptr.Deref(d.Spec.ProgressDeadlineSeconds, math.MaxInt32) != math.MaxInt32
}

// observed computes the numbers, and the condition Available, from the sets.
func observed(d *appsv1.Deployment, sets []*appsv1.ReplicaSet, newest *appsv1.ReplicaSet, now time.Time) appsv1.DeploymentStatus {
	s := appsv1.DeploymentStatus{
		ObservedGeneration:  d.Generation,
		CollisionCount:      d.Status.CollisionCount,
		TerminatingReplicas: ptr.To(int32(0)),
		Conditions:          slices.Clone(d.Status.Conditions),
	}
	for _, set := range sets {
		s.Replicas += set.Status.Replicas
		s.ReadyReplicas += set.Status.ReadyReplicas
		s.AvailableReplicas += set.Status.AvailableReplicas
		*s.TerminatingReplicas += ptr.Deref(set.Status.TerminatingReplicas, 0)
	}
	if newest != nil {
		s.UpdatedReplicas = newest.Status.Replicas
	}
	s.UnavailableReplicas = max(total(sets)-s.AvailableReplicas, 0)
	c := appsv1.DeploymentCondition{
		Type: appsv1.DeploymentAvailable, Status: corev1.ConditionFalse, Reason: reasonUnavailable,
		Message: "Deployment does not have minimum availability.",
	}
	if b := boundsOf(d); s.AvailableReplicas >= b.desired-b.unavailable {
		c.Status, c.Reason, c.Message = corev1.ConditionTrue, reasonAvailable, "Deployment has minimum availability."
	}
	setCondition(&s, c, now)
	return s
}

// isComplete tells whether all replicas are of the newest template and available.
func isComplete(d *appsv1.Deployment, s *appsv1.DeploymentStatus) bool {
	desired := ptr.Deref(d.Spec.Replicas, 1)
	return s.UpdatedReplicas == desired && s.Replicas == desired && s.AvailableReplicas == desired &&
		s.ObservedGeneration >= d.Generation
}

// hasProgressed tells whether the roll-out came further since the last status.
func hasProgressed(was, s *appsv1.DeploymentStatus) bool {
	return s.UpdatedReplicas > was.UpdatedReplicas ||
		s.Replicas-s.UpdatedReplicas < was.Replicas-was.UpdatedReplicas ||
		s.ReadyReplicas > was.ReadyReplicas || s.AvailableReplicas > was.AvailableReplicas
}

// hasTimedOut tells whether the roll-out has made no progress for longer than the deadline.
func hasTimedOut(d *appsv1.Deployment, s *appsv1.DeploymentStatus, now time.Time) bool {
	c := condition(s, appsv1.DeploymentProgressing)
	switch {
	case c == nil || c.Reason == reasonComplete:
		return false
	case c.Reason == reasonTimedOut:
		return true
	}
	return deadline(d, c).Before(now)
}

func deadline(d *appsv1.Deployment, c *appsv1.DeploymentCondition) time.Time {
	return c.LastUpdateTime.Add(time.Duration(ptr.Deref(d.Spec.ProgressDeadlineSeconds, 0)) * time.Second)
}

// rolloutStatus computes the whole status while a roll-out may be under way: Progressing and ReplicaFailure as well.
func rolloutStatus(d *appsv1.Deployment, old []*appsv1.ReplicaSet, newest *appsv1.ReplicaSet, now time.Time) appsv1.DeploymentStatus {
	sets := slices.Clone(old)
	subject := fmt.Sprintf("Deployment %q", d.Name)
	if newest != nil {
		sets = append(sets, newest)
		subject = fmt.Sprintf("ReplicaSet %q", newest.Name)
	}
	s := observed(d, sets, newest, now)
	was := condition(&d.Status, appsv1.DeploymentProgressing)
	settled := was != nil && was.Reason == reasonComplete && s.Replicas == s.UpdatedReplicas
	switch {
	case !hasDeadline(d):
		dropCondition(&s, appsv1.DeploymentProgressing)
	case settled: // The roll-out is over; what happens to its pods later is no progress.
	case isComplete(d, &s):
		setCondition(&s, progressing(corev1.ConditionTrue, reasonComplete, subject+" has successfully progressed."), now)
	case hasProgressed(&d.Status, &s):
		c := progressing(corev1.ConditionTrue, reasonUpdated, subject+" is progressing.")
		c.LastUpdateTime, c.LastTransitionTime = metav1.NewTime(now), metav1.NewTime(now)
		if was != nil && was.Status == corev1.ConditionTrue {
			c.LastTransitionTime = was.LastTransitionTime
		}
		// Always anew, for the deadline counts from the last progress.
		dropCondition(&s, appsv1.DeploymentProgressing)
		s.Conditions = append(s.Conditions, c)
	case hasTimedOut(d, &s, now):
		setCondition(&s, progressing(corev1.ConditionFalse, reasonTimedOut, subject+" has timed out progressing."), now)
	}
	if c := replicaFailure(old, newest); c != nil {
		setCondition(&s, *c, now)
	} else {
		dropCondition(&s, appsv1.DeploymentReplicaFailure)
	}
	return s
}

// replicaFailure takes over a set's failure to create or delete pods, the newest set's before others.
func replicaFailure(old []*appsv1.ReplicaSet, newest *appsv1.ReplicaSet) *appsv1.DeploymentCondition {
	var sets []*appsv1.ReplicaSet
	if newest != nil {
		sets = append(sets, newest)
	}
	for _, set := range append(sets, old...) {
		for _, c := range set.Status.Conditions {
			if c.Type == appsv1.ReplicaSetReplicaFailure {
				return &appsv1.DeploymentCondition{
					Type: appsv1.DeploymentReplicaFailure, Status: c.Status, Reason: c.Reason, Message: c.Message,
				}
			}
		}
	}
	return nil
}

// untilTimeout is after what time the status must be looked at again because the deadline will have passed; 0 is never.
func untilTimeout(d *appsv1.Deployment, s *appsv1.DeploymentStatus, now time.Time) time.Duration {
	c := condition(s, appsv1.DeploymentProgressing)
	if c == nil || !hasDeadline(d) || d.Spec.Paused || isComplete(d, s) || c.Reason == reasonComplete || c.Reason == reasonTimedOut {
		return 0
	}
	return max(deadline(d, c).Sub(now), 0) + grain
}
