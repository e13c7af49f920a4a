package kubelet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubelettypes "k8s.io/kubelet/pkg/types"

	"github.com/proa-k8s/proa/internal/kubelet/allocation"
	"github.com/proa-k8s/proa/internal/kubelet/cgroups"
	"github.com/proa-k8s/proa/internal/kubelet/cri"
	"github.com/proa-k8s/proa/internal/kubelet/plan"
	"github.com/proa-k8s/proa/internal/kubelet/podstatus"
)

// claim is what a pod would have of the node beyond what it has. All claims are guarded by Kubelet.mu: two pods are never
// given the same.
type claim struct {
	wanted  *corev1.Pod // nil when nothing is asked for
	since   time.Time   // when it was first wanted
	verdict *allocation.Pending
	// granted is what the pod was given until its worker has taken note of it; then worker.current shows it.
	granted *corev1.Pod
}

// allocated is the pod with the resources that it has. Kubelet.mu is held.
func (w *worker) allocated() *corev1.Pod {
	if w.claim.granted != nil {
		return w.claim.granted
	}
	return w.current.Load()
}

// resizing is how far a worker is with the resizing of its pod. Only the loop touches it.
type resizing struct {
	state   *allocation.State // nil while the pod was never resized
	pending *podstatus.Reason
	busy    bool
	hold    time.Time
	delay   time.Duration
	// begun says that users were told of a resize that has not ended, and problem why it does not get on.
	begun   bool
	problem string
}

// serveResizes gives the pods that wait for other resources what there is room for, in their order. What is decided
// reaches their workers by post.
func (k *Kubelet) serveResizes() {
	type candidate struct {
		*worker
		allocation.Waiting
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	var waiting []candidate
	for _, w := range k.workers {
		if c := &w.claim; c.wanted != nil && (c.verdict == nil || c.verdict.Reason != corev1.PodReasonInfeasible) {
			waiting = append(waiting, candidate{w, allocation.Waiting{Desired: c.wanted, Allocated: w.allocated(), Since: c.since}})
		}
	}
	slices.SortFunc(waiting, func(a, b candidate) int {
		return cmp.Or(allocation.Compare(a.Waiting, b.Waiting), cmp.Compare(a.uid, b.uid))
	})
	for _, w := range waiting {
		c := &w.claim
		verdict := allocation.Decide(c.wanted, w.allocated(), k.allocated(w.worker), k.node.Allocatable)
		if verdict != nil && c.verdict != nil && *verdict == *c.verdict {
			continue
		}
		wanted := c.wanted
		c.verdict = verdict
		if verdict == nil {
			w.claim = claim{granted: wanted}
		}
		w.post(func() { w.decided(wanted, verdict) })
	}
}

// allocated are the pods of the node, as they are allocated, but for that of one worker. k.mu is held.
func (k *Kubelet) allocated(but *worker) []*corev1.Pod {
	var list []*corev1.Pod
	for _, w := range k.workers {
		if w == but || w.origin == fromRemains || w.rejected || final(w.current.Load().Status.Phase) {
			continue
		}
		list = append(list, w.allocated())
	}
	return list
}

// restoreAllocation finds out what is allocated to a pod that runs already: what was kept of it, or else what its
// containers were made with. k.mu is held.
func (w *worker) restoreAllocation() {
	state, err := allocation.Load(w.k.volumes.PodDir(w.uid))
	if err != nil {
		w.log.Warn("what is allocated to a pod is not known any more", "err", err)
	}
	if state == nil {
		made := allocation.Of(w.declared)
		for i := range w.observed.Containers {
			c := &w.observed.Containers[i]
			own, ok := made.Containers[c.Name]
			if _, recorded := c.Annotations[allocation.Annotation]; !ok || !recorded || w.observed.Newest(c.Name) != c {
				continue
			}
			r := allocation.Read(c.Annotations)
			own.Limits, own.Requests = r.Limits, r.Requests
			made.Containers[c.Name] = own
		}
		before := made.Apply(w.declared)
		if before == w.declared {
			return
		}
		state = w.newState(before)
	}
	w.resize.state = state
	w.pod = state.Allocated.Apply(w.declared)
	w.current.Store(w.pod)
	if c := condition(w.status, corev1.PodResizePending); c != nil {
		w.claim.since = c.LastTransitionTime.Time
		w.resize.pending = &podstatus.Reason{Reason: c.Reason, Message: c.Message}
	}
	w.resize.begun = condition(w.status, corev1.PodResizeInProgress) != nil
}

// newState is the state of a pod that has what it was made with.
func (w *worker) newState(pod *corev1.Pod) *allocation.State {
	return &allocation.State{
		Allocated: allocation.Of(pod), Actuated: map[string]corev1.ResourceRequirements{},
		Cgroup: w.k.cgroups.Limits(pod), Pod: pod.Spec.Resources,
	}
}

func condition(status *corev1.PodStatus, t corev1.PodConditionType) *corev1.PodCondition {
	for i := range status.Conditions {
		if status.Conditions[i].Type == t {
			return &status.Conditions[i]
		}
	}
	return nil
}

// setDeclared takes a version of the pod as it is declared, and asks for the resources that it declares now.
func (w *worker) setDeclared(pod *corev1.Pod) {
	changed := pod.Generation != w.declared.Generation || pod.Generation == 0
	if changed && w.resize.state == nil && !allocation.Equal(pod, w.pod) {
		w.resize.state = w.newState(w.pod)
		w.saveAllocation()
	}
	w.declared, w.pod = pod, pod
	if w.resize.state == nil {
		return
	}
	w.pod = w.resize.state.Allocated.Apply(pod)
	if changed {
		w.claimDeclared()
	}
}

// claimDeclared notes what the pod wants, and has it decided when that is new.
func (w *worker) claimDeclared() {
	if w.origin != fromAPI || w.stop != nil {
		return
	}
	if again := w.want(); again {
		w.k.serveResizes()
	}
}

func (w *worker) want() (again bool) {
	w.k.mu.Lock()
	defer w.k.mu.Unlock()
	c := &w.claim
	if allocation.Equal(w.declared, w.allocated()) {
		// It has what it declares; what it wanted meanwhile is no more.
		w.claim = claim{granted: c.granted}
		w.resize.pending = nil
		return false
	}
	if c.wanted != nil && allocation.Equal(w.declared, c.wanted) {
		return false
	}
	if c.since.IsZero() || c.wanted != nil {
		c.since = time.Now()
	}
	c.wanted, c.verdict = w.declared, nil
	return true
}

// decided takes the decision about resources that were wanted. It may be out of date by now.
func (w *worker) decided(wanted *corev1.Pod, verdict *allocation.Pending) {
	if w.stop != nil {
		return
	}
	if verdict != nil {
		if !allocation.Equal(wanted, w.declared) {
			return
		}
		why := podstatus.Reason(*verdict)
		if w.resize.pending == nil || *w.resize.pending != why {
			w.k.events.pod(w.declared, corev1.EventTypeWarning, "Resize"+why.Reason,
				fmt.Sprintf("Pod resize %s: %s", why.Reason, allocation.Summary(w.declared, w.declared.Generation, why.Message)))
		}
		w.resize.pending = &why
		return
	}
	w.resize.state.Allocated = allocation.Of(wanted)
	w.resize.hold, w.resize.delay, w.resize.pending = time.Time{}, 0, nil
	w.pod = w.resize.state.Allocated.Apply(w.declared)
	w.saveAllocation()
	w.showAllocated(wanted)
	if w.volumes.ready && showsItself(w.pod) {
		w.volumes.again = true
	}
	// What was given up may be what another waits for.
	w.k.serveResizes()
}

// showAllocated lets everyone see what the pod was given.
func (w *worker) showAllocated(granted *corev1.Pod) {
	pod := *w.pod
	pod.Status = *w.status
	w.current.Store(&pod)
	w.k.mu.Lock()
	defer w.k.mu.Unlock()
	if w.claim.granted == granted {
		w.claim.granted = nil
	}
}

// saveAllocation makes what is allocated be known after a restart of the agent.
func (w *worker) saveAllocation() {
	if w.down {
		return // its directory is being removed
	}
	if err := w.resize.state.Save(w.k.volumes.PodDir(w.uid)); err != nil {
		w.log.Warn("a restart of the agent would forget what is allocated to a pod", "err", err)
	}
}

// resizeInput is what the plan must know; nil for a pod that was never resized.
func (w *worker) resizeInput() *plan.Resizing {
	state := w.resize.state
	if state == nil {
		return nil
	}
	in := &plan.Resizing{Busy: w.resize.busy, Hold: w.resize.hold, Actuated: map[string]corev1.ResourceRequirements{}}
	for i := range w.observed.Containers {
		c := &w.observed.Containers[i]
		if r, ok := state.Actuated[c.ID]; ok {
			in.Actuated[c.ID] = r
		} else if c.Annotations != nil {
			in.Actuated[c.ID] = allocation.Read(c.Annotations)
		}
	}
	target := w.k.cgroups.Limits(w.pod)
	wide := state.Cgroup.Widest(target)
	in.Widen, in.Narrow = wide.Differ(state.Cgroup), wide.Differ(target)
	return in
}

// resizeStatus gives the status what it says about a resize.
func (w *worker) resizeStatus(in *podstatus.Input) {
	if w.stop != nil || w.resize.state == nil {
		return
	}
	in.Resize = &podstatus.Resize{Pending: w.resize.pending, InProgress: w.resize.begun, Problem: w.resize.problem, Pod: w.resize.state.Pod}
	if r := in.Resize; r.InProgress {
		r.Actuated = w.resizeInput().Actuated
	}
}

// noteResize tells users when a resize begins to be done, and when it is.
func (w *worker) noteResize(a *plan.Actions) {
	if w.stop != nil || w.resize.state == nil || a.Resizing == w.resize.begun {
		return
	}
	w.resize.begun = a.Resizing
	summary := allocation.Summary(w.pod, w.pod.Generation, "")
	if a.Resizing {
		w.k.events.pod(w.declared, corev1.EventTypeNormal, "ResizeStarted", "Pod resize started: "+summary)
		return
	}
	w.resize.problem, w.resize.delay = "", 0
	w.k.events.pod(w.declared, corev1.EventTypeNormal, "ResizeCompleted", "Pod resize completed: "+summary)
}

// resizeInPlace does what was planned beside the loop: the cgroup of the pod grows first and shrinks last.
func (w *worker) resizeInPlace(r *plan.Resize) {
	pod, from := w.pod, w.resize.state.Cgroup
	target := w.k.cgroups.Limits(pod)
	w.resize.busy = true
	w.operate(func() func() {
		reached, updated, err := w.actuate(pod, r, from, target)
		return func() {
			w.resize.busy, w.dirty = false, true
			state := w.resize.state
			state.Cgroup = reached
			if !reached.Differ(target) {
				state.Pod = pod.Spec.Resources
			}
			for id, resources := range updated {
				state.Actuated[id] = resources
			}
			for id := range state.Actuated {
				if w.observed.Container(id) == nil {
					delete(state.Actuated, id)
				}
			}
			w.saveAllocation()
			w.resized(pod, err)
		}
	})
}

// resized takes the outcome of an attempt.
func (w *worker) resized(pod *corev1.Pod, err error) {
	if err == nil {
		w.resize.problem, w.resize.delay, w.resize.hold = "", 0, time.Time{}
		return
	}
	w.resize.delay = min(max(2*w.resize.delay, firstRetry), lastRetry)
	w.resize.hold = time.Now().Add(w.resize.delay)
	if text := cri.ErrorText(err); w.resize.problem != text && w.stop == nil && w.ctx.Err() == nil {
		w.log.Warn("resizing a pod failed", "err", err)
		w.k.events.pod(w.declared, corev1.EventTypeWarning, "ResizeError", "Pod resize error: "+allocation.Summary(pod, pod.Generation, text))
		w.resize.problem = text
	}
}

// actuate resizes cgroup and containers, and returns the bounds that the cgroup has then and the resources that containers
// were given.
func (w *worker) actuate(pod *corev1.Pod, r *plan.Resize, from, target cgroups.Limits) (cgroups.Limits, map[string]corev1.ResourceRequirements, error) {
	wide := from.Widest(target)
	if err := w.k.cgroups.UpdatePod(pod, wide.Since(from)); err != nil {
		return from, nil, fmt.Errorf("widening the pod's cgroup: %w", err)
	}
	ctx, cancel := w.request(0)
	defer cancel()
	if err := w.checkMemory(ctx, r, wide, target); err != nil {
		return wide, nil, err
	}
	updated := map[string]corev1.ResourceRequirements{}
	var errs []error
	for _, u := range r.Updates {
		_, err := w.k.runtime.Runtime.UpdateContainerResources(ctx, &runtimeapi.UpdateContainerResourcesRequest{
			ContainerId: u.ID, Linux: w.k.node.Resources(pod, u.Container),
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("resizing container %s: %w", u.Container.Name, err))
			continue
		}
		updated[u.ID] = u.Container.Resources
	}
	if len(errs) > 0 || !r.Narrow {
		return wide, updated, errors.Join(errs...)
	}
	if err := w.k.cgroups.UpdatePod(pod, target.Since(wide)); err != nil {
		return wide, updated, fmt.Errorf("narrowing the pod's cgroup: %w", err)
	}
	return target, updated, nil
}

// checkMemory refuses bounds of memory that are below what is in use: the kernel would make room by killing.
func (w *worker) checkMemory(ctx context.Context, r *plan.Resize, wide, target cgroups.Limits) error {
	less := wide.Memory != target.Memory && r.Narrow
	for i := range r.Updates {
		less = less || r.Updates[i].LessMemory()
	}
	if !less {
		return nil
	}
	answer, err := w.k.runtime.Runtime.ListContainerStats(ctx, &runtimeapi.ListContainerStatsRequest{
		Filter: &runtimeapi.ContainerStatsFilter{LabelSelector: map[string]string{kubelettypes.KubernetesPodUIDLabel: string(w.uid)}},
	})
	if err != nil {
		return fmt.Errorf("asking what a pod uses before its memory is bounded: %w", err)
	}
	used := map[string]int64{}
	var sum int64
	for _, s := range answer.Stats {
		bytes := int64(s.GetMemory().GetWorkingSetBytes().GetValue())
		used[s.GetAttributes().GetId()] = bytes
		sum += bytes
	}
	return belowUse(r, wide.Memory, target.Memory, used, sum)
}

// belowUse tells which bound would be below what is in use, in bytes.
func belowUse(r *plan.Resize, before, after int64, used map[string]int64, sum int64) error {
	var errs []error
	if r.Narrow && after > 0 && after != before && sum > after {
		errs = append(errs, fmt.Errorf("attempting to set pod memory limit (%d) below current usage (%d)", after, sum))
	}
	for i := range r.Updates {
		u := &r.Updates[i]
		if limit := u.Container.Resources.Limits.Memory().Value(); u.LessMemory() && used[u.ID] > limit {
			errs = append(errs, fmt.Errorf("attempting to set container %q memory limit (%d) below current usage (%d)", u.Container.Name, limit, used[u.ID]))
		}
	}
	return errors.Join(errs...)
}
