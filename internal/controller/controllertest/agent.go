package controllertest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// Node creates a node that is ready.
func (c *Cluster) Node(t testing.TB, name string) *corev1.Node {
	t.Helper()
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	n.Status.Conditions = []corev1.NodeCondition{{
		Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady", Message: "kubelet is posting ready status",
		LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.Now(),
	}}
	n, err := c.Admin.CoreV1().Nodes().Create(context.Background(), n, metav1.CreateOptions{})
	must(t, err)
	return n
}

// Agent simulates scheduler and agent of a node, until the test ends: pods are bound to it and become ready at once, and
// are gone as soon as they are deleted. healthy, if not nil, says which pods become ready.
func (c *Cluster) Agent(t testing.TB, node string, healthy func(*corev1.Pod) bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w, err := c.Admin.CoreV1().Pods("").Watch(ctx, metav1.ListOptions{})
	must(t, err)
	a := &agent{Cluster: c, node: node, healthy: healthy}
	var all sync.WaitGroup
	all.Go(func() {
		for e := range w.ResultChan() {
			if p, ok := e.Object.(*corev1.Pod); ok && e.Type != "DELETED" {
				if err := a.handle(ctx, p); err != nil && ctx.Err() == nil {
					t.Errorf("agent: pod %s: %v", p.Name, err)
				}
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		w.Stop()
		all.Wait()
	})
}

type agent struct {
	*Cluster
	node    string
	healthy func(*corev1.Pod) bool
	last    int
}

func (a *agent) handle(ctx context.Context, p *corev1.Pod) error {
	api := a.Admin.CoreV1().Pods(p.Namespace)
	var err error
	switch {
	case p.DeletionTimestamp != nil:
		err = api.Delete(ctx, p.Name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To(int64(0))})
	case p.Spec.NodeName == "":
		err = api.Bind(ctx, &corev1.Binding{
			ObjectMeta: metav1.ObjectMeta{Name: p.Name, Namespace: p.Namespace, UID: p.UID},
			Target:     corev1.ObjectReference{Kind: "Node", Name: a.node},
		}, metav1.CreateOptions{})
	case p.Spec.NodeName == a.node && p.Status.Phase == corev1.PodPending:
		a.last++
		ip := fmt.Sprintf("10.42.%d.%d", a.last/250, a.last%250+1)
		p.Status.Phase = corev1.PodRunning
		p.Status.PodIP, p.Status.PodIPs = ip, []corev1.PodIP{{IP: ip}}
		ready := corev1.ConditionTrue
		if a.healthy != nil && !a.healthy(p) {
			ready = corev1.ConditionFalse
		}
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{
			Type: corev1.PodReady, Status: ready, LastTransitionTime: metav1.Now(),
		})
		_, err = api.UpdateStatus(ctx, p, metav1.UpdateOptions{})
	}
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}

// Wait waits until condition is true of what get gives, which it asks for again whenever anything in the store changed. A
// condition that doesn't come true ends the test, and the last state is printed.
func Wait[T any](t testing.TB, c *Cluster, what string, get func(context.Context) (T, error), condition func(T) bool) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		rev, err := c.Store.Rev(ctx)
		must(t, err)
		last, err := get(ctx)
		if err == nil && condition(last) {
			return last
		}
		for now := rev; now == rev; {
			select {
			case <-ctx.Done():
				t.Fatalf("waiting for %s: last seen %+v, %v", what, last, err)
			case <-time.After(5 * time.Millisecond):
			}
			if now, err = c.Store.Rev(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
	}
}
