package disruption

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func TestDemand(t *testing.T) {
	for name, test := range map[string]struct {
		spec                    policyv1.PodDisruptionBudgetSpec
		size, expected, desired int32
		needs                   bool
	}{
		"count available":                 {policyv1.PodDisruptionBudgetSpec{MinAvailable: ptr.To(intstr.FromInt32(3))}, 5, 5, 3, false},
		"count available beyond the pods": {policyv1.PodDisruptionBudgetSpec{MinAvailable: ptr.To(intstr.FromInt32(7))}, 5, 5, 7, false},
		"share available, rounded up":     {policyv1.PodDisruptionBudgetSpec{MinAvailable: ptr.To(intstr.FromString("50%"))}, 5, 5, 3, true},
		"count unavailable":               {policyv1.PodDisruptionBudgetSpec{MaxUnavailable: ptr.To(intstr.FromInt32(2))}, 5, 5, 3, true},
		"count unavailable beyond":        {policyv1.PodDisruptionBudgetSpec{MaxUnavailable: ptr.To(intstr.FromInt32(9))}, 5, 5, 0, true},
		"share unavailable, rounded up":   {policyv1.PodDisruptionBudgetSpec{MaxUnavailable: ptr.To(intstr.FromString("25%"))}, 5, 5, 3, true},
		"nothing":                         {policyv1.PodDisruptionBudgetSpec{}, 5, 0, 0, false},
	} {
		expected, desired, err := demand(&test.spec, test.size)
		if err != nil || expected != test.expected || desired != test.desired || needsScale(&test.spec) != test.needs {
			t.Errorf("%s: expected %d, desired %d, %v", name, expected, desired, err)
		}
	}
}

func pod(name string, ready, deleted bool) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if ready {
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	}
	if deleted {
		p.DeletionTimestamp = &metav1.Time{Time: now}
	}
	return p
}

func TestCompute(t *testing.T) {
	protected := []*corev1.Pod{pod("a", true, false), pod("b", true, false), pod("c", true, true), pod("d", false, false), pod("e", true, false), pod("f", true, false)}
	at := func(ago time.Duration) metav1.Time { return metav1.NewTime(now.Add(-ago)) }
	remembered := map[string]metav1.Time{"b": at(time.Minute), "c": at(time.Minute), "e": at(3 * time.Minute), "f": at(110 * time.Second), "gone": at(0)}
	e := pending(protected, remembered, now)
	if len(e.disrupted) != 2 || len(e.late) != 1 || e.late[0].Name != "e" || e.next != 10*time.Second {
		t.Errorf("evictions are %+v", e)
	}
	b := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Generation: 4}}
	for _, test := range []struct{ expected, desired, allowed int32 }{{6, 1, 1}, {6, 2, 0}, {6, 5, 0}, {0, 0, 0}} {
		s := compute(b, protected, e.disrupted, test.expected, test.desired)
		reason := policyv1.InsufficientPodsReason
		if test.allowed > 0 {
			reason = policyv1.SufficientPodsReason
		}
		if s.CurrentHealthy != 2 || s.DisruptionsAllowed != test.allowed || s.ObservedGeneration != 4 || s.Conditions[0].Reason != reason || s.Conditions[0].ObservedGeneration != 4 {
			t.Errorf("%+v: %+v", test, s)
		}
	}
}

func TestStale(t *testing.T) {
	disrupted := func(change func(*corev1.Pod, *corev1.PodCondition)) *corev1.Pod {
		p := &corev1.Pod{}
		c := corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now.Add(-time.Minute))}
		change(p, &c)
		p.Status.Conditions = []corev1.PodCondition{c}
		return p
	}
	for name, test := range map[string]struct {
		change func(*corev1.Pod, *corev1.PodCondition)
		want   time.Duration
	}{
		"young":            {func(*corev1.Pod, *corev1.PodCondition) {}, time.Minute},
		"old":              {func(_ *corev1.Pod, c *corev1.PodCondition) { c.LastTransitionTime.Time = now.Add(-time.Hour) }, 1},
		"over":             {func(_ *corev1.Pod, c *corev1.PodCondition) { c.Status = corev1.ConditionFalse }, 0},
		"of a node agent":  {func(_ *corev1.Pod, c *corev1.PodCondition) { c.Reason = "TerminationByKubelet" }, 0},
		"of a deleted pod": {func(p *corev1.Pod, _ *corev1.PodCondition) { p.DeletionTimestamp = &metav1.Time{Time: now} }, 0},
		"of an ended pod":  {func(p *corev1.Pod, _ *corev1.PodCondition) { p.Status.Phase = corev1.PodFailed }, 0},
	} {
		if got := staleIn(disrupted(test.change), now); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}
