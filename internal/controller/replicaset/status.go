package replicaset

import (
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"

	"github.com/proa-k8s/proa/internal/controller/pods"
)

// status computes a set's status from its pods and from the error that its last change of them had, and says after what
// time it changes by itself because another pod becomes available; 0 is never.
func status(set *appsv1.ReplicaSet, active []*corev1.Pod, terminating int32, manageErr error, now time.Time) (s appsv1.ReplicaSetStatus, next time.Duration) {
	s = appsv1.ReplicaSetStatus{
		Replicas:            int32(len(active)),
		TerminatingReplicas: ptr.To(terminating),
		ObservedGeneration:  set.Generation,
		Conditions:          failure(set, active, manageErr, now),
	}
	template := labels.SelectorFromSet(set.Spec.Template.Labels)
	for _, p := range active {
		if template.Matches(labels.Set(p.Labels)) {
			s.FullyLabeledReplicas++
		}
		if !pods.IsReady(p) {
			continue
		}
		s.ReadyReplicas++
		available, in := pods.Availability(p, set.Spec.MinReadySeconds, now)
		if available {
			s.AvailableReplicas++
		} else if in > 0 && (next == 0 || in < next) {
			next = in + minWait
		}
	}
	return s, next
}

// failure sets or clears the condition ReplicaFailure.
func failure(set *appsv1.ReplicaSet, active []*corev1.Pod, err error, now time.Time) []appsv1.ReplicaSetCondition {
	conditions := slices.Clone(set.Status.Conditions)
	at := slices.IndexFunc(conditions, func(c appsv1.ReplicaSetCondition) bool { return c.Type == appsv1.ReplicaSetReplicaFailure })
	switch {
	case err == nil && at >= 0:
		return slices.Delete(conditions, at, at+1)
	case err != nil && at < 0:
		reason := "FailedCreate"
		if len(active) > int(ptr.Deref(set.Spec.Replicas, 1)) {
			reason = "FailedDelete"
		}
		return append(conditions, appsv1.ReplicaSetCondition{
			Type: appsv1.ReplicaSetReplicaFailure, Status: corev1.ConditionTrue,
			LastTransitionTime: metav1.NewTime(now), Reason: reason, Message: err.Error(),
		})
	}
	return conditions
}

// same tells whether there is nothing to write.
func same(a, b appsv1.ReplicaSetStatus) bool { return equality.Semantic.DeepEqual(a, b) }
