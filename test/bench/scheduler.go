package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/ptr"
)

// hollowTaint keeps everything else from nodes that nobody runs.
const hollowTaint = "bench/hollow"

// measureScheduler schedules pods to nodes that exist in the API only.
func measureScheduler(ctx context.Context, b *bench) ([]row, error) {
	if err := b.connect(ctx); err != nil {
		return nil, err
	}
	if b.cluster != nil { // asked now: with nodes that nobody runs the cluster will not count as healthy
		var err error
		if b.server, err = b.cluster.pid(ctx); err != nil {
			return nil, err
		}
	}
	var rows []row
	for _, size := range []struct{ nodes, pods int }{{1000, 5000}, {5000, 5000}} {
		more, err := b.scheduleOn(ctx, size.nodes, size.pods)
		rows = append(rows, more...)
		if err != nil {
			return rows, err
		}
	}
	return rows, nil
}

// scheduleOn measures with a number of hollow nodes.
func (b *bench) scheduleOn(ctx context.Context, nodes, pods int) (rows []row, err error) {
	err = parallel(ctx, nodes, func(ctx context.Context, i int) error {
		_, err := b.client.CoreV1().Nodes().Create(ctx, hollowNode(i), metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return nil, err
	}
	defer func() {
		_ = b.client.CoreV1().Nodes().DeleteCollection(context.WithoutCancel(ctx), metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: hollowTaint})
	}()
	for _, m := range []struct {
		name string
		run  func(ctx context.Context, pods int) (cost, error)
	}{
		{"creation included", b.scheduleCreated},
		{"all waiting", b.scheduleWaiting},
	} {
		what := fmt.Sprintf("scheduler: %d pods on %d nodes, %s", pods, nodes, m.name)
		t, err := m.run(ctx, pods)
		if err != nil {
			return rows, fmt.Errorf("%s: %w", what, err)
		}
		rows = append(rows, row{Name: what, Unit: "1/s", Values: []float64{float64(pods) / t.took.Seconds()}})
		if b.cluster != nil {
			rows = append(rows, row{Name: what + ": CPU of the cluster", Unit: "s", Values: []float64{t.cpu.Seconds()}})
		}
	}
	return rows, nil
}

// cost is what something took, and what the cluster spent for it if that is known.
type cost struct{ took, cpu time.Duration }

// costOf does something.
func (b *bench) costOf(do func() error) (c cost, err error) {
	var before, after usage
	if b.cluster != nil {
		if before, err = b.cluster.usageWith(b.server); err != nil {
			return c, err
		}
	}
	began := time.Now()
	if err := do(); err != nil {
		return c, err
	}
	c.took = time.Since(began)
	if b.cluster != nil {
		if after, err = b.cluster.usageWith(b.server); err != nil {
			return c, err
		}
		c.cpu = after.cpu - before.cpu
	}
	return c, nil
}

// scheduleCreated goes from the creation of the first pod to the binding of the last: the client creates pods while the
// scheduler binds those that are there.
func (b *bench) scheduleCreated(ctx context.Context, pods int) (cost, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	bound := b.goWait(ctx, pods, isBound)
	c, err := b.costOf(func() error {
		if err := b.createHollow(ctx, pods); err != nil {
			return err
		}
		return <-bound
	})
	if err != nil {
		return c, err
	}
	return c, b.deleteHollow(ctx)
}

// patience is longer than any scheduler lets a pod wait after its first attempt.
const patience = 2 * time.Second

// scheduleWaiting is about the scheduler alone: the pods all exist, and one event makes them schedulable, when a pod goes that
// kept them from all hollow nodes by its anti-affinity.
func (b *bench) scheduleWaiting(ctx context.Context, pods int) (c cost, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	api := b.client.CoreV1().Pods(namespace)
	if _, err := api.Create(ctx, b.blocker(), metav1.CreateOptions{}); err != nil {
		return c, err
	}
	if err := b.waitPods(ctx, named(blockerName), isBound); err != nil {
		return c, err
	}
	refused := b.goWait(ctx, pods, isRefused)
	if err := b.createHollow(ctx, pods); err != nil {
		return c, err
	}
	if err := <-refused; err != nil {
		return c, err
	}
	bound := b.goWait(ctx, pods, isBound)
	time.Sleep(patience)
	c, err = b.costOf(func() error {
		if err := api.Delete(ctx, blockerName, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}); err != nil {
			return err
		}
		return <-bound
	})
	if err != nil {
		return c, err
	}
	return c, b.deleteHollow(ctx)
}

// goWait watches the hollow pods until so many of them are as is says, and then gives a result.
func (b *bench) goWait(ctx context.Context, pods int, is func(watch.Event) bool) <-chan error {
	done := make(chan error, 1)
	go func() {
		seen := map[string]bool{}
		err := b.waitPods(ctx, hollowPods, func(e watch.Event) bool {
			if is(e) {
				seen[e.Object.(*corev1.Pod).Name] = true
			}
			return len(seen) >= pods
		})
		if err != nil {
			err = fmt.Errorf("%d of %d: %w", len(seen), pods, err)
		}
		done <- err
	}()
	return done
}

func isBound(e watch.Event) bool {
	pod, ok := e.Object.(*corev1.Pod)
	return ok && pod.Spec.NodeName != ""
}

// isRefused tells that the scheduler has found no node for the pod.
func isRefused(e watch.Event) bool {
	pod, ok := e.Object.(*corev1.Pod)
	return ok && slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse
	})
}

// hollowPods are the pods to be scheduled.
var hollowPods = metav1.ListOptions{LabelSelector: "app=schedule"}

func (b *bench) createHollow(ctx context.Context, pods int) error {
	return parallel(ctx, pods, func(ctx context.Context, i int) error {
		pod := b.hollowPod(fmt.Sprintf("schedule-%d", i))
		pod.Labels["app"] = "schedule"
		_, err := b.client.CoreV1().Pods(namespace).Create(ctx, pod, metav1.CreateOptions{})
		return err
	})
}

func (b *bench) deleteHollow(ctx context.Context) error {
	return b.client.CoreV1().Pods(namespace).DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}, hollowPods)
}

const blockerName = "blocker"

// blocker is a pod that suffers no pod to be scheduled on any hollow node.
func (b *bench) blocker() *corev1.Pod {
	pod := b.hollowPod(blockerName)
	pod.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{
			LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "schedule"}},
			TopologyKey:   hollowTaint,
		}},
	}}
	return pod
}

func hollowNode(i int) *corev1.Node {
	capacity := corev1.ResourceList{
		corev1.ResourceCPU:    resource.MustParse("32"),
		corev1.ResourceMemory: resource.MustParse("256Gi"),
		corev1.ResourcePods:   resource.MustParse("110"),
	}
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("hollow-%d", i), Labels: map[string]string{hollowTaint: "true", "kubernetes.io/hostname": fmt.Sprintf("hollow-%d", i)}},
		Spec:       corev1.NodeSpec{Taints: []corev1.Taint{{Key: hollowTaint, Effect: corev1.TaintEffectNoSchedule}}},
		Status: corev1.NodeStatus{
			Capacity: capacity, Allocatable: capacity,
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.Now()}},
		},
	}
}

// hollowPod is a pod for a hollow node.
func (b *bench) hollowPod(name string) *corev1.Pod {
	pod := b.pod(name)
	pod.Spec.NodeSelector = map[string]string{hollowTaint: "true"}
	pod.Spec.Tolerations = []corev1.Toleration{{Key: hollowTaint, Operator: corev1.TolerationOpExists}, {Key: corev1.TaintNodeNotReady, Operator: corev1.TolerationOpExists}, {Key: corev1.TaintNodeUnreachable, Operator: corev1.TolerationOpExists}}
	pod.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("100Mi")}
	return pod
}

// parallel does n things, 32 at a time.
func parallel(ctx context.Context, n int, do func(ctx context.Context, i int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(32)
	for i := range n {
		group.Go(func() error { return do(ctx, i) })
	}
	return group.Wait()
}
