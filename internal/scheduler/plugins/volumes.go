package plugins

import (
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/component-helpers/storage/ephemeral"

	"github.com/proa-k8s/proa/internal/scheduler/framework"
)

// Volumes is what the plugins about volumes share: the objects of storage, and which volumes are being bound.
type Volumes struct {
	client     kubernetes.Interface
	claims     corelisters.PersistentVolumeClaimLister
	volumes    corelisters.PersistentVolumeLister
	classes    storagelisters.StorageClassLister
	nodes      storagelisters.CSINodeLister
	drivers    storagelisters.CSIDriverLister
	capacities storagelisters.CSIStorageCapacityLister

	// reserved are the names of volumes that were chosen for a claim and don't show it yet. It belongs to the goroutine
	// that schedules.
	reserved map[string]bool

	mu      sync.Mutex
	changed chan struct{} // closed at the next change of a claim, if somebody waits for one
}

// NewVolumes requests the informers of storage. Claims and volumes are written by client.
func NewVolumes(client kubernetes.Interface, f informers.SharedInformerFactory) *Volumes {
	core, storage := f.Core().V1(), f.Storage().V1()
	return &Volumes{
		client: client,
		claims: core.PersistentVolumeClaims().Lister(), volumes: core.PersistentVolumes().Lister(), classes: storage.StorageClasses().Lister(),
		nodes: storage.CSINodes().Lister(), drivers: storage.CSIDrivers().Lister(), capacities: storage.CSIStorageCapacities().Lister(),
		reserved: map[string]bool{},
	}
}

// Changed is to be called after the informer of claims has shown a change.
func (v *Volumes) Changed() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.changed != nil {
		close(v.changed)
		v.changed = nil
	}
}

// nextChange is closed at the next change of a claim.
func (v *Volumes) nextChange() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.changed == nil {
		v.changed = make(chan struct{})
	}
	return v.changed
}

// claimName is the name of the claim behind a volume of a pod; it is empty for volumes that need none.
func claimName(p *corev1.Pod, v *corev1.Volume) string {
	switch {
	case v.PersistentVolumeClaim != nil:
		return v.PersistentVolumeClaim.ClaimName
	case v.Ephemeral != nil:
		return ephemeral.VolumeClaimName(p, v)
	default:
		return ""
	}
}

// usesClaims tells whether a pod has any volume behind a claim.
func usesClaims(p *corev1.Pod) bool {
	for i := range p.Spec.Volumes {
		if claimName(p, &p.Spec.Volumes[i]) != "" {
			return true
		}
	}
	return false
}

// claimsOf finds the claims of a pod; the message says why there is one missing.
func (v *Volumes) claimsOf(p *corev1.Pod) (claims []*corev1.PersistentVolumeClaim, message string, err error) {
	for i := range p.Spec.Volumes {
		volume := &p.Spec.Volumes[i]
		name := claimName(p, volume)
		if name == "" {
			continue
		}
		claim, err := v.claims.PersistentVolumeClaims(p.Namespace).Get(name)
		switch {
		case apierrors.IsNotFound(err) && volume.Ephemeral != nil:
			return nil, fmt.Sprintf("waiting for ephemeral volume controller to create the persistentvolumeclaim %q", name), nil
		case apierrors.IsNotFound(err):
			return nil, fmt.Sprintf("persistentvolumeclaim %q not found", name), nil
		case err != nil:
			return nil, "", err
		case claim.Status.Phase == corev1.ClaimLost:
			return nil, fmt.Sprintf("persistentvolumeclaim %q bound to non-existent persistentvolume %q", name, claim.Spec.VolumeName), nil
		case claim.DeletionTimestamp != nil:
			return nil, fmt.Sprintf("persistentvolumeclaim %q is being deleted", name), nil
		}
		if volume.Ephemeral != nil {
			if err := ephemeral.VolumeIsForPod(p, claim); err != nil {
				return nil, err.Error(), nil
			}
		}
		claims = append(claims, claim)
	}
	return claims, "", nil
}

// boundVolumes are the volumes that a pod's claims are bound to; what is missing is left out.
func (v *Volumes) boundVolumes(p *corev1.Pod) []*corev1.PersistentVolume {
	var out []*corev1.PersistentVolume
	for i := range p.Spec.Volumes {
		name := claimName(p, &p.Spec.Volumes[i])
		if name == "" {
			continue
		}
		claim, err := v.claims.PersistentVolumeClaims(p.Namespace).Get(name)
		if err != nil || claim.Spec.VolumeName == "" {
			continue
		}
		if volume, err := v.volumes.Get(claim.Spec.VolumeName); err == nil {
			out = append(out, volume)
		}
	}
	return out
}

// storageEvents are those after which volumes may be found.
const storageEvents = framework.VolumeEvent | framework.NodeAdded | framework.NodeLabels
