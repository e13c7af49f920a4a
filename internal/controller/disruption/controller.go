// Package disruption computes how many pods a PodDisruptionBudget allows to be evicted.
//
// What flows in are budgets, pods and the sizes of what controls the pods; what flows out is the status of the budgets, and the
// end of the condition DisruptionTarget on pods whose deletion didn't come.
package disruption

import (
	"context"
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	corelisters "k8s.io/client-go/listers/core/v1"
	policylisters "k8s.io/client-go/listers/policy/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/proa-k8s/proa/internal/api/policy"
	"github.com/proa-k8s/proa/internal/client"
	"github.com/proa-k8s/proa/internal/controller"
	"github.com/proa-k8s/proa/internal/controller/pods"
)

const (
	// patience is how long an evicted pod has to be marked for deletion, and how long a pod's DisruptionTarget is believed.
	patience = 2 * time.Minute
	// settle is how long the events of pods are gathered before the status is computed once.
	settle = 10 * time.Millisecond
	// podPrefix begins keys that are of pods, not of budgets.
	podPrefix = "pod:"
)

// New declares the controller.
func New() controller.Controller {
	return controller.Controller{
		Name: "disruption",
		Reads: []schema.GroupVersionResource{
			corev1.SchemeGroupVersion.WithResource("pods"),
			corev1.SchemeGroupVersion.WithResource("replicationcontrollers"),
			appsv1.SchemeGroupVersion.WithResource("deployments"),
			appsv1.SchemeGroupVersion.WithResource("replicasets"),
			appsv1.SchemeGroupVersion.WithResource("statefulsets"),
			policyv1.SchemeGroupVersion.WithResource("poddisruptionbudgets"),
		},
		Writes: []rbacv1.PolicyRule{
			controller.Rule("policy", []string{"poddisruptionbudgets/status"}, "update"),
			controller.Rule("", []string{"pods/status"}, "update"),
			controller.Rule("*", []string{"*/scale"}, "get"),
		},
		Workers: 2,
		Setup:   setup,
	}
}

type disruption struct {
	env     *controller.Env
	budgets policylisters.PodDisruptionBudgetLister
	pods    corelisters.PodLister
	indexer cache.Indexer // of pods
	scales  scales
}

func setup(env *controller.Env) (controller.Sync, error) {
	budgets, podInformer := env.Informers.Policy().V1().PodDisruptionBudgets(), env.Informers.Core().V1().Pods()
	d := &disruption{
		env: env, budgets: budgets.Lister(), pods: podInformer.Lister(), indexer: podInformer.Informer().GetIndexer(), scales: newScales(env),
	}
	controller.WatchKeys[*policyv1.PodDisruptionBudget](env, budgets.Informer())
	controller.Watch(env, podInformer.Informer(), d.onPod)
	watchSize(d, env.Informers.Core().V1().ReplicationControllers().Informer(), func(rc *corev1.ReplicationController) *int32 { return rc.Spec.Replicas })
	watchSize(d, env.Informers.Apps().V1().Deployments().Informer(), func(x *appsv1.Deployment) *int32 { return x.Spec.Replicas })
	watchSize(d, env.Informers.Apps().V1().ReplicaSets().Informer(), func(rs *appsv1.ReplicaSet) *int32 { return rs.Spec.Replicas })
	watchSize(d, env.Informers.Apps().V1().StatefulSets().Informer(), func(s *appsv1.StatefulSet) *int32 { return s.Spec.Replicas })
	return d.sync, nil
}

// onPod wakes the budgets that protect a pod, or did.
func (d *disruption) onPod(old, p *corev1.Pod) {
	if p != nil && staleIn(p, d.env.Clock.Now()) > 0 {
		d.env.Queue.AddAfter(podPrefix+controller.Key(p), staleIn(p, d.env.Clock.Now()))
	}
	if old != nil && p != nil && counts(old) == counts(p) && equality.Semantic.DeepEqual(old.Labels, p.Labels) &&
		equality.Semantic.DeepEqual(old.OwnerReferences, p.OwnerReferences) {
		return
	}
	some := p
	if some == nil {
		some = old
	}
	all, err := d.budgets.PodDisruptionBudgets(some.Namespace).List(labels.Everything())
	if err != nil {
		d.env.Log.Error("listing disruption budgets", "err", err)
	}
	for _, b := range all {
		selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
		if err != nil {
			continue // It was refused when it was written.
		}
		if p != nil && selector.Matches(labels.Set(p.Labels)) || old != nil && selector.Matches(labels.Set(old.Labels)) {
			d.env.Queue.AddAfter(controller.Key(b), settle)
		}
	}
}

// counts is what of a pod the computation depends on, beside its labels and owner.
func counts(p *corev1.Pod) (c struct{ ready, deleted bool }) {
	c.ready, c.deleted = pods.IsReady(p), p.DeletionTimestamp != nil
	return c
}

// sync computes the status of a budget, or ends a pod's stale condition.
func (d *disruption) sync(ctx context.Context, key string) error {
	if pod, ok := strings.CutPrefix(key, podPrefix); ok {
		return d.syncPod(ctx, pod)
	}
	namespace, name := controller.SplitKey(key)
	b, err := d.budgets.PodDisruptionBudgets(namespace).Get(name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	status, again, err := d.observe(ctx, b)
	if err != nil {
		d.env.Log.Info("a disruption budget can't be computed", "budget", key, "err", err)
		status = failed(b.Status, err)
	}
	if again > 0 {
		d.env.Queue.AddAfter(key, again)
	}
	if equality.Semantic.DeepEqual(status, b.Status) {
		return nil
	}
	b = b.DeepCopy()
	b.Status = status
	_, err = d.env.Client.PolicyV1().PodDisruptionBudgets(namespace).UpdateStatus(ctx, b, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// observe computes the status of a budget; again is after what time it changes by itself, 0 for never.
func (d *disruption) observe(ctx context.Context, b *policyv1.PodDisruptionBudget) (status policyv1.PodDisruptionBudgetStatus, again time.Duration, err error) {
	selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
	if err != nil {
		return status, 0, err
	}
	protected, err := client.Select[*corev1.Pod](d.indexer, cache.NamespaceIndex, b.Namespace, selector)
	if err != nil {
		d.env.Events.Eventf(b, corev1.EventTypeWarning, "NoPods", "Failed to get pods: %v", err)
		return status, 0, fmt.Errorf("listing pods: %w", err)
	}
	if len(protected) == 0 {
		d.env.Events.Eventf(b, corev1.EventTypeNormal, "NoPods", "No matching pods found")
	}
	size, unmanaged := int32(len(protected)), []string(nil)
	if needsScale(&b.Spec) {
		size, unmanaged, err = d.scales.sum(ctx, protected)
	}
	var expected, desired int32
	if err == nil {
		expected, desired, err = demand(&b.Spec, size)
	}
	if err != nil {
		d.env.Events.Eventf(b, corev1.EventTypeWarning, "CalculateExpectedPodCountFailed", "Failed to calculate the number of expected pods: %v", err)
		return status, 0, err
	}
	if len(unmanaged) > 0 {
		d.env.Events.Eventf(b, corev1.EventTypeWarning, "UnmanagedPods", "Pods selected by this PodDisruptionBudget (selector: %v) were found to be unmanaged. "+
			"As a result, the status of the PDB cannot be calculated correctly, which may result in undefined behavior. "+
			"To account for these pods please set \".spec.minAvailable\" field of the PDB to an integer value.", b.Spec.Selector)
		d.env.Log.Debug("a disruption budget protects pods that nothing controls", "budget", controller.Key(b), "pods", unmanaged)
	}
	p := pending(protected, b.Status.DisruptedPods, d.env.Clock.Now())
	for _, late := range p.late {
		d.env.Events.Eventf(late, corev1.EventTypeWarning, "NotDeleted", "Pod was expected by PDB %s/%s to be deleted but it wasn't", b.Namespace, b.Name)
	}
	return compute(b, protected, p.disrupted, expected, desired), p.next, nil
}

// failed is the status of a budget that can't be computed: nothing may be evicted.
func failed(status policyv1.PodDisruptionBudgetStatus, err error) policyv1.PodDisruptionBudgetStatus {
	status = *status.DeepCopy()
	status.DisruptionsAllowed = 0
	apimeta.SetStatusCondition(&status.Conditions, metav1.Condition{
		Type: policyv1.DisruptionAllowedCondition, Status: metav1.ConditionFalse, Reason: policyv1.SyncFailedReason,
		Message: err.Error(), ObservedGeneration: status.ObservedGeneration,
	})
	return status
}

// compute gives the status that follows from the pods.
func compute(b *policyv1.PodDisruptionBudget, protected []*corev1.Pod, disrupted map[string]metav1.Time, expected, desired int32) policyv1.PodDisruptionBudgetStatus {
	status := policyv1.PodDisruptionBudgetStatus{
		ObservedGeneration: b.Generation, ExpectedPods: expected, DesiredHealthy: desired, DisruptedPods: disrupted,
		CurrentHealthy: healthy(protected, disrupted),
		Conditions:     b.Status.DeepCopy().Conditions,
	}
	// Without any pod expected nothing is allowed, so that the first pods are safe before they were counted.
	if expected > 0 {
		status.DisruptionsAllowed = max(status.CurrentHealthy-desired, 0)
	}
	policy.SetDisruptionAllowed(&status)
	return status
}
