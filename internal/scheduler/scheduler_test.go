package scheduler_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"github.com/proa-k8s/proa/internal/controller/controllertest"
	"github.com/proa-k8s/proa/internal/scheduler"
)

func TestMain(m *testing.M) { controllertest.Main(m) }

// cluster is an API server with a scheduler.
type cluster struct {
	*controllertest.Cluster
}

func start(t testing.TB, change func(*scheduler.Config)) *cluster {
	t.Helper()
	c := &cluster{controllertest.Start(t)}
	client, err := kubernetes.NewForConfig(c.REST(&user.DefaultInfo{Name: user.KubeScheduler, Groups: []string{user.AllAuthenticated}}))
	if err != nil {
		t.Fatal(err)
	}
	config := scheduler.Config{Client: client, Informers: c.Informers}
	if change != nil {
		change(&config)
	}
	c.run(t, config)
	return c
}

// run runs a scheduler until the test ends.
func (c *cluster) run(t testing.TB, config scheduler.Config) {
	t.Helper()
	s, err := scheduler.New(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("running the scheduler: %v", err)
		}
	})
}

func (c *cluster) node(t testing.TB, name, cpu string, change ...func(*corev1.Node)) {
	t.Helper()
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}}}
	n.Status.Allocatable = corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse("64Gi"), corev1.ResourcePods: resource.MustParse("110"),
	}
	n.Status.Capacity = n.Status.Allocatable
	for _, f := range change {
		f(n)
	}
	if _, err := c.Admin.CoreV1().Nodes().Create(context.Background(), n, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func pod(name, cpu string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}, Spec: corev1.PodSpec{
		TerminationGracePeriodSeconds: ptr.To[int64](0),
		Containers:                    []corev1.Container{{Name: "c", Image: "image"}},
	}}
	if cpu != "" {
		p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}
	}
	for _, f := range change {
		f(p)
	}
	return p
}

func (c *cluster) create(t testing.TB, p *corev1.Pod) {
	t.Helper()
	if _, err := c.Admin.CoreV1().Pods(p.Namespace).Create(context.Background(), p, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (c *cluster) openGate(t testing.TB, name string) {
	t.Helper()
	patch := []byte(`[{"op":"remove","path":"/spec/schedulingGates"}]`)
	if _, err := c.Admin.CoreV1().Pods("default").Patch(context.Background(), name, types.JSONPatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Error(err)
	}
}

func (c *cluster) waitPod(t testing.TB, name, what string, is func(*corev1.Pod) bool) *corev1.Pod {
	t.Helper()
	return controllertest.Wait(t, c.Cluster, "pod "+name+" "+what, func(ctx context.Context) (*corev1.Pod, error) {
		return c.Admin.CoreV1().Pods("default").Get(ctx, name, metav1.GetOptions{})
	}, is)
}

func (c *cluster) waitBound(t testing.TB, name string) *corev1.Pod {
	t.Helper()
	return c.waitPod(t, name, "to be bound", func(p *corev1.Pod) bool { return p.Spec.NodeName != "" })
}

// waitMessage waits until the condition says why a pod is not scheduled.
func (c *cluster) waitMessage(t testing.TB, name, message string) *corev1.Pod {
	t.Helper()
	return c.waitPod(t, name, "to say: "+message, func(p *corev1.Pod) bool {
		cond := condition(p, corev1.PodScheduled)
		return cond != nil && cond.Status == corev1.ConditionFalse && cond.Reason == corev1.PodReasonUnschedulable && cond.Message == message
	})
}

func condition(p *corev1.Pod, kind corev1.PodConditionType) *corev1.PodCondition {
	for i := range p.Status.Conditions {
		if p.Status.Conditions[i].Type == kind {
			return &p.Status.Conditions[i]
		}
	}
	return nil
}

// waitEvent waits for an event about a pod.
func (c *cluster) waitEvent(t testing.TB, name, reason, note string) {
	t.Helper()
	controllertest.Wait(t, c.Cluster, "event "+reason+" of "+name, func(ctx context.Context) (string, error) {
		list, err := c.Admin.EventsV1().Events("default").List(ctx, metav1.ListOptions{})
		if err != nil {
			return "", err
		}
		var seen strings.Builder
		for _, e := range list.Items {
			if e.Regarding.Name == name && e.Reason == reason {
				fmt.Fprintf(&seen, "%s|%s|%s|%s\n", e.Type, e.Action, e.ReportingController, e.Note)
			}
		}
		return seen.String(), nil
	}, func(seen string) bool { return strings.Contains(seen, note+"\n") })
}

func TestPodIsBound(t *testing.T) {
	c := start(t, nil)
	c.create(t, pod("a", "100m"))
	c.waitMessage(t, "a", "no nodes available to schedule pods")
	c.node(t, "n1", "2")
	p := c.waitBound(t, "a")
	if cond := condition(p, corev1.PodScheduled); p.Spec.NodeName != "n1" || cond == nil || cond.Status != corev1.ConditionTrue {
		t.Errorf("on %q, condition %+v", p.Spec.NodeName, cond)
	}
	c.waitEvent(t, "a", "FailedScheduling", "Warning|Scheduling|default-scheduler|no nodes available to schedule pods")
	c.waitEvent(t, "a", "Scheduled", "Normal|Binding|default-scheduler|Successfully assigned default/a to n1")
}

func TestPodOfAnotherSchedulerIsLeftAlone(t *testing.T) {
	c := start(t, func(config *scheduler.Config) {
		config.Profiles = []scheduler.Profile{{SchedulerName: "mine"}}
	})
	c.node(t, "n1", "2")
	c.create(t, pod("other", ""))
	c.create(t, pod("own", "", func(p *corev1.Pod) { p.Spec.SchedulerName = "mine" }))
	c.waitBound(t, "own")
	p, err := c.Admin.CoreV1().Pods("default").Get(context.Background(), "other", metav1.GetOptions{})
	if err != nil || p.Spec.NodeName != "" {
		t.Errorf("on %q, %v", p.Spec.NodeName, err)
	}
}

func TestUnschedulable(t *testing.T) {
	c := start(t, nil)
	c.node(t, "n1", "1")
	c.create(t, pod("first", "800m"))
	c.waitBound(t, "first")
	c.create(t, pod("never", "5"))
	c.waitMessage(t, "never", "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.")
	c.create(t, pod("second", "800m"))
	const full = "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
	c.waitMessage(t, "second", full)
	c.waitEvent(t, "second", "FailedScheduling", "Warning|Scheduling|default-scheduler|"+full)
	// Room wakes it.
	if err := c.Admin.CoreV1().Pods("default").Delete(context.Background(), "first", metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}); err != nil {
		t.Fatal(err)
	}
	c.waitBound(t, "second")
}

func TestFinishedPodGivesRoom(t *testing.T) {
	c := start(t, nil)
	c.node(t, "n1", "1")
	c.create(t, pod("job", "800m"))
	p := c.waitBound(t, "job")
	c.create(t, pod("next", "800m"))
	c.waitPod(t, "next", "to wait", func(p *corev1.Pod) bool { return condition(p, corev1.PodScheduled) != nil })
	p.Status.Phase = corev1.PodSucceeded
	if _, err := c.Admin.CoreV1().Pods("default").UpdateStatus(context.Background(), p, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	c.waitBound(t, "next")
}

func TestSchedulingGates(t *testing.T) {
	c := start(t, nil)
	c.node(t, "n1", "1")
	c.create(t, pod("gated", "", func(p *corev1.Pod) { p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "example.com/wait"}} }))
	c.create(t, pod("free", ""))
	c.waitBound(t, "free")
	p, err := c.Admin.CoreV1().Pods("default").Get(context.Background(), "gated", metav1.GetOptions{})
	if err != nil || p.Spec.NodeName != "" {
		t.Fatalf("on %q, %v", p.Spec.NodeName, err)
	}
	c.openGate(t, "gated")
	c.waitBound(t, "gated")
}

func TestChangesOfNodesWake(t *testing.T) {
	tests := map[string]struct {
		node   func(*corev1.Node)
		pod    func(*corev1.Pod)
		reason string
		mend   string // a merge patch of the node
		status bool
	}{
		"taint": {
			node:   func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: "k", Effect: corev1.TaintEffectNoSchedule}} },
			reason: "node(s) had untolerated taint(s)", mend: `{"spec":{"taints":null}}`,
		},
		"cordon": {
			node:   func(n *corev1.Node) { n.Spec.Unschedulable = true },
			reason: "node(s) were unschedulable", mend: `{"spec":{"unschedulable":null}}`,
		},
		"labels": {
			pod:    func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"disk": "ssd"} },
			reason: "node(s) didn't match Pod's node affinity/selector", mend: `{"metadata":{"labels":{"disk":"ssd"}}}`,
		},
		"resources": {
			pod: func(p *corev1.Pod) {
				p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("4")}
			},
			reason: "Insufficient cpu", mend: `{"status":{"allocatable":{"cpu":"8"}}}`, status: true,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := start(t, nil)
			c.node(t, "n1", "1", func(n *corev1.Node) {
				if test.node != nil {
					test.node(n)
				}
			})
			c.create(t, pod("p", "", func(p *corev1.Pod) {
				if test.pod != nil {
					test.pod(p)
				}
			}))
			c.waitMessage(t, "p", "0/1 nodes are available: 1 "+test.reason+". preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.")
			var sub []string
			if test.status {
				sub = append(sub, "status")
			}
			if _, err := c.Admin.CoreV1().Nodes().Patch(context.Background(), "n1", types.MergePatchType, []byte(test.mend), metav1.PatchOptions{}, sub...); err != nil {
				t.Fatal(err)
			}
			c.waitBound(t, "p")
		})
	}
}

func value(v int32) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.Priority = &v }
}

func TestPreemption(t *testing.T) {
	c := start(t, nil)
	_, err := c.Admin.SchedulingV1().PriorityClasses().Create(context.Background(), &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "high"}, Value: 1000}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c.node(t, "n1", "1")
	for _, name := range []string{"low-1", "low-2"} {
		c.create(t, pod(name, "400m", func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = ptr.To[int64](30) }))
		c.waitBound(t, name)
	}
	c.create(t, pod("high", "500m", value(1000)))
	// One victim is enough: the one that was started last. It has its grace period, and says why it goes.
	victim := controllertest.Wait(t, c.Cluster, "a victim", func(ctx context.Context) (*corev1.Pod, error) {
		list, err := c.Admin.CoreV1().Pods("default").List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, err
		}
		var found *corev1.Pod
		for i := range list.Items {
			if list.Items[i].DeletionTimestamp != nil {
				if found != nil {
					t.Fatal("two victims")
				}
				found = &list.Items[i]
			}
		}
		return found, nil
	}, func(p *corev1.Pod) bool { return p != nil })
	if cond := condition(victim, corev1.DisruptionTarget); cond == nil || cond.Reason != corev1.PodReasonPreemptionByScheduler ||
		cond.Message != "default-scheduler: preempting to accommodate a higher priority pod" {
		t.Errorf("condition %+v", cond)
	}
	p := c.waitPod(t, "high", "to be nominated", func(p *corev1.Pod) bool { return p.Status.NominatedNodeName == "n1" })
	c.waitEvent(t, victim.Name, "Preempted", fmt.Sprintf("Normal|Preempting|default-scheduler|Preempted by pod %s on node n1", p.UID))
	// The room is reserved: a less important pod doesn't get it.
	if err := c.Admin.CoreV1().Pods("default").Delete(context.Background(), victim.Name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}); err != nil {
		t.Fatal(err)
	}
	c.waitBound(t, "high")
}

// TestNeverOvercommits schedules random pods while others are deleted, and looks at what is bound at the end and on the way.
func TestNeverOvercommits(t *testing.T) {
	c := start(t, nil)
	random := rand.New(rand.NewPCG(1, 2))
	const nodes, pods = 5, 60
	for i := range nodes {
		c.node(t, fmt.Sprintf("n%d", i), "4")
	}
	for i := range pods {
		c.create(t, pod(fmt.Sprintf("p%d", i), fmt.Sprintf("%dm", 100+100*random.IntN(12))))
	}
	controllertest.Wait(t, c.Cluster, "every pod to be looked at", func(ctx context.Context) (*corev1.PodList, error) {
		list, err := c.Admin.CoreV1().Pods("default").List(ctx, metav1.ListOptions{})
		if err == nil {
			checkNodes(t, list, 4000)
		}
		return list, err
	}, func(list *corev1.PodList) bool {
		for i := range list.Items {
			if list.Items[i].Spec.NodeName == "" && condition(&list.Items[i], corev1.PodScheduled) == nil {
				return false
			}
		}
		return len(list.Items) == pods
	})
}

func checkNodes(t *testing.T, list *corev1.PodList, most int64) {
	t.Helper()
	used := map[string]int64{}
	for i := range list.Items {
		if p := &list.Items[i]; p.Spec.NodeName != "" {
			used[p.Spec.NodeName] += p.Spec.Containers[0].Resources.Requests.Cpu().MilliValue()
		}
	}
	for node, sum := range used {
		if sum > most {
			t.Fatalf("node %s has %dm of %dm", node, sum, most)
		}
	}
}
