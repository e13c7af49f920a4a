package core

import (
	"context"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/randfill"
)

func TestPodUpdate(t *testing.T) {
	gated := func(p *corev1.Pod) { p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "g"}} }
	zone := func(values ...string) *corev1.Affinity {
		var terms []corev1.NodeSelectorRequirement
		for _, v := range values {
			terms = append(terms, corev1.NodeSelectorRequirement{Key: v, Operator: corev1.NodeSelectorOpExists})
		}
		return &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
			NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: terms}}}}}
	}
	zoneValue := func(value string) *corev1.Affinity {
		a := zone("zone")
		e := &a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms[0].MatchExpressions[0]
		e.Operator, e.Values = corev1.NodeSelectorOpIn, []string{value}
		return a
	}
	tests := []struct {
		name   string
		old    func(*corev1.Pod)
		change func(*corev1.Pod)
		want   []string
	}{
		{"nothing", nil, func(*corev1.Pod) {}, nil},
		{"image", nil, func(p *corev1.Pod) { p.Spec.Containers[0].Image = "i:2" }, nil},
		{"command", nil, func(p *corev1.Pod) { p.Spec.Containers[0].Command = []string{"x"} }, []string{
			"spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n..."}},
		{"one more container", nil, func(p *corev1.Pod) {
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "d", Image: "i"})
			defaultPod(p)
		}, []string{"spec.containers: Forbidden: pod updates may not add or remove containers"}},
		{"toleration added", func(p *corev1.Pod) { p.Spec.Tolerations = []corev1.Toleration{{Key: "a", Operator: "Exists"}} }, func(p *corev1.Pod) {
			p.Spec.Tolerations = append(p.Spec.Tolerations, corev1.Toleration{Key: "b", Operator: "Exists"})
		}, nil},
		{"toleration removed", func(p *corev1.Pod) { p.Spec.Tolerations = []corev1.Toleration{{Key: "a", Operator: "Exists"}} }, func(p *corev1.Pod) {
			p.Spec.Tolerations = nil
		}, []string{"spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"}},
		{"deadline set", nil, func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = ptr.To[int64](5) }, nil},
		{"deadline raised", func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = ptr.To[int64](5) }, func(p *corev1.Pod) {
			p.Spec.ActiveDeadlineSeconds = ptr.To[int64](6)
		}, []string{"spec.activeDeadlineSeconds: Invalid value: 6: must be less than or equal to previous value"}},
		{"deadline removed", func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = ptr.To[int64](5) }, func(p *corev1.Pod) {
			p.Spec.ActiveDeadlineSeconds = nil
		}, []string{"spec.activeDeadlineSeconds: Invalid value: null: must not update from a positive integer to nil value"}},
		{"negative grace made positive", func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = ptr.To[int64](-1) }, func(p *corev1.Pod) {
			p.Spec.TerminationGracePeriodSeconds = ptr.To[int64](1)
		}, nil},
		{"grace changed", nil, func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = ptr.To[int64](1) }, []string{"spec: Forbidden: pod updates..."}},
		{"gate removed", gated, func(p *corev1.Pod) { p.Spec.SchedulingGates = nil }, nil},
		{"gate added", nil, gated, []string{"spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'g'"}},
		{"node selector of a gated pod", gated, func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"a": "b"} }, nil},
		{"node selector of another", nil, func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"a": "b"} }, []string{"spec: Forbidden: pod updates..."}},
		{"node selector of a gated pod changed", func(p *corev1.Pod) {
			gated(p)
			p.Spec.NodeSelector = map[string]string{"a": "b"}
		}, func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"a": "c"} }, []string{
			`spec.nodeSelector: Invalid value: {"a":"c"}: only additions to spec.nodeSelector are allowed (no mutations or deletions)`}},
		{"affinity of a gated pod", gated, func(p *corev1.Pod) { p.Spec.Affinity = zone("a") }, nil},
		{"affinity of a gated pod narrowed", func(p *corev1.Pod) { gated(p); p.Spec.Affinity = zone("a") }, func(p *corev1.Pod) {
			p.Spec.Affinity = zone("a", "b")
		}, nil},
		{"affinity of a gated pod widened", func(p *corev1.Pod) { gated(p); p.Spec.Affinity = zone("a", "b") }, func(p *corev1.Pod) {
			p.Spec.Affinity = zone("a")
		}, []string{"spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]: Invalid value: ..."}},
		{"mirror annotation", nil, func(p *corev1.Pod) { p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"} }, []string{
			"metadata.annotations[kubernetes.io/config.mirror]: Forbidden: may not add mirror pod annotation",
			`metadata.annotations[kubernetes.io/config.mirror]: Invalid value: "x": must set spec.nodeName if mirror pod annotation is set`}},
		{"AppArmor annotations", func(p *corev1.Pod) {
			p.Annotations = map[string]string{corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix + "c": "unconfined"}
		}, func(p *corev1.Pod) { p.Annotations = nil }, []string{
			"metadata.annotations[container.apparmor.security.beta.kubernetes.io/c]: Forbidden: may not remove or update AppArmor annotations"}},
		{"label values that are refused by now", func(p *corev1.Pod) { p.Spec.Affinity = zoneValue("-x") }, func(p *corev1.Pod) {
			p.Spec.Containers[0].Image = "i:2"
		}, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if test.old == nil {
				test.old = func(*corev1.Pod) {}
			}
			old := newPod(test.old)
			old.Generation = 4
			pod, before := old.DeepCopy(), old.DeepCopy()
			test.change(pod)
			changed := !equality.Semantic.DeepEqual(pod.Spec, old.Spec)
			preparePodUpdate(context.Background(), pod, old)
			checkErrors(t, validatePodUpdate(context.Background(), pod, old), test.want...)
			if got, want := pod.Generation-old.Generation, map[bool]int64{true: 1}[changed]; got != want {
				t.Errorf("generation rose by %d, want %d", got, want)
			}
			if !reflect.DeepEqual(old, before) {
				t.Error("the stored pod was changed")
			}
		})
	}
}

func TestUngatedPodLosesTheCondition(t *testing.T) {
	old := newPod(func(p *corev1.Pod) { p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "g"}} })
	preparePodCreate(context.Background(), old)
	pod, before := old.DeepCopy(), old.DeepCopy()
	pod.Spec.SchedulingGates = nil
	preparePodUpdate(context.Background(), pod, old)
	if len(pod.Status.Conditions) != 0 {
		t.Errorf("conditions %v", pod.Status.Conditions)
	}
	if !reflect.DeepEqual(old, before) {
		t.Error("the stored pod was changed")
	}
}

func TestPodGrace(t *testing.T) {
	tests := []struct {
		name    string
		pod     *corev1.Pod
		request *int64
		want    int64
	}{
		{"own", newPod(func(p *corev1.Pod) { p.Spec.NodeName = "n" }), nil, 30},
		{"asked for", newPod(func(p *corev1.Pod) { p.Spec.NodeName = "n" }), ptr.To[int64](3), 3},
		{"now", newPod(func(p *corev1.Pod) { p.Spec.NodeName = "n" }), ptr.To[int64](0), 0},
		{"negative", newPod(func(p *corev1.Pod) { p.Spec.NodeName = "n" }), ptr.To[int64](-1), 1},
		{"without a node", newPod(), ptr.To[int64](10), 0},
		{"finished", newPod(func(p *corev1.Pod) { p.Spec.NodeName = "n"; p.Status.Phase = corev1.PodFailed }), nil, 0},
	}
	for _, test := range tests {
		if got := podGrace(context.Background(), test.pod, &metav1.DeleteOptions{GracePeriodSeconds: test.request}); got != test.want {
			t.Errorf("%s: %d s, want %d", test.name, got, test.want)
		}
	}
}

func TestEphemeralContainers(t *testing.T) {
	add := func(name, image string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.EphemeralContainers = append(p.Spec.EphemeralContainers, corev1.EphemeralContainer{
				EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: name, Image: image}, TargetContainerName: "c"})
		}
	}
	old := newPod(add("a", "i:1"))
	old.Generation = 1
	before := old.DeepCopy()
	try := func(change func(*corev1.Pod), want ...string) *corev1.Pod {
		t.Helper()
		pod := old.DeepCopy()
		change(pod)
		defaultPod(pod)
		prepareEphemeralUpdate(context.Background(), pod, old)
		checkErrors(t, validateEphemeralUpdate(context.Background(), pod, old), want...)
		return pod
	}
	pod := try(func(p *corev1.Pod) { add("b", "i:1")(p); p.Spec.NodeName = "elsewhere" })
	if pod.Generation != 2 || pod.Spec.NodeName != "" || len(pod.Spec.EphemeralContainers) != 2 {
		t.Errorf("generation %d, spec %+v", pod.Generation, pod.Spec)
	}
	try(func(p *corev1.Pod) { p.Spec.EphemeralContainers = nil },
		"spec.ephemeralContainers: Forbidden: existing ephemeral containers \"a\" may not be removed\n")
	try(func(p *corev1.Pod) { p.Spec.EphemeralContainers[0].Image = "i:2" },
		"spec.ephemeralContainers: Forbidden: existing ephemeral containers \"a\" may not be changed\n...")
	try(func(p *corev1.Pod) { add("c", "i")(p) }, `spec.ephemeralContainers[1].name: Duplicate value: "c"`)
	try(func(p *corev1.Pod) {
		add("d", "i")(p)
		p.Spec.EphemeralContainers[1].Ports = []corev1.ContainerPort{{ContainerPort: 80}}
		p.Spec.EphemeralContainers[1].TargetContainerName = "x"
	}, `spec.ephemeralContainers[1].targetContainerName: Not found: "x"`,
		"spec.ephemeralContainers[1].ports: Forbidden: cannot be set for an Ephemeral Container")
	if !reflect.DeepEqual(old, before) {
		t.Error("the stored pod was changed")
	}
}

func TestResize(t *testing.T) {
	set := func(cpu, memory string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{}
			if cpu != "" {
				p.Spec.Containers[0].Resources.Requests["cpu"] = resource.MustParse(cpu)
			}
			if memory != "" {
				p.Spec.Containers[0].Resources.Requests["memory"] = resource.MustParse(memory)
			}
		}
	}
	tests := []struct {
		name   string
		change func(*corev1.Pod)
		want   []string
	}{
		{"more", set("2", "2Gi"), nil},
		{"removed", set("2", ""), []string{"spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed"}},
		{"class", func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{"cpu": resource.MustParse("1"), "memory": resource.MustParse("1Gi")}
		}, []string{`spec: Invalid value: "Guaranteed": Pod QOS Class may not change as a result of resizing`}},
		{"other resource", func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Requests["ephemeral-storage"] = resource.MustParse("1Gi")
		}, []string{"spec: Forbidden: only cpu and memory resources are mutable"}},
		{"other field", func(p *corev1.Pod) { set("2", "2Gi")(p); p.Spec.Containers[0].Image = "x" }, nil}, // is ignored
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			old := newPod(set("1", "1Gi"))
			old.Status.QOSClass = corev1.PodQOSBurstable
			before, pod := old.DeepCopy(), old.DeepCopy()
			test.change(pod)
			prepareResize(context.Background(), pod, old)
			checkErrors(t, validateResize(context.Background(), pod, old), test.want...)
			if pod.Spec.Containers[0].Image != old.Spec.Containers[0].Image || pod.Generation != old.Generation+1 {
				t.Errorf("image %s, generation %d", pod.Spec.Containers[0].Image, pod.Generation)
			}
			if !reflect.DeepEqual(old, before) {
				t.Error("the stored pod was changed")
			}
		})
	}
}

func TestResizeNeedsTheNode(t *testing.T) {
	old := newPod()
	old.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "a", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
	checkErrors(t, validateResize(context.Background(), old.DeepCopy(), old), "spec: Forbidden: Pod running on node without support for resize")
	old.Status.ContainerStatuses[0].Resources = &corev1.ResourceRequirements{}
	checkErrors(t, validateResize(context.Background(), old.DeepCopy(), old))
}

func TestPodRow(t *testing.T) {
	waiting := func(reason string) corev1.ContainerState {
		return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}
	}
	ended := func(reason string, code int32) corev1.ContainerState {
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: reason, ExitCode: code}}
	}
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	always := ptr.To(corev1.ContainerRestartPolicyAlways)
	phase := func(phase corev1.PodPhase, states ...corev1.ContainerState) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Status.Phase = phase
			p.Spec.Containers = nil
			for i, s := range states {
				name := string(rune('a' + i))
				p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: name})
				p.Status.ContainerStatuses = append(p.Status.ContainerStatuses,
					corev1.ContainerStatus{Name: name, State: s, Ready: s.Running != nil})
			}
		}
	}
	inits := func(states ...corev1.ContainerState) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Status.Phase = corev1.PodPending
			for i, s := range states {
				name := "i" + string(rune('a'+i))
				p.Spec.InitContainers = append(p.Spec.InitContainers, corev1.Container{Name: name})
				p.Status.InitContainerStatuses = append(p.Status.InitContainerStatuses, corev1.ContainerStatus{Name: name, State: s})
			}
		}
	}
	tests := []struct {
		name            string
		pod             func(*corev1.Pod)
		ready, status   string
		restarts, gates string
	}{
		{"pending", func(p *corev1.Pod) { p.Status.Phase = corev1.PodPending }, "0/1", "Pending", "0", ""},
		{"creating", phase(corev1.PodPending, waiting("ContainerCreating")), "0/1", "ContainerCreating", "0", ""},
		{"running", phase(corev1.PodRunning, running, running), "2/2", "Running", "0", ""},
		{"one of two crashes", phase(corev1.PodRunning, running, waiting("CrashLoopBackOff")), "1/2", "CrashLoopBackOff", "0", ""},
		{"completed", phase(corev1.PodSucceeded, ended("Completed", 0)), "0/1", "Completed", "0", ""},
		{"error", phase(corev1.PodFailed, ended("Error", 1)), "0/1", "Error", "0", ""},
		{"signal", phase(corev1.PodFailed, corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Signal: 9}}), "0/1", "Signal:9", "0", ""},
		{"one done, one running", phase(corev1.PodRunning, ended("Completed", 0), running), "1/2", "NotReady", "0", ""},
		{"one done, one running, ready", func(p *corev1.Pod) {
			phase(corev1.PodRunning, ended("Completed", 0), running)(p)
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		}, "1/2", "Running", "0", ""},
		{"evicted", func(p *corev1.Pod) { p.Status.Phase, p.Status.Reason = corev1.PodFailed, "Evicted" }, "0/1", "Evicted", "0", ""},
		{"gated", func(p *corev1.Pod) {
			p.Status.Phase = corev1.PodPending
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Reason: "SchedulingGated"}}
		}, "0/1", "SchedulingGated", "0", ""},
		{"second init container", inits(ended("Completed", 0), running), "0/1", "Init:1/2", "0", ""},
		{"init container failed", inits(ended("Error", 1)), "0/1", "Init:Error", "0", ""},
		{"init container failed without reason", inits(ended("", 3)), "0/1", "Init:ExitCode:3", "0", ""},
		{"init container's image", inits(waiting("ImagePullBackOff")), "0/1", "Init:ImagePullBackOff", "0", ""},
		{"sidecar", func(p *corev1.Pod) {
			phase(corev1.PodRunning, running)(p)
			p.Spec.InitContainers = []corev1.Container{{Name: "s", RestartPolicy: always}}
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "s", State: running, Started: ptr.To(true), Ready: true, RestartCount: 2}}
		}, "2/2", "Running", "2", ""},
		{"terminating", func(p *corev1.Pod) {
			phase(corev1.PodRunning, running)(p)
			p.DeletionTimestamp = &metav1.Time{Time: time.Now()}
		}, "1/1", "Terminating", "0", ""},
		{"lost", func(p *corev1.Pod) {
			phase(corev1.PodRunning, running)(p)
			p.DeletionTimestamp, p.Status.Reason = &metav1.Time{Time: time.Now()}, "NodeLost"
		}, "1/1", "Unknown", "0", ""},
		{"restarted", func(p *corev1.Pod) {
			phase(corev1.PodRunning, running)(p)
			p.Status.ContainerStatuses[0].RestartCount = 3
			p.Status.ContainerStatuses[0].LastTerminationState = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
				FinishedAt: metav1.NewTime(time.Now().Add(-5 * time.Minute))}}
		}, "1/1", "Running", "3 (5m ago)", ""},
		{"readiness gates", func(p *corev1.Pod) {
			phase(corev1.PodRunning, running)(p)
			p.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "a"}, {ConditionType: "b"}}
			p.Status.Conditions = []corev1.PodCondition{{Type: "a", Status: corev1.ConditionTrue}}
		}, "1/1", "Running", "0", "1/2"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if test.gates == "" {
				test.gates = "<none>"
			}
			row := podRow(newPod(test.pod))
			want := []any{"p", test.ready, test.status, test.restarts, "<unknown>", "<none>", "<none>", "<none>", test.gates}
			if !slices.Equal(row, want) {
				t.Errorf("row %v, want %v", row, want)
			}
			if len(row) != len(podColumns()) {
				t.Errorf("%d cells for %d columns", len(row), len(podColumns()))
			}
		})
	}
}

func TestPodFields(t *testing.T) {
	pod := newPod(func(p *corev1.Pod) {
		p.Spec.NodeName, p.Spec.HostNetwork, p.Status.Phase, p.Status.PodIP = "n", true, corev1.PodRunning, "10.0.0.1"
	})
	r := Pod()
	got := r.Fields(pod)
	want := fields.Set{"spec.nodeName": "n", "spec.restartPolicy": "Always", "spec.schedulerName": "default-scheduler",
		"spec.serviceAccountName": "", "spec.hostNetwork": "true", "status.phase": "Running", "status.podIP": "10.0.0.1",
		"status.nominatedNodeName": ""}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("fields %v", got)
	}
	for _, name := range r.SelectableFields {
		if _, ok := got[name]; !ok {
			t.Errorf("no value for %s", name)
		}
	}
}

func TestPodWarnings(t *testing.T) {
	tests := []struct {
		spec string
		want []string
	}{
		{"{}", nil},
		{"nodeSelector: {beta.kubernetes.io/arch: amd64}", []string{
			`spec.nodeSelector[beta.kubernetes.io/arch]: deprecated since v1.14; use "kubernetes.io/arch" instead`}},
		{"containers: [{name: c, image: i, env: [{name: A, value: x}, {name: A, value: y}, {name: A, value: $(A)z}]}]", []string{
			`spec.containers[0].env[1]: hides previous definition of "A", which may be dropped when using apply`}},
		{"containers: [{name: c, image: i, resources: {requests: {memory: 100m}}}]", []string{
			`spec.containers[0].resources.requests[memory]: fractional byte value "100m" is invalid, must be an integer`}},
		{"containers: [{name: c, image: i, ports: [{containerPort: 80}, {containerPort: 80}]}]", []string{
			"spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]"}},
		{"containers: [{name: c, image: i, ports: [{containerPort: 80, name: a}]}, {name: d, image: i, ports: [{containerPort: 81, name: a}]}]", []string{
			`spec.containers[1].ports[0]: duplicate port name "a" with spec.containers[0].ports[0], services and probes that select ports by name will use spec.containers[0].ports[0]`}},
		{"volumes: [{name: v, gitRepo: {repository: x}}]", []string{"spec.volumes[0].gitRepo: deprecated in v1.11"}},
		{"imagePullSecrets: [{}]", []string{`spec.imagePullSecrets[0].name: invalid empty name ""`}},
		{"terminationGracePeriodSeconds: -1", []string{
			"spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"}},
		{"topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone}]", []string{
			"spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod"}},
		{"hostAliases: [{ip: 10.0.0.1}, {ip: 10.0.0.1}]", []string{`spec.hostAliases[1].ip: duplicate ip "10.0.0.1"`}},
	}
	for _, test := range tests {
		pod := podFromYAML(t, test.spec)
		if got := warnPod(context.Background(), pod, nil); !slices.Equal(got, test.want) {
			t.Errorf("%s\nwarnings %q\nwant     %q", test.spec, got, test.want)
		}
		if got := warnPod(context.Background(), pod, pod.DeepCopy()); len(got) != 0 {
			t.Errorf("%s: an update that changes nothing is warned of: %q", test.spec, got)
		}
	}
	named := newPod(func(p *corev1.Pod) { p.Name = "a.b" })
	if got := warnPod(context.Background(), named, nil); len(got) != 1 || !strings.HasPrefix(got[0], "metadata.name: this is used in the Pod's hostname") {
		t.Errorf("warnings %q", got)
	}
}

// FuzzPod fills pods at random: defaults are idempotent, nothing panics, and neither preparation nor validation touches
// what is stored.
func FuzzPod(f *testing.F) {
	for seed := int64(0); seed < 40; seed++ {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed int64) {
		filler := randfill.NewWithSeed(seed).NilChance(.5).NumElements(0, 3).MaxDepth(12).Funcs(
			func(q *resource.Quantity, c randfill.Continue) {
				*q = *resource.NewMilliQuantity(c.Int63n(1e9), resource.DecimalSI)
			},
			func(o *metav1.ObjectMeta, c randfill.Continue) { o.Name, o.Labels = "p", map[string]string{"a": "b"} },
			func(m *metav1.FieldsV1, c randfill.Continue) {},
		)
		pod, other := &corev1.Pod{}, &corev1.Pod{}
		filler.Fill(pod)
		filler.Fill(other)
		defaultPod(pod)
		defaultPod(other)
		again := pod.DeepCopy()
		defaultPod(again)
		if !equality.Semantic.DeepEqual(pod, again) {
			t.Error("defaults are not idempotent")
		}
		before := other.DeepCopy()
		ctx := context.Background()
		for _, s := range []struct {
			prepare  func(context.Context, *corev1.Pod, *corev1.Pod)
			validate func(context.Context, *corev1.Pod, *corev1.Pod) field.ErrorList
		}{
			{preparePodUpdate, validatePodUpdate}, {preparePodStatus, validatePodStatus},
			{prepareEphemeralUpdate, validateEphemeralUpdate}, {prepareResize, validateResize},
		} {
			next := pod.DeepCopy()
			s.prepare(ctx, next, other)
			s.validate(ctx, next, other)
		}
		if !reflect.DeepEqual(other, before) {
			t.Error("the stored pod was changed")
		}
		preparePodCreate(ctx, pod)
		validatePodCreate(ctx, pod)
		warnPod(ctx, pod, nil)
		podRow(pod)
	})
}
