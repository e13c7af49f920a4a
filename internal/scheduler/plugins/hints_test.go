package plugins_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/proa-k8s/proa/internal/scheduler/framework"
	"github.com/proa-k8s/proa/internal/scheduler/plugins"
)

func TestHints(t *testing.T) {
	fit, ports, taints, cordon := plugins.NodeResourcesFit(), plugins.NodePorts(), plugins.TaintToleration(), plugins.NodeUnschedulable()
	affinity, spreads := plugins.NodeAffinity(nil), plugins.PodTopologySpread(plugins.TopologySpreadConfig{})
	between := plugins.InterPodAffinity(noLabels)
	nodes := func(kind framework.EventKind, old, now *corev1.Node) framework.Event {
		return framework.Event{Kind: kind, OldNode: old, Node: now}
	}
	pods := func(kind framework.EventKind, old, now *corev1.Pod) framework.Event {
		e := framework.Event{Kind: kind, Pod: framework.NewPod(now)}
		if old != nil {
			e.OldPod = framework.NewPod(old)
		}
		return e
	}
	ssd := spec(func(s *corev1.PodSpec) { s.NodeSelector = map[string]string{"disk": "ssd"} })
	big := allocatable("cpu", "8")
	cordoned := func(n *corev1.Node) { n.Spec.Unschedulable = true }
	tests := map[string]struct {
		plugin *framework.Plugin
		pod    *corev1.Pod
		event  framework.Event
		helps  bool
	}{
		"a node that is big enough":   {fit, pod("p", requests("cpu", "4")), nodes(framework.NodeAdded, nil, node("a")), true},
		"a node that is too small":    {fit, pod("p", requests("cpu", "5")), nodes(framework.NodeAdded, nil, node("a")), false},
		"a node that has grown":       {fit, pod("p", requests("cpu", "5")), nodes(framework.NodeAllocatable, node("a"), node("a", big)), true},
		"a node that has shrunk":      {fit, pod("p", requests("cpu", "1")), nodes(framework.NodeAllocatable, node("a", big), node("a")), false},
		"a node with more of another": {fit, pod("p", requests("cpu", "1")), nodes(framework.NodeAllocatable, node("a"), node("a", allocatable("memory", "9Gi"))), false},
		"a pod that goes":             {fit, pod("p", requests("cpu", "1")), pods(framework.PodRemoved, nil, pod("q")), true},
		"a pod that takes less":       {fit, pod("p", requests("cpu", "1")), pods(framework.PodScaled, pod("q", requests("cpu", "2")), pod("q", requests("cpu", "1"))), true},
		"a pod that takes less of another": {
			fit, pod("p", requests("memory", "1Gi")), pods(framework.PodScaled, pod("q", requests("cpu", "2")), pod("q", requests("cpu", "1"))), false,
		},
		"the port":            {ports, pod("p", hostPort(80, "TCP", "")), pods(framework.PodRemoved, nil, pod("q", hostPort(80, "TCP", ""))), true},
		"another port":        {ports, pod("p", hostPort(80, "TCP", "")), pods(framework.PodRemoved, nil, pod("q", hostPort(81, "TCP", ""))), false},
		"a taint left":        {taints, pod("p"), nodes(framework.NodeTaints, node("a", taint("k", corev1.TaintEffectNoSchedule)), node("a")), true},
		"a taint is left":     {taints, pod("p"), nodes(framework.NodeTaints, node("a"), node("a", taint("k", corev1.TaintEffectNoSchedule))), false},
		"a taint changed":     {taints, pod("p", tolerate("k", "")), nodes(framework.NodeTaints, node("a"), node("a", taint("k", corev1.TaintEffectNoSchedule))), true},
		"uncordoned":          {cordon, pod("p"), nodes(framework.NodeTaints, node("a", cordoned), node("a")), true},
		"still cordoned":      {cordon, pod("p"), nodes(framework.NodeTaints, node("a", cordoned), node("a", cordoned)), false},
		"the label":           {affinity, pod("p", ssd), nodes(framework.NodeLabels, node("a"), node("a", label("disk", "ssd"))), true},
		"another label":       {affinity, pod("p", ssd), nodes(framework.NodeLabels, node("a"), node("a", label("disk", "hdd"))), false},
		"matched before":      {affinity, pod("p", ssd), nodes(framework.NodeLabels, node("a", label("disk", "ssd")), node("a", label("disk", "ssd"), label("x", "y"))), false},
		"the pod changed":     {affinity, pod("p", ssd), pods(framework.PodChanged, pod("p"), pod("p", ssd)), true},
		"a zone":              {spreads, pod("p", spread(zone, 1, corev1.DoNotSchedule)), nodes(framework.NodeAdded, nil, node("a", label(zone, "c"))), true},
		"no zone":             {spreads, pod("p", spread(zone, 1, corev1.DoNotSchedule)), nodes(framework.NodeAdded, nil, node("a")), false},
		"a zone less":         {spreads, pod("p", spread(zone, 1, corev1.DoNotSchedule)), framework.Event{Kind: framework.NodeRemoved, OldNode: node("a", label(zone, "c"))}, true},
		"a pod of the spread": {spreads, pod("p", spread(zone, 1, corev1.DoNotSchedule)), pods(framework.PodAssigned, nil, pod("q", app("web"))), true},
		"a pod beside it":     {spreads, pod("p", spread(zone, 1, corev1.DoNotSchedule)), pods(framework.PodAssigned, nil, pod("q", app("db"))), false},
		"a friend came":       {between, pod("p", near("db")), pods(framework.PodAssigned, nil, pod("q", app("db"))), true},
		"somebody came":       {between, pod("p", near("db")), pods(framework.PodAssigned, nil, pod("q", app("web"))), false},
		"a foe came":          {between, pod("p", away("db")), pods(framework.PodAssigned, nil, pod("q", app("db"))), false},
		"a foe went":          {between, pod("p", away("db")), pods(framework.PodRemoved, nil, pod("q", app("db"))), true},
		"who avoided it went": {between, pod("p", app("web")), pods(framework.PodRemoved, nil, pod("q", away("web"))), true},
		"somebody went":       {between, pod("p", away("db")), pods(framework.PodRemoved, nil, pod("q", app("web"))), false},
		"a foe is none now":   {between, pod("p", away("db")), pods(framework.PodLabels, pod("q", app("db")), pod("q", app("web"))), true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if test.event.Kind&test.plugin.Events == 0 {
				t.Fatal("the plugin doesn't want to know")
			}
			if got := test.plugin.Hint == nil || test.plugin.Hint(framework.NewPod(test.pod), &test.event); got != test.helps {
				t.Errorf("helps: %t, want %t", got, test.helps)
			}
		})
	}
}
