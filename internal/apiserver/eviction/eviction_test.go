package eviction

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	policyv1beta1 "k8s.io/api/policy/v1beta1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

var now = metav1.NewTime(time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC))

func TestDisrupt(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*policyv1.PodDisruptionBudget)
		want   string // of the error and its cause; empty: none
	}{
		"allowed":              {func(*policyv1.PodDisruptionBudget) {}, ""},
		"not observed yet":     {func(b *policyv1.PodDisruptionBudget) { b.Generation = 3 }, "The disruption budget b is still being processed by the server."},
		"negative":             {func(b *policyv1.PodDisruptionBudget) { b.Status.DisruptionsAllowed = -1 }, "pdb disruptions allowed is negative"},
		"used up":              {func(b *policyv1.PodDisruptionBudget) { b.Status.DisruptionsAllowed = 0 }, "The disruption budget b needs 2 healthy pods and has 3 currently"},
		"too many are pending": {func(b *policyv1.PodDisruptionBudget) { b.Status.DisruptedPods = many(maxDisrupted + 1) }, "DisruptedPods map too big"},
		"failed": {func(b *policyv1.PodDisruptionBudget) {
			b.Status.DisruptionsAllowed = 0
			b.Status.Conditions = []metav1.Condition{{Type: policyv1.DisruptionAllowedCondition, Status: metav1.ConditionFalse, Reason: policyv1.SyncFailedReason, Message: "no idea"}}
		}, "The disruption budget b does not allow evicting pods currently because it failed sync: no idea"},
	} {
		t.Run(name, func(t *testing.T) {
			b := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "b", Generation: 2, ResourceVersion: "7"}}
			b.Status = policyv1.PodDisruptionBudgetStatus{ObservedGeneration: 2, DisruptionsAllowed: 1, DesiredHealthy: 2, CurrentHealthy: 3}
			test.change(b)
			before := b.DeepCopy()
			got, err := disrupt(b, "p", now)
			if b.String() != before.String() {
				t.Error("the budget was changed")
			}
			if test.want == "" {
				if err != nil || got.Status.DisruptionsAllowed != 0 || got.Status.DisruptedPods["p"] != now || got.Status.Conditions[0].Reason != policyv1.InsufficientPodsReason {
					t.Errorf("got %+v, %v", got, err)
				}
				return
			}
			if err == nil {
				t.Fatal("it is allowed")
			}
			text := err.Error()
			if status := err.(apierrors.APIStatus).Status(); status.Code == 429 {
				text = status.Details.Causes[0].Message
			}
			if !strings.Contains(text, test.want) {
				t.Errorf("got %q, want %q", text, test.want)
			}
		})
	}
}

func many(n int) map[string]metav1.Time {
	m := make(map[string]metav1.Time, n)
	for i := range n {
		m[strings.Repeat("x", i)] = now
	}
	return m
}

func TestUnhealthy(t *testing.T) {
	ready := corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}
	enough := policyv1.PodDisruptionBudgetStatus{CurrentHealthy: 2, DesiredHealthy: 2}
	for name, test := range map[string]struct {
		pod    corev1.PodStatus
		policy *policyv1.UnhealthyPodEvictionPolicyType
		budget policyv1.PodDisruptionBudgetStatus
		want   bool
	}{
		"ready":                          {ready, ptr.To(policyv1.AlwaysAllow), enough, false},
		"enough others":                  {corev1.PodStatus{}, nil, enough, true},
		"too few others":                 {corev1.PodStatus{}, ptr.To(policyv1.IfHealthyBudget), policyv1.PodDisruptionBudgetStatus{CurrentHealthy: 1, DesiredHealthy: 2}, false},
		"none desired":                   {corev1.PodStatus{}, nil, policyv1.PodDisruptionBudgetStatus{}, false},
		"too few others, always allowed": {corev1.PodStatus{}, ptr.To(policyv1.AlwaysAllow), policyv1.PodDisruptionBudgetStatus{DesiredHealthy: 2}, true},
	} {
		b := &policyv1.PodDisruptionBudget{Spec: policyv1.PodDisruptionBudgetSpec{UnhealthyPodEvictionPolicy: test.policy}, Status: test.budget}
		if got := mayGoUnhealthy(&corev1.Pod{Status: test.pod}, b); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestParts(t *testing.T) {
	options := &metav1.DeleteOptions{GracePeriodSeconds: ptr.To(int64(3))}
	if m, o, err := parts(&policyv1beta1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: "p"}, DeleteOptions: options}); err != nil || m.Name != "p" || o != options {
		t.Errorf("v1beta1: %v %v %v", m, o, err)
	}
	if _, o, err := parts(&policyv1.Eviction{}); err != nil || o == nil {
		t.Errorf("without options: %v %v", o, err)
	}
	if _, _, err := parts(&corev1.Pod{}); err == nil || err.Error() != "not a Eviction object: *v1.Pod" {
		t.Errorf("a pod: %v", err)
	}
}

func TestDryRun(t *testing.T) {
	all := []string{metav1.DryRunAll}
	if o, err := withDryRun(&metav1.DeleteOptions{}, all); err != nil || len(o.DryRun) != 1 {
		t.Errorf("of the request: %v, %v", o, err)
	}
	if o, err := withDryRun(&metav1.DeleteOptions{DryRun: all}, nil); err != nil || len(o.DryRun) != 1 {
		t.Errorf("of the options: %v, %v", o, err)
	}
	if _, err := withDryRun(&metav1.DeleteOptions{DryRun: []string{"x"}}, all); err == nil {
		t.Error("contradicting options are accepted")
	}
}

func TestDisrupted(t *testing.T) {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{ResourceVersion: "5", Generation: 2}}
	once := disrupted(p, now)
	if c := once.Status.Conditions; len(c) != 1 || c[0].Reason != "EvictionByEvictionAPI" || c[0].ObservedGeneration != 2 || len(p.Status.Conditions) != 0 {
		t.Errorf("%+v", c)
	}
	if again := disrupted(once, metav1.Now()); again != once {
		t.Errorf("marked twice: %+v", again.Status.Conditions)
	}
}
