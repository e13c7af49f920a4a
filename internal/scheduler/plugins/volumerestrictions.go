package plugins

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/proa-k8s/proa/internal/scheduler/framework"
)

const volumeRestrictionsName = "VolumeRestrictions"

var (
	diskInUse  = &framework.Status{Code: framework.Unschedulable, Plugin: volumeRestrictionsName, Reasons: []string{"node(s) had no available disk"}}
	claimInUse = &framework.Status{Code: framework.Unschedulable, Plugin: volumeRestrictionsName, Reasons: []string{
		"node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"}}
)

// VolumeRestrictions keeps pods apart that can't use a disk at the same time.
func VolumeRestrictions(v *Volumes) *framework.Plugin {
	return &framework.Plugin{
		Name: volumeRestrictionsName,
		PreFilter: func(c *framework.Cycle) (framework.Filter, *framework.Status) {
			exclusive, disks := v.exclusiveClaims(c.Pod.Pod), disks(c.Pod.Pod)
			if len(exclusive) == 0 && len(disks) == 0 {
				return nil, nil
			}
			f := &restrictionFilter{namespace: c.Pod.Namespace, exclusive: exclusive, disks: disks}
			if len(exclusive) > 0 {
				for q, n := range c.State.PodsIn(c.Pod.Namespace) {
					f.Add(q, n)
				}
			}
			return f, nil
		},
		Events: storageEvents | framework.PodRemoved | framework.PodChanged,
	}
}

// exclusiveClaims are the names of the pod's claims that only one pod may use (KEP-2485).
func (v *Volumes) exclusiveClaims(p *corev1.Pod) sets.Set[string] {
	if !usesClaims(p) {
		return nil
	}
	names := sets.Set[string]{}
	for i := range p.Spec.Volumes {
		name := claimName(p, &p.Spec.Volumes[i])
		if name == "" {
			continue
		}
		claim, err := v.claims.PersistentVolumeClaims(p.Namespace).Get(name)
		if err == nil && slices.Contains(claim.Spec.AccessModes, corev1.ReadWriteOncePod) {
			names.Insert(name)
		}
	}
	return names
}

// restrictionFilter is the filter for one pod.
type restrictionFilter struct {
	namespace string
	exclusive sets.Set[string]
	users     int // pods that use exclusive claims
	disks     []*corev1.Volume
}

func (f *restrictionFilter) Check(n *framework.Node) *framework.Status {
	for _, d := range f.disks {
		for _, q := range n.Pods {
			for i := range q.Spec.Volumes {
				if excludes(d, &q.Spec.Volumes[i]) {
					return diskInUse
				}
			}
		}
	}
	if f.users > 0 {
		return claimInUse
	}
	return nil
}

func (f *restrictionFilter) Clone() framework.Adjustable {
	out := *f
	return &out
}

func (f *restrictionFilter) Add(p *framework.Pod, _ *framework.Node) { f.users += f.uses(p.Pod) }

func (f *restrictionFilter) Remove(p *framework.Pod, _ *framework.Node) { f.users -= f.uses(p.Pod) }

// uses counts the exclusive claims that a pod uses.
func (f *restrictionFilter) uses(p *corev1.Pod) int {
	count := 0
	if p.Namespace == f.namespace && len(f.exclusive) > 0 {
		for i := range p.Spec.Volumes {
			if f.exclusive.Has(claimName(p, &p.Spec.Volumes[i])) {
				count++
			}
		}
	}
	return count
}

// disks are the volumes that a pod names as disks.
func disks(p *corev1.Pod) []*corev1.Volume {
	var out []*corev1.Volume
	for i := range p.Spec.Volumes {
		if v := &p.Spec.Volumes[i]; v.GCEPersistentDisk != nil || v.AWSElasticBlockStore != nil || v.ISCSI != nil || v.RBD != nil {
			out = append(out, v)
		}
	}
	return out
}

// excludes tells whether two volumes are the same disk and one of them writes.
func excludes(a, b *corev1.Volume) bool {
	switch {
	case a.GCEPersistentDisk != nil && b.GCEPersistentDisk != nil:
		x, y := a.GCEPersistentDisk, b.GCEPersistentDisk
		return x.PDName == y.PDName && !(x.ReadOnly && y.ReadOnly)
	case a.AWSElasticBlockStore != nil && b.AWSElasticBlockStore != nil:
		return a.AWSElasticBlockStore.VolumeID == b.AWSElasticBlockStore.VolumeID
	case a.ISCSI != nil && b.ISCSI != nil:
		return a.ISCSI.IQN == b.ISCSI.IQN && !(a.ISCSI.ReadOnly && b.ISCSI.ReadOnly)
	case a.RBD != nil && b.RBD != nil:
		x, y := a.RBD, b.RBD
		shared := slices.ContainsFunc(x.CephMonitors, func(m string) bool { return slices.Contains(y.CephMonitors, m) })
		return shared && x.RBDPool == y.RBDPool && x.RBDImage == y.RBDImage && !(x.ReadOnly && y.ReadOnly)
	default:
		return false
	}
}
