package plugins_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/proa-k8s/proa/internal/scheduler/framework"
	"github.com/proa-k8s/proa/internal/scheduler/plugins"
)

type nodeOption func(*corev1.Node)

func node(name string, options ...nodeOption) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}}}
	n.Status.Allocatable = resources("cpu", "4", "memory", "8Gi", "pods", "10")
	for _, o := range options {
		o(n)
	}
	return n
}

func resources(pairs ...string) corev1.ResourceList {
	list := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		list[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return list
}

func label(key, value string) nodeOption { return func(n *corev1.Node) { n.Labels[key] = value } }

func allocatable(pairs ...string) nodeOption {
	return func(n *corev1.Node) { maps.Copy(n.Status.Allocatable, resources(pairs...)) }
}

func taint(key string, effect corev1.TaintEffect) nodeOption {
	return func(n *corev1.Node) { n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: key, Effect: effect}) }
}

type podOption func(*corev1.Pod)

func pod(name string, options ...podOption) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID(name), Labels: map[string]string{}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "image"}}},
	}
	for _, o := range options {
		o(p)
	}
	return p
}

func on(node string) podOption { return func(p *corev1.Pod) { p.Spec.NodeName = node } }

func app(name string) podOption { return func(p *corev1.Pod) { p.Labels["app"] = name } }

func requests(pairs ...string) podOption {
	return func(p *corev1.Pod) { p.Spec.Containers[0].Resources.Requests = resources(pairs...) }
}

func hostPort(port int32, protocol corev1.Protocol, ip string) podOption {
	return func(p *corev1.Pod) {
		p.Spec.Containers[0].Ports = append(p.Spec.Containers[0].Ports, corev1.ContainerPort{HostPort: port, ContainerPort: port, Protocol: protocol, HostIP: ip})
	}
}

func spec(change func(*corev1.PodSpec)) podOption { return func(p *corev1.Pod) { change(&p.Spec) } }

func state(nodes []*corev1.Node, pods []*corev1.Pod) *framework.State {
	s := framework.NewState()
	for _, n := range nodes {
		s.SetNode(n)
	}
	for _, p := range pods {
		s.Observe(framework.NewPod(p), p.Spec.NodeName)
	}
	return s
}

// verdicts runs a plugin's filter: the reasons by node, without those that pass.
func verdicts(t *testing.T, plugin *framework.Plugin, s *framework.State, p *corev1.Pod) map[string]string {
	t.Helper()
	got := map[string]string{}
	f, status := plugin.PreFilter(&framework.Cycle{State: s, Pod: framework.NewPod(p)})
	if status != nil {
		return map[string]string{"": code(status) + status.Message()}
	}
	for _, n := range s.Nodes() {
		if f == nil {
			continue
		}
		if status := f.Check(n); status != nil {
			if status.Plugin != plugin.Name {
				t.Errorf("the status is of %q", status.Plugin)
			}
			got[n.Name()] = code(status) + status.Message()
		}
	}
	return got
}

func code(s *framework.Status) string {
	return map[framework.Code]string{framework.Failed: "error: ", framework.Unschedulable: "", framework.Unresolvable: "never: "}[s.Code]
}

// ratings runs a plugin's scorer on all nodes: nil if it has no opinion.
func ratings(t *testing.T, plugin *framework.Plugin, s *framework.State, p *corev1.Pod) map[string]int64 {
	t.Helper()
	nodes := slices.Clone(s.Nodes())
	scorer, status := plugin.PreScore(&framework.Cycle{State: s, Pod: framework.NewPod(p)}, nodes)
	if status != nil {
		t.Fatal(status.Message())
	}
	if scorer == nil {
		return nil
	}
	scores := make([]int64, len(nodes))
	for i, n := range nodes {
		scores[i] = scorer.Score(n)
	}
	scorer.Normalize(nodes, scores)
	got := map[string]int64{}
	for i, n := range nodes {
		if scores[i] < 0 || scores[i] > framework.MaxScore {
			t.Errorf("%s has the score %d", n.Name(), scores[i])
		}
		got[n.Name()] = scores[i]
	}
	return got
}

func equal(t *testing.T, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

type filterTest struct {
	plugin *framework.Plugin
	nodes  []*corev1.Node
	pods   []*corev1.Pod
	pod    *corev1.Pod
	want   map[string]string
}

func runFilters(t *testing.T, tests map[string]filterTest) {
	t.Helper()
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if test.want == nil {
				test.want = map[string]string{}
			}
			equal(t, verdicts(t, test.plugin, state(test.nodes, test.pods), test.pod), test.want)
		})
	}
}

func noLabels(string) labels.Set { return nil }

func tolerate(key string, effect corev1.TaintEffect) podOption {
	return spec(func(s *corev1.PodSpec) {
		s.Tolerations = append(s.Tolerations, corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, Effect: effect})
	})
}

func TestFiltersOfNodes(t *testing.T) {
	affinity := func(terms ...corev1.NodeSelectorTerm) podOption {
		return spec(func(s *corev1.PodSpec) {
			s.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: terms}}}
		})
	}
	in := func(key string, values ...string) corev1.NodeSelectorRequirement {
		return corev1.NodeSelectorRequirement{Key: key, Operator: corev1.NodeSelectorOpIn, Values: values}
	}
	const mismatch = "never: node(s) didn't match Pod's node affinity/selector"
	const untolerated = "never: node(s) had untolerated taint(s)"
	cordoned := func(n *corev1.Node) { n.Spec.Unschedulable = true }
	added := &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
		NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{in("pool", "x")}}}}}
	runFilters(t, map[string]filterTest{
		"name": {
			plugin: plugins.NodeName(), nodes: []*corev1.Node{node("a"), node("b")}, pod: pod("p", on("a")),
			want: map[string]string{"b": "never: node(s) didn't match the requested node name"},
		},
		"no name": {plugin: plugins.NodeName(), nodes: []*corev1.Node{node("a")}, pod: pod("p")},
		"cordoned": {
			plugin: plugins.NodeUnschedulable(), nodes: []*corev1.Node{node("a", cordoned), node("b")}, pod: pod("p"),
			want: map[string]string{"a": "never: node(s) were unschedulable"},
		},
		"cordoned, tolerated": {
			plugin: plugins.NodeUnschedulable(), nodes: []*corev1.Node{node("a", cordoned)}, pod: pod("p", tolerate(corev1.TaintNodeUnschedulable, "")),
		},
		"taints": {
			plugin: plugins.TaintToleration(), pod: pod("p", tolerate("c", "")),
			nodes: []*corev1.Node{
				node("a", taint("a", corev1.TaintEffectNoSchedule)), node("b", taint("b", corev1.TaintEffectNoExecute)),
				node("c", taint("c", corev1.TaintEffectNoSchedule)), node("d", taint("d", corev1.TaintEffectPreferNoSchedule)),
			},
			want: map[string]string{"a": untolerated, "b": untolerated},
		},
		"toleration of another effect": {
			plugin: plugins.TaintToleration(), pod: pod("p", tolerate("a", corev1.TaintEffectNoExecute)),
			nodes: []*corev1.Node{node("a", taint("a", corev1.TaintEffectNoSchedule))}, want: map[string]string{"a": untolerated},
		},
		"selector": {
			plugin: plugins.NodeAffinity(nil), nodes: []*corev1.Node{node("a", label("disk", "ssd")), node("b", label("disk", "hdd")), node("c")},
			pod:  pod("p", spec(func(s *corev1.PodSpec) { s.NodeSelector = map[string]string{"disk": "ssd"} })),
			want: map[string]string{"b": mismatch, "c": mismatch},
		},
		"affinity by labels": {
			plugin: plugins.NodeAffinity(nil), nodes: []*corev1.Node{node("a", label("zone", "1")), node("b", label("zone", "2")), node("c", label("zone", "3"))},
			pod: pod("p", affinity(
				corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{in("zone", "1")}},
				corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{in("zone", "3")}})),
			want: map[string]string{"b": mismatch},
		},
		"affinity by name": {
			plugin: plugins.NodeAffinity(nil), nodes: []*corev1.Node{node("a"), node("b")},
			pod:  pod("p", affinity(corev1.NodeSelectorTerm{MatchFields: []corev1.NodeSelectorRequirement{in("metadata.name", "b")}})),
			want: map[string]string{"a": mismatch},
		},
		"affinity to two names at once": {
			plugin: plugins.NodeAffinity(nil), nodes: []*corev1.Node{node("a"), node("b")},
			pod:  pod("p", affinity(corev1.NodeSelectorTerm{MatchFields: []corev1.NodeSelectorRequirement{in("metadata.name", "a"), in("metadata.name", "b")}})),
			want: map[string]string{"": "never: pod affinity terms conflict"},
		},
		"no terms match nothing": {
			plugin: plugins.NodeAffinity(nil), nodes: []*corev1.Node{node("a")}, pod: pod("p", affinity()), want: map[string]string{"a": mismatch},
		},
		"added affinity": {
			plugin: plugins.NodeAffinity(added), nodes: []*corev1.Node{node("a", label("pool", "x")), node("b")}, pod: pod("p"),
			want: map[string]string{"b": "never: node(s) didn't match scheduler-enforced node affinity"},
		},
	})
}

func TestNodePorts(t *testing.T) {
	const taken = "node(s) didn't have free ports for the requested pod ports"
	sidecar := spec(func(s *corev1.PodSpec) {
		s.InitContainers = []corev1.Container{{RestartPolicy: ptr.To(corev1.ContainerRestartPolicyAlways), Ports: []corev1.ContainerPort{{HostPort: 80}}}}
	})
	tests := map[string]struct {
		have, want podOption
		taken      bool
	}{
		"same":                     {hostPort(80, "TCP", ""), hostPort(80, "TCP", ""), true},
		"other port":               {hostPort(80, "TCP", ""), hostPort(81, "TCP", ""), false},
		"other protocol":           {hostPort(80, "TCP", ""), hostPort(80, "UDP", ""), false},
		"other address":            {hostPort(80, "TCP", "10.0.0.1"), hostPort(80, "TCP", "10.0.0.2"), false},
		"same address":             {hostPort(80, "TCP", "10.0.0.1"), hostPort(80, "TCP", "10.0.0.1"), true},
		"every address is taken":   {hostPort(80, "TCP", "0.0.0.0"), hostPort(80, "TCP", "10.0.0.1"), true},
		"every address is wanted":  {hostPort(80, "TCP", "10.0.0.1"), hostPort(80, "TCP", ""), true},
		"default protocol":         {hostPort(80, "", ""), hostPort(80, "TCP", ""), true},
		"sidecar":                  {sidecar, hostPort(80, "TCP", ""), true},
		"container port is no one": {hostPort(0, "TCP", ""), hostPort(0, "TCP", ""), false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			want := map[string]string{}
			if test.taken {
				want["a"] = taken
			}
			s := state([]*corev1.Node{node("a"), node("b")}, []*corev1.Pod{pod("q", on("a"), test.have)})
			equal(t, verdicts(t, plugins.NodePorts(), s, pod("p", test.want)), want)
		})
	}
}

func TestNodeResourcesFit(t *testing.T) {
	sidecar := func(cpu string) corev1.Container {
		return corev1.Container{RestartPolicy: ptr.To(corev1.ContainerRestartPolicyAlways), Resources: corev1.ResourceRequirements{Requests: resources("cpu", cpu)}}
	}
	tests := map[string]struct {
		used podOption
		pod  podOption
		want string
	}{
		"fits exactly":              {requests("cpu", "1"), requests("cpu", "3", "memory", "8Gi"), ""},
		"cpu":                       {requests("cpu", "2"), requests("cpu", "3"), "Insufficient cpu"},
		"cpu and memory":            {requests("cpu", "2", "memory", "1Gi"), requests("cpu", "3", "memory", "8Gi"), "Insufficient cpu, Insufficient memory"},
		"more than a node":          {requests(), requests("cpu", "5"), "never: Insufficient cpu"},
		"extended":                  {requests("example.com/gpu", "1"), requests("example.com/gpu", "2"), "Insufficient example.com/gpu"},
		"extended, unknown":         {requests(), requests("example.com/other", "1"), "never: Insufficient example.com/other"},
		"huge pages":                {requests(), requests("hugepages-2Mi", "2Mi"), "never: Insufficient hugepages-2Mi"},
		"storage":                   {requests("ephemeral-storage", "1Gi"), requests("ephemeral-storage", "1Gi"), "never: Insufficient ephemeral-storage"},
		"zero of what is not there": {requests("cpu", "4"), requests("cpu", "0", "example.com/other", "0"), ""},
		"init containers one after the other": {requests("cpu", "2"), spec(func(s *corev1.PodSpec) {
			for range 3 {
				s.InitContainers = append(s.InitContainers, corev1.Container{Resources: corev1.ResourceRequirements{Requests: resources("cpu", "2")}})
			}
		}), ""},
		"sidecars beside containers": {requests("cpu", "2"), spec(func(s *corev1.PodSpec) {
			s.InitContainers = []corev1.Container{sidecar("1"), sidecar("1")}
			s.Containers[0].Resources.Requests = resources("cpu", "500m")
		}), "Insufficient cpu"},
		"overhead": {requests("cpu", "2"), spec(func(s *corev1.PodSpec) {
			s.Containers[0].Resources.Requests = resources("cpu", "2")
			s.Overhead = resources("cpu", "1m")
		}), "Insufficient cpu"},
		"resources of the pod": {requests("cpu", "2"), spec(func(s *corev1.PodSpec) {
			s.Resources = &corev1.ResourceRequirements{Requests: resources("cpu", "2001m")}
		}), "Insufficient cpu"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			want := map[string]string{}
			if test.want != "" {
				want["a"] = test.want
			}
			s := state([]*corev1.Node{node("a", allocatable("example.com/gpu", "2"))}, []*corev1.Pod{pod("q", on("a"), test.used)})
			equal(t, verdicts(t, plugins.NodeResourcesFit(), s, pod("p", test.pod)), want)
		})
	}
	t.Run("pods", func(t *testing.T) {
		s := state([]*corev1.Node{node("a", allocatable("pods", "1"))}, []*corev1.Pod{pod("q", on("a"))})
		equal(t, verdicts(t, plugins.NodeResourcesFit(), s, pod("p")), map[string]string{"a": "Too many pods"})
	})
}

func TestScoresOfNodes(t *testing.T) {
	preferred := func(key, value string, weight int32) corev1.PreferredSchedulingTerm {
		return corev1.PreferredSchedulingTerm{Weight: weight, Preference: corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: key, Operator: corev1.NodeSelectorOpIn, Values: []string{value}}}}}
	}
	image := func(name string, size int64) nodeOption {
		return func(n *corev1.Node) {
			n.Status.Images = append(n.Status.Images, corev1.ContainerImage{Names: []string{name}, SizeBytes: size})
		}
	}
	tests := map[string]struct {
		plugin *framework.Plugin
		nodes  []*corev1.Node
		pods   []*corev1.Pod
		pod    *corev1.Pod
		want   map[string]int64
	}{
		"least allocated": {
			plugin: plugins.NodeResourcesFit(), nodes: []*corev1.Node{node("a"), node("b")},
			pods: []*corev1.Pod{pod("q", on("a"), requests("cpu", "1", "memory", "2Gi"))}, pod: pod("p", requests("cpu", "1", "memory", "2Gi")),
			want: map[string]int64{"a": 50, "b": 75},
		},
		"pods that ask for nothing count": {
			plugin: plugins.NodeResourcesFit(), nodes: []*corev1.Node{node("a", allocatable("cpu", "1", "memory", "2000Mi")), node("b", allocatable("cpu", "1", "memory", "2000Mi"))},
			pods: []*corev1.Pod{pod("q", on("a"))}, pod: pod("p"), want: map[string]int64{"a": 80, "b": 90},
		},
		"balanced": {
			plugin: plugins.NodeResourcesBalancedAllocation(), nodes: []*corev1.Node{node("a"), node("b", allocatable("memory", "16Gi"))},
			pod: pod("p", requests("cpu", "2", "memory", "4Gi")), want: map[string]int64{"a": 100, "b": 87},
		},
		"balance of what asks for nothing": {plugin: plugins.NodeResourcesBalancedAllocation(), nodes: []*corev1.Node{node("a")}, pod: pod("p")},
		"soft taints": {
			plugin: plugins.TaintToleration(), pod: pod("p"),
			nodes: []*corev1.Node{node("a"), node("b", taint("k", corev1.TaintEffectPreferNoSchedule)), node("c", taint("k", corev1.TaintEffectPreferNoSchedule), taint("l", corev1.TaintEffectPreferNoSchedule))},
			want:  map[string]int64{"a": 100, "b": 50, "c": 0},
		},
		"no soft taints": {plugin: plugins.TaintToleration(), nodes: []*corev1.Node{node("a")}, pod: pod("p")},
		"preferred affinity": {
			plugin: plugins.NodeAffinity(nil), nodes: []*corev1.Node{node("a", label("x", "1"), label("y", "1")), node("b", label("x", "1")), node("c")},
			pod: pod("p", spec(func(s *corev1.PodSpec) {
				s.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{preferred("x", "1", 30), preferred("y", "1", 30)}}}
			})),
			want: map[string]int64{"a": 100, "b": 50, "c": 0},
		},
		"images": {
			plugin: plugins.ImageLocality(), nodes: []*corev1.Node{node("a", image("image:latest", 1<<30)), node("b", image("image:other", 1<<30))},
			pod: pod("p"), want: map[string]int64{"a": 50, "b": 0},
		},
		"images nobody has": {plugin: plugins.ImageLocality(), nodes: []*corev1.Node{node("a")}, pod: pod("p")},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			equal(t, ratings(t, test.plugin, state(test.nodes, test.pods), test.pod), test.want)
		})
	}
}
