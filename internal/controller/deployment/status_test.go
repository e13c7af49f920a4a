package deployment

import (
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func TestRolloutStatus(t *testing.T) {
	// before makes a deployment of 3 whose status says updated, available; Progressing has the reason since a time.
	before := func(updated, available int32, reason string, since time.Duration) *appsv1.Deployment {
		d := dep(3, "1", "0")
		d.Status = appsv1.DeploymentStatus{Replicas: 3, UpdatedReplicas: updated, ReadyReplicas: available, AvailableReplicas: available}
		if reason != "" {
			d.Status.Conditions = []appsv1.DeploymentCondition{{
				Type: appsv1.DeploymentProgressing, Status: corev1.ConditionTrue, Reason: reason,
				LastUpdateTime: metav1.NewTime(now.Add(-since)), LastTransitionTime: metav1.NewTime(now.Add(-since)),
			}}
		}
		return d
	}
	noDeadline := before(3, 3, reasonComplete, 0)
	noDeadline.Spec.ProgressDeadlineSeconds = nil
	stuck := before(0, 0, reasonCreated, time.Second)
	stuck.Status.Replicas = 0
	failing := set(9, 3, 0)
	failing.Status.Replicas = 0
	failing.Status.Conditions = []appsv1.ReplicaSetCondition{{
		Type: appsv1.ReplicaSetReplicaFailure, Status: corev1.ConditionTrue, Reason: "FailedCreate", Message: "exceeded quota",
	}}
	for name, test := range map[string]struct {
		d       *appsv1.Deployment
		old     []*appsv1.ReplicaSet
		newest  *appsv1.ReplicaSet
		reason  string // of Progressing
		message string
		status  corev1.ConditionStatus
		renewed bool // LastUpdateTime is now
		failure string
		enough  bool // Available
	}{
		"progress": {before(1, 2, reasonUpdated, time.Minute), []*appsv1.ReplicaSet{set(1, 1, 1)}, set(9, 2, 2),
			reasonUpdated, `ReplicaSet "web-9" is progressing.`, corev1.ConditionTrue, true, "", true},
		"no progress yet": {before(2, 3, reasonUpdated, 30*time.Second), []*appsv1.ReplicaSet{set(1, 1, 1)}, set(9, 2, 1),
			reasonUpdated, "", corev1.ConditionTrue, false, "", false},
		"no progress for too long": {before(2, 3, reasonUpdated, 61*time.Second), []*appsv1.ReplicaSet{set(1, 1, 1)}, set(9, 2, 1),
			reasonTimedOut, `ReplicaSet "web-9" has timed out progressing.`, corev1.ConditionFalse, true, "", false},
		"complete": {before(3, 2, reasonUpdated, time.Second), nil, set(9, 3, 3),
			reasonComplete, `ReplicaSet "web-9" has successfully progressed.`, corev1.ConditionTrue, true, "", true},
		"a pod fails after completion": {before(3, 3, reasonComplete, time.Hour), nil, set(9, 3, 2),
			reasonComplete, "", corev1.ConditionTrue, false, "", false},
		"complete after the deadline": {before(3, 2, reasonTimedOut, time.Hour), nil, set(9, 3, 3),
			reasonComplete, `ReplicaSet "web-9" has successfully progressed.`, corev1.ConditionTrue, true, "", true},
		"no deadline":    {noDeadline, nil, set(9, 3, 3), "", "", "", false, "", true},
		"failure of set": {stuck, nil, failing, reasonCreated, "", corev1.ConditionTrue, false, "exceeded quota", false},
	} {
		t.Run(name, func(t *testing.T) {
			s := rolloutStatus(test.d, test.old, test.newest, now)
			p := condition(&s, appsv1.DeploymentProgressing)
			if p == nil {
				p = &appsv1.DeploymentCondition{}
			}
			if p.Reason != test.reason || p.Message != test.message || p.Status != test.status || p.LastUpdateTime.Time.Equal(now) != test.renewed {
				t.Errorf("Progressing is %+v", p)
			}
			f := condition(&s, appsv1.DeploymentReplicaFailure)
			if (f == nil) != (test.failure == "") || f != nil && f.Message != test.failure {
				t.Errorf("ReplicaFailure is %+v", f)
			}
			if a := condition(&s, appsv1.DeploymentAvailable); (a.Status == corev1.ConditionTrue) != test.enough {
				t.Errorf("Available is %+v", a)
			}
		})
	}
}

func TestUntilTimeout(t *testing.T) {
	d := dep(3, "1", "0")
	s := &appsv1.DeploymentStatus{Conditions: []appsv1.DeploymentCondition{{
		Type: appsv1.DeploymentProgressing, Status: corev1.ConditionTrue, Reason: reasonUpdated, LastUpdateTime: metav1.NewTime(now.Add(-10 * time.Second)),
	}}}
	if got := untilTimeout(d, s, now); got != 51*time.Second {
		t.Errorf("looks again in %v, want 51 s", got)
	}
	s.Conditions[0].Reason = reasonTimedOut
	if got := untilTimeout(d, s, now); got != 0 {
		t.Errorf("looks again in %v after the deadline", got)
	}
	s.Conditions[0].Reason, d.Spec.ProgressDeadlineSeconds = reasonUpdated, ptr.To(int32(1<<31-1))
	if got := untilTimeout(d, s, now); got != 0 {
		t.Errorf("looks again in %v without a deadline", got)
	}
}
