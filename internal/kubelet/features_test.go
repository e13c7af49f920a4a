package kubelet_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"
)

func TestDeadline(t *testing.T) {
	e := withAgent(t)
	one := int64(1)
	p := e.create(t, pod("late", forever, func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = &one }))
	e.await(t, p, "failed by its deadline", func(p *corev1.Pod) bool {
		return p.Status.Phase == corev1.PodFailed && p.Status.Reason == "DeadlineExceeded" &&
			p.Status.Message == "Pod was active on the node longer than the specified deadline"
	})
}

func TestOutOfMemory(t *testing.T) {
	e := withAgent(t)
	p := e.create(t, pod("hungry", "x=x; while true; do x=$x$x; done", func(p *corev1.Pod) {
		p.Spec.RestartPolicy = corev1.RestartPolicyNever
		p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("24Mi")}
	}))
	last := e.await(t, p, "failed", phase(corev1.PodFailed))
	if s := last.Status.ContainerStatuses[0].State.Terminated; s.Reason != "OOMKilled" || s.ExitCode != 137 {
		t.Errorf("the container ended with %v", s)
	}
}

func TestHostNetworkAndRejection(t *testing.T) {
	e := withAgent(t)
	host := func(p *corev1.Pod) {
		p.Spec.HostNetwork = true
		p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 8099, HostPort: 8099}}
	}
	p := e.await(t, e.create(t, pod("host", "head -1 /etc/hosts; "+forever, host)), "running", running)
	if p.Status.PodIP != "127.0.0.1" {
		t.Errorf("the pod's address is %s", p.Status.PodIP)
	}
	wait(t, "the hosts file is managed", func() bool {
		return strings.Contains(e.log(p, "main", 0), "# Kubernetes-managed hosts file (host network).")
	})
	second := e.await(t, e.create(t, pod("second", forever, host)), "refused", phase(corev1.PodFailed))
	if second.Status.Reason != "NodePorts" || len(second.Status.ContainerStatuses) != 0 {
		t.Errorf("the second pod is %v", second.Status)
	}
}

func TestEphemeralContainer(t *testing.T) {
	e := withAgent(t)
	p := e.await(t, e.create(t, pod("inspected", forever)), "running", running)
	patch := fmt.Sprintf(`{"spec":{"ephemeralContainers":[{"name":"debug","image":%q,"command":["sh","-c","ps | grep -q 'sleep 360[0]' && echo seen"],"targetContainerName":"main"}]}}`, image)
	if _, err := e.client.CoreV1().Pods("default").Patch(t.Context(), p.Name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}, "ephemeralcontainers"); err != nil {
		t.Fatal(err)
	}
	e.await(t, p, "the container has run", func(p *corev1.Pod) bool {
		s := p.Status.EphemeralContainerStatuses
		return len(s) == 1 && s[0].State.Terminated != nil && s[0].State.Terminated.ExitCode == 0
	})
	if out := e.log(p, "debug", 0); !strings.Contains(out, " seen\n") {
		t.Errorf("it does not see the processes of its target: %q", out)
	}
}

// TestStopSignal has a container stopped by the signal that its pod names.
func TestStopSignal(t *testing.T) {
	e := withAgent(t)
	p := e.await(t, e.create(t, pod("signalled", "trap 'exit 42' USR1; echo ready; while :; do sleep 0.05; done", func(p *corev1.Pod) {
		p.Spec.OS = &corev1.PodOS{Name: corev1.Linux}
		p.Spec.TerminationGracePeriodSeconds = ptr.To[int64](30)
		p.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{StopSignal: ptr.To(corev1.SIGUSR1)}
	})), "running", running)
	wait(t, "the trap is set", func() bool { return strings.Contains(e.log(p, "main", 0), " ready\n") })
	// Only now does it have a deadline, which may be past.
	if _, err := e.client.CoreV1().Pods("default").Patch(t.Context(), p.Name, types.MergePatchType, []byte(`{"spec":{"activeDeadlineSeconds":1}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	p = e.await(t, p, "has ended", phase(corev1.PodFailed))
	s := p.Status.ContainerStatuses[0]
	if s.State.Terminated == nil || s.State.Terminated.ExitCode != 42 || s.StopSignal == nil || *s.StopSignal != corev1.SIGUSR1 {
		t.Errorf("the status is %v", s)
	}
}

// TestForcedDeletion deletes a pod whose container does not heed SIGTERM, first with patience and then without.
func TestForcedDeletion(t *testing.T) {
	e := withAgent(t)
	long := int64(600)
	p := e.await(t, e.create(t, pod("stubborn", "trap '' TERM; while true; do sleep 1; done", func(p *corev1.Pod) {
		p.Spec.TerminationGracePeriodSeconds = &long
	})), "running", running)
	if err := e.client.CoreV1().Pods("default").Delete(t.Context(), p.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	e.await(t, p, "marked", func(p *corev1.Pod) bool { return p.DeletionTimestamp != nil })
	zero := int64(0)
	if err := e.client.CoreV1().Pods("default").Delete(t.Context(), p.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
		t.Fatal(err)
	}
	wait(t, "its container is gone", func() bool {
		list, err := e.agent.Runtime().ListPodSandbox(t.Context(), &runtimeapi.ListPodSandboxRequest{})
		return err == nil && len(list.Items) == 0
	})
}

// TestContainerKilledFromOutside kills a container behind the kubelet's back.
func TestContainerKilledFromOutside(t *testing.T) {
	e := withAgent(t)
	p := e.await(t, e.create(t, pod("victim", forever)), "running", running)
	id := strings.TrimPrefix(p.Status.ContainerStatuses[0].ContainerID, "containerd://")
	began := time.Now()
	if _, err := e.agent.Runtime().StopContainer(t.Context(), &runtimeapi.StopContainerRequest{ContainerId: id}); err != nil {
		t.Fatal(err)
	}
	e.await(t, p, "restarted", func(p *corev1.Pod) bool {
		s := p.Status.ContainerStatuses[0]
		return s.RestartCount == 1 && s.State.Running != nil && s.LastTerminationState.Terminated != nil
	})
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v: events of the runtime do not arrive", took)
	}
}

// TestSandboxLost stops the sandbox of a pod behind the kubelet's back: everything begins anew in another.
func TestSandboxLost(t *testing.T) {
	e := withAgent(t)
	p := e.await(t, e.create(t, pod("lost", forever)), "running", running)
	list, err := e.agent.Runtime().ListPodSandbox(t.Context(), &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{
		LabelSelector: map[string]string{"io.kubernetes.pod.uid": string(p.UID)}}})
	if err != nil || len(list.Items) != 1 {
		t.Fatal(list, err)
	}
	if _, err := e.agent.Runtime().StopPodSandbox(t.Context(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: list.Items[0].Id}); err != nil {
		t.Fatal(err)
	}
	e.await(t, p, "running again", func(now *corev1.Pod) bool {
		s := now.Status.ContainerStatuses
		return running(now) && len(s) == 1 && s[0].State.Running != nil && s[0].ContainerID != p.Status.ContainerStatuses[0].ContainerID && now.Status.PodIP != p.Status.PodIP
	})
	wait(t, "an event tells of it", func() bool {
		return strings.Contains(describe(e, p), "SandboxChanged: Pod sandbox changed, it will be killed and re-created.")
	})
}

func TestNodeEvents(t *testing.T) {
	e := withAgent(t)
	for _, reason := range []string{"Starting", "NodeAllocatableEnforced", "NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID"} {
		wait(t, "the event "+reason, func() bool {
			list, err := e.client.CoreV1().Events("default").List(t.Context(), metav1.ListOptions{
				FieldSelector: "involvedObject.kind=Node,involvedObject.name=node-1,source=kubelet,reason=" + reason,
			})
			return err == nil && len(list.Items) > 0
		})
	}
}

// BenchmarkPodLife measures the time from creation to Running, and from deletion to gone.
func BenchmarkPodLife(b *testing.B) {
	e := machine
	if e.agent == nil {
		if err := e.startAgent(); err != nil {
			b.Fatal(err)
		}
	}
	<-e.agent.Ready()
	pods := e.client.CoreV1().Pods("default")
	until := func(n int, state func(*corev1.Pod) bool) {
		w, err := pods.Watch(b.Context(), metav1.ListOptions{ResourceVersion: "0"})
		if err != nil {
			b.Fatal(err)
		}
		defer w.Stop()
		seen := map[string]bool{}
		for event := range w.ResultChan() {
			p, ok := event.Object.(*corev1.Pod)
			if !ok {
				continue
			}
			if state == nil && event.Type == "DELETED" || state != nil && state(p) {
				seen[p.Name] = true
			}
			if len(seen) == n {
				return
			}
		}
	}
	for _, n := range []int{1, 20} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var up, down time.Duration
			for b.Loop() {
				began := time.Now()
				for i := range n {
					if _, err := pods.Create(context.Background(), pod(fmt.Sprintf("bench-%d", i), forever), metav1.CreateOptions{}); err != nil {
						b.Fatal(err)
					}
				}
				until(n, running)
				up += time.Since(began)
				began = time.Now()
				for i := range n {
					if err := pods.Delete(context.Background(), fmt.Sprintf("bench-%d", i), metav1.DeleteOptions{}); err != nil {
						b.Fatal(err)
					}
				}
				for list, err := pods.List(context.Background(), metav1.ListOptions{}); err == nil && len(list.Items) > 0; {
					time.Sleep(time.Millisecond)
					list, err = pods.List(context.Background(), metav1.ListOptions{})
				}
				down += time.Since(began)
			}
			b.ReportMetric(float64(up.Milliseconds())/float64(b.N), "ms-to-running")
			b.ReportMetric(float64(down.Milliseconds())/float64(b.N), "ms-to-gone")
		})
	}
	for len(e.agent.Pods()) > 0 {
		time.Sleep(time.Millisecond)
	}
}
