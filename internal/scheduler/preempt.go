package scheduler

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/proa-k8s/proa/internal/scheduler/framework"
	"github.com/proa-k8s/proa/internal/scheduler/preemption"
)

// preempt tries to make room for a pod that was not scheduled. It gives the node on which room is being made (empty if none
// is, nil if that stays as it was), and says what stands against it.
func (s *Scheduler) preempt(ctx context.Context, a *attempt, d *framework.Diagnosis) (nominated *string, message string) {
	budgets, err := s.budgets.List(labels.Everything())
	if err != nil {
		return nil, fmt.Sprintf("preemption: listing disruption budgets: %v", err)
	}
	s.metrics.preemptions.Inc()
	victims, why := preemption.Decide(preemption.Request{State: s.state, Pod: a.Pod, Diagnosis: d, Budgets: budgets, Rand: s.Rand})
	if victims == nil {
		if s.state.NominatedNode(a.Pod.UID) != "" && why != preemption.Waits {
			s.state.Unnominate(a.Pod.UID)
			nominated = ptr.To("")
		}
		return nominated, "preemption: " + why
	}
	s.metrics.victims.Observe(float64(len(victims.Pods)))
	s.state.Nominate(a.Pod, victims.Node)
	s.denominate(a.Pod, victims.Node)
	// The objects are taken out here: what holds them belongs to this goroutine.
	e := &eviction{pod: a.Pod.Pod, by: a.profile, node: victims.Node}
	for _, v := range victims.Pods {
		e.victims = append(e.victims, v.Pod)
	}
	s.owned.Go(func() {
		if err := s.evict(ctx, e); err != nil && ctx.Err() == nil {
			s.Log.Warn("preemption failed", "pod", e.pod.Namespace+"/"+e.pod.Name, "node", e.node, "error", err)
			s.mailbox.put(func(s *Scheduler) { s.notPreempted(e.pod) })
		}
	})
	return &victims.Node, ""
}

// denominate ends the reservations that less important pods have on a node: they are to look again.
func (s *Scheduler) denominate(p *framework.Pod, node string) {
	var lower []*framework.Pod
	for _, q := range s.state.Nominated(node) {
		if q.PodPriority < p.PodPriority {
			lower = append(lower, q)
		}
	}
	for _, q := range lower {
		s.state.Unnominate(q.UID)
		s.statuses.put(q.Pod, nil, ptr.To(""))
		s.queue.Wake(q.UID, s.Clock.Now())
	}
}

// notPreempted has a pod tried again whose victims could not be deleted.
func (s *Scheduler) notPreempted(p *corev1.Pod) {
	if s.state.NominatedNode(p.UID) == "" {
		return
	}
	s.state.Unnominate(p.UID)
	s.statuses.put(p, nil, ptr.To(""))
	s.queue.Wake(p.UID, s.Clock.Now())
}

// eviction is what is to be done for a pod that preempts others.
type eviction struct {
	pod     *corev1.Pod
	by      *profile
	node    string
	victims []*corev1.Pod
}

// evict deletes the victims.
func (s *Scheduler) evict(ctx context.Context, e *eviction) error {
	for _, victim := range e.victims {
		if victim.DeletionTimestamp != nil {
			continue
		}
		if err := s.evictOne(ctx, e, victim); err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return fmt.Errorf("deleting pod %s/%s: %w", victim.Namespace, victim.Name, err)
		}
		e.by.recorder.Eventf(victim, e.pod, corev1.EventTypeNormal, "Preempted", "Preempting",
			"Preempted by pod %v on node %v", e.pod.UID, e.node)
	}
	return nil
}

// evictOne says in the victim's status why it goes (KEP-3329), and deletes it with its own grace period.
func (s *Scheduler) evictOne(ctx context.Context, e *eviction, victim *corev1.Pod) error {
	condition := corev1.PodCondition{
		Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: corev1.PodReasonPreemptionByScheduler,
		Message:            fmt.Sprintf("%s: preempting to accommodate a higher priority pod", e.by.name),
		LastTransitionTime: metav1.Now(), ObservedGeneration: victim.Generation,
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": victim.UID},
		"status":   map[string]any{"conditions": []corev1.PodCondition{condition}},
	})
	if err != nil {
		return err
	}
	pods := s.Client.CoreV1().Pods(victim.Namespace)
	if _, err := pods.Patch(ctx, victim.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status"); err != nil {
		return err
	}
	return pods.Delete(ctx, victim.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(victim.UID))})
}
