package plugins

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	volumehelper "k8s.io/component-helpers/storage/volume"

	"github.com/proa-k8s/proa/internal/scheduler/framework"
)

const volumeBindingName = "VolumeBinding"

// bindTimeout is how long a pod that is being bound waits for its volumes.
const bindTimeout = 10 * time.Minute

func volumeStatus(code framework.Code, reason string) *framework.Status {
	return &framework.Status{Code: code, Plugin: volumeBindingName, Reasons: []string{reason}}
}

var (
	unboundImmediate = volumeStatus(framework.Unresolvable, "pod has unbound immediate PersistentVolumeClaims")
	volumeElsewhere  = volumeStatus(framework.Unresolvable, "node(s) didn't match PersistentVolume's node affinity")
	volumeMissing    = volumeStatus(framework.Unresolvable, "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)")
	noVolume         = volumeStatus(framework.Unresolvable, "node(s) didn't find available persistent volumes to bind")
	noSpace          = volumeStatus(framework.Unresolvable, "node(s) did not have enough free storage")
)

// VolumeBinding lets nodes pass from which the pod's volumes can be reached, and has claims bound that wait for a pod.
func VolumeBinding(v *Volumes) *framework.Plugin {
	return &framework.Plugin{
		Name:      volumeBindingName,
		PreFilter: v.preFilter,
		Reserve:   v.reserve,
		Events:    storageEvents | framework.PodChanged,
	}
}

// volumeFilter is the filter for one pod.
type volumeFilter struct {
	v       *Volumes
	bound   []*corev1.PersistentVolumeClaim
	delayed []*corev1.PersistentVolumeClaim // to be bound when the node is known
}

func (v *Volumes) preFilter(c *framework.Cycle) (framework.Filter, *framework.Status) {
	f, status := v.filter(c.Pod.Pod)
	if f == nil {
		return nil, status
	}
	return f, nil
}

func (v *Volumes) filter(p *corev1.Pod) (*volumeFilter, *framework.Status) {
	if !usesClaims(p) {
		return nil, nil
	}
	claims, message, err := v.claimsOf(p)
	if err != nil {
		return nil, failed(volumeBindingName, err)
	}
	if message != "" {
		return nil, volumeStatus(framework.Unresolvable, message)
	}
	f := &volumeFilter{v: v}
	for _, claim := range claims {
		if isBound(claim) {
			f.bound = append(f.bound, claim)
			continue
		}
		delayed, err := volumehelper.IsDelayBindingMode(claim, v.classes)
		if err != nil {
			return nil, failed(volumeBindingName, err)
		}
		if !delayed || claim.Spec.VolumeName != "" {
			return nil, unboundImmediate
		}
		f.delayed = append(f.delayed, claim)
	}
	return f, nil
}

// isBound tells whether claim and volume agree.
func isBound(claim *corev1.PersistentVolumeClaim) bool {
	_, complete := claim.Annotations[volumehelper.AnnBindCompleted]
	return claim.Spec.VolumeName != "" && complete
}

func (f *volumeFilter) Check(n *framework.Node) *framework.Status {
	for _, claim := range f.bound {
		volume, err := f.v.volumes.Get(claim.Spec.VolumeName)
		if err != nil {
			return volumeMissing
		}
		if volumehelper.CheckNodeAffinity(volume, n.Labels) != nil {
			return volumeElsewhere
		}
	}
	_, status := f.v.choose(f.delayed, n)
	return status
}

// choice is how claims that wait for a node are to be satisfied on one.
type choice struct {
	volumes   map[*corev1.PersistentVolumeClaim]*corev1.PersistentVolume
	provision []*corev1.PersistentVolumeClaim
}

// choose finds a volume for each claim, or that one can be made.
func (v *Volumes) choose(claims []*corev1.PersistentVolumeClaim, n *framework.Node) (choice, *framework.Status) {
	out := choice{volumes: map[*corev1.PersistentVolumeClaim]*corev1.PersistentVolume{}}
	if len(claims) == 0 {
		return out, nil
	}
	all, err := v.volumes.List(labels.Everything())
	if err != nil {
		return out, failed(volumeBindingName, err)
	}
	taken := map[string]*corev1.PersistentVolume{}
	for _, volume := range all {
		if v.reserved[volume.Name] {
			taken[volume.Name] = volume
		}
	}
	for _, claim := range claims {
		if selected := claim.Annotations[volumehelper.AnnSelectedNode]; selected != "" {
			if selected != n.Name() { // a volume is being made there
				return out, noVolume
			}
			out.provision = append(out.provision, claim)
			continue
		}
		volume, err := volumehelper.FindMatchingVolume(claim, all, n.Node, taken, true, true)
		if err != nil {
			return out, failed(volumeBindingName, err)
		}
		if volume != nil {
			taken[volume.Name], out.volumes[claim] = volume, volume
			continue
		}
		if status := v.canProvision(claim, n); status != nil {
			return out, status
		}
		out.provision = append(out.provision, claim)
	}
	return out, nil
}

// canProvision says why no volume can be made for a claim on a node.
func (v *Volumes) canProvision(claim *corev1.PersistentVolumeClaim, n *framework.Node) *framework.Status {
	class, err := v.classes.Get(volumehelper.GetPersistentVolumeClaimClass(claim))
	if err != nil {
		return failed(volumeBindingName, fmt.Errorf("finding the storage class of claim %s: %w", claim.Name, err))
	}
	if class.Provisioner == "" || class.Provisioner == volumehelper.NotSupportedProvisioner || !allows(class.AllowedTopologies, n.Labels) {
		return noVolume
	}
	enough, err := v.hasCapacity(class, claim, n)
	if err != nil {
		return failed(volumeBindingName, err)
	}
	if !enough {
		return noSpace
	}
	return nil
}

// allows tells whether any of the terms holds; there being none is no limit.
func allows(terms []corev1.TopologySelectorTerm, have labels.Set) bool {
	for i := range terms {
		all := true
		for _, e := range terms[i].MatchLabelExpressions {
			value, ok := have[e.Key]
			found := false
			for _, v := range e.Values {
				found = found || ok && v == value
			}
			all = all && found
		}
		if all {
			return true
		}
	}
	return len(terms) == 0
}

// hasCapacity asks the published capacities, if the driver publishes them (KEP-1472).
func (v *Volumes) hasCapacity(class *storagev1.StorageClass, claim *corev1.PersistentVolumeClaim, n *framework.Node) (bool, error) {
	driver, err := v.drivers.Get(class.Provisioner)
	if err != nil || driver.Spec.StorageCapacity == nil || !*driver.Spec.StorageCapacity {
		return true, nil // it is no CSI driver, or doesn't say
	}
	size, ok := claim.Spec.Resources.Requests[corev1.ResourceStorage]
	if !ok {
		return true, nil
	}
	capacities, err := v.capacities.List(labels.Everything())
	if err != nil {
		return false, fmt.Errorf("listing storage capacities: %w", err)
	}
	for _, c := range capacities {
		limit := c.Capacity
		if c.MaximumVolumeSize != nil {
			limit = c.MaximumVolumeSize
		}
		if c.StorageClassName != class.Name || limit == nil || limit.Cmp(size) < 0 || c.NodeTopology == nil {
			continue
		}
		selector, err := metav1.LabelSelectorAsSelector(c.NodeTopology)
		if err == nil && selector.Matches(labels.Set(n.Labels)) {
			return true, nil
		}
	}
	return false, nil
}

// volumeReservation holds the volumes that were chosen for a pod.
type volumeReservation struct {
	v    *Volumes
	node string
	choice
}

func (v *Volumes) reserve(c *framework.Cycle, n *framework.Node) (framework.Reservation, *framework.Status) {
	f, status := v.filter(c.Pod.Pod)
	if f == nil || len(f.delayed) == 0 {
		return nil, status
	}
	chosen, status := v.choose(f.delayed, n)
	if status != nil {
		return nil, status
	}
	for _, volume := range chosen.volumes {
		v.reserved[volume.Name] = true
	}
	return &volumeReservation{v: v, node: n.Name(), choice: chosen}, nil
}

func (r *volumeReservation) Unreserve() {
	for _, volume := range r.volumes {
		delete(r.v.reserved, volume.Name)
	}
}

// PreBind tells volumes whose they are and provisioners where volumes are wanted, and waits until all claims are bound.
func (r *volumeReservation) PreBind(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, bindTimeout, errors.New("timed out waiting for volumes to be bound"))
	defer cancel()
	claims := make([]*corev1.PersistentVolumeClaim, 0, len(r.volumes)+len(r.provision))
	for claim, volume := range r.volumes {
		claims = append(claims, claim)
		bound, dirty, err := volumehelper.GetBindVolumeToClaim(volume, claim)
		if err != nil {
			return fmt.Errorf("binding volume %s to claim %s: %w", volume.Name, claim.Name, err)
		}
		if !dirty {
			continue
		}
		if _, err := r.v.client.CoreV1().PersistentVolumes().Update(ctx, bound, metav1.UpdateOptions{}); err != nil {
			return fmt.Errorf("binding volume %s to claim %s: %w", volume.Name, claim.Name, err)
		}
	}
	for _, claim := range r.provision {
		claims = append(claims, claim)
		if claim.Annotations[volumehelper.AnnSelectedNode] == r.node {
			continue
		}
		marked := *claim
		marked.Annotations = maps.Clone(claim.Annotations)
		if marked.Annotations == nil {
			marked.Annotations = map[string]string{}
		}
		marked.Annotations[volumehelper.AnnSelectedNode] = r.node
		if _, err := r.v.client.CoreV1().PersistentVolumeClaims(claim.Namespace).Update(ctx, &marked, metav1.UpdateOptions{}); err != nil {
			return fmt.Errorf("asking for a volume for claim %s: %w", claim.Name, err)
		}
	}
	return r.v.waitBound(ctx, claims, r.node)
}

// waitBound waits until the informer shows all claims as bound.
func (v *Volumes) waitBound(ctx context.Context, claims []*corev1.PersistentVolumeClaim, node string) error {
	asked := map[string]bool{} // claims that the informer has shown with the node
	for {
		changed := v.nextChange() // before looking, so that nothing is missed
		all := true
		for _, claim := range claims {
			now, err := v.claims.PersistentVolumeClaims(claim.Namespace).Get(claim.Name)
			if err != nil {
				return fmt.Errorf("waiting for claim %s: %w", claim.Name, err)
			}
			if now.UID != claim.UID || now.DeletionTimestamp != nil {
				return fmt.Errorf("claim %s was deleted", claim.Name)
			}
			selected := now.Annotations[volumehelper.AnnSelectedNode]
			if asked[claim.Name] && selected != node && !isBound(now) {
				return fmt.Errorf("no volume could be made for claim %s on node %s", claim.Name, node)
			}
			asked[claim.Name] = selected == node
			all = all && isBound(now)
		}
		if all {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
