package plan

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/proa-k8s/proa/internal/kubelet/cri"
)

var now = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// summary writes actions so that tables can be read.
func summary(a Actions) string {
	var parts []string
	if a.CreateSandbox {
		parts = append(parts, fmt.Sprintf("sandbox/%d", a.SandboxAttempt))
	}
	for _, id := range a.StopSandboxes {
		parts = append(parts, "stop-sandbox "+id)
	}
	for _, k := range a.Kill {
		parts = append(parts, fmt.Sprintf("kill %s %v", k.ID, k.Grace))
	}
	for _, s := range a.Start {
		parts = append(parts, fmt.Sprintf("start %s/%d", s.Container.Name, s.Attempt))
	}
	for _, b := range a.BackingOff {
		parts = append(parts, fmt.Sprintf("back-off %s %v", b.Name, b.Delay))
	}
	if a.Resize != nil {
		parts = append(parts, "resize")
		for _, u := range a.Resize.Updates {
			parts[len(parts)-1] += " " + u.ID
		}
		if a.Resize.Narrow {
			parts[len(parts)-1] += " narrow"
		}
	}
	if a.Done {
		parts = append(parts, "done")
	}
	return strings.Join(parts, ", ")
}

func sandbox(id string, state cri.State, attempt uint32) cri.Sandbox {
	return cri.Sandbox{ID: id, State: state, Attempt: attempt, IPs: []string{"10.0.0.1"}}
}

// container makes one in sandbox s1, with the ID name-attempt. Exited ones ended 5 s ago.
func container(name string, attempt uint32, state cri.State, code int32) cri.Container {
	c := cri.Container{
		ID: fmt.Sprintf("%s-%d", name, attempt), Name: name, Attempt: attempt, SandboxID: "s1", State: state, ExitCode: code,
		CreatedAt: now.Add(-time.Minute + time.Duration(attempt)*time.Second),
	}
	if state != cri.Created {
		c.StartedAt = now.Add(-30 * time.Second)
	}
	if state == cri.Exited {
		c.FinishedAt = now.Add(-5 * time.Second)
	}
	return c
}

func TestDecide(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	never := corev1.ContainerRestartPolicyNever
	pod := func(change ...func(*corev1.PodSpec)) *corev1.Pod {
		grace := int64(30)
		p := &corev1.Pod{Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyAlways, TerminationGracePeriodSeconds: &grace,
			Containers: []corev1.Container{{Name: "a", Image: "i"}, {Name: "b", Image: "i"}},
		}}
		for _, f := range change {
			f(&p.Spec)
		}
		return p
	}
	policy := func(p corev1.RestartPolicy) func(*corev1.PodSpec) {
		return func(s *corev1.PodSpec) { s.RestartPolicy = p }
	}
	inits := func(s *corev1.PodSpec) {
		s.InitContainers = []corev1.Container{{Name: "i1"}, {Name: "side", RestartPolicy: &always}, {Name: "i2"}}
	}
	up := []cri.Sandbox{sandbox("s1", cri.Running, 0)}
	wrongHash := func(c cri.Container) cri.Container {
		c.Annotations = map[string]string{HashAnnotation: "other"}
		return c
	}
	inOld := func(c cri.Container) cri.Container {
		c.SandboxID = "s0"
		return c
	}
	ten := int64(10)
	for name, test := range map[string]struct {
		in   Input
		want string
		next time.Duration // after now; 0 is never
	}{
		"nothing there":         {in: Input{Pod: pod()}, want: "sandbox/0"},
		"sandbox is being made": {in: Input{Pod: pod(), SandboxBusy: true}},
		"sandbox held":          {in: Input{Pod: pod(), Hold: map[string]time.Time{"": now.Add(time.Second)}}, next: time.Second},
		"sandbox died": {
			in: Input{Pod: pod(), Observed: &cri.Pod{Sandboxes: []cri.Sandbox{sandbox("s1", cri.Exited, 2)}}}, want: "sandbox/3",
		},
		"sandbox died with containers that seem to run": {
			in: Input{Pod: pod(), Observed: &cri.Pod{Sandboxes: []cri.Sandbox{sandbox("s1", cri.Exited, 0)},
				Containers: []cri.Container{container("a", 0, cri.Running, 0)}}},
			want: "kill a-0 30s",
		},
		"sandbox died and nothing is to be restarted": {
			in: Input{Pod: pod(policy(corev1.RestartPolicyNever)), Observed: &cri.Pod{Sandboxes: []cri.Sandbox{sandbox("s1", cri.Exited, 0)},
				Containers: []cri.Container{container("a", 0, cri.Exited, 137)}}},
		},
		"sandbox died after success": {
			in: Input{Pod: pod(policy(corev1.RestartPolicyOnFailure)), Observed: &cri.Pod{Sandboxes: []cri.Sandbox{sandbox("s1", cri.Exited, 0)},
				Containers: []cri.Container{container("a", 0, cri.Exited, 0), container("b", 0, cri.Exited, 0)}}},
		},
		"sandbox lost its network": {
			in:   Input{Pod: pod(), Observed: &cri.Pod{Sandboxes: []cri.Sandbox{{ID: "s1", State: cri.Running}}}},
			want: "stop-sandbox s1",
		},
		"two sandboxes": {
			in:   Input{Pod: pod(), VolumesReady: true, Observed: &cri.Pod{Sandboxes: []cri.Sandbox{sandbox("s1", cri.Running, 1), sandbox("s0", cri.Running, 0)}}},
			want: "stop-sandbox s0, start a/0",
		},
		"volumes are not there": {in: Input{Pod: pod(), Observed: &cri.Pod{Sandboxes: up}}},
		"first container":       {in: Input{Pod: pod(), VolumesReady: true, Observed: &cri.Pod{Sandboxes: up}}, want: "start a/0"},
		"second waits for the first": {
			in: Input{Pod: pod(), VolumesReady: true, Observed: &cri.Pod{Sandboxes: up}, Busy: map[string]Operation{"a": {Kind: Starting}}},
		},
		"second follows": {
			in:   Input{Pod: pod(), VolumesReady: true, Observed: &cri.Pod{Sandboxes: up, Containers: []cri.Container{container("a", 0, cri.Running, 0)}}},
			want: "start b/0",
		},
		"first one failed to start": {
			in:   Input{Pod: pod(), VolumesReady: true, Observed: &cri.Pod{Sandboxes: up}, Hold: map[string]time.Time{"a": now.Add(time.Second)}},
			want: "start b/0", next: time.Second,
		},
		"created but never started": {
			in:   Input{Pod: pod(), VolumesReady: true, Observed: &cri.Pod{Sandboxes: up, Containers: []cri.Container{container("a", 0, cri.Created, 0), container("b", 0, cri.Running, 0)}}},
			want: "start a/1",
		},
		"restart at once": {
			in:   Input{Pod: pod(), VolumesReady: true, Observed: &cri.Pod{Sandboxes: up, Containers: []cri.Container{container("a", 0, cri.Exited, 1), container("b", 0, cri.Running, 0)}}},
			want: "start a/1",
		},
		"restart after back-off": {
			in: Input{Pod: pod(), VolumesReady: true, Observed: &cri.Pod{Sandboxes: up, Containers: []cri.Container{container("a", 1, cri.Exited, 1), container("b", 0, cri.Running, 0)}},
				Backoff: map[string]Backoff{"a": {Delay: 20 * time.Second, Updated: now.Add(-time.Minute)}}},
			want: "back-off a 20s", next: 15 * time.Second,
		},
		"on failure": {
			in: Input{Pod: pod(policy(corev1.RestartPolicyOnFailure)), VolumesReady: true,
				Observed: &cri.Pod{Sandboxes: up, Containers: []cri.Container{container("a", 0, cri.Exited, 0), container("b", 0, cri.Exited, 1)}}},
			want: "start b/1",
		},
		"never": {
			in: Input{Pod: pod(policy(corev1.RestartPolicyNever)), VolumesReady: true,
				Observed: &cri.Pod{Sandboxes: up, Containers: []cri.Container{container("a", 0, cri.Exited, 0), container("b", 0, cri.Exited, 1)}}},
		},
		"a container's own policy": {
			in: Input{Pod: pod(func(s *corev1.PodSpec) { s.Containers[0].RestartPolicy = &never }), VolumesReady: true,
				Observed: &cri.Pod{Sandboxes: up, Containers: []cri.Container{container("a", 0, cri.Exited, 1), container("b", 0, cri.Running, 0)}}},
		},
		"a container's own rule": {
			in: Input{Pod: pod(policy(corev1.RestartPolicyNever), func(s *corev1.PodSpec) {
				s.Containers[0].RestartPolicy = &never
				s.Containers[0].RestartPolicyRules = []corev1.ContainerRestartRule{{Action: corev1.ContainerRestartRuleActionRestart,
					ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: corev1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{42}}}}
			}), VolumesReady: true,
				Observed: &cri.Pod{Sandboxes: up, Containers: []cri.Container{container("a", 0, cri.Exited, 42), container("b", 0, cri.Running, 0)}}},
			want: "start a/1",
		},
		"image was changed": {
			in:   Input{Pod: pod(), VolumesReady: true, Observed: &cri.Pod{Sandboxes: up, Containers: []cri.Container{wrongHash(container("a", 0, cri.Running, 0)), container("b", 0, cri.Running, 0)}}},
			want: "kill a-0 30s",
		},
		"liveness failed, with a grace of its own": {
			in: Input{Pod: pod(), VolumesReady: true, Observed: &cri.Pod{Sandboxes: up, Containers: []cri.Container{container("a", 0, cri.Running, 0), container("b", 0, cri.Running, 0)}},
				Unhealthy: map[string]Unhealthy{"a-0": {Probe: "liveness", Grace: &ten}}},
			want: "kill a-0 10s",
		},
		"is being killed": {
			in: Input{Pod: pod(), VolumesReady: true, Observed: &cri.Pod{Sandboxes: up, Containers: []cri.Container{container("a", 0, cri.Running, 0), container("b", 0, cri.Running, 0)}},
				Unhealthy: map[string]Unhealthy{"a-0": {Probe: "liveness"}}, Busy: map[string]Operation{"a": {Kind: Killing, Deadline: now.Add(20 * time.Second)}}},
		},
		"unknown state": {
			in:   Input{Pod: pod(), VolumesReady: true, Observed: &cri.Pod{Sandboxes: up, Containers: []cri.Container{container("a", 0, cri.Unknown, 0), container("b", 0, cri.Running, 0)}}},
			want: "kill a-0 30s",
		},
		"first init container": {in: Input{Pod: pod(inits), VolumesReady: true, Observed: &cri.Pod{Sandboxes: up}}, want: "start i1/0"},
		"init container runs":  {in: Input{Pod: pod(inits), VolumesReady: true, Observed: &cri.Pod{Sandboxes: up, Containers: []cri.Container{container("i1", 0, cri.Running, 0)}}}},
		"init container failed": {
			in:   Input{Pod: pod(inits), VolumesReady: true, Observed: &cri.Pod{Sandboxes: up, Containers: []cri.Container{container("i1", 0, cri.Exited, 1)}}},
			want: "start i1/1",
		},
		"init container failed for good": {
			in: Input{Pod: pod(inits, policy(corev1.RestartPolicyNever)), VolumesReady: true, Observed: &cri.Pod{Sandboxes: up, Containers: []cri.Container{container("i1", 0, cri.Exited, 1)}}},
		},
		"sidecar after init container": {
			in:   Input{Pod: pod(inits), VolumesReady: true, Observed: &cri.Pod{Sandboxes: up, Containers: []cri.Container{container("i1", 0, cri.Exited, 0)}}},
			want: "start side/0",
		},
		"sidecar is not started yet": {
			in: Input{Pod: pod(inits), VolumesReady: true, Observed: &cri.Pod{Sandboxes: up, Containers: []cri.Container{container("side", 0, cri.Running, 0), container("i1", 0, cri.Exited, 0)}}},
		},
		"after the sidecar": {
			in: Input{Pod: pod(inits), VolumesReady: true, Started: map[string]bool{"side-0": true},
				Observed: &cri.Pod{Sandboxes: up, Containers: []cri.Container{container("side", 0, cri.Running, 0), container("i1", 0, cri.Exited, 0)}}},
			want: "start i2/0",
		},
		"main after all init containers": {
			in: Input{Pod: pod(inits), VolumesReady: true, Started: map[string]bool{"side-0": true},
				Observed: &cri.Pod{Sandboxes: up, Containers: []cri.Container{container("i2", 0, cri.Exited, 0), container("side", 0, cri.Running, 0), container("i1", 0, cri.Exited, 0)}}},
			want: "start a/0",
		},
		"init containers are not run again, sidecars are": {
			in: Input{Pod: pod(inits), VolumesReady: true,
				Observed: &cri.Pod{Sandboxes: up, Containers: []cri.Container{container("a", 0, cri.Running, 0), container("b", 0, cri.Running, 0), container("side", 0, cri.Exited, 0)}}},
			want: "start side/1",
		},
		"a new sandbox begins with the init containers": {
			in: Input{Pod: pod(inits), VolumesReady: true,
				Observed: &cri.Pod{Sandboxes: []cri.Sandbox{sandbox("s1", cri.Running, 1), sandbox("s0", cri.Exited, 0)},
					Containers: []cri.Container{inOld(container("a", 0, cri.Exited, 137)), inOld(container("i1", 0, cri.Exited, 0))}}},
			want: "start i1/1",
		},
		"ephemeral container": {
			in: Input{Pod: pod(func(s *corev1.PodSpec) {
				s.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug"}}}
			}), VolumesReady: true, Observed: &cri.Pod{Sandboxes: up, Containers: []cri.Container{container("a", 0, cri.Running, 0), container("b", 0, cri.Running, 0)}}},
			want: "start debug/0",
		},
		"ephemeral container is not restarted": {
			in: Input{Pod: pod(func(s *corev1.PodSpec) {
				s.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug"}}}
			}), VolumesReady: true, Observed: &cri.Pod{Sandboxes: up, Containers: []cri.Container{container("a", 0, cri.Running, 0), container("b", 0, cri.Running, 0), container("debug", 0, cri.Exited, 1)}}},
		},
		"stop: nothing was there": {in: Input{Pod: pod(), Stop: &Stop{Grace: 30 * time.Second, Since: now}}, want: "done"},
		"stop: containers": {
			in: Input{Pod: pod(), Stop: &Stop{Grace: 5 * time.Second, Since: now},
				Observed: &cri.Pod{Sandboxes: up, Containers: []cri.Container{container("a", 0, cri.Running, 0), container("b", 0, cri.Running, 0)}}},
			want: "kill a-0 5s, kill b-0 5s",
		},
		"stop: is being killed": {
			in: Input{Pod: pod(), Stop: &Stop{Grace: 5 * time.Second, Since: now}, Busy: map[string]Operation{"a": {Kind: Killing, Deadline: now.Add(5 * time.Second)}},
				Observed: &cri.Pod{Sandboxes: up, Containers: []cri.Container{container("a", 0, cri.Running, 0)}}},
		},
		"stop: in less time than before": {
			in: Input{Pod: pod(), Stop: &Stop{Grace: 0, Since: now}, Busy: map[string]Operation{"a": {Kind: Killing, Deadline: now.Add(5 * time.Second)}},
				Observed: &cri.Pod{Sandboxes: up, Containers: []cri.Container{container("a", 0, cri.Running, 0)}}},
			want: "kill a-0 0s",
		},
		"stop: a start is under way": {
			in: Input{Pod: pod(), Stop: &Stop{Grace: 5 * time.Second, Since: now}, Busy: map[string]Operation{"a": {Kind: Starting}}, Observed: &cri.Pod{Sandboxes: up}},
		},
		"stop: sidecars wait": {
			in: Input{Pod: pod(inits), Stop: &Stop{Grace: 5 * time.Second, Since: now},
				Observed: &cri.Pod{Sandboxes: up, Containers: []cri.Container{container("a", 0, cri.Running, 0), container("side", 0, cri.Running, 0)}}},
			want: "kill a-0 5s",
		},
		"stop: sidecars with what is left": {
			in: Input{Pod: pod(inits), Stop: &Stop{Grace: 5 * time.Second, Since: now.Add(-4 * time.Second)},
				Observed: &cri.Pod{Sandboxes: up, Containers: []cri.Container{container("a", 0, cri.Exited, 0), container("side", 0, cri.Running, 0)}}},
			want: "kill side-0 2s",
		},
		"stop: the sandbox": {
			in:   Input{Pod: pod(), Stop: &Stop{Since: now}, Observed: &cri.Pod{Sandboxes: up, Containers: []cri.Container{container("a", 0, cri.Exited, 0)}}},
			want: "stop-sandbox s1",
		},
		"stop: all is over": {
			in:   Input{Pod: pod(), Stop: &Stop{Since: now}, Observed: &cri.Pod{Sandboxes: []cri.Sandbox{sandbox("s1", cri.Exited, 0)}}},
			want: "done",
		},
	} {
		t.Run(name, func(t *testing.T) {
			in := test.in
			in.Now = now
			if in.Observed == nil {
				in.Observed = &cri.Pod{}
			}
			a := Decide(&in)
			if got := summary(a); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
			var next time.Duration
			if !a.Next.IsZero() {
				next = a.Next.Sub(now)
			}
			if next != test.next {
				t.Errorf("next look after %v, want %v", next, test.next)
			}
		})
	}
}

func TestBackoff(t *testing.T) {
	var b Backoff
	finished := now
	var delays []time.Duration
	for range 8 {
		until := b.Until(finished)
		if until.IsZero() {
			until = finished
		}
		delays = append(delays, until.Sub(finished))
		b = b.Next(until, finished)
		finished = until.Add(time.Second)
	}
	if got, want := fmt.Sprint(delays), "[0s 10s 20s 40s 1m20s 2m40s 5m0s 5m0s]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if b.Until(b.Updated.Add(10*time.Minute + time.Second)).After(time.Time{}) {
		t.Error("a container that ran for more than ten minutes is made to wait")
	}
}
