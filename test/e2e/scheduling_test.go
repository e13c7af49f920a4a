package e2e

import (
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// extended gives the node an amount of a resource that nothing else asks for.
func (s *session) extended(name string, amount int) {
	s.t.Helper()
	node, _ := s.node()
	patch := func(value string) {
		key := strings.ReplaceAll(name, "/", "~1")
		_, err := s.client.CoreV1().Nodes().Patch(s.t.Context(), node.Name, types.JSONPatchType,
			fmt.Appendf(nil, `[{"op":"add","path":"/status/capacity/%s","value":%q},{"op":"add","path":"/status/allocatable/%s","value":%q}]`, key, value, key, value), metav1.PatchOptions{}, "status")
		must(s.t, err)
	}
	patch(fmt.Sprint(amount))
}

// asking is a pod that asks for an amount of a resource.
func asking(name string, r corev1.ResourceName, amount string) *corev1.Pod {
	p := testPod(name, nil, "pause")
	list := corev1.ResourceList{r: resource.MustParse(amount)}
	p.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: list, Limits: list}
	return p
}

// waits creates a pod that can't be scheduled, and checks why.
func (s *session) waits(p *corev1.Pod, why string) {
	s.t.Helper()
	_, err := s.client.CoreV1().Pods(s.namespace).Create(s.t.Context(), p, metav1.CreateOptions{})
	must(s.t, err)
	p = s.pod(p.Name, "refused by the scheduler", func(p *corev1.Pod) bool {
		return podCondition(p, corev1.PodScheduled).Reason == corev1.PodReasonUnschedulable
	})
	if c := podCondition(p, corev1.PodScheduled); !strings.Contains(c.Message, why) || p.Spec.NodeName != "" {
		s.t.Errorf("pod %s: %q, want %q", p.Name, c.Message, why)
	}
}

// [sig-scheduling] SchedulerPredicates validates resource limits of pods that are allowed to run; validates that NodeSelector is
// respected if matching; if not matching; validates that there exists conflict between pods with same hostPort and protocol but
// one using 0.0.0.0 hostIP.
func TestSchedulerPredicates(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	node, address := s.node()

	s.extended("example.com/limits", 3)
	s.run(asking("fits", "example.com/limits", "2"))
	s.waits(asking("exceeds", "example.com/limits", "2"), "0/1 nodes are available: 1 Insufficient example.com/limits.")
	s.waits(asking("exceeds-cpu", corev1.ResourceCPU, "100000"), "0/1 nodes are available: 1 Insufficient cpu.")
	s.end("fits")
	s.pod("exceeds", "scheduled when there is room", func(p *corev1.Pod) bool { return p.Spec.NodeName == node.Name })

	selecting := testPod("selecting", nil, "pause")
	selecting.Spec.NodeSelector = map[string]string{"example.com/e2e": "42"}
	s.waits(selecting, "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.")
	_, err := s.client.CoreV1().Nodes().Patch(t.Context(), node.Name, mergePatch, []byte(`{"metadata":{"labels":{"example.com/e2e":"42"}}}`), metav1.PatchOptions{})
	must(t, err)
	s.pod("selecting", "Ready", isReady)

	port := func(name, ip string) *corev1.Pod {
		p := testPod(name, nil, "pause")
		p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 8080, HostPort: 54422 + int32(s.slot), HostIP: ip}}
		return p
	}
	s.run(port("everywhere", "0.0.0.0"))
	s.waits(port("here", address), "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.")
}

// priority makes a class that goes with the test.
func (s *session) priority(name string, value int32) string {
	s.t.Helper()
	api := s.client.SchedulingV1().PriorityClasses()
	name = s.namespace + "-" + name
	_, err := api.Create(s.t.Context(), &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Value: value}, metav1.CreateOptions{})
	must(s.t, err)
	s.t.Cleanup(func() { s.kubectl("delete", "priorityclass", name) })
	return name
}

// [sig-scheduling] SchedulerPreemption validates basic preemption works; validates lower priority pod preemption by critical pod;
// validates pod disruption condition is added to the preempted pod.
func TestPreemption(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	low, middle, high := s.priority("low", 1), s.priority("middle", 100), s.priority("high", 1000)
	const foo = "example.com/preemption"
	s.extended(foo, 4)
	classed := func(name, class, amount string) *corev1.Pod {
		p := asking(name, foo, amount)
		p.Spec.PriorityClassName = class
		return p
	}
	victim := classed("victim", low, "2")
	victim.Finalizers = []string{"example.com/test-finalizer"}
	s.run(victim, classed("stays", middle, "2"))
	s.run(classed("preemptor", high, "2"))
	got := s.pod("victim", "told why", func(p *corev1.Pod) bool { return p.DeletionTimestamp != nil })
	if c := podCondition(got, corev1.DisruptionTarget); c.Status != corev1.ConditionTrue || c.Reason != "PreemptionByScheduler" {
		t.Errorf("conditions of the victim: %+v", got.Status.Conditions)
	}
	_, err := s.client.CoreV1().Pods(s.namespace).Patch(t.Context(), "victim", mergePatch, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
	must(t, err)
	if p := s.pod("stays", "still there", isReady); p.DeletionTimestamp != nil {
		t.Error("a pod of higher priority was preempted")
	}

	critical := classed("critical-"+s.namespace, "system-cluster-critical", "2")
	system := s.sub(t)
	system.namespace = "kube-system"
	system.run(critical)
	t.Cleanup(func() {
		if out, err := system.try("delete", "pod", critical.Name); err != nil {
			t.Error(out)
		}
	})
	s.eventually("the end of the pod of lower priority", func() error {
		if left, err := s.client.CoreV1().Pods(s.namespace).Get(t.Context(), "stays", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("%+v, %w", left.Status, err)
		}
		return nil
	})
	s.pod("preemptor", "still there", isReady)
}

// [sig-scheduling] SchedulerPreemption PreemptionExecutionPath runs ReplicaSets to verify preemption running path.
func TestPreemptionOfReplicas(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	const cpu = "example.com/fakecpu"
	s.extended(cpu, 1000)
	set := func(name string, priority int32, amount string) {
		pod := asking("", cpu, amount)
		pod.Spec.PriorityClassName = s.priority(name, priority)
		labels := map[string]string{"name": name}
		rs := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: appsv1.ReplicaSetSpec{
			Replicas: ptr.To(int32(1)), Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: pod.Spec},
		}}
		_, err := s.client.AppsV1().ReplicaSets(s.namespace).Create(t.Context(), rs, metav1.CreateOptions{})
		must(t, err)
	}
	for i, amount := range []string{"200", "300", "450"} {
		set(fmt.Sprint("p", i+1), int32(i+1), amount)
		s.readyPods(fmt.Sprint("name=p", i+1), 1)
	}
	first := map[string]string{}
	for _, name := range []string{"p1", "p2", "p3"} {
		first[name] = s.podsOf("name=" + name)[0].Name
	}
	set("p4", 4, "500")
	s.readyPods("name=p4", 1)
	s.readyPods("name=p3", 1)
	for name, pod := range first {
		s.eventually("the pods of "+name, func() error {
			now := s.podsOf("name=" + name)
			if preempted := name != "p3"; len(now) != 1 || (now[0].Name != pod) != preempted || (now[0].Spec.NodeName == "") != preempted {
				return fmt.Errorf("was %s, is %+v", pod, now)
			}
			return nil
		})
	}
}

// [sig-scheduling] SchedulerPreemption PriorityClass endpoints verify PriorityClass endpoints can be operated with different HTTP
// methods.
func TestPriorityClasses(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	ctx, api := t.Context(), s.client.SchedulingV1().PriorityClasses()
	name := s.priority("p", 5)
	found, err := api.List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	must(t, err)
	if len(found.Items) != 1 {
		t.Fatalf("found %+v", found.Items)
	}
	pc := &found.Items[0]
	pc.Description = "updated"
	_, err = api.Update(ctx, pc, metav1.UpdateOptions{})
	must(t, err)
	pc, err = api.Patch(ctx, name, mergePatch, []byte(`{"description":"patched"}`), metav1.PatchOptions{})
	must(t, err)
	if pc.Description != "patched" {
		t.Errorf("description %q", pc.Description)
	}
	_, err = api.Patch(ctx, name, mergePatch, []byte(`{"value":6}`), metav1.PatchOptions{})
	if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "value: Forbidden: may not be changed in an update.") {
		t.Errorf("patching the value: %v", err)
	}
	pc.Value = 7
	if _, err = api.Update(ctx, pc, metav1.UpdateOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("updating the value: %v", err)
	}
	for class, value := range map[string]int32{"system-cluster-critical": 2000000000, "system-node-critical": 2000001000} {
		if pc, err := api.Get(ctx, class, metav1.GetOptions{}); err != nil || pc.Value != value {
			t.Errorf("%s: %+v, %v", class, pc, err)
		}
	}
}

// [sig-scheduling] LimitRange should create a LimitRange with defaults and ensure pod has those defaults applied; should list,
// patch and delete a LimitRange by collection.
func TestLimitRange(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	ctx, api, pods := t.Context(), s.client.CoreV1().LimitRanges(s.namespace), s.client.CoreV1().Pods(s.namespace)
	list := func(cpu, memory, disk string) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory), corev1.ResourceEphemeralStorage: resource.MustParse(disk)}
	}
	_, err := api.Create(ctx, &corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Name: "limits", Labels: map[string]string{"e2e": s.namespace}}, Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{
		Type: corev1.LimitTypeContainer, Min: list("50m", "100Mi", "100Gi"), Max: list("500m", "500Mi", "500Gi"),
		DefaultRequest: list("100m", "200Mi", "200Gi"), Default: list("500m", "500Mi", "500Gi"), MaxLimitRequestRatio: corev1.ResourceList{},
	}}}}, metav1.CreateOptions{})
	must(t, err)
	pod := func(name string, requests, limits corev1.ResourceList) (*corev1.Pod, error) {
		p := testPod(name, nil, "pause")
		p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "example.com/wait"}}
		p.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: requests, Limits: limits}
		return pods.Create(ctx, p, metav1.CreateOptions{})
	}
	has := func(p *corev1.Pod, err error, requests, limits corev1.ResourceList) {
		t.Helper()
		must(t, err)
		for name, q := range requests {
			if got := p.Spec.Containers[0].Resources.Requests[name]; got.Cmp(q) != 0 {
				t.Errorf("%s requests %s %s, want %s", p.Name, &got, name, &q)
			}
		}
		for name, q := range limits {
			if got := p.Spec.Containers[0].Resources.Limits[name]; got.Cmp(q) != 0 {
				t.Errorf("%s is limited to %s %s, want %s", p.Name, &got, name, &q)
			}
		}
	}
	p, err := pod("none", nil, nil)
	has(p, err, list("100m", "200Mi", "200Gi"), list("500m", "500Mi", "500Gi"))
	p, err = pod("partial", corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("300m")}, corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("400Mi")})
	has(p, err, list("300m", "400Mi", "200Gi"), list("500m", "400Mi", "500Gi"))
	if _, err = pod("less", list("10m", "50Mi", "50Gi"), nil); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "minimum cpu usage per Container is 50m, but request is 10m") {
		t.Errorf("less than the minimum: %v", err)
	}
	if _, err = pod("more", list("600m", "600Mi", "600Gi"), list("600m", "600Mi", "600Gi")); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "maximum cpu usage per Container is 500m, but limit is 600m") {
		t.Errorf("more than the maximum: %v", err)
	}
	_, err = api.Patch(ctx, "limits", types.StrategicMergePatchType, []byte(`{"metadata":{"labels":{"limits":"patched"}},"spec":{"limits":[{"type":"Container","min":{"cpu":"5m"}}]}}`), metav1.PatchOptions{})
	must(t, err)
	s.eventually("the lower minimum", func() error {
		_, err := pod("less-now", corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("10m")}, nil)
		return err
	})
	if all, err := s.client.CoreV1().LimitRanges("").List(ctx, metav1.ListOptions{LabelSelector: "e2e=" + s.namespace}); err != nil || len(all.Items) != 1 {
		t.Errorf("all %+v, %v", all, err)
	}
	must(t, api.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "limits=patched"}))
	s.eventually("no limits", func() error {
		p, err := pod("free", nil, nil)
		if err == nil && len(p.Spec.Containers[0].Resources.Limits) > 0 {
			err = fmt.Errorf("%+v", p.Spec.Containers[0].Resources)
			must(t, pods.Delete(ctx, "free", metav1.DeleteOptions{GracePeriodSeconds: ptr.To(int64(0))}))
		}
		return err
	})
}
