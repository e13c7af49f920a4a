package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/ptr"
)

// eventually bounds every wait.
const eventually = 2 * time.Minute

func (b *bench) podSpec() corev1.PodSpec {
	return corev1.PodSpec{
		TerminationGracePeriodSeconds: ptr.To[int64](30),
		Containers: []corev1.Container{{
			Name:            "hello",
			Image:           b.image,
			ImagePullPolicy: corev1.PullIfNotPresent,
			Ports:           []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}},
		}},
	}
}

func (b *bench) pod(name string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "bench"}}, Spec: b.podSpec()}
}

// waitPods watches the pods that a selector names until done says so. It begins with the present state.
func (b *bench) waitPods(ctx context.Context, o metav1.ListOptions, done func(watch.Event) bool) error {
	ctx, cancel := context.WithTimeout(ctx, eventually)
	defer cancel()
	o.ResourceVersion = "0"
	w, err := b.client.CoreV1().Pods(namespace).Watch(ctx, o)
	if err != nil {
		return err
	}
	defer w.Stop()
	for e := range w.ResultChan() {
		if e.Type == watch.Error {
			return fmt.Errorf("watching pods: %v", e.Object)
		}
		if done(e) {
			return nil
		}
	}
	return fmt.Errorf("waiting for pods: %w", context.Cause(ctx))
}

func named(name string) metav1.ListOptions {
	return metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String()}
}

func running(e watch.Event) bool {
	pod, ok := e.Object.(*corev1.Pod)
	return ok && pod.Status.Phase == corev1.PodRunning
}

// measurePods creates and deletes pods one by one.
func measurePods(ctx context.Context, b *bench) ([]row, error) {
	if err := b.connect(ctx); err != nil {
		return nil, err
	}
	const n = 30
	pods := b.client.CoreV1().Pods(namespace)
	var create, remove []time.Duration
	for i := range n {
		name := fmt.Sprintf("one-%d", i)
		began := time.Now()
		if _, err := pods.Create(ctx, b.pod(name), metav1.CreateOptions{}); err != nil {
			return nil, err
		}
		if err := b.waitPods(ctx, named(name), running); err != nil {
			return nil, err
		}
		create = append(create, time.Since(began))

		began = time.Now()
		if err := pods.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
			return nil, err
		}
		if err := b.waitGone(ctx, name); err != nil {
			return nil, err
		}
		remove = append(remove, time.Since(began))
	}
	return []row{
		percentiles("pod create → Running, one by one", create),
		percentiles("pod delete → gone", remove),
	}, nil
}

// waitGone waits until a pod is deleted, without missing a deletion that came before the watch.
func (b *bench) waitGone(ctx context.Context, name string) error {
	list, err := b.client.CoreV1().Pods(namespace).List(ctx, named(name))
	if err != nil || len(list.Items) == 0 {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, eventually)
	defer cancel()
	o := named(name)
	o.ResourceVersion = list.ResourceVersion
	w, err := b.client.CoreV1().Pods(namespace).Watch(ctx, o)
	if err != nil {
		return err
	}
	defer w.Stop()
	for e := range w.ResultChan() {
		if e.Type == watch.Deleted {
			return nil
		}
	}
	return fmt.Errorf("waiting until pod %s is gone: %w", name, context.Cause(ctx))
}

// measureBurst creates many pods at once.
func measureBurst(ctx context.Context, b *bench) ([]row, error) {
	if err := b.connect(ctx); err != nil {
		return nil, err
	}
	const n = 50
	pods := b.client.CoreV1().Pods(namespace)
	began := time.Now()
	for i := range n {
		pod := b.pod(fmt.Sprintf("burst-%d", i))
		pod.Labels["app"] = "burst"
		if _, err := pods.Create(ctx, pod, metav1.CreateOptions{}); err != nil {
			return nil, err
		}
	}
	up := map[string]bool{}
	selector := metav1.ListOptions{LabelSelector: "app=burst"}
	err := b.waitPods(ctx, selector, func(e watch.Event) bool {
		if running(e) {
			up[e.Object.(*corev1.Pod).Name] = true
		}
		return len(up) == n
	})
	if err != nil {
		return nil, fmt.Errorf("%d of %d pods run: %w", len(up), n, err)
	}
	took := time.Since(began)
	return []row{seconds(fmt.Sprintf("burst of %d pods → all Running", n), took)}, b.deletePods(ctx, selector)
}

// deletePods deletes pods and waits until they are gone.
func (b *bench) deletePods(ctx context.Context, selector metav1.ListOptions) error {
	pods := b.client.CoreV1().Pods(namespace)
	if err := pods.DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](1)}, selector); err != nil {
		return err
	}
	list, err := pods.List(ctx, selector)
	if err != nil {
		return err
	}
	for _, pod := range list.Items {
		if err := b.waitGone(ctx, pod.Name); err != nil {
			return err
		}
	}
	return nil
}

// measureDeployment rolls a Deployment behind a Service out, and then an update of it.
func measureDeployment(ctx context.Context, b *bench) ([]row, error) {
	if err := b.connect(ctx); err != nil {
		return nil, err
	}
	const n = 20
	labels := map[string]string{"app": "rollout"}
	d := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "rollout"},
		Spec: appsv1.DeploymentSpec{
			Replicas: ptr.To[int32](n),
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: b.podSpec()},
		},
	}
	svc := service("rollout", labels)
	began := time.Now()
	if _, err := b.client.CoreV1().Services(namespace).Create(ctx, svc, metav1.CreateOptions{}); err != nil {
		return nil, err
	}
	d, err := b.client.AppsV1().Deployments(namespace).Create(ctx, d, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	if err := b.waitRollout(ctx, d.Name, d.Generation, n); err != nil {
		return nil, err
	}
	first := time.Since(began)

	patch := []byte(`{"spec":{"template":{"metadata":{"annotations":{"round":"2"}}}}}`)
	began = time.Now()
	d, err = b.client.AppsV1().Deployments(namespace).Patch(ctx, d.Name, "application/merge-patch+json", patch, metav1.PatchOptions{})
	if err != nil {
		return nil, err
	}
	if err := b.waitRollout(ctx, d.Name, d.Generation, n); err != nil {
		return nil, err
	}
	update := time.Since(began)
	if err := b.client.CoreV1().Services(namespace).Delete(ctx, svc.Name, metav1.DeleteOptions{}); err != nil {
		return nil, err
	}
	err = b.client.AppsV1().Deployments(namespace).Delete(ctx, d.Name, metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationBackground)})
	if err != nil {
		return nil, err
	}
	return []row{
		seconds(fmt.Sprintf("Deployment of %d + Service → Available", n), first),
		seconds("rolling update of it", update),
	}, b.deletePods(ctx, metav1.ListOptions{LabelSelector: "app=rollout"})
}

func (b *bench) waitRollout(ctx context.Context, name string, generation int64, n int32) error {
	ctx, cancel := context.WithTimeout(ctx, eventually)
	defer cancel()
	o := named(name)
	o.ResourceVersion = "0"
	w, err := b.client.AppsV1().Deployments(namespace).Watch(ctx, o)
	if err != nil {
		return err
	}
	defer w.Stop()
	for e := range w.ResultChan() {
		d, ok := e.Object.(*appsv1.Deployment)
		if ok && d.Status.ObservedGeneration >= generation && d.Status.UpdatedReplicas == n && d.Status.AvailableReplicas == n && d.Status.Replicas == n {
			return nil
		}
	}
	return fmt.Errorf("waiting for deployment %s: %w", name, context.Cause(ctx))
}

func service(name string, selector map[string]string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.ServiceSpec{
			Selector: selector,
			Ports:    []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}},
		},
	}
}

// percentiles makes a row in milliseconds.
func percentiles(name string, took []time.Duration) row {
	slices.Sort(took)
	at := func(p float64) float64 {
		i := min(int(p*float64(len(took))), len(took)-1)
		return float64(took[i].Microseconds()) / 1000
	}
	return row{Name: name, Unit: "ms", Labels: []string{"p50", "p99"}, Values: []float64{at(0.5), at(0.99)}}
}

func seconds(name string, took time.Duration) row {
	return row{Name: name, Unit: "s", Values: []float64{took.Seconds()}}
}
