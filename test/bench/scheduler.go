package main

import (
	"context"
	"fmt"
	"sync/atomic"
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
	var rows []row
	for _, size := range []struct{ nodes, pods int }{{1000, 5000}, {5000, 5000}} {
		r, err := b.schedule(ctx, size.nodes, size.pods)
		if err != nil {
			return rows, err
		}
		rows = append(rows, r)
	}
	return rows, nil
}

func (b *bench) schedule(ctx context.Context, nodes, pods int) (row, error) {
	err := parallel(ctx, nodes, func(ctx context.Context, i int) error {
		_, err := b.client.CoreV1().Nodes().Create(ctx, hollowNode(i), metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return row{}, err
	}
	defer func() {
		_ = b.client.CoreV1().Nodes().DeleteCollection(context.WithoutCancel(ctx), metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: hollowTaint})
	}()
	// The pods wait behind a gate until all exist, so that only scheduling is measured.
	var bound atomic.Int64
	var first, last time.Time
	done := make(chan error, 1)
	go func() {
		done <- b.waitPods(ctx, metav1.ListOptions{LabelSelector: "app=schedule"}, func(e watch.Event) bool {
			pod := e.Object.(*corev1.Pod)
			if e.Type == watch.Modified && pod.Spec.NodeName != "" {
				bound.Add(1)
				last = time.Now()
			}
			return bound.Load() >= int64(pods)
		})
	}()
	first = time.Now()
	err = parallel(ctx, pods, func(ctx context.Context, i int) error {
		_, err := b.client.CoreV1().Pods(namespace).Create(ctx, b.hollowPod(i), metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return row{}, err
	}
	if err := <-done; err != nil {
		return row{}, fmt.Errorf("%d of %d pods are scheduled: %w", bound.Load(), pods, err)
	}
	rate := float64(pods) / last.Sub(first).Seconds()
	err = b.client.CoreV1().Pods(namespace).DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}, metav1.ListOptions{LabelSelector: "app=schedule"})
	return row{Name: fmt.Sprintf("scheduler: %d pods on %d nodes, creation included", pods, nodes), Unit: "1/s", Values: []float64{rate}}, err
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

func (b *bench) hollowPod(i int) *corev1.Pod {
	pod := b.pod(fmt.Sprintf("schedule-%d", i))
	pod.Labels["app"] = "schedule"
	pod.Spec.NodeSelector = map[string]string{hollowTaint: "true"}
	pod.Spec.Tolerations = []corev1.Toleration{{Key: hollowTaint, Operator: corev1.TolerationOpExists}, {Key: "node.kubernetes.io/not-ready", Operator: corev1.TolerationOpExists}}
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
