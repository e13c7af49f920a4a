// Package eviction decides which pods a node gives up when memory, disk or process numbers run short.
//
// What flows in are thresholds, what is available, and what pods use; what flows out are the thresholds that are crossed and
// the order in which pods go. Everything here is pure.
package eviction

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
)

// The signals that thresholds are set for.
const (
	MemoryAvailable   = "memory.available"
	NodeFsAvailable   = "nodefs.available"
	NodeFsInodesFree  = "nodefs.inodesFree"
	ImageFsAvailable  = "imagefs.available"
	ImageFsInodesFree = "imagefs.inodesFree"
	PidAvailable      = "pid.available"
)

// Threshold is when a resource is too short: an absolute quantity, or a share of the capacity.
type Threshold struct {
	Signal   string
	Quantity *resource.Quantity
	Share    float64 // of 1
}

// Parse reads thresholds as they are configured: "100Mi" or "10%".
func Parse(config map[string]string) ([]Threshold, error) {
	var list []Threshold
	for _, signal := range slices.Sorted(maps.Keys(config)) {
		if !slices.Contains([]string{MemoryAvailable, NodeFsAvailable, NodeFsInodesFree, ImageFsAvailable, ImageFsInodesFree, PidAvailable}, signal) {
			return nil, fmt.Errorf("unknown signal %q", signal)
		}
		value := config[signal]
		t := Threshold{Signal: signal}
		if number, ok := strings.CutSuffix(value, "%"); ok {
			share, err := strconv.ParseFloat(number, 64)
			if err != nil || share < 0 || share > 100 {
				return nil, fmt.Errorf("%s: invalid percentage %q", signal, value)
			}
			t.Share = share / 100
		} else {
			q, err := resource.ParseQuantity(value)
			if err != nil || q.Sign() < 0 {
				return nil, fmt.Errorf("%s: invalid quantity %q", signal, value)
			}
			t.Quantity = &q
		}
		list = append(list, t)
	}
	return list, nil
}

// Observation is what there is of a resource.
type Observation struct {
	Available, Capacity int64
}

// At is the amount below which the threshold is crossed.
func (t *Threshold) At(capacity int64) int64 {
	if t.Quantity != nil {
		return t.Quantity.Value()
	}
	return int64(t.Share * float64(capacity))
}

// Crossed are the thresholds that what is observed lies below.
func Crossed(thresholds []Threshold, observed map[string]Observation) []Threshold {
	var list []Threshold
	for _, t := range thresholds {
		if o, ok := observed[t.Signal]; ok && o.Capacity > 0 && o.Available < t.At(o.Capacity) {
			list = append(list, t)
		}
	}
	return list
}

// Condition is the node's condition that a signal stands for.
func Condition(signal string) corev1.NodeConditionType {
	switch signal {
	case MemoryAvailable:
		return corev1.NodeMemoryPressure
	case PidAvailable:
		return corev1.NodePIDPressure
	}
	return corev1.NodeDiskPressure
}

// Resource is the resource that a signal is about, as users name it.
func Resource(signal string) corev1.ResourceName {
	switch signal {
	case MemoryAvailable:
		return corev1.ResourceMemory
	case PidAvailable:
		return "pids"
	case NodeFsInodesFree, ImageFsInodesFree:
		return "inodes"
	}
	return corev1.ResourceEphemeralStorage
}

// Usage is what a pod, or one of its containers, uses of the resource that is short.
type Usage struct {
	Pod        *corev1.Pod
	Used       int64
	Containers map[string]int64
}

// Rank puts the pods that go first to the front: those that use more than they asked for; then of lower priority; then
// the further above what they asked for. Critical pods are left out.
func Rank(pods []Usage, name corev1.ResourceName) []Usage {
	list := slices.DeleteFunc(slices.Clone(pods), func(u Usage) bool {
		return u.Pod.Spec.Priority != nil && *u.Pod.Spec.Priority >= 2000000000 || u.Pod.Annotations["kubernetes.io/config.source"] == "file"
	})
	over := func(u Usage) int64 {
		requests := resourcehelper.PodRequests(u.Pod, resourcehelper.PodResourcesOptions{})
		q := requests[name]
		return u.Used - q.Value()
	}
	rank := func(exceeds bool) int {
		if exceeds {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(list, func(a, b Usage) int {
		return cmp.Or(
			cmp.Compare(rank(over(a) > 0), rank(over(b) > 0)),
			cmp.Compare(priority(a.Pod), priority(b.Pod)),
			cmp.Compare(over(b), over(a)),
		)
	})
	return list
}

func priority(pod *corev1.Pod) int32 {
	if pod.Spec.Priority == nil {
		return 0
	}
	return *pod.Spec.Priority
}

// Message tells why a pod was evicted.
func Message(t *Threshold, o Observation, u *Usage) string {
	name := Resource(t.Signal)
	var b strings.Builder
	fmt.Fprintf(&b, "The node was low on resource: %s. ", name)
	format := resource.BinarySI
	if name == "pids" || name == "inodes" {
		format = resource.DecimalSI
	}
	fmt.Fprintf(&b, "Threshold quantity: %s, available: %s. ",
		resource.NewQuantity(t.At(o.Capacity), format), available(o.Available, format))
	for i := range u.Pod.Spec.Containers {
		c := &u.Pod.Spec.Containers[i]
		used, ok := u.Containers[c.Name]
		request := c.Resources.Requests[name]
		if ok && used > request.Value() {
			fmt.Fprintf(&b, "Container %s was using %s, request is %s, has larger consumption of %s. ",
				c.Name, available(used, format), request.String(), name)
		}
	}
	return b.String()
}

// available writes bytes as users read them: in Ki.
func available(v int64, format resource.Format) string {
	if format == resource.BinarySI {
		v = v / 1024 * 1024
	}
	return resource.NewQuantity(v, format).String()
}
