package plugins_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"

	"github.com/proa-k8s/proa/internal/scheduler/framework"
	"github.com/proa-k8s/proa/internal/scheduler/plugins"
)

const zone = corev1.LabelTopologyZone

func zones() []*corev1.Node {
	return []*corev1.Node{node("a1", label(zone, "a")), node("a2", label(zone, "a")), node("b1", label(zone, "b")), node("none")}
}

func selector(name string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}
}

func near(name string, change ...func(*corev1.PodAffinityTerm)) podOption {
	return spec(func(s *corev1.PodSpec) {
		s.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{term(name, change)}}}
	})
}

func away(name string, change ...func(*corev1.PodAffinityTerm)) podOption {
	return spec(func(s *corev1.PodSpec) {
		s.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{term(name, change)}}}
	})
}

func term(name string, change []func(*corev1.PodAffinityTerm)) corev1.PodAffinityTerm {
	t := corev1.PodAffinityTerm{LabelSelector: selector(name), TopologyKey: zone}
	for _, f := range change {
		f(&t)
	}
	return t
}

func inNamespace(name string) podOption { return func(p *corev1.Pod) { p.Namespace = name } }

func TestInterPodAffinity(t *testing.T) {
	const (
		affinity = "never: node(s) didn't match pod affinity rules"
		anti     = "node(s) didn't match pod anti-affinity rules"
		existing = "node(s) didn't satisfy existing pods anti-affinity rules"
	)
	team := func(name string) labels.Set { return labels.Set{"team": name} }
	plugin := plugins.InterPodAffinity(team)
	others := func(t *corev1.PodAffinityTerm) {
		t.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"team": "other"}}
	}
	everywhere := func(t *corev1.PodAffinityTerm) { t.NamespaceSelector = &metav1.LabelSelector{} }
	named := func(t *corev1.PodAffinityTerm) { t.Namespaces = []string{"other"} }
	version := func(t *corev1.PodAffinityTerm) { t.MatchLabelKeys = []string{"version"} }
	runFilters(t, map[string]filterTest{
		"near": {
			plugin: plugin, nodes: zones(), pods: []*corev1.Pod{pod("q", app("db"), on("a1"))}, pod: pod("p", near("db")),
			want: map[string]string{"b1": affinity, "none": affinity},
		},
		"near nobody": {
			plugin: plugin, nodes: zones(), pod: pod("p", near("db")),
			want: map[string]string{"a1": affinity, "a2": affinity, "b1": affinity, "none": affinity},
		},
		"the first of its group": {plugin: plugin, nodes: zones(), pod: pod("p", app("db"), near("db")), want: map[string]string{"none": affinity}},
		"in another namespace": {
			plugin: plugin, nodes: zones(), pods: []*corev1.Pod{pod("q", app("db"), on("a1"), inNamespace("other"))}, pod: pod("p", away("db")),
		},
		"in a named namespace": {
			plugin: plugin, nodes: zones(), pods: []*corev1.Pod{pod("q", app("db"), on("a1"), inNamespace("other"))}, pod: pod("p", away("db", named)),
			want: map[string]string{"a1": anti, "a2": anti},
		},
		"in a selected namespace": {
			plugin: plugin, nodes: zones(), pods: []*corev1.Pod{pod("q", app("db"), on("a1"), inNamespace("other"))}, pod: pod("p", away("db", others)),
			want: map[string]string{"a1": anti, "a2": anti},
		},
		"in any namespace": {
			plugin: plugin, nodes: zones(), pods: []*corev1.Pod{pod("q", app("db"), on("b1"), inNamespace("third"))}, pod: pod("p", away("db", everywhere)),
			want: map[string]string{"b1": anti},
		},
		"a namespace that is not selected": {
			plugin: plugin, nodes: zones(), pods: []*corev1.Pod{pod("q", app("db"), on("b1"), inNamespace("third"))}, pod: pod("p", away("db", others)),
		},
		"of the same version": {
			plugin: plugin, nodes: zones(), pod: pod("p", app("db"), func(p *corev1.Pod) { p.Labels["version"] = "2" }, away("db", version)),
			pods: []*corev1.Pod{pod("q", app("db"), on("b1"), func(p *corev1.Pod) { p.Labels["version"] = "1" })},
		},
		"avoided by others": {
			plugin: plugin, nodes: zones(), pods: []*corev1.Pod{pod("q", on("a2"), away("web"))}, pod: pod("p", app("web")),
			want: map[string]string{"a1": existing, "a2": existing},
		},
		"nothing to do with others": {plugin: plugin, nodes: zones(), pods: []*corev1.Pod{pod("q", on("a2"), away("web"))}, pod: pod("p", app("db"))},
	})
}

func TestInterPodAffinityScore(t *testing.T) {
	weighted := func(weight int32, name string) []corev1.WeightedPodAffinityTerm {
		return []corev1.WeightedPodAffinityTerm{{Weight: weight, PodAffinityTerm: corev1.PodAffinityTerm{LabelSelector: selector(name), TopologyKey: zone}}}
	}
	prefer := func(a, anti []corev1.WeightedPodAffinityTerm) podOption {
		return spec(func(s *corev1.PodSpec) {
			s.Affinity = &corev1.Affinity{
				PodAffinity:     &corev1.PodAffinity{PreferredDuringSchedulingIgnoredDuringExecution: a},
				PodAntiAffinity: &corev1.PodAntiAffinity{PreferredDuringSchedulingIgnoredDuringExecution: anti},
			}
		})
	}
	db, web := pod("db", app("db"), on("a1")), pod("web", app("web"), on("b1"))
	tests := map[string]struct {
		pods []*corev1.Pod
		pod  *corev1.Pod
		want map[string]int64
	}{
		"no opinion": {[]*corev1.Pod{db, web}, pod("p"), nil},
		"near":       {[]*corev1.Pod{db, web}, pod("p", prefer(weighted(5, "db"), nil)), map[string]int64{"a1": 100, "a2": 100, "b1": 0, "none": 0}},
		"away":       {[]*corev1.Pod{db, web}, pod("p", prefer(nil, weighted(5, "db"))), map[string]int64{"a1": 0, "a2": 0, "b1": 100, "none": 100}},
		"both":       {[]*corev1.Pod{db, web}, pod("p", prefer(weighted(10, "db"), weighted(10, "web"))), map[string]int64{"a1": 100, "a2": 100, "b1": 0, "none": 50}},
		"others' wish": {
			[]*corev1.Pod{pod("q", on("b1"), prefer(weighted(5, "web"), nil))}, pod("p", app("web")),
			map[string]int64{"a1": 0, "a2": 0, "b1": 100, "none": 0},
		},
		"others' need": {[]*corev1.Pod{pod("q", on("b1"), near("web"))}, pod("p", app("web")), map[string]int64{"a1": 0, "a2": 0, "b1": 100, "none": 0}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			equal(t, ratings(t, plugins.InterPodAffinity(noLabels), state(zones(), test.pods), test.pod), test.want)
		})
	}
}

func spread(key string, skew int32, when corev1.UnsatisfiableConstraintAction, change ...func(*corev1.TopologySpreadConstraint)) podOption {
	return func(p *corev1.Pod) {
		c := corev1.TopologySpreadConstraint{TopologyKey: key, MaxSkew: skew, WhenUnsatisfiable: when, LabelSelector: selector("web")}
		for _, f := range change {
			f(&c)
		}
		p.Spec.TopologySpreadConstraints = append(p.Spec.TopologySpreadConstraints, c)
		p.Labels["app"] = "web"
	}
}

func TestPodTopologySpread(t *testing.T) {
	const (
		mismatch = "node(s) didn't match pod topology spread constraints"
		noLabel  = "never: node(s) didn't match pod topology spread constraints (missing required label)"
		must     = corev1.DoNotSchedule
	)
	web := func(name, node string, o ...podOption) *corev1.Pod {
		return pod(name, append(o, app("web"), on(node))...)
	}
	plugin := plugins.PodTopologySpread(plugins.TopologySpreadConfig{})
	only := spec(func(s *corev1.PodSpec) { s.NodeSelector = map[string]string{zone: "a"} })
	tainted := append(zones(), node("c1", label(zone, "c"), taint("k", corev1.TaintEffectNoSchedule)))
	runFilters(t, map[string]filterTest{
		"fuller zone": {
			plugin: plugin, nodes: zones(), pods: []*corev1.Pod{web("q", "a1")}, pod: pod("p", spread(zone, 1, must)),
			want: map[string]string{"a1": mismatch, "a2": mismatch, "none": noLabel},
		},
		"within the skew": {
			plugin: plugin, nodes: zones(), pods: []*corev1.Pod{web("q", "a1")}, pod: pod("p", spread(zone, 2, must)), want: map[string]string{"none": noLabel},
		},
		"pods that are going or of others don't count": {
			plugin: plugin, nodes: zones(), pod: pod("p", spread(zone, 1, must)), want: map[string]string{"none": noLabel},
			pods: []*corev1.Pod{web("q", "a1", inNamespace("other")), web("r", "a1", func(p *corev1.Pod) { p.DeletionTimestamp = ptr.To(metav1.Now()) })},
		},
		"zones that the pod can't be in don't count": {
			plugin: plugin, nodes: zones(), pods: []*corev1.Pod{web("q", "a1")}, pod: pod("p", only, spread(zone, 1, must)),
			want: map[string]string{"none": noLabel},
		},
		"unless affinity is to be ignored": {
			plugin: plugin, nodes: zones(), pods: []*corev1.Pod{web("q", "a1")},
			pod: pod("p", only, spread(zone, 1, must, func(c *corev1.TopologySpreadConstraint) {
				c.NodeAffinityPolicy = ptr.To(corev1.NodeInclusionPolicyIgnore)
			})),
			want: map[string]string{"a1": mismatch, "a2": mismatch, "none": noLabel},
		},
		"tainted zones count": {
			plugin: plugin, nodes: tainted, pods: []*corev1.Pod{web("q", "a1"), web("r", "b1")}, pod: pod("p", spread(zone, 1, must)),
			want: map[string]string{"a1": mismatch, "a2": mismatch, "b1": mismatch, "none": noLabel},
		},
		"unless taints are honoured": {
			plugin: plugin, nodes: tainted, pods: []*corev1.Pod{web("q", "a1"), web("r", "b1")},
			pod:  pod("p", spread(zone, 1, must, func(c *corev1.TopologySpreadConstraint) { c.NodeTaintsPolicy = ptr.To(corev1.NodeInclusionPolicyHonor) })),
			want: map[string]string{"none": noLabel},
		},
		"too few domains": {
			plugin: plugin, nodes: zones(), pods: []*corev1.Pod{web("q", "a1"), web("r", "b1")},
			pod:  pod("p", spread(zone, 1, must, func(c *corev1.TopologySpreadConstraint) { c.MinDomains = ptr.To[int32](3) })),
			want: map[string]string{"a1": mismatch, "a2": mismatch, "b1": mismatch, "none": noLabel},
		},
		"only pods of the same version": {
			plugin: plugin, nodes: zones(), pods: []*corev1.Pod{web("q", "a1", func(p *corev1.Pod) { p.Labels["version"] = "1" })},
			pod: pod("p", func(p *corev1.Pod) { p.Labels["version"] = "2" }, spread(zone, 1, must, func(c *corev1.TopologySpreadConstraint) {
				c.MatchLabelKeys = []string{"version"}
			})),
			want: map[string]string{"none": noLabel},
		},
		"zones and nodes": {
			plugin: plugin, nodes: zones(), pods: []*corev1.Pod{web("q", "a1"), web("r", "b1")}, pod: pod("p", spread(zone, 1, must), spread(corev1.LabelHostname, 1, must)),
			want: map[string]string{"a1": mismatch, "b1": mismatch, "none": noLabel},
		},
		"pods that don't count themselves": {
			plugin: plugin, nodes: zones(), pods: []*corev1.Pod{web("q", "a1")}, pod: pod("p", spread(zone, 1, must), app("db")), want: map[string]string{"none": noLabel},
		},
	})
}

func TestPodTopologySpreadScore(t *testing.T) {
	web := func(name, node string) *corev1.Pod { return pod(name, app("web"), on(node)) }
	siblings := func(*corev1.Pod) labels.Selector { return labels.SelectorFromSet(labels.Set{"app": "web"}) }
	nobody := func(*corev1.Pod) labels.Selector { return labels.Everything() }
	tests := map[string]struct {
		config plugins.TopologySpreadConfig
		pods   []*corev1.Pod
		pod    *corev1.Pod
		want   map[string]int64
	}{
		"own": {
			plugins.TopologySpreadConfig{Siblings: siblings}, []*corev1.Pod{web("q", "a1"), web("r", "a2")}, pod("p", spread(zone, 1, corev1.ScheduleAnyway)),
			map[string]int64{"a1": 0, "a2": 0, "b1": 100, "none": 0},
		},
		"nobody there": {
			plugins.TopologySpreadConfig{Siblings: siblings}, nil, pod("p", spread(zone, 1, corev1.ScheduleAnyway)),
			map[string]int64{"a1": 100, "a2": 100, "b1": 100, "none": 0},
		},
		"by default": {
			plugins.TopologySpreadConfig{Siblings: siblings}, []*corev1.Pod{web("q", "a1"), web("r", "a1"), web("s", "a1")}, pod("p", app("web")),
			nil,
		},
		"without siblings": {plugins.TopologySpreadConfig{Siblings: nobody}, []*corev1.Pod{web("q", "a1")}, pod("p", app("web")), nil},
		"no defaults": {
			plugins.TopologySpreadConfig{Siblings: siblings, Defaults: []corev1.TopologySpreadConstraint{}}, []*corev1.Pod{web("q", "a1")}, pod("p", app("web")), nil,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := ratings(t, plugins.PodTopologySpread(test.config), state(zones(), test.pods), test.pod)
			if name == "by default" { // the order is what matters, not the numbers
				if !(got["a1"] < got["a2"] && got["a2"] < got["b1"]) {
					t.Errorf("%v", got)
				}
				return
			}
			equal(t, got, test.want)
		})
	}
}

// TestAdjusted compares filters that were told of pods that come and go with filters that were made with them.
func TestAdjusted(t *testing.T) {
	for name, test := range map[string]struct {
		plugin *framework.Plugin
		pod    *corev1.Pod
	}{
		"InterPodAffinity":  {plugins.InterPodAffinity(noLabels), pod("p", app("web"), away("web"))},
		"PodTopologySpread": {plugins.PodTopologySpread(plugins.TopologySpreadConfig{}), pod("p", spread(zone, 1, corev1.DoNotSchedule))},
	} {
		t.Run(name, func(t *testing.T) {
			first, second := pod("q", app("web"), on("a1")), pod("r", app("web"), on("b1"))
			s := state(zones(), []*corev1.Pod{first})
			p := framework.NewPod(test.pod)
			f, _ := test.plugin.PreFilter(&framework.Cycle{State: s, Pod: p})
			adjusted := f.(framework.Adjustable).Clone()
			adjusted.Remove(framework.NewPod(first), s.GetNode("a1"))
			adjusted.Add(framework.NewPod(second), s.GetNode("b1"))
			fresh, _ := test.plugin.PreFilter(&framework.Cycle{State: state(zones(), []*corev1.Pod{second}), Pod: p})
			for _, n := range s.Nodes() {
				if got, want := adjusted.Check(n), fresh.Check(n); (got == nil) != (want == nil) {
					t.Errorf("%s: %v, want %v", n.Name(), got, want)
				}
			}
			if f.Check(s.GetNode("b1")) != nil || f.Check(s.GetNode("a1")) == nil {
				t.Error("the original was changed")
			}
		})
	}
}
