package kubelet_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/proa-k8s/proa/internal/kubelet/cgroups"
	"github.com/proa-k8s/proa/internal/kubelet/criconfig"
)

// asking gives the main container requests, and limits of twice as much CPU and memory.
func asking(milli int64, mebi int64) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		list := func(factor int64) corev1.ResourceList {
			return corev1.ResourceList{
				corev1.ResourceCPU:    *resource.NewMilliQuantity(factor*milli, resource.DecimalSI),
				corev1.ResourceMemory: *resource.NewQuantity(factor*mebi<<20, resource.BinarySI),
			}
		}
		p.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: list(1), Limits: list(2)}
	}
}

// resize changes what the main container asks for, and limits it to twice as much.
func (e *env) resize(t *testing.T, p *corev1.Pod, milli, mebi int64) {
	t.Helper()
	patch := fmt.Sprintf(`{"spec":{"containers":[{"name":"main","resources":{"requests":{"cpu":"%dm","memory":"%dMi"},"limits":{"cpu":"%dm","memory":"%dMi"}}}]}}`,
		milli, mebi, 2*milli, 2*mebi)
	if _, err := e.client.CoreV1().Pods(p.Namespace).Patch(t.Context(), p.Name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}, "resize"); err != nil {
		t.Fatal(err)
	}
}

// has reports whether the main container runs with that, and nothing is left to do.
func has(milli, mebi int64) func(*corev1.Pod) bool {
	return func(p *corev1.Pod) bool {
		if len(p.Status.ContainerStatuses) == 0 || resizeCondition(p, corev1.PodResizeInProgress) != nil {
			return false
		}
		s := p.Status.ContainerStatuses[0]
		return s.Resources != nil && s.State.Running != nil && s.Resources.Requests.Cpu().MilliValue() == milli &&
			s.Resources.Limits.Cpu().MilliValue() == 2*milli && s.Resources.Limits.Memory().Value() == 2*mebi<<20 &&
			s.AllocatedResources.Cpu().MilliValue() == milli && s.AllocatedResources.Memory().Value() == mebi<<20
	}
}

func resizeCondition(p *corev1.Pod, kind corev1.PodConditionType) *corev1.PodCondition {
	for i := range p.Status.Conditions {
		if p.Status.Conditions[i].Type == kind {
			return &p.Status.Conditions[i]
		}
	}
	return nil
}

// checkCgroups compares the bounds of memory, in MiB, that the kernel has for the pod and for its main container.
func (e *env) checkCgroups(t *testing.T, p *corev1.Pod, mebi int64) {
	t.Helper()
	system, err := cgroups.Detect()
	if err != nil {
		t.Fatal(err)
	}
	mount, ok := system.Mounts["memory"]
	if !ok {
		t.Skip("the machine has no memory cgroups")
	}
	file := "memory.limit_in_bytes"
	if system.V2 {
		file = "memory.max"
	}
	dir := filepath.Join(mount, criconfig.CgroupParent("/"+filepath.Base(e.dir), p))
	id := strings.TrimPrefix(p.Status.ContainerStatuses[0].ContainerID, "containerd://")
	for _, path := range []string{filepath.Join(dir, file), filepath.Join(dir, id, file)} {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
		} else if got, want := strings.TrimSpace(string(data)), fmt.Sprint(mebi<<20); got != want {
			t.Errorf("%s is %s, want %s", path, got, want)
		}
	}
}

func TestResizeInPlace(t *testing.T) {
	e := withAgent(t)
	first := e.await(t, e.create(t, pod("resized", forever, asking(50, 20))), "running", has(50, 20))
	e.checkCgroups(t, first, 40)

	e.resize(t, first, 100, 30)
	grown := e.await(t, first, "has grown", has(100, 30))
	e.checkCgroups(t, grown, 60)

	e.resize(t, first, 20, 10)
	shrunk := e.await(t, first, "has shrunk", has(20, 10))
	e.checkCgroups(t, shrunk, 20)
	before, after := first.Status.ContainerStatuses[0], shrunk.Status.ContainerStatuses[0]
	if after.ContainerID != before.ContainerID || after.RestartCount != 0 {
		t.Errorf("the container was restarted: %v", after)
	}
	if shrunk.Status.QOSClass != corev1.PodQOSBurstable || shrunk.Status.AllocatedResources.Cpu().MilliValue() != 20 {
		t.Errorf("class %s, allocated %v", shrunk.Status.QOSClass, shrunk.Status.AllocatedResources)
	}
	wait(t, "users were told", func() bool {
		text := describe(e, shrunk)
		return strings.Count(text, "ResizeStarted: Pod resize started: ") == 2 && strings.Contains(text,
			`ResizeCompleted: Pod resize completed: {"containers":[{"name":"main","resources":{"limits":{"cpu":"200m","memory":"60Mi"},"requests":{"cpu":"100m","memory":"30Mi"}}}],"generation":2}`)
	})
}

func TestResizeWithRestart(t *testing.T) {
	e := withAgent(t)
	p := e.await(t, e.create(t, pod("restarted", forever, asking(50, 20), func(p *corev1.Pod) {
		// By its exit code it would not be started again.
		p.Spec.RestartPolicy = corev1.RestartPolicyOnFailure
		p.Spec.Containers[0].ResizePolicy = []corev1.ContainerResizePolicy{{ResourceName: corev1.ResourceMemory, RestartPolicy: corev1.RestartContainer}}
	})), "running", has(50, 20))
	e.resize(t, p, 60, 20)
	if p = e.await(t, p, "has more CPU", has(60, 20)); p.Status.ContainerStatuses[0].RestartCount != 0 {
		t.Error("restarted for CPU")
	}
	for i, mebi := range []int64{30, 15} { // the second time is not held up by a back-off
		e.resize(t, p, 60, mebi)
		p = e.await(t, p, "has other memory", has(60, mebi))
		if s := p.Status.ContainerStatuses[0]; s.RestartCount != int32(i+1) || p.Status.Phase != corev1.PodRunning {
			t.Errorf("restarted %d times, phase %s", s.RestartCount, p.Status.Phase)
		}
		e.checkCgroups(t, p, 2*mebi)
	}
}

// TestResizeBelowUse bounds memory below what is in use: nothing is killed, and it is done when there is room.
func TestResizeBelowUse(t *testing.T) {
	e := withAgent(t)
	// The shell holds a string of 16 MiB until it gets SIGUSR1.
	hold := "trap 'x=' USR1; trap 'exit 0' TERM; x=$(head -c 16777216 /dev/zero | tr '\\0' x); while :; do sleep 0.05; done"
	p := e.await(t, e.create(t, pod("holding", hold, asking(100, 60))), "running", has(100, 60))
	id := strings.TrimPrefix(p.Status.ContainerStatuses[0].ContainerID, "containerd://")
	uses := func() uint64 {
		stats, err := e.agent.Runtime().ContainerStats(t.Context(), statsOf(id))
		if err != nil {
			return 0
		}
		return stats.GetStats().GetMemory().GetWorkingSetBytes().GetValue()
	}
	wait(t, "the memory is in use", func() bool { return uses() > 16<<20 })
	e.resize(t, p, 100, 5)
	p = e.await(t, p, "is refused", func(p *corev1.Pod) bool {
		c := resizeCondition(p, corev1.PodResizeInProgress)
		return c != nil && c.Reason == corev1.PodReasonError
	})
	if c := resizeCondition(p, corev1.PodResizeInProgress); !strings.Contains(c.Message, `attempting to set container "main" memory limit (10485760) below current usage (`) {
		t.Errorf("the condition is %+v", c)
	}
	if s := p.Status.ContainerStatuses[0]; s.Resources.Limits.Memory().Value() != 120<<20 || s.AllocatedResources.Memory().Value() != 5<<20 {
		t.Errorf("the status is %v", s)
	}
	if _, code, err := e.exec(t, id, "kill", "-USR1", "1"); err != nil || code != 0 {
		t.Fatal(code, err)
	}
	p = e.await(t, p, "has shrunk", has(100, 5))
	if s := p.Status.ContainerStatuses[0]; s.RestartCount != 0 {
		t.Errorf("the container was restarted: %v", s)
	}
	e.checkCgroups(t, p, 10)
}

func TestResizeWaitsForRoom(t *testing.T) {
	e := withAgent(t)
	node, err := e.client.CoreV1().Nodes().Get(t.Context(), "node-1", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	all := node.Status.Allocatable.Cpu().MilliValue()
	other := e.await(t, e.create(t, pod("other", forever, asking(all/2, 20))), "running", running)
	p := e.await(t, e.create(t, pod("waiting", forever, asking(100, 20))), "running", running)

	e.resize(t, p, all+1, 20)
	p = e.await(t, p, "is infeasible", func(p *corev1.Pod) bool { return resizeCondition(p, corev1.PodResizePending) != nil })
	c := resizeCondition(p, corev1.PodResizePending)
	want := fmt.Sprintf("Node didn't have enough capacity: cpu, requested: %d, capacity: %d", all+1, all)
	if c.Reason != corev1.PodReasonInfeasible || c.Message != want || c.ObservedGeneration != p.Generation {
		t.Errorf("the condition is %+v", c)
	}

	e.resize(t, p, all*3/4, 20)
	p = e.await(t, p, "is deferred", func(p *corev1.Pod) bool {
		c := resizeCondition(p, corev1.PodResizePending)
		return c != nil && c.Reason == corev1.PodReasonDeferred
	})
	want = fmt.Sprintf("Node didn't have enough resource: cpu, requested: %d, used: %d, capacity: %d", all*3/4, all/2, all)
	if c := resizeCondition(p, corev1.PodResizePending); c.Message != want || !has(100, 20)(p) {
		t.Errorf("the condition is %+v, the status %v", c, p.Status.ContainerStatuses)
	}

	// A restart of the agent does not give it what it waits for.
	if err := e.stopAgent(); err != nil {
		t.Fatal(err)
	}
	if err := e.startAgent(); err != nil {
		t.Fatal(err)
	}
	withAgent(t)
	wait(t, "the pod is known", func() bool { return e.agent.Pod(p.Namespace, p.Name) != nil })
	if got := e.agent.Pod(p.Namespace, p.Name).Spec.Containers[0].Resources.Requests.Cpu().MilliValue(); got != 100 {
		t.Errorf("after a restart %dm are allocated", got)
	}
	e.delete(t, other)
	p = e.await(t, p, "has what it waited for", has(all*3/4, 20))
	if s := p.Status.ContainerStatuses[0]; s.RestartCount != 0 || resizeCondition(p, corev1.PodResizePending) != nil {
		t.Errorf("the status is %v", p.Status)
	}
}

// TestResizeWhileAway resizes pods while no agent runs: what containers were made with is still known.
func TestResizeWhileAway(t *testing.T) {
	e := withAgent(t)
	p := e.await(t, e.create(t, pod("away", forever, asking(50, 20))), "running", has(50, 20))
	if err := e.stopAgent(); err != nil {
		t.Fatal(err)
	}
	e.resize(t, p, 70, 25)
	if err := e.startAgent(); err != nil {
		t.Fatal(err)
	}
	p = e.await(t, p, "has grown", has(70, 25))
	if s := p.Status.ContainerStatuses[0]; s.RestartCount != 0 {
		t.Errorf("the container was restarted: %v", s)
	}
	e.checkCgroups(t, p, 50)
}

func statsOf(id string) *runtimeapi.ContainerStatsRequest {
	return &runtimeapi.ContainerStatsRequest{ContainerId: id}
}

// exec runs a command in a container.
func (e *env) exec(t *testing.T, id string, command ...string) (output string, code int32, err error) {
	t.Helper()
	answer, err := e.agent.Runtime().ExecSync(t.Context(), &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: command, Timeout: 10})
	if err != nil {
		return "", 0, err
	}
	return string(answer.Stdout) + string(answer.Stderr), answer.ExitCode, nil
}
