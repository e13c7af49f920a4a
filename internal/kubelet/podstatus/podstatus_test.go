package podstatus

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-k8s/proa/internal/kubelet/cri"
)

var now = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func testPod(change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "n", Generation: 3},
		Spec:       corev1.PodSpec{RestartPolicy: corev1.RestartPolicyAlways, Containers: []corev1.Container{{Name: "a"}, {Name: "b"}}},
		Status:     corev1.PodStatus{Phase: corev1.PodPending},
	}
	for _, f := range change {
		f(p)
	}
	return p
}

func ct(name string, attempt uint32, state cri.State, code int32) cri.Container {
	c := cri.Container{ID: name + string(rune('0'+attempt)), Name: name, Attempt: attempt, SandboxID: "s", State: state, ExitCode: code}
	if state != cri.Created {
		c.StartedAt = now
	}
	if state == cri.Exited {
		c.FinishedAt = now
		c.Reason = map[bool]string{true: "Completed", false: "Error"}[code == 0]
	}
	return c
}

func TestGenerate(t *testing.T) {
	up := []cri.Sandbox{{ID: "s", State: cri.Running, IPs: []string{"fd00::1", "10.0.0.1"}}}
	yes := func(ids ...string) map[string]bool {
		m := map[string]bool{}
		for _, id := range ids {
			m[id] = true
		}
		return m
	}
	policy := func(p corev1.RestartPolicy) func(*corev1.Pod) {
		return func(pod *corev1.Pod) { pod.Spec.RestartPolicy = p }
	}
	was := func(phase corev1.PodPhase) func(*corev1.Pod) {
		return func(pod *corev1.Pod) { pod.Status.Phase = phase }
	}
	always := corev1.ContainerRestartPolicyAlways
	for name, test := range map[string]struct {
		in      Input
		phase   corev1.PodPhase
		ended   bool
		ready   corev1.ConditionStatus
		reason  string // of Ready
		message string
		check   func(*testing.T, *corev1.PodStatus)
	}{
		"nothing yet": {
			in: Input{Pod: testPod()}, phase: corev1.PodPending, ready: corev1.ConditionFalse,
			reason: "ContainersNotReady", message: "containers with unready status: [a b]",
			check: func(t *testing.T, s *corev1.PodStatus) {
				if w := s.ContainerStatuses[0].State.Waiting; w == nil || w.Reason != "ContainerCreating" {
					t.Errorf("waiting is %v", w)
				}
			},
		},
		"initializing": {
			in: Input{Pod: testPod(func(p *corev1.Pod) { p.Spec.InitContainers = []corev1.Container{{Name: "i"}} }),
				Observed: &cri.Pod{Sandboxes: up, Containers: []cri.Container{ct("i", 0, cri.Running, 0)}}},
			phase: corev1.PodPending, ready: corev1.ConditionFalse, reason: "ContainersNotReady", message: "containers with unready status: [a b]",
			check: func(t *testing.T, s *corev1.PodStatus) {
				if w := s.ContainerStatuses[0].State.Waiting; w == nil || w.Reason != "PodInitializing" {
					t.Errorf("waiting is %v", w)
				}
				c := condition(s.Conditions, corev1.PodInitialized)
				if c.Status != corev1.ConditionFalse || c.Reason != "ContainersNotInitialized" || c.Message != "containers with incomplete status: [i]" {
					t.Errorf("Initialized is %v", c)
				}
			},
		},
		"running": {
			in: Input{Pod: testPod(), Observed: &cri.Pod{Sandboxes: up, Containers: []cri.Container{ct("a", 0, cri.Running, 0), ct("b", 0, cri.Running, 0)}},
				Started: yes("a0", "b0"), Ready: yes("a0", "b0"), HostIPs: []string{"192.0.2.1"}},
			phase: corev1.PodRunning, ready: corev1.ConditionTrue,
			check: func(t *testing.T, s *corev1.PodStatus) {
				if s.PodIP != "10.0.0.1" || len(s.PodIPs) != 2 || s.HostIP != "192.0.2.1" || s.ObservedGeneration != 3 {
					t.Errorf("status is %v", s)
				}
				if c := s.ContainerStatuses[0]; c.ContainerID != "containerd://a0" || !c.Ready || c.Started == nil || !*c.Started {
					t.Errorf("container status is %v", c)
				}
			},
		},
		"one is not ready": {
			in: Input{Pod: testPod(), Observed: &cri.Pod{Sandboxes: up, Containers: []cri.Container{ct("a", 0, cri.Running, 0), ct("b", 0, cri.Running, 0)}},
				Started: yes("a0", "b0"), Ready: yes("a0")},
			phase: corev1.PodRunning, ready: corev1.ConditionFalse, reason: "ContainersNotReady", message: "containers with unready status: [b]",
		},
		"a readiness gate is missing": {
			in: Input{Pod: testPod(func(p *corev1.Pod) { p.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "x"}} }),
				Observed: &cri.Pod{Sandboxes: up, Containers: []cri.Container{ct("a", 0, cri.Running, 0), ct("b", 0, cri.Running, 0)}},
				Started:  yes("a0", "b0"), Ready: yes("a0", "b0")},
			phase: corev1.PodRunning, ready: corev1.ConditionFalse, reason: "ReadinessGatesNotReady",
			message: `corresponding condition of pod readiness gate "x" does not exist.`,
		},
		"crash loop": {
			in: Input{Pod: testPod(), Observed: &cri.Pod{Sandboxes: up, Containers: []cri.Container{ct("a", 1, cri.Exited, 1), ct("a", 0, cri.Exited, 2), ct("b", 0, cri.Running, 0)}},
				Started: yes("b0"), Ready: yes("b0"), Waiting: map[string]Reason{"a": {"CrashLoopBackOff", "m"}}},
			phase: corev1.PodRunning, ready: corev1.ConditionFalse, reason: "ContainersNotReady", message: "containers with unready status: [a]",
			check: func(t *testing.T, s *corev1.PodStatus) {
				c := s.ContainerStatuses[0]
				if c.State.Waiting == nil || c.State.Waiting.Reason != "CrashLoopBackOff" || c.LastTerminationState.Terminated == nil ||
					c.LastTerminationState.Terminated.ExitCode != 1 || c.RestartCount != 1 {
					t.Errorf("container status is %v", c)
				}
			},
		},
		"succeeded but not yet cleared away": {
			in: Input{Pod: testPod(policy(corev1.RestartPolicyNever), was(corev1.PodRunning)),
				Observed: &cri.Pod{Sandboxes: up, Containers: []cri.Container{ct("a", 0, cri.Exited, 0), ct("b", 0, cri.Exited, 0)}}},
			phase: corev1.PodRunning, ended: true, ready: corev1.ConditionFalse, reason: "ContainersNotReady", message: "containers with unready status: [a b]",
		},
		"succeeded": {
			in: Input{Pod: testPod(policy(corev1.RestartPolicyNever), was(corev1.PodRunning)), Stopped: true,
				Observed: &cri.Pod{Containers: []cri.Container{ct("a", 0, cri.Exited, 0), ct("b", 0, cri.Exited, 0)}}},
			phase: corev1.PodSucceeded, ended: true, ready: corev1.ConditionFalse, reason: "PodCompleted",
		},
		"failed": {
			in: Input{Pod: testPod(policy(corev1.RestartPolicyNever), was(corev1.PodRunning)), Stopped: true,
				Observed: &cri.Pod{Containers: []cri.Container{ct("a", 0, cri.Exited, 0), ct("b", 0, cri.Exited, 7)}}},
			phase: corev1.PodFailed, ended: true, ready: corev1.ConditionFalse, reason: "PodFailed",
		},
		"deleted while it ran": {
			in: Input{Pod: testPod(was(corev1.PodRunning)), Stopped: true, Deleted: true,
				Observed: &cri.Pod{Containers: []cri.Container{ct("a", 0, cri.Exited, 0), ct("b", 0, cri.Exited, 137)}}},
			phase: corev1.PodFailed, ended: true, ready: corev1.ConditionFalse, reason: "PodFailed",
		},
		"deleted before it ran": {
			in: Input{Pod: testPod(), Stopped: true, Deleted: true}, phase: corev1.PodFailed, ended: true, ready: corev1.ConditionFalse, reason: "PodFailed",
			check: func(t *testing.T, s *corev1.PodStatus) {
				if c := s.ContainerStatuses[0].State.Terminated; c == nil || c.Reason != "ContainerStatusUnknown" || c.ExitCode != 137 {
					t.Errorf("state is %v", s.ContainerStatuses[0].State)
				}
			},
		},
		"evicted": {
			in: Input{Pod: testPod(was(corev1.PodRunning)), Stopped: true, Failure: &Reason{"Evicted", "low"},
				Observed: &cri.Pod{Containers: []cri.Container{ct("a", 0, cri.Exited, 0), ct("b", 0, cri.Exited, 0)}}},
			phase: corev1.PodFailed, ended: true, ready: corev1.ConditionFalse, reason: "PodFailed",
			check: func(t *testing.T, s *corev1.PodStatus) {
				if s.Reason != "Evicted" || s.Message != "low" {
					t.Errorf("reason is %q, message %q", s.Reason, s.Message)
				}
			},
		},
		"about to be evicted": {
			in: Input{Pod: testPod(was(corev1.PodRunning)), Failure: &Reason{"Evicted", "low"},
				Observed: &cri.Pod{Sandboxes: up, Containers: []cri.Container{ct("a", 0, cri.Running, 0), ct("b", 0, cri.Exited, 0)}},
				Started:  yes("a0"), Ready: yes("a0")},
			phase: corev1.PodRunning, ended: true, ready: corev1.ConditionFalse, reason: "ContainersNotReady", message: "containers with unready status: [b]",
			check: func(t *testing.T, s *corev1.PodStatus) {
				if s.Reason != "" || s.Message != "" {
					t.Errorf("reason is %q, message %q", s.Reason, s.Message)
				}
			},
		},
		"final is final": {
			in:    Input{Pod: testPod(was(corev1.PodSucceeded)), Observed: &cri.Pod{Sandboxes: up, Containers: []cri.Container{ct("a", 0, cri.Running, 0)}}},
			phase: corev1.PodSucceeded, ended: true, ready: corev1.ConditionFalse, reason: "PodCompleted",
		},
		"a sidecar still runs": {
			in: Input{Pod: testPod(policy(corev1.RestartPolicyNever), was(corev1.PodRunning), func(p *corev1.Pod) {
				p.Spec.InitContainers = []corev1.Container{{Name: "side", RestartPolicy: &always}}
			}), Observed: &cri.Pod{Sandboxes: up, Containers: []cri.Container{ct("side", 0, cri.Running, 0), ct("a", 0, cri.Exited, 0), ct("b", 0, cri.Exited, 0)}},
				Started: yes("side0"), Ready: yes("side0")},
			phase: corev1.PodRunning, ended: true, ready: corev1.ConditionFalse, reason: "ContainersNotReady", message: "containers with unready status: [a b]",
		},
		"init container failed for good": {
			in: Input{Pod: testPod(policy(corev1.RestartPolicyNever), func(p *corev1.Pod) { p.Spec.InitContainers = []corev1.Container{{Name: "i"}} }),
				Stopped: true, Observed: &cri.Pod{Containers: []cri.Container{ct("i", 0, cri.Exited, 1)}}},
			phase: corev1.PodFailed, ended: true, ready: corev1.ConditionFalse, reason: "PodFailed",
		},
	} {
		t.Run(name, func(t *testing.T) {
			in := test.in
			in.Now = now
			if in.Observed == nil {
				in.Observed = &cri.Pod{}
			}
			s, ended := Generate(&in)
			if s.Phase != test.phase || ended != test.ended {
				t.Errorf("phase is %s and ended %t, want %s and %t", s.Phase, ended, test.phase, test.ended)
			}
			if c := condition(s.Conditions, corev1.PodReady); c.Status != test.ready || c.Reason != test.reason || c.Message != test.message || c.ObservedGeneration != 3 {
				t.Errorf("Ready is %+v", c)
			}
			if test.check != nil {
				test.check(t, s)
			}
			// What was reported is the basis of the next status: nothing may change by itself.
			in.Pod = in.Pod.DeepCopy()
			in.Pod.Status = *s
			in.Now = now.Add(time.Hour)
			again, _ := Generate(&in)
			if !again.StartTime.Equal(s.StartTime) || again.Phase != s.Phase {
				t.Errorf("a second look changes the status: %v", again)
			}
			for i := range again.Conditions {
				if again.Conditions[i] != s.Conditions[i] {
					t.Errorf("a second look changes %v to %v", s.Conditions[i], again.Conditions[i])
				}
			}
		})
	}
}

func TestForeignConditionsStay(t *testing.T) {
	p := testPod(func(p *corev1.Pod) {
		p.Status.Conditions = []corev1.PodCondition{{Type: "example.com/mine", Status: corev1.ConditionTrue}}
	})
	s, _ := Generate(&Input{Now: now, Pod: p, Observed: &cri.Pod{}})
	if c := condition(s.Conditions, "example.com/mine"); c == nil || c.Status != corev1.ConditionTrue || len(s.Conditions) != 6 {
		t.Errorf("conditions are %v", s.Conditions)
	}
}

func TestResizeStatus(t *testing.T) {
	cpu := func(q string) corev1.ResourceRequirements {
		return corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(q)}}
	}
	pod := testPod(func(p *corev1.Pod) {
		p.Spec.Containers = p.Spec.Containers[:1]
		p.Spec.Containers[0].Resources = cpu("2")
		p.Spec.Resources = &corev1.ResourceRequirements{Requests: cpu("3").Requests}
	})
	old := cpu("1")
	running := &cri.Pod{Sandboxes: []cri.Sandbox{{ID: "s", State: cri.Running, IPs: []string{"10.0.0.1"}}}, Containers: []cri.Container{ct("a", 0, cri.Running, 0)}}
	s, _ := Generate(&Input{Now: now, Pod: pod, Observed: running, Resize: &Resize{
		Pending: &Reason{Reason: corev1.PodReasonDeferred, Message: "full"}, InProgress: true, Problem: "no",
		Actuated: map[string]corev1.ResourceRequirements{"a0": old}, Pod: &old,
	}})
	c := s.ContainerStatuses[0]
	if c.AllocatedResources.Cpu().String() != "2" || c.Resources.Requests.Cpu().String() != "1" {
		t.Errorf("allocated %v, in effect %v", c.AllocatedResources, c.Resources)
	}
	if s.AllocatedResources.Cpu().String() != "3" || s.Resources.Requests.Cpu().String() != "1" {
		t.Errorf("of the pod: allocated %v, in effect %v", s.AllocatedResources, s.Resources)
	}
	if c := condition(s.Conditions, corev1.PodResizePending); c == nil || c.Reason != "Deferred" || c.Message != "full" || c.ObservedGeneration != 3 {
		t.Errorf("pending: %+v", c)
	}
	if c := condition(s.Conditions, corev1.PodResizeInProgress); c == nil || c.Reason != "Error" || c.Message != "no" {
		t.Errorf("in progress: %+v", c)
	}
	pod.Status = *s
	s, _ = Generate(&Input{Now: now, Pod: pod, Observed: running})
	if condition(s.Conditions, corev1.PodResizePending) != nil || condition(s.Conditions, corev1.PodResizeInProgress) != nil {
		t.Errorf("conditions of a resize that is done stay: %v", s.Conditions)
	}
	if c := s.ContainerStatuses[0]; c.Resources.Requests.Cpu().String() != "2" {
		t.Errorf("in effect %v", c.Resources)
	}
}
