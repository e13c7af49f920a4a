// Package tainteviction deletes pods from nodes that have NoExecute taints which the pods don't tolerate, or no longer.
//
// What flows in are nodes and pods; what flows out are deletions of pods, at once or when their tolerationSeconds are over.
package tainteviction

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/proa-k8s/proa/internal/controller"
	"github.com/proa-k8s/proa/internal/controller/pods"
)

// New declares the controller.
func New() controller.Controller {
	return controller.Controller{
		Name: "taint-eviction",
		Reads: []schema.GroupVersionResource{
			corev1.SchemeGroupVersion.WithResource("nodes"),
			corev1.SchemeGroupVersion.WithResource("pods"),
		},
		Writes: []rbacv1.PolicyRule{
			controller.Rule("", []string{"pods"}, "delete"),
			controller.Rule("", []string{"pods/status"}, "update"),
		},
		Workers: 8,
		Setup:   setup,
	}
}

type evictor struct {
	env    *controller.Env
	nodes  corelisters.NodeLister
	lister corelisters.PodLister
	pods   cache.Indexer

	mu    sync.Mutex
	since map[types.UID]time.Time // when a pod was first seen under taints that don't say when they were added
}

func setup(env *controller.Env) (controller.Sync, error) {
	nodes, podInformer := env.Informers.Core().V1().Nodes(), env.Informers.Core().V1().Pods()
	if err := pods.IndexByNode(podInformer.Informer()); err != nil {
		return nil, err
	}
	e := &evictor{
		env: env, nodes: nodes.Lister(), lister: podInformer.Lister(), pods: podInformer.Informer().GetIndexer(),
		since: make(map[types.UID]time.Time),
	}
	controller.Watch(env, nodes.Informer(), e.onNode)
	controller.Watch(env, podInformer.Informer(), e.onPod)
	return e.sync, nil
}

// onNode wakes all pods of a node whose taints changed.
func (e *evictor) onNode(old, n *corev1.Node) {
	if n == nil {
		return // podgc sees to its pods.
	}
	var before []corev1.Taint
	if old != nil {
		before = noExecute(old)
	}
	if equality.Semantic.DeepEqual(before, noExecute(n)) {
		return
	}
	bound, err := pods.OnNode(e.pods, n.Name)
	if err != nil {
		e.env.Log.Error("listing pods", "err", err)
	}
	for _, p := range bound {
		e.env.Queue.Add(controller.Key(p))
	}
}

// onPod wakes a pod that came to a node with taints, or whose tolerations changed.
func (e *evictor) onPod(old, p *corev1.Pod) {
	if p == nil {
		e.forget(old.UID)
		return
	}
	if p.Spec.NodeName == "" || p.DeletionTimestamp != nil {
		return
	}
	if old != nil && old.Spec.NodeName == p.Spec.NodeName && equality.Semantic.DeepEqual(old.Spec.Tolerations, p.Spec.Tolerations) {
		return
	}
	if n, err := e.nodes.Get(p.Spec.NodeName); err == nil && len(noExecute(n)) > 0 {
		e.env.Queue.Add(controller.Key(p))
	}
}

func (e *evictor) sync(ctx context.Context, key string) error {
	namespace, name := controller.SplitKey(key)
	p, err := e.lister.Pods(namespace).Get(name)
	if apierrors.IsNotFound(err) || err == nil && p.DeletionTimestamp != nil {
		return nil
	}
	if err != nil {
		return err
	}
	n, err := e.nodes.Get(p.Spec.NodeName)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	now := e.env.Clock.Now()
	since, known := e.seen(p.UID, now)
	stays, until := verdict(noExecute(n), p.Spec.Tolerations, since)
	switch {
	case stays:
		if known {
			e.env.Events.Eventf(p, corev1.EventTypeNormal, "TaintManagerEviction", "Cancelling deletion of Pod %s/%s", p.Namespace, p.Name)
		}
		e.forget(p.UID)
		return nil
	case until.After(now):
		e.env.Queue.AddAfter(key, until.Sub(now))
		return nil
	}
	return e.evict(ctx, p, now)
}

// seen gives the time when the pod was first seen under the taints that it has, and whether that was before now: then its
// deletion is due some time.
func (e *evictor) seen(uid types.UID, now time.Time) (since time.Time, known bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if t, ok := e.since[uid]; ok {
		return t, true
	}
	e.since[uid] = now
	return now, false
}

func (e *evictor) forget(uid types.UID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.since, uid)
}

func (e *evictor) evict(ctx context.Context, p *corev1.Pod, now time.Time) error {
	e.env.Events.Eventf(p, corev1.EventTypeNormal, "TaintManagerEviction", "Marking for deletion Pod %s/%s", p.Namespace, p.Name)
	api := e.env.Client.CoreV1().Pods(p.Namespace)
	reason := pods.Disruption("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint")
	if marked, changed := pods.WithCondition(p, reason, now); changed {
		if _, err := api.UpdateStatus(ctx, marked, metav1.UpdateOptions{}); apierrors.IsNotFound(err) {
			return nil
		} else if err != nil {
			return fmt.Errorf("marking the pod: %w", err)
		}
	}
	err := api.Delete(ctx, p.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(p.UID))})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// noExecute gives the node's taints of that effect.
func noExecute(n *corev1.Node) []corev1.Taint {
	var out []corev1.Taint
	for _, t := range n.Spec.Taints {
		if t.Effect == corev1.TaintEffectNoExecute {
			out = append(out, t)
		}
	}
	return out
}

// verdict says whether a pod with these tolerations stays on a node with these taints for good, and if not, until when.
// A taint counts from when it was added, or from seen if it doesn't say.
func verdict(taints []corev1.Taint, tolerations []corev1.Toleration, seen time.Time) (stays bool, until time.Time) {
	stays = true
	for i := range taints {
		t := &taints[i]
		tolerated, limited := false, time.Time{}
		for j := range tolerations {
			if !tolerations[j].ToleratesTaint(klog.Background(), t, true) {
				continue
			}
			tolerated = true
			if s := tolerations[j].TolerationSeconds; s != nil {
				since := seen
				if t.TimeAdded != nil {
					since = t.TimeAdded.Time
				}
				if end := since.Add(time.Duration(max(*s, 0)) * time.Second); limited.IsZero() || end.Before(limited) {
					limited = end
				}
			}
		}
		switch {
		case !tolerated:
			return false, time.Time{}
		case !limited.IsZero() && (stays || limited.Before(until)):
			stays, until = false, limited
		}
	}
	return stays, until
}
