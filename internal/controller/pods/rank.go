package pods

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Surplus chooses the n of a controller's active pods that are missed least. neighbours are all active pods of related
// controllers (the pods of all replica sets of one deployment, for example), which tell on what nodes there are many.
//
// First go pods that have no node, then those in the phases Pending, Unknown and Running, then those that are not ready, then
// those of lower deletion cost (annotation controller.kubernetes.io/pod-deletion-cost, KEP-2255), then those on nodes
// with many, then those that were ready, or exist, for a shorter time in steps of powers of two (KEP-2185), then those
// whose containers restarted more often.
func Surplus(active, neighbours []*corev1.Pod, n int, now time.Time) []*corev1.Pod {
	if n >= len(active) {
		return active
	}
	onNode := make(map[string]int)
	for _, p := range neighbours {
		if IsActive(p) {
			onNode[p.Spec.NodeName]++
		}
	}
	ranked := slices.Clone(active)
	slices.SortStableFunc(ranked, func(a, b *corev1.Pod) int { return compare(a, b, onNode, now) })
	return ranked[:n]
}

// compare is negative when a is to be deleted before b.
func compare(a, b *corev1.Pod, onNode map[string]int, now time.Time) int {
	first := cmp.Or(
		falseFirst(a.Spec.NodeName != "", b.Spec.NodeName != ""),
		cmp.Compare(phaseOrder(a), phaseOrder(b)),
		falseFirst(IsReady(a), IsReady(b)),
		cmp.Compare(deletionCost(a), deletionCost(b)),
		cmp.Compare(onNode[b.Spec.NodeName], onNode[a.Spec.NodeName]),
	)
	if first != 0 {
		return first
	}
	if IsReady(a) && IsReady(b) {
		since := func(p *corev1.Pod) metav1.Time { return Condition(p, corev1.PodReady).LastTransitionTime }
		if c := youngerFirst(since(a), since(b), a, b, now); c != 0 {
			return c
		}
	}
	regularA, sidecarA := restarts(a)
	regularB, sidecarB := restarts(b)
	return cmp.Or(
		cmp.Compare(regularB, regularA),
		cmp.Compare(sidecarB, sidecarA),
		youngerFirst(a.CreationTimestamp, b.CreationTimestamp, a, b, now),
	)
}

func falseFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}

func phaseOrder(p *corev1.Pod) int {
	switch p.Status.Phase {
	case corev1.PodPending:
		return 0
	case corev1.PodUnknown:
		return 1
	default:
		return 2
	}
}

func deletionCost(p *corev1.Pod) int32 {
	cost, err := strconv.ParseInt(p.Annotations[corev1.PodDeletionCost], 10, 32)
	if err != nil {
		return 0
	}
	return int32(cost)
}

// youngerFirst compares ages by their order of magnitude, and takes the uid, which is random, among those of the same.
func youngerFirst(a, b metav1.Time, podA, podB *corev1.Pod, now time.Time) int {
	if a.Equal(&b) {
		return 0
	}
	if a.IsZero() || b.IsZero() { // What has no time is treated as the youngest.
		return falseFirst(!a.IsZero(), !b.IsZero())
	}
	magnitude := func(t metav1.Time) int {
		d := now.Sub(t.Time)
		if d <= 0 {
			return -1
		}
		return int(math.Log2(float64(d)))
	}
	return cmp.Or(cmp.Compare(magnitude(a), magnitude(b)), cmp.Compare(podA.UID, podB.UID))
}

// restarts gives the highest numbers of restarts among the pod's containers and its restartable init containers.
func restarts(p *corev1.Pod) (regular, sidecar int32) {
	for _, s := range p.Status.ContainerStatuses {
		regular = max(regular, s.RestartCount)
	}
	always := make(map[string]bool)
	for _, c := range p.Spec.InitContainers {
		always[c.Name] = c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
	}
	for _, s := range p.Status.InitContainerStatuses {
		if always[s.Name] {
			sidecar = max(sidecar, s.RestartCount)
		}
	}
	return regular, sidecar
}
