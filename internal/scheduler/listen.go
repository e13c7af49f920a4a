package scheduler

import (
	"errors"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/client-go/tools/cache"

	"github.com/proa-k8s/proa/internal/scheduler/framework"
)

// listen has the informers put what they see into the mailbox.
func (s *Scheduler) listen() error {
	core, apps, storage := s.Informers.Core().V1(), s.Informers.Apps().V1(), s.Informers.Storage().V1()
	s.pods, s.budgets = core.Pods().Lister(), s.Informers.Policy().V1().PodDisruptionBudgets().Lister()
	for _, informer := range []cache.SharedIndexInformer{
		s.Informers.Policy().V1().PodDisruptionBudgets().Informer(),
		core.Services().Informer(), core.ReplicationControllers().Informer(), apps.ReplicaSets().Informer(), apps.StatefulSets().Informer(),
	} {
		s.synced = append(s.synced, informer.HasSyncedChecker().Done())
	}
	return errors.Join(
		watch(s, core.Pods().Informer(), (*Scheduler).podChanged),
		watch(s, core.Nodes().Informer(), (*Scheduler).nodeChanged),
		watch(s, core.Namespaces().Informer(), (*Scheduler).namespaceChanged),
		watch(s, core.PersistentVolumeClaims().Informer(), (*Scheduler).claimChanged),
		watch(s, core.PersistentVolumes().Informer(), storageChanged[corev1.PersistentVolume]),
		watch(s, storage.StorageClasses().Informer(), storageChanged[storagev1.StorageClass]),
		watch(s, storage.CSINodes().Informer(), storageChanged[storagev1.CSINode]),
		watch(s, storage.CSIDrivers().Informer(), storageChanged[storagev1.CSIDriver]),
		watch(s, storage.CSIStorageCapacities().Informer(), storageChanged[storagev1.CSIStorageCapacity]),
	)
}

// watch has handle called, by the scheduling goroutine, for each change of what an informer watches: old is nil for what
// is new, and now for what is gone.
func watch[T any](s *Scheduler, informer cache.SharedIndexInformer, handle func(s *Scheduler, old, now *T)) error {
	put := func(old, now *T) { s.mailbox.put(func(s *Scheduler) { handle(s, old, now) }) }
	registration, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { put(nil, obj.(*T)) },
		UpdateFunc: func(old, now any) { put(old.(*T), now.(*T)) },
		DeleteFunc: func(obj any) {
			if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = gone.Obj
			}
			if old, ok := obj.(*T); ok {
				put(old, nil)
			}
		},
	})
	if err != nil {
		return err
	}
	s.synced = append(s.synced, registration.HasSyncedChecker().Done())
	return nil
}

// podChanged takes a pod as it is now. Where it belongs depends on what it is, not on what it was.
func (s *Scheduler) podChanged(old, now *corev1.Pod) {
	if old != nil && (now == nil || old.UID != now.UID) {
		s.podGone(old)
		old = nil
	}
	switch {
	case now == nil:
	case now.Status.Phase == corev1.PodSucceeded || now.Status.Phase == corev1.PodFailed:
		s.podGone(now) // it takes nothing any more
	case now.Spec.NodeName != "":
		s.podAssigned(old, now)
	case s.profiles[now.Spec.SchedulerName] != nil:
		s.podPending(old, now)
	}
}

// podGone removes a pod from wherever it is.
func (s *Scheduler) podGone(p *corev1.Pod) {
	s.queue.Remove(p.UID)
	nominated := s.state.NominatedNode(p.UID) != ""
	s.state.Unnominate(p.UID)
	was := s.state.Remove(p.UID)
	switch {
	case was != nil:
		s.event(&framework.Event{Kind: framework.PodRemoved, Pod: was})
	case nominated:
		s.event(&framework.Event{Kind: framework.PodRemoved, Pod: framework.NewPod(p)})
	}
}

// podAssigned takes a pod that is on a node.
func (s *Scheduler) podAssigned(old, now *corev1.Pod) {
	s.queue.Remove(now.UID)
	s.state.Unnominate(now.UID)
	was, node, assumed := s.state.Find(now.UID)
	if was != nil && !assumed && node == now.Spec.NodeName && old != nil && !counts(old, now) {
		was.Pod = now // the pod's share of the node is what it was
		return
	}
	p := framework.NewPod(now)
	s.state.Observe(p, now.Spec.NodeName)
	switch {
	case was == nil || assumed:
		s.event(&framework.Event{Kind: framework.PodAssigned, Pod: p})
	default:
		s.event(&framework.Event{Kind: podChange(was, p), OldPod: was, Pod: p})
	}
}

// counts tells whether an update of a pod on a node can change what it takes or whom it attracts.
func counts(old, now *corev1.Pod) bool {
	return old.Generation != now.Generation || !maps.Equal(old.Labels, now.Labels) ||
		(old.DeletionTimestamp == nil) != (now.DeletionTimestamp == nil) ||
		!equality.Semantic.DeepEqual(old.Status.AllocatedResources, now.Status.AllocatedResources) ||
		!equality.Semantic.DeepEqual(old.Status.Resources, now.Status.Resources) ||
		!sameResources(old.Status.ContainerStatuses, now.Status.ContainerStatuses) ||
		!sameResources(old.Status.InitContainerStatuses, now.Status.InitContainerStatuses)
}

func sameResources(a, b []corev1.ContainerStatus) bool {
	return slices.EqualFunc(a, b, func(a, b corev1.ContainerStatus) bool {
		return a.Name == b.Name && equality.Semantic.DeepEqual(a.AllocatedResources, b.AllocatedResources) && equality.Semantic.DeepEqual(a.Resources, b.Resources)
	})
}

func podChange(old, now *framework.Pod) framework.EventKind {
	var kind framework.EventKind
	if !maps.Equal(old.Labels, now.Labels) {
		kind |= framework.PodLabels
	}
	if less(&now.Request, &old.Request) {
		kind |= framework.PodScaled
	}
	return kind
}

// less tells whether a is less than b in any respect.
func less(a, b *framework.Resource) bool {
	if a.MilliCPU < b.MilliCPU || a.Memory < b.Memory || a.EphemeralStorage < b.EphemeralStorage {
		return true
	}
	for name, v := range b.Scalar {
		if a.Scalar[name] < v {
			return true
		}
	}
	return false
}

// podPending takes a pod that waits for a node.
func (s *Scheduler) podPending(old, now *corev1.Pod) {
	if a := s.binding[now.UID]; a != nil {
		return // what it is now is read when the binding fails
	}
	p := framework.NewPod(now)
	node := s.state.NominatedNode(now.UID)
	if old == nil || old.Status.NominatedNodeName != now.Status.NominatedNodeName {
		node = now.Status.NominatedNodeName // otherwise what was decided since may not be written yet
	}
	s.state.Nominate(p, node)
	if s.queue.Update(p, nil, s.Clock.Now()) || now.DeletionTimestamp != nil {
		return
	}
	s.queue.Add(p, s.Clock.Now())
}

// nodeChanged takes a node as it is now.
func (s *Scheduler) nodeChanged(old, now *corev1.Node) {
	if now == nil {
		s.state.RemoveNode(old.Name)
		s.event(&framework.Event{Kind: framework.NodeRemoved, OldNode: old})
		return
	}
	old = s.state.SetNode(now)
	if kind := nodeChange(old, now); kind != 0 {
		s.event(&framework.Event{Kind: kind, OldNode: old, Node: now})
	}
}

// nodeChange tells what is different about a node; heartbeats are nothing.
func nodeChange(old, now *corev1.Node) framework.EventKind {
	if old == nil {
		return framework.NodeAdded
	}
	var kind framework.EventKind
	if !equality.Semantic.DeepEqual(old.Status.Allocatable, now.Status.Allocatable) {
		kind |= framework.NodeAllocatable
	}
	if !maps.Equal(old.Labels, now.Labels) {
		kind |= framework.NodeLabels
	}
	if old.Spec.Unschedulable != now.Spec.Unschedulable || !equality.Semantic.DeepEqual(old.Spec.Taints, now.Spec.Taints) {
		kind |= framework.NodeTaints
	}
	return kind
}

// namespaceChanged: labels of namespaces matter to pod affinity.
func (s *Scheduler) namespaceChanged(old, now *corev1.Namespace) {
	if now != nil && (old == nil || !maps.Equal(old.Labels, now.Labels)) {
		s.event(&framework.Event{Kind: framework.NamespaceSet})
	}
}

// storageChanged wakes pods that wait for volumes.
func storageChanged[T any](s *Scheduler, _, _ *T) {
	s.event(&framework.Event{Kind: framework.VolumeEvent})
}

func (s *Scheduler) claimChanged(old, now *corev1.PersistentVolumeClaim) {
	s.volumes.Changed()
	storageChanged(s, old, now)
}
