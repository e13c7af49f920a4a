package admission

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/utils/ptr"

	"github.com/proa-k8s/proa/internal/api/core"
)

var nodes = corev1.Resource("nodes")

// evictAfter is how long a pod stays on a node that is not ready or can't be reached, in seconds.
const evictAfter = 300

// newDefaultTolerationSeconds lets pods that say nothing tolerate an unhealthy node for a while.
func newDefaultTolerationSeconds() *Plugin {
	return &Plugin{
		Applies: func(t Target) bool { return t.Is(pods, admission.Create, admission.Update) },
		Admit: func(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
			if pod, ok := a.GetObject().(*corev1.Pod); ok {
				for _, taint := range []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable} {
					if !toleratesEviction(pod, taint) {
						pod.Spec.Tolerations = append(pod.Spec.Tolerations, corev1.Toleration{
							Key: taint, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute,
							TolerationSeconds: ptr.To[int64](evictAfter),
						})
					}
				}
			}
			return nil
		},
	}
}

func toleratesEviction(pod *corev1.Pod, key string) bool {
	return slices.ContainsFunc(pod.Spec.Tolerations, func(t corev1.Toleration) bool {
		return (t.Key == key || t.Key == "") && (t.Effect == corev1.TaintEffectNoExecute || t.Effect == "")
	})
}

// newTaintNodesByCondition keeps pods from a new node until its condition is known.
func newTaintNodesByCondition() *Plugin {
	return &Plugin{
		Applies: func(t Target) bool { return t.Is(nodes, admission.Create) },
		Admit: func(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
			node, ok := a.GetObject().(*corev1.Node)
			if !ok {
				return nil
			}
			taint := corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule}
			if !slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool { return t.MatchTaint(&taint) }) {
				node.Spec.Taints = append(node.Spec.Taints, taint)
			}
			return nil
		},
	}
}

// newExtendedResourceToleration lets pods onto nodes that are dedicated to the extended resources they ask for.
func newExtendedResourceToleration() *Plugin {
	return &Plugin{
		Applies: func(t Target) bool { return t.Is(pods, admission.Create, admission.Update) },
		Admit: func(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
			pod, ok := a.GetObject().(*corev1.Pod)
			if !ok {
				return nil
			}
			var names []string
			for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
				for i := range containers {
					for name := range containers[i].Resources.Requests {
						if core.IsExtendedResource(name) && !slices.Contains(names, string(name)) {
							names = append(names, string(name))
						}
					}
				}
			}
			slices.Sort(names)
			for _, name := range names {
				t := corev1.Toleration{Key: name, Operator: corev1.TolerationOpExists}
				if !slices.ContainsFunc(pod.Spec.Tolerations, func(have corev1.Toleration) bool { return have.MatchToleration(&t) }) {
					pod.Spec.Tolerations = append(pod.Spec.Tolerations, t)
				}
			}
			return nil
		},
	}
}
