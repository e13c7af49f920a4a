package plugins

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	volumehelper "k8s.io/component-helpers/storage/volume"

	"github.com/proa-k8s/proa/internal/scheduler/framework"
)

// NodeVolumeLimits lets nodes pass that can attach the pod's volumes beside those that they have: CSI drivers say how many
// a node can have.
func NodeVolumeLimits(v *Volumes) *framework.Plugin {
	const name = "NodeVolumeLimits"
	tooMany := &framework.Status{Code: framework.Unschedulable, Plugin: name, Reasons: []string{"node(s) exceed max volume count"}}
	return &framework.Plugin{
		Name: name,
		PreFilter: func(c *framework.Cycle) (framework.Filter, *framework.Status) {
			wanted := v.attached(c.Pod.Pod)
			if len(wanted) == 0 {
				return nil, nil
			}
			return check(func(n *framework.Node) *framework.Status {
				if v.exceeds(n, wanted) {
					return tooMany
				}
				return nil
			}), nil
		},
		Events: storageEvents | framework.PodRemoved,
	}
}

// attachment is a volume of a driver; a claim stands for the volume that it will get.
type attachment struct{ driver, volume string }

// attached are the volumes of CSI drivers that a pod needs.
func (v *Volumes) attached(p *corev1.Pod) sets.Set[attachment] {
	if !usesClaims(p) {
		return nil
	}
	out := sets.Set[attachment]{}
	for i := range p.Spec.Volumes {
		name := claimName(p, &p.Spec.Volumes[i])
		if name == "" {
			continue
		}
		claim, err := v.claims.PersistentVolumeClaims(p.Namespace).Get(name)
		if err != nil {
			continue
		}
		if claim.Spec.VolumeName != "" {
			if volume, err := v.volumes.Get(claim.Spec.VolumeName); err == nil {
				if csi := volume.Spec.CSI; csi != nil {
					out.Insert(attachment{csi.Driver, csi.VolumeHandle})
				}
				continue
			}
		}
		if class, err := v.classes.Get(volumehelper.GetPersistentVolumeClaimClass(claim)); err == nil {
			out.Insert(attachment{class.Provisioner, p.Namespace + "/" + name})
		}
	}
	return out
}

// exceeds tells whether a node would have more volumes of a driver than it can.
func (v *Volumes) exceeds(n *framework.Node, wanted sets.Set[attachment]) bool {
	node, err := v.nodes.Get(n.Name())
	if err != nil {
		return false // no driver says anything
	}
	var there sets.Set[attachment]
	for i := range node.Spec.Drivers {
		d := &node.Spec.Drivers[i]
		if d.Allocatable == nil || d.Allocatable.Count == nil {
			continue
		}
		if there == nil {
			there = sets.Set[attachment]{}
			for _, q := range n.Pods {
				there = there.Union(v.attached(q.Pod))
			}
		}
		used, more := int32(0), int32(0)
		for a := range there {
			if a.driver == d.Name {
				used++
			}
		}
		for a := range wanted {
			if a.driver == d.Name && !there.Has(a) {
				more++
			}
		}
		if more > 0 && used+more > *d.Allocatable.Count {
			return true
		}
	}
	return false
}
