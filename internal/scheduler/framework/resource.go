package framework

import (
	"maps"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
)

// Resource is an amount of everything that a node has to give.
type Resource struct {
	MilliCPU         int64
	Memory           int64 // bytes
	EphemeralStorage int64 // bytes
	Pods             int64
	// Scalar holds the other resources, huge pages among them; it is nil when there are none.
	Scalar map[corev1.ResourceName]int64
}

// NewResource converts a list. Resources that the scheduler doesn't count are left out.
func NewResource(list corev1.ResourceList) Resource {
	var r Resource
	for name, q := range list {
		switch name {
		case corev1.ResourceCPU:
			r.MilliCPU = q.MilliValue()
		case corev1.ResourceMemory:
			r.Memory = q.Value()
		case corev1.ResourceEphemeralStorage:
			r.EphemeralStorage = q.Value()
		case corev1.ResourcePods:
			r.Pods = q.Value()
		default:
			if IsScalar(name) {
				if r.Scalar == nil {
					r.Scalar = make(map[corev1.ResourceName]int64, 1)
				}
				r.Scalar[name] = q.Value()
			}
		}
	}
	return r
}

// IsScalar tells whether a resource is counted in whole units: extended resources, huge pages, prefixed native ones and
// attachable volumes.
func IsScalar(name corev1.ResourceName) bool {
	return IsExtended(name) ||
		strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix) ||
		strings.HasPrefix(string(name), corev1.ResourceAttachableVolumesPrefix) ||
		strings.Contains(string(name), corev1.ResourceDefaultNamespacePrefix)
}

// IsExtended tells whether a resource is in a domain of its own, and is no quota.
func IsExtended(name corev1.ResourceName) bool {
	domain, _, qualified := strings.Cut(string(name), "/")
	if !qualified || strings.Contains(string(name), corev1.ResourceDefaultNamespacePrefix) {
		return false
	}
	return !strings.HasPrefix(domain, corev1.DefaultResourceRequestsPrefix)
}

// Add adds (sign 1) or takes away (sign -1) what r2 holds.
func (r *Resource) Add(r2 *Resource, sign int64) {
	r.MilliCPU += sign * r2.MilliCPU
	r.Memory += sign * r2.Memory
	r.EphemeralStorage += sign * r2.EphemeralStorage
	r.Pods += sign * r2.Pods
	for name, v := range r2.Scalar {
		if r.Scalar == nil {
			r.Scalar = make(map[corev1.ResourceName]int64, len(r2.Scalar))
		}
		r.Scalar[name] += sign * v
	}
}

// Equal tells whether two amounts are the same.
func (r *Resource) Equal(r2 *Resource) bool {
	return r.MilliCPU == r2.MilliCPU && r.Memory == r2.Memory && r.EphemeralStorage == r2.EphemeralStorage && r.Pods == r2.Pods &&
		maps.Equal(r.Scalar, r2.Scalar)
}

// Clone is a copy that shares nothing.
func (r *Resource) Clone() Resource {
	out := *r
	if r.Scalar != nil {
		out.Scalar = make(map[corev1.ResourceName]int64, len(r.Scalar))
		for k, v := range r.Scalar {
			out.Scalar[k] = v
		}
	}
	return out
}

// Get is the amount of one resource.
func (r *Resource) Get(name corev1.ResourceName) int64 {
	switch name {
	case corev1.ResourceCPU:
		return r.MilliCPU
	case corev1.ResourceMemory:
		return r.Memory
	case corev1.ResourceEphemeralStorage:
		return r.EphemeralStorage
	case corev1.ResourcePods:
		return r.Pods
	default:
		return r.Scalar[name]
	}
}

// What a container that asks for nothing counts for in scores, so that such pods spread too.
const (
	DefaultMilliCPU int64 = 100
	DefaultMemory   int64 = 200 << 20
)

// requests computes what a pod asks for, and the same with the defaults in the place of what is missing. Resources that
// are being resized count as the greater of what is wanted and what is in use (KEP-1287).
func requests(pod *corev1.Pod) (req, nonzero Resource) {
	o := resourcehelper.PodResourcesOptions{UseStatusResources: resizes(pod), InPlacePodLevelResourcesVerticalScalingEnabled: true}
	req = NewResource(resourcehelper.PodRequests(pod, o))
	req.Pods = 1
	if pod.Spec.Resources == nil && everyContainerAsks(pod) {
		return req, Resource{MilliCPU: req.MilliCPU, Memory: req.Memory}
	}
	o.NonMissingContainerRequests = corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewMilliQuantity(DefaultMilliCPU, resource.DecimalSI),
		corev1.ResourceMemory: *resource.NewQuantity(DefaultMemory, resource.BinarySI),
	}
	list := resourcehelper.PodRequests(pod, o)
	return req, Resource{MilliCPU: list.Cpu().MilliValue(), Memory: list.Memory().Value()}
}

// resizes tells whether the status says anything about resources that could differ from the spec.
func resizes(pod *corev1.Pod) bool {
	if pod.Status.Resources != nil || pod.Status.AllocatedResources != nil {
		return true
	}
	for _, list := range [][]corev1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses} {
		for i := range list {
			if list[i].AllocatedResources != nil || list[i].Resources != nil {
				return true
			}
		}
	}
	return false
}

func everyContainerAsks(pod *corev1.Pod) bool {
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			r := list[i].Resources.Requests
			if _, ok := r[corev1.ResourceCPU]; !ok {
				return false
			}
			if _, ok := r[corev1.ResourceMemory]; !ok {
				return false
			}
		}
	}
	return true
}
