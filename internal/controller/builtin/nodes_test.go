package builtin_test

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/proa-k8s/proa/internal/controller/builtin"
	"github.com/proa-k8s/proa/internal/controller/controllertest"
	"github.com/proa-k8s/proa/internal/controller/nodeipam"
	"github.com/proa-k8s/proa/internal/controller/nodelifecycle"
)

// beat renews the node's lease until the test ends.
func beat(t *testing.T, c *controllertest.Cluster, node string) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	leases := c.Admin.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	if _, err := leases.Create(ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: node}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		ticks := time.NewTicker(100 * time.Millisecond)
		defer ticks.Stop()
		for {
			select {
			case at := <-ticks.C:
				_, err := leases.Patch(ctx, node, types.MergePatchType, []byte(`{"spec":{"renewTime":"`+at.UTC().Format("2006-01-02T15:04:05.000000Z")+`"}}`), metav1.PatchOptions{})
				if err != nil && ctx.Err() == nil {
					t.Errorf("renewing the lease: %v", err)
				}
			case <-ctx.Done():
				return
			}
		}
	})
	t.Cleanup(func() { stop(); all.Wait() })
}

// Of two nodes one falls silent: it becomes unknown and is tainted, its pods are not ready, and are deleted when they tolerate
// that no longer.
func TestSilentNode(t *testing.T) {
	c := controllertest.Start(t, builtin.Controllers(builtin.Options{
		NodeLifecycle: nodelifecycle.Config{GracePeriod: time.Second},
		NodeIPAM:      nodeipam.Config{ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.42.0.0/16")}},
	})...)
	c.Node(t, "alive")
	beat(t, c, "alive")
	c.Node(t, "silent")
	c.Agent(t, "alive", nil) // Nobody answers for the other.
	ctx, pods := t.Context(), c.Admin.CoreV1().Pods("default")
	for name, seconds := range map[string]*int64{"patient": ptr.To(int64(3600)), "hasty": ptr.To(int64(0))} {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{
			NodeName:   "silent",
			Containers: []corev1.Container{{Name: "main", Image: "hello:1"}},
			Tolerations: []corev1.Toleration{{
				Key: corev1.TaintNodeUnreachable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: seconds,
			}},
		}}
		p, err := pods.Create(ctx, p, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		p.Status.Phase = corev1.PodRunning
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}
		if _, err := pods.UpdateStatus(ctx, p, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	controllertest.Wait(t, c, "the taints", func(ctx context.Context) (*corev1.Node, error) {
		return c.Admin.CoreV1().Nodes().Get(ctx, "silent", metav1.GetOptions{})
	}, func(n *corev1.Node) bool {
		has := func(effect corev1.TaintEffect) bool {
			return slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool {
				return t.Key == corev1.TaintNodeUnreachable && t.Effect == effect && t.TimeAdded != nil
			})
		}
		return n.Status.Conditions[0].Reason == "NodeStatusUnknown" && has(corev1.TaintEffectNoSchedule) && has(corev1.TaintEffectNoExecute)
	})
	pod := func(name string) func(context.Context) (*corev1.Pod, error) {
		return func(ctx context.Context) (*corev1.Pod, error) { return pods.Get(ctx, name, metav1.GetOptions{}) }
	}
	has := func(p *corev1.Pod, t corev1.PodConditionType, status corev1.ConditionStatus, reason string) bool {
		return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == t && c.Status == status && c.Reason == reason
		})
	}
	controllertest.Wait(t, c, "the deletion of one", func(ctx context.Context) (bool, error) {
		p, err := pod("hasty")(ctx)
		if apierrors.IsNotFound(err) {
			return true, nil
		}
		return err == nil && p.DeletionTimestamp != nil && has(p, corev1.DisruptionTarget, corev1.ConditionTrue, "DeletionByTaintManager"), err
	}, func(deleted bool) bool { return deleted })
	patient := controllertest.Wait(t, c, "the other to be not ready", pod("patient"), func(p *corev1.Pod) bool {
		return has(p, corev1.PodReady, corev1.ConditionFalse, "")
	})
	if patient.DeletionTimestamp != nil {
		t.Error("the pod that tolerates it was deleted")
	}
	alive, err := c.Admin.CoreV1().Nodes().Get(ctx, "alive", metav1.GetOptions{})
	if err != nil || len(alive.Spec.Taints) != 0 || alive.Status.Conditions[0].Status != corev1.ConditionTrue {
		t.Errorf("the other node is %+v, %v", alive.Spec.Taints, err)
	}
	// The node is back before the patience of the pod is at its end.
	back, err := c.Admin.CoreV1().Nodes().Get(ctx, "silent", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	back.Status.Conditions[0].Status, back.Status.Conditions[0].LastHeartbeatTime = corev1.ConditionTrue, metav1.Now()
	if _, err := c.Admin.CoreV1().Nodes().UpdateStatus(ctx, back, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	controllertest.Wait(t, c, "an event about the pod that stays", func(ctx context.Context) (*corev1.EventList, error) {
		return c.Admin.CoreV1().Events("default").List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=patient,reason=TaintManagerEviction"})
	}, func(l *corev1.EventList) bool {
		return len(l.Items) == 1 && l.Items[0].Message == "Cancelling deletion of Pod default/patient"
	})
}

func TestReplicationController(t *testing.T) {
	c := controllertest.Start(t, all()...)
	c.Node(t, "n1")
	c.Agent(t, "n1", nil)
	template := deployment("web", 1).Spec.Template
	_, err := c.Admin.CoreV1().ReplicationControllers("default").Create(t.Context(), &corev1.ReplicationController{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec:       corev1.ReplicationControllerSpec{Replicas: ptr.To(int32(3)), Template: &template},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	controllertest.Wait(t, c, "the pods", func(ctx context.Context) (*corev1.ReplicationController, error) {
		return c.Admin.CoreV1().ReplicationControllers("default").Get(ctx, "web", metav1.GetOptions{})
	}, func(rc *corev1.ReplicationController) bool {
		return rc.Status.AvailableReplicas == 3 && rc.Status.FullyLabeledReplicas == 3 && rc.Status.ObservedGeneration == rc.Generation
	})
	if ref := metav1.GetControllerOf(&podsOf(t, c, "web")[0]); ref == nil || ref.Kind != "ReplicationController" || ref.APIVersion != "v1" {
		t.Errorf("the owner is %+v", ref)
	}
}
