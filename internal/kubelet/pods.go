package kubelet

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/proa-k8s/proa/internal/kubelet/cri"
	"github.com/proa-k8s/proa/internal/kubelet/podstatus"
)

// worker finds the worker of a pod, or nil.
func (k *Kubelet) worker(uid types.UID) *worker {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.workers[uid]
}

func (k *Kubelet) allWorkers() []*worker {
	k.mu.Lock()
	defer k.mu.Unlock()
	list := make([]*worker, 0, len(k.workers))
	for _, w := range k.workers {
		list = append(list, w)
	}
	return list
}

// watchPods follows the pods that are bound to this node, and returns when all that exist have been met.
func (k *Kubelet) watchPods(ctx context.Context) error {
	selector := fields.OneTermEqualSelector("spec.nodeName", k.cfg.NodeName).String()
	pods := k.cfg.Client.CoreV1().Pods(metav1.NamespaceAll)
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (apiruntime.Object, error) {
			o.FieldSelector = selector
			return pods.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = selector
			return pods.Watch(ctx, o)
		},
	}
	informer := cache.NewSharedIndexInformer(cache.ToListWatcherWithWatchListSemantics(lw, k.cfg.Client), &corev1.Pod{}, 0, cache.Indexers{})
	if err := informer.SetTransform(func(o any) (any, error) {
		if pod, ok := o.(*corev1.Pod); ok {
			pod.ManagedFields = nil
		}
		return o, nil
	}); err != nil {
		return err
	}
	registration, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { k.declare(o.(*corev1.Pod)) },
		UpdateFunc: func(_, o any) { k.declare(o.(*corev1.Pod)) },
		DeleteFunc: func(o any) {
			if gone, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = gone.Obj
			}
			if pod, ok := o.(*corev1.Pod); ok {
				k.withdraw(pod)
			}
		},
	})
	if err != nil {
		return fmt.Errorf("following pods: %w", err)
	}
	k.wg.Go(func() { informer.RunWithContext(ctx) })
	if !cache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
		return nil // the agent stops
	}
	k.settle()
	return nil
}

// declare takes a pod of the API, new or changed.
func (k *Kubelet) declare(pod *corev1.Pod) {
	if pod.Annotations[mirrorAnnotation] != "" {
		k.setMirror(pod)
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if w := k.workers[pod.UID]; w != nil && w.origin == fromAPI {
		w.update(pod)
		return
	}
	// A pod that was recreated between two looks has the name of one that is still on its way out.
	for uid, w := range k.workers {
		if p := w.current.Load(); uid != pod.UID && w.origin == fromAPI && p.Name == pod.Name && p.Namespace == pod.Namespace {
			w.remove(nil)
		}
	}
	k.launch(pod, fromAPI)
}

// withdraw takes the end of an API object.
func (k *Kubelet) withdraw(pod *corev1.Pod) {
	if pod.Annotations[mirrorAnnotation] != "" {
		k.mirrorGone(pod)
		return
	}
	if w := k.worker(pod.UID); w != nil {
		w.remove(pod)
	}
}

// launch begins to work for a pod. k.mu is held.
func (k *Kubelet) launch(pod *corev1.Pod, from origin) *worker {
	if k.ctx.Err() != nil {
		return nil
	}
	observed := k.adopted[pod.UID]
	delete(k.adopted, pod.UID)
	if observed != nil {
		for i := range observed.Containers {
			if c := &observed.Containers[i]; c.State == cri.Exited {
				k.terminationMessage(pod, c)
			}
		}
	}
	w := newWorker(k, pod, from, observed)
	// What was listed may have changed since, or have come to be.
	w.dirty, w.relist = true, observed == nil
	if from == fromAPI && pod.DeletionTimestamp == nil {
		w.restoreAllocation()
	}
	switch {
	case from == fromRemains:
		w.removed = true
		w.beginStop(w.grace(), nil)
	case pod.DeletionTimestamp != nil:
		w.beginStop(w.grace(), nil)
	case observed == nil && (pod.Status.Phase == "" || pod.Status.Phase == corev1.PodPending):
		if why := k.admit(w.pod); why != nil {
			k.events.pod(pod, corev1.EventTypeWarning, why.Reason, why.Message)
			w.rejected = true
			w.beginStop(0, why)
		}
	}
	k.workers[pod.UID] = w
	k.wg.Go(func() {
		w.run()
		if k.ctx.Err() != nil {
			return
		}
		k.mu.Lock()
		delete(k.workers, w.uid)
		k.mu.Unlock()
		k.ended(w)
		k.serveResizes()
	})
	return w
}

// refreshLimit bounds the reading of the node before a pod is refused.
const refreshLimit = 5 * time.Second

// admit decides about a new pod. k.mu is held.
func (k *Kubelet) admit(pod *corev1.Pod) *podstatus.Reason {
	decide := func() *podstatus.Reason {
		return admit(pod, k.allocated(nil), &nodeFacts{
			node: k.object.Current(), allocatable: k.node.Allocatable,
			unsafeSysctls: k.cfg.AllowedUnsafeSysctls, pressure: k.object.Pressure,
		})
	}
	why := decide()
	if why == nil || !restsOnNode(why) {
		return why
	}
	// The scheduler may know labels that the node got a moment ago.
	ctx, cancel := context.WithTimeout(k.ctx, refreshLimit)
	defer cancel()
	if err := k.object.Refresh(ctx); err != nil {
		k.cfg.Log.Warn("a pod is refused by what was known of the node", "pod", pod.Namespace+"/"+pod.Name, "err", err)
		return why
	}
	return decide()
}

// settle ends what runs of pods that are no longer declared.
func (k *Kubelet) settle() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.settled = true
	for uid, observed := range k.adopted {
		k.cfg.Log.Info("ending a pod that was deleted while the agent was away", "pod", observed.Namespace+"/"+observed.Name, "uid", uid)
		k.launch(podFromRemains(observed), fromRemains)
	}
	for name, mirror := range k.mirrors {
		if _, declared := k.statics[name]; !declared {
			k.wg.Go(func() { k.deleteMirror(mirror) })
		}
	}
}

// watchRuntime follows the events of the runtime.
func (k *Kubelet) watchRuntime(ctx context.Context) {
	const first, last = 50 * time.Millisecond, 2 * time.Second
	delay := first
	for ctx.Err() == nil {
		began := time.Now()
		err := k.runtime.Events(ctx, k.observe)
		if ctx.Err() != nil {
			return
		}
		if status.Code(err) == codes.Unimplemented {
			// Looking every second has to do for a runtime that has no events.
			k.cfg.Log.Info("the container runtime has no events; it will be asked every second")
			k.relistEvery(ctx, time.Second)
			return
		}
		if time.Since(began) > time.Minute {
			delay = first
		}
		k.cfg.Log.Warn("the event stream of the container runtime broke", "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(delay):
		}
		delay = min(2*delay, last)
		k.relist(ctx)
	}
}

func (k *Kubelet) relistEvery(ctx context.Context, interval time.Duration) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			k.relist(ctx)
		}
	}
}

// observe takes an event of the runtime.
func (k *Kubelet) observe(uid types.UID) {
	if w := k.worker(uid); w != nil {
		w.observe()
	}
}

// relist compares what exists with what is known.
func (k *Kubelet) relist(ctx context.Context) {
	names, err := k.runtime.Names(ctx, "")
	if err != nil {
		if ctx.Err() == nil {
			k.cfg.Log.Warn("asking the container runtime what exists failed", "err", err)
		}
		return
	}
	for _, w := range k.allWorkers() {
		found := names[w.uid]
		w.post(func() {
			if w.operations == 0 && w.observed.Differs(found) {
				w.relist = true
			}
		})
	}
	var unknown []types.UID
	for uid := range names {
		if w := k.worker(uid); w == nil {
			unknown = append(unknown, uid)
		}
	}
	slices.Sort(unknown)
	for _, uid := range unknown {
		observed, err := k.runtime.ListPod(ctx, uid)
		if err != nil {
			continue
		}
		k.mu.Lock()
		if k.settled && k.workers[uid] == nil && (len(observed.Sandboxes) > 0 || len(observed.Containers) > 0) {
			observed.Namespace, observed.Name = names[uid].Namespace, names[uid].Name
			k.adopted[uid] = observed
			k.launch(podFromRemains(observed), fromRemains)
		}
		k.mu.Unlock()
	}
}
