// Package nodelifecycle watches over the health of nodes: a node whose agent is silent becomes unknown, and what a node's
// conditions mean for pods becomes taints.
//
// What flows in are nodes, their leases and their pods; what flows out are conditions and taints of nodes, and the
// condition Ready of pods whose node isn't.
package nodelifecycle

import (
	"context"
	"fmt"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/proa-k8s/proa/internal/controller"
	"github.com/proa-k8s/proa/internal/controller/pods"
)

// Config holds the patience with silent nodes.
type Config struct {
	// GracePeriod is for nodes that have reported; 50 s when zero.
	GracePeriod time.Duration
	// StartupGracePeriod is for nodes that never have; 60 s when zero.
	StartupGracePeriod time.Duration
}

// New declares the controller.
func New(c Config) controller.Controller {
	if c.GracePeriod == 0 {
		c.GracePeriod = 50 * time.Second
	}
	if c.StartupGracePeriod == 0 {
		c.StartupGracePeriod = time.Minute
	}
	return controller.Controller{
		Name: "node",
		Reads: []schema.GroupVersionResource{
			corev1.SchemeGroupVersion.WithResource("nodes"),
			corev1.SchemeGroupVersion.WithResource("pods"),
			coordinationv1.SchemeGroupVersion.WithResource("leases"),
		},
		Writes: []rbacv1.PolicyRule{
			controller.Rule("", []string{"nodes"}, "update"),
			controller.Rule("", []string{"nodes/status", "pods/status"}, "update"),
		},
		Workers: 4,
		Setup:   func(env *controller.Env) (controller.Sync, error) { return setup(env, c) },
	}
}

type keeper struct {
	Config
	env   *controller.Env
	nodes corelisters.NodeLister
	pods  cache.Indexer

	mu    sync.Mutex
	heard map[string]time.Time // when a node last gave a sign of life, by this process's clock
	zones *zones
}

func setup(env *controller.Env, c Config) (controller.Sync, error) {
	nodes, podInformer := env.Informers.Core().V1().Nodes(), env.Informers.Core().V1().Pods().Informer()
	if err := pods.IndexByNode(podInformer); err != nil {
		return nil, err
	}
	k := &keeper{
		Config: c, env: env, nodes: nodes.Lister(), pods: podInformer.GetIndexer(),
		heard: make(map[string]time.Time), zones: newZones(),
	}
	controller.Watch(env, nodes.Informer(), k.onNode)
	controller.Watch(env, podInformer, k.onPod)
	controller.Watch(env, env.Informers.Coordination().V1().Leases().Informer(), func(old, l *coordinationv1.Lease) {
		if l != nil && l.Namespace == corev1.NamespaceNodeLease {
			k.hear(l.Name)
		}
	})
	return k.sync, nil
}

// hear notes a sign of life.
func (k *keeper) hear(node string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.heard[node] = k.env.Clock.Now()
}

func (k *keeper) onNode(old, n *corev1.Node) {
	switch {
	case n == nil:
		k.mu.Lock()
		delete(k.heard, old.Name)
		next, wait := k.zones.leave(old.Name, k.env.Clock.Now())
		k.mu.Unlock()
		k.wake(next, wait)
		k.env.Events.Eventf(reference(old), corev1.EventTypeNormal, "RemovingNode", "Node %s event: Removing Node %s from Controller", old.Name, old.Name)
		k.count(old.Name, nil)
		return
	case old == nil:
		k.hear(n.Name)
		k.env.Events.Eventf(reference(n), corev1.EventTypeNormal, "RegisteredNode", "Node %s event: Registered Node %s in Controller", n.Name, n.Name)
	case !equality.Semantic.DeepEqual(old.Status, n.Status) && readiness(n) != corev1.ConditionUnknown:
		k.hear(n.Name)
	}
	k.count(n.Name, n)
	if old == nil || needsLook(old, n) {
		k.env.Queue.Add(n.Name)
	}
}

// needsLook tells whether the node changed in what taints follow from.
func needsLook(old, n *corev1.Node) bool {
	if old.Spec.Unschedulable != n.Spec.Unschedulable || !equality.Semantic.DeepEqual(old.Spec.Taints, n.Spec.Taints) {
		return true
	}
	for _, w := range noScheduleFor {
		a, b := condition(old, w.condition), condition(n, w.condition)
		if (a == nil) != (b == nil) || a != nil && a.Status != b.Status {
			return true
		}
	}
	return false
}

// count counts a node as it is now (nil: gone), and looks at the nodes for which that makes a difference.
func (k *keeper) count(name string, n *corev1.Node) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.countLocked(name, n)
}

func (k *keeper) countLocked(name string, n *corev1.Node) {
	for _, affected := range k.zones.set(name, n) {
		k.env.Queue.Add(affected)
	}
}

// wake looks at a node, if there is one, when a time has passed.
func (k *keeper) wake(name string, wait time.Duration) {
	if name != "" {
		k.env.Queue.AddAfter(name, wait)
	}
}

// onPod looks at the node of a pod that says it is ready while the node is not.
func (k *keeper) onPod(_, p *corev1.Pod) {
	if p == nil || p.Spec.NodeName == "" || !pods.IsReady(p) {
		return
	}
	if n, err := k.nodes.Get(p.Spec.NodeName); err == nil && isDown(n) {
		k.env.Queue.Add(n.Name)
	}
}

// isDown tells whether the node is known not to be ready, rather than new.
func isDown(n *corev1.Node) bool {
	c := condition(n, corev1.NodeReady)
	return c != nil && c.Status != corev1.ConditionTrue
}

func (k *keeper) sync(ctx context.Context, name string) error {
	n, err := k.nodes.Get(name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if n, err = k.judge(ctx, n); err != nil {
		return err
	}
	if err := k.taint(ctx, n); err != nil {
		return err
	}
	if isDown(n) {
		return k.markPods(ctx, n)
	}
	return nil
}

// judge makes the node's conditions unknown when it has been silent for too long, and otherwise comes back when it will
// have been.
func (k *keeper) judge(ctx context.Context, n *corev1.Node) (*corev1.Node, error) {
	now := k.env.Clock.Now()
	k.mu.Lock()
	heard, ok := k.heard[n.Name]
	if !ok {
		heard = now
		k.heard[n.Name] = now
	}
	k.mu.Unlock()
	patience := k.GracePeriod
	if condition(n, corev1.NodeReady) == nil {
		patience = k.StartupGracePeriod
	}
	if left := heard.Add(patience).Sub(now); left > 0 {
		if readiness(n) != corev1.ConditionUnknown || condition(n, corev1.NodeReady) == nil {
			k.env.Queue.AddAfter(n.Name, left)
		}
		return n, nil
	}
	out, changed := silenced(n, now)
	if !changed {
		return n, nil
	}
	was := readiness(n)
	out, err := k.env.Client.CoreV1().Nodes().UpdateStatus(ctx, out, metav1.UpdateOptions{})
	if err != nil {
		return nil, fmt.Errorf("writing the status of node %s: %w", n.Name, err)
	}
	if was == corev1.ConditionTrue {
		k.env.Events.Eventf(reference(n), corev1.EventTypeNormal, "NodeNotReady", "Node %s status is now: NodeNotReady", n.Name)
	}
	return out, nil
}

// taint brings the node's taints in line with its conditions.
func (k *keeper) taint(ctx context.Context, n *corev1.Node) error {
	now := k.env.Clock.Now()
	wanted, changed := taints(n, k.mayEvict(n, now), now)
	if !changed {
		return nil
	}
	n = n.DeepCopy()
	n.Spec.Taints = wanted
	_, err := k.env.Client.CoreV1().Nodes().Update(ctx, n, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// mayEvict tells whether the node may have, or keep, the taint that evicts pods. At most so many nodes of a zone get it
// in a time.
func (k *keeper) mayEvict(n *corev1.Node, now time.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.zones.knows(n.Name) { // It may be newer than what the informer has shown, unless it is gone.
		k.countLocked(n.Name, n)
	}
	if _, ok := evictionTaint(n); !ok {
		k.wake(k.zones.leave(n.Name, now))
		return false
	}
	if isEvicted(n) {
		return k.zones.anyReady() // It keeps it, unless the whole cluster is down.
	}
	may, next, wait := k.zones.evict(n.Name, now)
	if may || next == n.Name {
		k.wake(next, wait)
	}
	return may
}

// markPods makes the pods of a node that is down not ready, so that services leave them out.
func (k *keeper) markPods(ctx context.Context, n *corev1.Node) error {
	bound, err := pods.OnNode(k.pods, n.Name)
	if err != nil {
		return err
	}
	for _, p := range bound {
		if !pods.IsReady(p) {
			continue
		}
		was := *pods.Condition(p, corev1.PodReady)
		was.Status = corev1.ConditionFalse
		marked, _ := pods.WithCondition(p, was, k.env.Clock.Now())
		_, err := k.env.Client.CoreV1().Pods(p.Namespace).UpdateStatus(ctx, marked, metav1.UpdateOptions{})
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("marking pod %s as not ready: %w", controller.Key(p), err)
		}
		k.env.Events.Event(p, corev1.EventTypeWarning, "NodeNotReady", "Node is not ready")
	}
	return nil
}

// reference is what events about a node refer to.
func reference(n *corev1.Node) *corev1.ObjectReference {
	return &corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: n.Name, UID: n.UID}
}
