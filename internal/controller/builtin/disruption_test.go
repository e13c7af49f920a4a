package builtin_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	policyv1beta1 "k8s.io/api/policy/v1beta1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/proa-k8s/proa/internal/controller/controllertest"
)

func budget(name, app string, spec policyv1.PodDisruptionBudgetSpec) *policyv1.PodDisruptionBudget {
	spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}
	return &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}, Spec: spec}
}

func budgetNow(c *controllertest.Cluster, name string) func(context.Context) (*policyv1.PodDisruptionBudget, error) {
	return func(ctx context.Context) (*policyv1.PodDisruptionBudget, error) {
		return c.Admin.PolicyV1().PodDisruptionBudgets("default").Get(ctx, name, metav1.GetOptions{})
	}
}

func evict(ctx context.Context, c *controllertest.Cluster, pod string, options *metav1.DeleteOptions) error {
	return c.Admin.PolicyV1().Evictions("default").Evict(ctx, &policyv1.Eviction{
		ObjectMeta: metav1.ObjectMeta{Name: pod, Namespace: "default"}, DeleteOptions: options,
	})
}

// A budget of a deployment lets pods go one by one, and waits for the others to be replaced.
func TestEviction(t *testing.T) {
	c := controllertest.Start(t, all()...)
	c.Node(t, "n1")
	healthy := true
	c.Agent(t, "n1", func(p *corev1.Pod) bool { return healthy || p.Annotations["ready"] == "yes" })
	ctx := t.Context()
	if _, err := c.Admin.AppsV1().Deployments("default").Create(ctx, deployment("web", 3), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	one := intstr.FromString("1%") // of 3, rounded up
	if _, err := c.Admin.PolicyV1().PodDisruptionBudgets("default").Create(ctx, budget("pdb", "web", policyv1.PodDisruptionBudgetSpec{MaxUnavailable: &one}), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	b := controllertest.Wait(t, c, "a disruption to be allowed", budgetNow(c, "pdb"), func(b *policyv1.PodDisruptionBudget) bool { return b.Status.DisruptionsAllowed == 1 })
	if s := b.Status; s.ExpectedPods != 3 || s.DesiredHealthy != 2 || s.CurrentHealthy != 3 || s.ObservedGeneration != b.Generation {
		t.Errorf("status is %+v", s)
	}
	if cond := apimeta.FindStatusCondition(b.Status.Conditions, policyv1.DisruptionAllowedCondition); cond == nil || cond.Status != metav1.ConditionTrue || cond.Reason != policyv1.SufficientPodsReason {
		t.Errorf("conditions are %+v", b.Status.Conditions)
	}
	healthy = false // new pods are not ready
	pods := podsOf(t, c, "web")

	if err := evict(ctx, c, pods[0].Name, &metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}); err != nil {
		t.Errorf("dry run: %v", err)
	}
	if now, err := budgetNow(c, "pdb")(ctx); err != nil || now.Status.DisruptionsAllowed != 1 || len(podsOf(t, c, "web")) != 3 {
		t.Errorf("a dry run has changed something: %+v, %v", now.Status, err)
	}
	stale := evict(ctx, c, pods[0].Name, &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: ptr.To(pods[1].UID)}})
	if !apierrors.IsConflict(stale) {
		t.Errorf("another's uid: %v", stale)
	}
	controllertest.Wait(t, c, "the failed eviction to have used the budget", budgetNow(c, "pdb"), func(b *policyv1.PodDisruptionBudget) bool {
		return b.Status.DisruptionsAllowed == 0
	})
	refused := evict(ctx, c, pods[1].Name, nil)
	if !apierrors.IsTooManyRequests(refused) || !strings.Contains(refused.Error(), "Cannot evict pod as it would violate the pod's disruption budget.") {
		t.Fatalf("a pod beyond the budget: %v", refused)
	}
	status := refused.(apierrors.APIStatus)
	if causes := status.Status().Details.Causes; len(causes) != 1 || causes[0].Type != policyv1.DisruptionBudgetCause ||
		!strings.HasPrefix(causes[0].Message, "The disruption budget pdb needs 2 healthy pods and has ") {
		t.Errorf("causes are %+v", causes)
	}

	// With the budget wider the next one may go, and is gone, marked as disrupted before.
	w, err := c.Admin.CoreV1().Pods("default").Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + pods[1].Name})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	patch := []byte(`{"spec":{"maxUnavailable":2}}`)
	if _, err := c.Admin.PolicyV1().PodDisruptionBudgets("default").Patch(ctx, "pdb", "application/merge-patch+json", patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	// A client is told to come back in 10 s as long as the change was not seen.
	controllertest.Wait(t, c, "the wider budget", budgetNow(c, "pdb"), func(b *policyv1.PodDisruptionBudget) bool { return b.Status.ObservedGeneration == b.Generation })
	controllertest.Wait(t, c, "the eviction", func(ctx context.Context) (error, error) { return evict(ctx, c, pods[1].Name, nil), nil }, func(err error) bool { return err == nil })
	for e := range w.ResultChan() {
		p := e.Object.(*corev1.Pod)
		if e.Type == "DELETED" {
			i := slices.IndexFunc(p.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.DisruptionTarget })
			if i < 0 || p.Status.Conditions[i].Reason != "EvictionByEvictionAPI" || p.Status.Conditions[i].Message != "Eviction API: evicting" || p.Status.Conditions[i].Status != corev1.ConditionTrue {
				t.Errorf("conditions %+v", p.Status.Conditions)
			}
			break
		}
	}
	controllertest.Wait(t, c, "an unready replacement", budgetNow(c, "pdb"), func(b *policyv1.PodDisruptionBudget) bool {
		_, there := b.Status.DisruptedPods[pods[1].Name]
		return !there && b.Status.ExpectedPods == 3
	})
	if err := evict(ctx, c, "nobody", nil); !apierrors.IsNotFound(err) || err.Error() != `pods "nobody" not found` {
		t.Errorf("no such pod: %v", err)
	}
}

// A pod without a controller can't be counted by a percentage, and one whose controller has no size fails the budget.
func TestBudgetWithoutScale(t *testing.T) {
	c := controllertest.Start(t, all()...)
	ctx := t.Context()
	for _, p := range []*corev1.Pod{
		{ObjectMeta: metav1.ObjectMeta{Name: "bare", Labels: map[string]string{"app": "bare"}}},
		{ObjectMeta: metav1.ObjectMeta{Name: "owned", Labels: map[string]string{"app": "owned"}, OwnerReferences: []metav1.OwnerReference{{
			APIVersion: "v1", Kind: "Node", Name: "n1", UID: c.Node(t, "n1").UID, Controller: ptr.To(true),
		}}}},
	} {
		p.Spec.Containers = []corev1.Container{{Name: "main", Image: "hello:1"}}
		if _, err := c.Admin.CoreV1().Pods("default").Create(ctx, p, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	half, count := intstr.FromString("50%"), intstr.FromInt32(1)
	for app, spec := range map[string]policyv1.PodDisruptionBudgetSpec{
		"owned": {MinAvailable: &half}, "bare": {MinAvailable: &half}, "none": {MinAvailable: &count},
	} {
		if _, err := c.Admin.PolicyV1().PodDisruptionBudgets("default").Create(ctx, budget(app, app, spec), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct{ budget, condition, message, event string }{
		{"owned", "SyncFailed", "nodes does not implement the scale subresource", "CalculateExpectedPodCountFailed"},
		{"bare", "InsufficientPods", "", "UnmanagedPods"},
		{"none", "InsufficientPods", "", "NoPods"},
	} {
		b := controllertest.Wait(t, c, "the status", budgetNow(c, test.budget), func(b *policyv1.PodDisruptionBudget) bool {
			cond := apimeta.FindStatusCondition(b.Status.Conditions, policyv1.DisruptionAllowedCondition)
			return cond != nil && cond.Reason == test.condition
		})
		if got := b.Status.Conditions[0]; got.Message != test.message || got.Status != metav1.ConditionFalse || b.Status.DisruptionsAllowed != 0 {
			t.Errorf("%s: condition %+v", test.budget, got)
		}
		controllertest.Wait(t, c, "the event "+test.event, func(ctx context.Context) (*corev1.EventList, error) {
			return c.Admin.CoreV1().Events("default").List(ctx, metav1.ListOptions{FieldSelector: "reason=" + test.event + ",involvedObject.name=" + test.budget})
		}, func(l *corev1.EventList) bool { return len(l.Items) > 0 })
	}
	// It is pending: no budget counts. Old clients speak of v1beta1.
	err := c.Admin.PolicyV1beta1().Evictions("default").Evict(ctx, &policyv1beta1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: "bare", Namespace: "default"}})
	if err != nil {
		t.Errorf("a pending pod: %v", err)
	}
	if _, err := c.Admin.CoreV1().Pods("default").Get(ctx, "bare", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("it is still there: %v", err)
	}
}
