package main

import (
	"context"
	"fmt"
	"net"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// measureService makes Services of a running pod, with more and more others there, and waits until each answers. It runs
// on a node of the cluster, or it finds no way to a ClusterIP.
func measureService(ctx context.Context, b *bench) ([]row, error) {
	if err := b.connect(ctx); err != nil {
		return nil, err
	}
	pod := b.pod("backend")
	pod.Labels = map[string]string{"app": "backend"}
	if _, err := b.client.CoreV1().Pods(namespace).Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		return nil, err
	}
	if err := b.waitPods(ctx, named("backend"), running); err != nil {
		return nil, err
	}
	var rows []row
	have := 0
	for _, others := range []int{100, 1000, 5000} {
		err := parallel(ctx, others-have, func(ctx context.Context, i int) error {
			_, err := b.client.CoreV1().Services(namespace).Create(ctx, service(fmt.Sprintf("other-%d", have+i), pod.Labels), metav1.CreateOptions{})
			return err
		})
		if err != nil {
			return rows, err
		}
		have = others
		var took []time.Duration
		for i := range 10 {
			d, err := b.timeService(ctx, fmt.Sprintf("new-%d-%d", others, i), pod.Labels)
			if err != nil {
				return rows, err
			}
			took = append(took, d)
		}
		rows = append(rows, percentiles(fmt.Sprintf("new Service answers on its ClusterIP, with %d others", others), took))
	}
	// Deleting the namespace's services one by one would take longer than the measurement; they are in nobody's way.
	return rows, b.deletePods(ctx, metav1.ListOptions{LabelSelector: "app=backend"})
}

// timeService creates a Service and connects until that works.
func (b *bench) timeService(ctx context.Context, name string, selector map[string]string) (time.Duration, error) {
	began := time.Now()
	svc, err := b.client.CoreV1().Services(namespace).Create(ctx, service(name, selector), metav1.CreateOptions{})
	if err != nil {
		return 0, err
	}
	address := net.JoinHostPort(svc.Spec.ClusterIP, "80")
	dialer := net.Dialer{Timeout: 50 * time.Millisecond} // an attempt that was dropped is soon made again
	for time.Since(began) < eventually {
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err == nil {
			took := time.Since(began)
			return took, conn.Close()
		}
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		time.Sleep(time.Millisecond)
	}
	return 0, fmt.Errorf("service %s does not answer at %s of type %s", name, address, corev1.ServiceTypeClusterIP)
}
