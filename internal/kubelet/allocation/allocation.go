// Package allocation decides what of a node's resources its pods are given, above all when they are resized in place
// (KEP-1287, and KEP-5419 for the resources of a pod as a whole).
//
// What flows in are pods as they are declared, what is allocated to the others, and what the node has; what flows out
// are pods as they are allocated, why a resize must wait, and in which order those that wait are served. All of it is pure,
// but for the file that keeps the State of a pod over restarts of the agent.
package allocation

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	resourcehelper "k8s.io/component-helpers/resource"

	"github.com/proa-k8s/proa/internal/kubelet/criconfig"
)

// resizable are the resources that can change while a pod runs.
var resizable = []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory}

// Resources are those of a pod: of its containers by name, and of the pod as a whole.
type Resources struct {
	Pod        *corev1.ResourceRequirements           `json:"pod,omitempty"`
	Containers map[string]corev1.ResourceRequirements `json:"containers"`
}

// Of takes the resources from a pod. They are shared with it.
func Of(pod *corev1.Pod) Resources {
	r := Resources{Pod: pod.Spec.Resources, Containers: map[string]corev1.ResourceRequirements{}}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			r.Containers[list[i].Name] = list[i].Resources
		}
	}
	return r
}

// Equal reports whether two pods have the same resources.
func Equal(a, b *corev1.Pod) bool { return equality.Semantic.DeepEqual(Of(a), Of(b)) }

// Apply gives the pod with these resources in place of its own: the pod itself when they are the same, else a copy. What
// the pod has and the resources know nothing of stays.
func (r *Resources) Apply(pod *corev1.Pod) *corev1.Pod {
	if equality.Semantic.DeepEqual(Of(pod), *r) {
		return pod
	}
	changed := *pod
	if r.Pod != nil {
		changed.Spec.Resources = r.Pod.DeepCopy()
	}
	apply := func(list []corev1.Container) []corev1.Container {
		list = slices.Clone(list)
		for i := range list {
			if own, ok := r.Containers[list[i].Name]; ok {
				list[i].Resources = *own.DeepCopy()
			}
		}
		return list
	}
	changed.Spec.InitContainers, changed.Spec.Containers = apply(pod.Spec.InitContainers), apply(pod.Spec.Containers)
	return &changed
}

// Requests is what a pod is counted with on its node.
func Requests(pod *corev1.Pod) corev1.ResourceList {
	return resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})
}

// Shortage is a resource that a node has too little of.
type Shortage struct {
	Resource                  corev1.ResourceName
	Requested, Used, Capacity int64 // thousandths for CPU
}

func (s *Shortage) String() string {
	return fmt.Sprintf("Node didn't have enough resource: %s, requested: %d, used: %d, capacity: %d", s.Resource, s.Requested, s.Used, s.Capacity)
}

// Short tells which of the requested resources does not fit beside the others; nil when all do.
func Short(requested corev1.ResourceList, others []*corev1.Pod, allocatable corev1.ResourceList) *Shortage {
	used := corev1.ResourceList{}
	for _, o := range others {
		for name, q := range Requests(o) {
			sum := used[name]
			sum.Add(q)
			used[name] = sum
		}
	}
	names := make([]corev1.ResourceName, 0, len(requested))
	for name := range requested {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		q, sum := requested[name], used[name]
		total := sum.DeepCopy()
		total.Add(q)
		if have := allocatable[name]; !q.IsZero() && total.Cmp(have) > 0 {
			if name == corev1.ResourceCPU {
				return &Shortage{name, q.MilliValue(), sum.MilliValue(), have.MilliValue()}
			}
			return &Shortage{name, q.Value(), sum.Value(), have.Value()}
		}
	}
	return nil
}

// Pending is why a resize was not granted: the reason (Deferred or Infeasible) and message of the condition PodResizePending.
type Pending struct {
	Reason, Message string
}

// Decide decides about the resize of a pod from what is allocated to what is desired, beside the others. Nil grants it.
// What does not grow is never refused.
func Decide(desired, allocated *corev1.Pod, others []*corev1.Pod, allocatable corev1.ResourceList) *Pending {
	want, have := Requests(desired), Requests(allocated)
	// Memory is looked at first: of two resources that are too much, users are told of that one.
	for _, name := range []corev1.ResourceName{corev1.ResourceMemory, corev1.ResourceCPU} {
		q, limit := want[name], allocatable[name]
		if q.Cmp(limit) <= 0 {
			continue
		}
		requested, capacity := q.Value(), limit.Value()
		if name == corev1.ResourceCPU {
			requested, capacity = q.MilliValue(), limit.MilliValue()
		}
		return &Pending{corev1.PodReasonInfeasible,
			fmt.Sprintf("Node didn't have enough capacity: %s, requested: %d, capacity: %d", name, requested, capacity)}
	}
	growing := corev1.ResourceList{}
	for _, name := range resizable {
		before := have[name]
		if q := want[name]; q.Cmp(before) > 0 {
			growing[name] = q
		}
	}
	if short := Short(growing, others, allocatable); short != nil {
		return &Pending{corev1.PodReasonDeferred, short.String()}
	}
	return nil
}

// Waiting is a pod whose resize is to be decided.
type Waiting struct {
	Desired, Allocated *corev1.Pod
	Since              time.Time
}

// Compare orders pods that wait: those first that ask for no more than they have; then those of higher priority; then by
// the class of their quality of service; then those that have waited longest.
func Compare(a, b Waiting) int {
	return cmp.Or(
		cmp.Compare(rank(a.grows()), rank(b.grows())),
		cmp.Compare(priority(b.Desired), priority(a.Desired)),
		cmp.Compare(rank(criconfig.QOS(a.Desired) != corev1.PodQOSGuaranteed), rank(criconfig.QOS(b.Desired) != corev1.PodQOSGuaranteed)),
		a.Since.Compare(b.Since),
	)
}

func (w *Waiting) grows() bool {
	want, have := Requests(w.Desired), Requests(w.Allocated)
	return slices.ContainsFunc(resizable, func(name corev1.ResourceName) bool {
		q := want[name]
		return q.Cmp(have[name]) > 0
	})
}

func rank(last bool) int {
	if last {
		return 1
	}
	return 0
}

func priority(pod *corev1.Pod) int32 {
	if pod.Spec.Priority == nil {
		return 0
	}
	return *pod.Spec.Priority
}

// Summary tells users in an event what resources a pod has, or shall have.
func Summary(pod *corev1.Pod, generation int64, problem string) string {
	type container struct {
		Name      string                      `json:"name"`
		Resources corev1.ResourceRequirements `json:"resources,omitempty"`
	}
	list := func(containers []corev1.Container, all bool) []container {
		var list []container
		for i := range containers {
			c := &containers[i]
			if all || c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
				list = append(list, container{c.Name, c.Resources})
			}
		}
		return list
	}
	data, err := json.Marshal(struct {
		Resources      *corev1.ResourceRequirements `json:"resources,omitempty"`
		InitContainers []container                  `json:"initContainers,omitempty"`
		Containers     []container                  `json:"containers,omitempty"`
		Generation     int64                        `json:"generation,omitempty"`
		Error          string                       `json:"error,omitempty"`
	}{pod.Spec.Resources, list(pod.Spec.InitContainers, false), list(pod.Spec.Containers, true), generation, problem})
	if err != nil {
		return problem
	}
	return string(data)
}
