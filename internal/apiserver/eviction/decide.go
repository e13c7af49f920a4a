package eviction

import (
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-k8s/proa/internal/api/policy"
)

// maxDisrupted is how many evictions a budget remembers that the controller has not seen yet.
const maxDisrupted = 2000

// refusal is upstream's text of an eviction that must wait.
const refusal = "Cannot evict pod as it would violate the pod's disruption budget."

// unprotected tells whether no budget counts for the pod: it serves nobody, not yet or not any more.
func unprotected(p *corev1.Pod) bool {
	switch p.Status.Phase {
	case corev1.PodSucceeded, corev1.PodFailed, corev1.PodPending:
		return true
	}
	return p.DeletionTimestamp != nil
}

// mayGoUnhealthy tells whether the pod can go because it isn't ready, without using the budget up: always, or while there
// are enough others, as the budget says.
func mayGoUnhealthy(p *corev1.Pod, b *policyv1.PodDisruptionBudget) bool {
	ready := slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
	if ready {
		return false
	}
	if b.Spec.UnhealthyPodEvictionPolicy != nil && *b.Spec.UnhealthyPodEvictionPolicy == policyv1.AlwaysAllow {
		return true
	}
	return b.Status.DesiredHealthy > 0 && b.Status.CurrentHealthy >= b.Status.DesiredHealthy
}

// disrupt decides: it returns the budget with one disruption less, or why there is none. The budget is not changed.
func disrupt(b *policyv1.PodDisruptionBudget, pod string, now metav1.Time) (*policyv1.PodDisruptionBudget, error) {
	switch {
	case b.Status.ObservedGeneration < b.Generation:
		return nil, tooEarly(b.Name)
	case b.Status.DisruptionsAllowed < 0:
		return nil, apierrors.NewForbidden(budgetResource, b.Name, errors.New("pdb disruptions allowed is negative"))
	case len(b.Status.DisruptedPods) > maxDisrupted:
		return nil, apierrors.NewForbidden(budgetResource, b.Name, errors.New("DisruptedPods map too big - too many evictions not confirmed by PDB controller"))
	case b.Status.DisruptionsAllowed == 0:
		return nil, refuse(b)
	}
	b = b.DeepCopy()
	b.ResourceVersion = ""
	b.Status.DisruptionsAllowed--
	if b.Status.DisruptionsAllowed == 0 {
		policy.SetDisruptionAllowed(&b.Status)
	}
	if b.Status.DisruptedPods == nil {
		b.Status.DisruptedPods = make(map[string]metav1.Time, 1)
	}
	b.Status.DisruptedPods[pod] = now
	return b, nil
}

// refuse says that the budget is used up.
func refuse(b *policyv1.PodDisruptionBudget) error {
	cause := fmt.Sprintf("The disruption budget %s needs %d healthy pods and has %d currently", b.Name, b.Status.DesiredHealthy, b.Status.CurrentHealthy)
	c := apimeta.FindStatusCondition(b.Status.Conditions, policyv1.DisruptionAllowedCondition)
	if c != nil && c.Status == metav1.ConditionFalse && c.Reason == policyv1.SyncFailedReason {
		cause = fmt.Sprintf("The disruption budget %s does not allow evicting pods currently because it failed sync: %v", b.Name, c.Message)
	}
	return tooManyRequests(0, cause)
}

// tooEarly says that the status of the budget is not known yet.
func tooEarly(budget string) error {
	return tooManyRequests(10, fmt.Sprintf("The disruption budget %s is still being processed by the server.", budget))
}

func tooManyRequests(retryAfter int, cause string) error {
	err := apierrors.NewTooManyRequests(refusal, retryAfter)
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{Type: policyv1.DisruptionBudgetCause, Message: cause})
	return err
}
