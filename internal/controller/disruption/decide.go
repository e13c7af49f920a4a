package disruption

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/proa-k8s/proa/internal/controller"
	"github.com/proa-k8s/proa/internal/controller/pods"
)

// reasonKubelet is the reason of a DisruptionTarget that a node agent sets, which may take its time.
const reasonKubelet = "TerminationByKubelet"

// needsScale tells whether the budget refers to the size of what controls the pods, not only to the pods that there are.
func needsScale(spec *policyv1.PodDisruptionBudgetSpec) bool {
	return spec.MaxUnavailable != nil || spec.MinAvailable != nil && spec.MinAvailable.Type == intstr.String
}

// demand gives how many pods a budget counts on, and how many must be healthy. size is the number of pods that should exist,
// or of those that do, as needsScale says.
func demand(spec *policyv1.PodDisruptionBudgetSpec, size int32) (expected, desired int32, err error) {
	switch {
	case spec.MaxUnavailable != nil:
		n, err := intstr.GetScaledValueFromIntOrPercent(spec.MaxUnavailable, int(size), true)
		if err != nil {
			return 0, 0, err
		}
		return size, max(size-int32(n), 0), nil
	case spec.MinAvailable != nil:
		n, err := intstr.GetScaledValueFromIntOrPercent(spec.MinAvailable, int(size), true)
		if err != nil {
			return 0, 0, err
		}
		return size, int32(n), nil
	default:
		return 0, 0, nil
	}
}

// evictions are what has become of evicted pods.
type evictions struct {
	disrupted map[string]metav1.Time // still to be deleted, nil if none
	late      []*corev1.Pod          // should have been deleted long ago
	next      time.Duration          // when the next one is late, 0 for never
}

// pending looks at the evictions that a budget remembers.
func pending(protected []*corev1.Pod, remembered map[string]metav1.Time, now time.Time) evictions {
	var e evictions
	for _, p := range protected {
		since, ok := remembered[p.Name]
		if !ok || p.DeletionTimestamp != nil {
			continue
		}
		left := since.Add(patience).Sub(now)
		if left <= 0 {
			e.late = append(e.late, p)
			continue
		}
		if e.disrupted == nil {
			e.disrupted = make(map[string]metav1.Time)
		}
		e.disrupted[p.Name] = since
		if e.next == 0 || left < e.next {
			e.next = left
		}
	}
	return e
}

// healthy counts the pods that are ready and not about to go.
func healthy(protected []*corev1.Pod, disrupted map[string]metav1.Time) (n int32) {
	for _, p := range protected {
		if _, going := disrupted[p.Name]; !going && p.DeletionTimestamp == nil && pods.IsReady(p) {
			n++
		}
	}
	return n
}

// staleIn gives after what time the pod's DisruptionTarget is not believed any more, 1 ns for at once, and 0 if it has none
// that could be stale.
func staleIn(p *corev1.Pod, now time.Time) time.Duration {
	c := pods.Condition(p, corev1.DisruptionTarget)
	if c == nil || c.Status != corev1.ConditionTrue || c.Reason == reasonKubelet || p.DeletionTimestamp != nil || pods.IsTerminal(p) {
		return 0
	}
	return max(c.LastTransitionTime.Add(patience).Sub(now), 1)
}

// syncPod ends the condition of a pod that should have been deleted long ago.
func (d *disruption) syncPod(ctx context.Context, key string) error {
	namespace, name := controller.SplitKey(key)
	p, err := d.pods.Pods(namespace).Get(name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	now := d.env.Clock.Now()
	switch left := staleIn(p, now); {
	case left == 0:
		return nil
	case left > 1:
		d.env.Queue.AddAfter(podPrefix+key, left)
		return nil
	}
	p, _ = pods.WithCondition(p, corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionFalse}, now)
	if _, err := d.env.Client.CoreV1().Pods(namespace).UpdateStatus(ctx, p, metav1.UpdateOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("ending the disruption of pod %s: %w", key, err)
	}
	return nil
}
