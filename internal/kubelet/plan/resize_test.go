package plan

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/proa-k8s/proa/internal/kubelet/cri"
)

func amounts(cpu, memory string) corev1.ResourceRequirements {
	list := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
	return corev1.ResourceRequirements{Limits: list, Requests: list}
}

func TestResize(t *testing.T) {
	pod := func(change ...func(*corev1.PodSpec)) *corev1.Pod {
		grace := int64(30)
		p := &corev1.Pod{Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyOnFailure, TerminationGracePeriodSeconds: &grace,
			Containers: []corev1.Container{{Name: "a", Resources: amounts("1", "100Mi")}, {Name: "b", Resources: amounts("1", "100Mi")}},
		}}
		for _, f := range change {
			f(&p.Spec)
		}
		return p
	}
	restartMemory := func(s *corev1.PodSpec) {
		s.Containers[0].ResizePolicy = []corev1.ContainerResizePolicy{
			{ResourceName: corev1.ResourceCPU, RestartPolicy: corev1.NotRequired}, {ResourceName: corev1.ResourceMemory, RestartPolicy: corev1.RestartContainer},
		}
	}
	had := func(a, b corev1.ResourceRequirements) map[string]corev1.ResourceRequirements {
		return map[string]corev1.ResourceRequirements{"a-0": a, "b-0": b}
	}
	same, less, more := amounts("1000m", "100Mi"), amounts("500m", "50Mi"), amounts("2", "200Mi")
	lessCPU := amounts("500m", "100Mi")
	up := []cri.Sandbox{sandbox("s1", cri.Running, 0)}
	both := &cri.Pod{Sandboxes: up, Containers: []cri.Container{container("a", 0, cri.Running, 0), container("b", 0, cri.Running, 0)}}
	ended := &cri.Pod{Sandboxes: up, Containers: []cri.Container{container("a", 0, cri.Exited, 0), container("b", 0, cri.Running, 0)}}
	for name, test := range map[string]struct {
		in       Input
		want     string
		resizing bool
		next     time.Duration
	}{
		"nothing was ever resized":     {in: Input{Pod: pod(), Observed: both}},
		"all is done":                  {in: Input{Pod: pod(), Observed: both, Resizing: &Resizing{Actuated: had(same, same)}}},
		"grow":                         {in: Input{Pod: pod(), Observed: both, Resizing: &Resizing{Actuated: had(less, same), Widen: true}}, want: "resize a-0 narrow", resizing: true},
		"what shrinks goes first":      {in: Input{Pod: pod(), Observed: both, Resizing: &Resizing{Actuated: had(less, more)}}, want: "resize b-0 a-0 narrow", resizing: true},
		"the cgroup alone":             {in: Input{Pod: pod(), Observed: both, Resizing: &Resizing{Actuated: had(same, same), Narrow: true}}, want: "resize narrow", resizing: true},
		"one at a time":                {in: Input{Pod: pod(), Observed: both, Resizing: &Resizing{Actuated: had(less, same), Busy: true}}, resizing: true},
		"held":                         {in: Input{Pod: pod(), Observed: both, Resizing: &Resizing{Actuated: had(less, same), Hold: now.Add(time.Second)}}, resizing: true, next: time.Second},
		"memory that needs a restart":  {in: Input{Pod: pod(restartMemory), Observed: both, Resizing: &Resizing{Actuated: had(less, same), Widen: true}}, want: "kill a-0 30s, resize", resizing: true},
		"CPU that needs none":          {in: Input{Pod: pod(restartMemory), Observed: both, Resizing: &Resizing{Actuated: had(lessCPU, same), Widen: true}}, want: "resize a-0 narrow", resizing: true},
		"not narrow before the end":    {in: Input{Pod: pod(restartMemory), Observed: both, Busy: map[string]Operation{"a": {Kind: Killing, Deadline: now}}, Resizing: &Resizing{Actuated: had(more, same), Narrow: true}}, resizing: true},
		"not narrow during a start":    {in: Input{Pod: pod(), Observed: both, Busy: map[string]Operation{"a": {Kind: Starting}}, Resizing: &Resizing{Actuated: had(same, same), Narrow: true}}, resizing: true},
		"a start alone is no resize":   {in: Input{Pod: pod(), Observed: both, Busy: map[string]Operation{"a": {Kind: Starting}}, Resizing: &Resizing{Actuated: had(same, same)}}},
		"ended for it with 0":          {in: Input{Pod: pod(restartMemory), Observed: ended, VolumesReady: true, Restarting: map[string]bool{"a-0": true}, Backoff: map[string]Backoff{"a": {Delay: time.Minute, Updated: now}}, Resizing: &Resizing{Actuated: had(less, same)}}, want: "start a/1", resizing: true},
		"ended by itself with 0":       {in: Input{Pod: pod(restartMemory), Observed: ended, VolumesReady: true, Resizing: &Resizing{Actuated: had(less, same)}}},
		"started when there is room":   {in: Input{Pod: pod(restartMemory), Observed: ended, VolumesReady: true, Restarting: map[string]bool{"a-0": true}, Resizing: &Resizing{Actuated: had(less, same), Widen: true}}, want: "resize", resizing: true},
		"restarted for another reason": {in: Input{Pod: pod(), Observed: ended, VolumesReady: true, Restarting: map[string]bool{"a-0": true}, Resizing: &Resizing{Actuated: had(same, same)}}, want: "start a/1"},
		"the pod is to end":            {in: Input{Pod: pod(), Observed: both, Stop: &Stop{Grace: time.Second, Since: now}, Resizing: &Resizing{Actuated: had(less, same), Widen: true}}, want: "kill a-0 1s, kill b-0 1s"},
	} {
		t.Run(name, func(t *testing.T) {
			test.in.Now = now
			a := Decide(&test.in)
			if got := summary(a); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if a.Resizing != test.resizing {
				t.Errorf("resizing: got %t", a.Resizing)
			}
			if test.next != 0 && !a.Next.Equal(now.Add(test.next)) {
				t.Errorf("next look at %v, want after %v", a.Next, test.next)
			}
		})
	}
}

func TestLessMemory(t *testing.T) {
	for name, test := range map[string]struct {
		from, to corev1.ResourceRequirements
		want     bool
	}{
		"more":      {amounts("1", "1Gi"), amounts("1", "2Gi"), false},
		"same":      {amounts("1", "1Gi"), amounts("2", "1Gi"), false},
		"less":      {amounts("1", "2Gi"), amounts("1", "1Gi"), true},
		"first":     {corev1.ResourceRequirements{}, amounts("1", "1Gi"), true},
		"unlimited": {corev1.ResourceRequirements{}, corev1.ResourceRequirements{}, false},
	} {
		u := Update{From: test.from, Container: &corev1.Container{Resources: test.to}}
		if u.LessMemory() != test.want {
			t.Errorf("%s: got %t", name, !test.want)
		}
	}
}
