package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/remotecommand"
)

// testImage is the image whose programs tell who was reached, and how (test/images/agnhost).
const testImage = "registry.local/agnhost:2"

// connect makes the cluster's client, which is that of the administrator.
func (c *testCluster) connect() error {
	config, err := clientcmd.BuildConfigFromFlags("", c.kubeconfig)
	if err != nil {
		return err
	}
	config.QPS, config.WarningHandler = -1, rest.NoWarnings{}
	c.config = config
	c.client, err = kubernetes.NewForConfig(config)
	return err
}

// sub is the session of a subtest, in the same namespace.
func (s *session) sub(t *testing.T) *session {
	sub := *s
	sub.t = t
	return &sub
}

// testPod makes a pod with one container of the test image that runs a program of it.
func testPod(name string, labels map[string]string, args ...string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels},
		Spec:       testPodSpec(args...),
	}
}

func testPodSpec(args ...string) corev1.PodSpec {
	if args == nil {
		args = []string{"netexec"}
	}
	c := corev1.Container{Name: "agnhost", Image: testImage, Args: args}
	if args[0] == "netexec" {
		c.ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(8080)}}, PeriodSeconds: 1}
	}
	return corev1.PodSpec{Containers: []corev1.Container{c}}
}

// run creates pods, and waits until they are ready.
func (s *session) run(pods ...*corev1.Pod) []*corev1.Pod {
	s.t.Helper()
	for _, p := range pods {
		if _, err := s.client.CoreV1().Pods(s.namespace).Create(s.t.Context(), p, metav1.CreateOptions{}); err != nil {
			s.t.Fatal(err)
		}
	}
	for i := range pods {
		pods[i] = s.pod(pods[i].Name, "Ready", isReady)
	}
	return pods
}

// pod waits until a pod is as it is wanted.
func (s *session) pod(name, what string, is func(*corev1.Pod) bool) (pod *corev1.Pod) {
	s.t.Helper()
	s.eventually("pod "+name+" "+what, func() (err error) {
		if pod, err = s.client.CoreV1().Pods(s.namespace).Get(s.t.Context(), name, metav1.GetOptions{}); err == nil && !is(pod) {
			err = fmt.Errorf("%+v", pod.Status)
		}
		return err
	})
	return pod
}

func isReady(p *corev1.Pod) bool {
	return podCondition(p, corev1.PodReady).Status == corev1.ConditionTrue
}

func podCondition(p *corev1.Pod, kind corev1.PodConditionType) corev1.PodCondition {
	for _, c := range p.Status.Conditions {
		if c.Type == kind {
			return c
		}
	}
	return corev1.PodCondition{}
}

// podsOf gives the pods that a selector selects, in order of their names, without those that are about to go.
func (s *session) podsOf(selector string) []corev1.Pod {
	s.t.Helper()
	list, err := s.client.CoreV1().Pods(s.namespace).List(s.t.Context(), metav1.ListOptions{LabelSelector: selector})
	must(s.t, err)
	return slices.DeleteFunc(list.Items, func(p corev1.Pod) bool { return p.DeletionTimestamp != nil })
}

// readyPods waits until a selector selects as many pods as are wanted, all ready.
func (s *session) readyPods(selector string, n int) (pods []corev1.Pod) {
	s.t.Helper()
	s.eventually(fmt.Sprintf("%d pods with %s", n, selector), func() error {
		pods = s.podsOf(selector)
		ready := 0
		for _, p := range pods {
			if isReady(&p) {
				ready++
			}
		}
		if ready != n || len(pods) != n {
			return fmt.Errorf("%d are ready, of %d", ready, len(pods))
		}
		return nil
	})
	return pods
}

// end deletes a pod and waits until it is gone.
func (s *session) end(pod string) {
	s.t.Helper()
	api := s.client.CoreV1().Pods(s.namespace)
	must(s.t, api.Delete(s.t.Context(), pod, metav1.DeleteOptions{}))
	s.eventually("the end of pod "+pod, func() error {
		left, err := api.Get(s.t.Context(), pod, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("%+v, %w", left.Status, err)
	})
}

// exec runs a command in a pod's first container, and gives what it writes to both outputs.
func (s *session) exec(pod string, command ...string) (string, error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	target := s.client.CoreV1().RESTClient().Post().Resource("pods").Namespace(s.namespace).Name(pod).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Command: command, Stdout: true, Stderr: true}, scheme.ParameterCodec).URL()
	executor, err := remotecommand.NewWebSocketExecutor(s.config, "GET", target.String())
	if err != nil {
		return "", err
	}
	var stdout, stderr bytes.Buffer
	if err := executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &stdout, Stderr: &stderr}); err != nil {
		return stdout.String(), fmt.Errorf("%s in %s: %w: %s", strings.Join(command, " "), pod, err, stderr.String())
	}
	return stdout.String() + stderr.String(), nil
}

// dials lets the pod that serves at from ask an address, several times, and gives how often it got each answer.
func dials(from, protocol, host string, port, tries int, request string) (map[string]int, error) {
	query := url.Values{"protocol": {protocol}, "host": {host}, "port": {strconv.Itoa(port)}, "tries": {strconv.Itoa(tries)}, "request": {request}}
	_, body, err := get("http://" + from + ":8080/dial?" + query.Encode())
	if err != nil {
		return nil, err
	}
	var result struct{ Responses, Errors []string }
	if err := json.Unmarshal([]byte(body), &result); err != nil {
		return nil, fmt.Errorf("%w: %s", err, body)
	}
	got := map[string]int{}
	for _, r := range result.Responses {
		got[r]++
	}
	if len(result.Errors) > 0 {
		return got, fmt.Errorf("%s %s:%d: %s", protocol, host, port, strings.Join(result.Errors, "; "))
	}
	return got, nil
}

// reaches waits until a pod gets answers from each of the pods by an address, and from no other.
func (s *session) reaches(from, protocol, host string, port int, names ...string) {
	s.t.Helper()
	slices.Sort(names)
	s.eventually(fmt.Sprintf("answers of %v", names), func() error {
		got, err := dials(from, protocol, host, port, 6*len(names), "hostname")
		if err == nil && !slices.Equal(slices.Sorted(maps.Keys(got)), names) {
			err = fmt.Errorf("%s:%d answered as %v", host, port, got)
		}
		return err
	})
}

// unreachable waits until nobody answers at an address.
func (s *session) unreachable(from, protocol, host string, port int) {
	s.t.Helper()
	s.eventually("no answer", func() error {
		if got, err := dials(from, protocol, host, port, 1, "hostname"); err == nil {
			return fmt.Errorf("%s:%d answers as %v", host, port, got)
		}
		return nil
	})
}

// node gives the cluster's only node, and its address.
func (s *session) node() (*corev1.Node, string) {
	s.t.Helper()
	list, err := s.client.CoreV1().Nodes().List(s.t.Context(), metav1.ListOptions{})
	must(s.t, err)
	for _, a := range list.Items[0].Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			return &list.Items[0], a.Address
		}
	}
	s.t.Fatalf("the node has no address: %+v", list.Items[0].Status.Addresses)
	return nil, ""
}

// expect waits for the events of a watch that lead through "TYPE" and a check of the object.
func expect[T any](t *testing.T, w watch.Interface, kind watch.EventType, is func(T) bool) {
	t.Helper()
	timeout := t.Context()
	ctx, cancel := context.WithTimeout(timeout, patience)
	defer cancel()
	for {
		select {
		case e, open := <-w.ResultChan():
			if !open {
				t.Fatalf("the watch ended before %s", kind)
			}
			if object, ok := e.Object.(T); ok && e.Type == kind && (is == nil || is(object)) {
				return
			}
		case <-ctx.Done():
			t.Fatalf("no event %s as wanted", kind)
		}
	}
}

// update reads an object, changes it and writes it back, until nobody else wrote in between.
func update[T any](t *testing.T, get func() (T, error), change func(T), put func(T) (T, error)) (changed T) {
	t.Helper()
	eventually(t, "an update", func() error {
		object, err := get()
		must(t, err)
		change(object)
		changed, err = put(object)
		if err != nil && !apierrors.IsConflict(err) {
			t.Fatal(err)
		}
		return err
	})
	return changed
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// mergePatch is a patch of the kind that kubectl patch --type=merge sends.
const mergePatch = types.MergePatchType

func eviction(pod string) *policyv1.Eviction {
	return &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: pod}}
}
