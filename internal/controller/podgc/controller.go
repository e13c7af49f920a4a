// Package podgc deletes pods that nobody else will: those whose node is gone, those that are deleted before they had a node,
// those on nodes that are out of service, and the oldest of those that have ended when there are very many.
package podgc

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"github.com/proa-k8s/proa/internal/controller"
	"github.com/proa-k8s/proa/internal/controller/pods"
)

// quarantine is how long a node must be gone before its pods are given up: it may come back under its name.
const quarantine = 40 * time.Second

// New declares the controller. threshold is how many pods that have ended are kept; 0 keeps all.
func New(threshold int) controller.Controller {
	return controller.Controller{
		Name: "pod-garbage-collector",
		Reads: []schema.GroupVersionResource{
			corev1.SchemeGroupVersion.WithResource("nodes"),
			corev1.SchemeGroupVersion.WithResource("pods"),
		},
		Writes: []rbacv1.PolicyRule{
			controller.Rule("", []string{"pods"}, "delete"),
			controller.Rule("", []string{"pods/status"}, "update"),
		},
		Workers: 2,
		Setup:   func(env *controller.Env) (controller.Sync, error) { return setup(env, threshold) },
	}
}

type collector struct {
	env       *controller.Env
	threshold int
	nodes     corelisters.NodeLister
	lister    corelisters.PodLister
	pods      cache.Indexer

	mu    sync.Mutex
	gone  map[string]time.Time // since when nodes are missed
	ended int                  // how many pods have ended
}

// tooMany is the key under which the number of ended pods is checked; no pod has it, for it has no namespace.
const tooMany = "ended"

func setup(env *controller.Env, threshold int) (controller.Sync, error) {
	nodes, podInformer := env.Informers.Core().V1().Nodes(), env.Informers.Core().V1().Pods()
	if err := pods.IndexByNode(podInformer.Informer()); err != nil {
		return nil, err
	}
	c := &collector{
		env: env, threshold: threshold, nodes: nodes.Lister(), lister: podInformer.Lister(),
		pods: podInformer.Informer().GetIndexer(), gone: make(map[string]time.Time),
	}
	controller.Watch(env, podInformer.Informer(), c.onPod)
	controller.Watch(env, nodes.Informer(), c.onNode)
	return c.sync, nil
}

func (c *collector) onPod(old, p *corev1.Pod) {
	c.count(old, p)
	switch {
	case p == nil:
		return
	case p.DeletionTimestamp != nil && (old == nil || old.DeletionTimestamp == nil):
		c.env.Queue.Add(controller.Key(p))
	case p.Spec.NodeName != "" && (old == nil || old.Spec.NodeName == ""):
		if _, err := c.nodes.Get(p.Spec.NodeName); err != nil {
			c.env.Queue.Add(controller.Key(p))
		}
	}
}

// count keeps the number of pods that have ended.
func (c *collector) count(old, p *corev1.Pod) {
	was, is := old != nil && pods.IsTerminal(old), p != nil && pods.IsTerminal(p)
	if was == is {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if is {
		c.ended++
	} else {
		c.ended--
	}
	if c.threshold > 0 && c.ended > c.threshold {
		c.env.Queue.Add(tooMany)
	}
}

// onNode looks at the pods of a node that is gone, or was put out of service.
func (c *collector) onNode(old, n *corev1.Node) {
	name := ""
	switch {
	case n == nil:
		name = old.Name
	case old == nil:
		c.mu.Lock()
		delete(c.gone, n.Name)
		c.mu.Unlock()
		if outOfService(n) {
			name = n.Name
		}
	case outOfService(n) && !outOfService(old):
		name = n.Name
	}
	if name == "" {
		return
	}
	bound, err := pods.OnNode(c.pods, name)
	if err != nil {
		c.env.Log.Error("listing pods", "err", err)
	}
	for _, p := range bound {
		c.env.Queue.Add(controller.Key(p))
	}
}

func outOfService(n *corev1.Node) bool {
	return slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == corev1.TaintNodeOutOfService })
}

func ready(n *corev1.Node) bool {
	return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

func (c *collector) sync(ctx context.Context, key string) error {
	if key == tooMany {
		return c.deleteEnded(ctx)
	}
	namespace, name := controller.SplitKey(key)
	p, err := c.lister.Pods(namespace).Get(name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if p.Spec.NodeName == "" {
		if p.DeletionTimestamp != nil {
			return c.delete(ctx, p, nil)
		}
		return nil
	}
	n, err := c.nodes.Get(p.Spec.NodeName)
	switch {
	case err == nil && p.DeletionTimestamp != nil && outOfService(n) && !ready(n):
		return c.delete(ctx, p, nil)
	case err == nil:
		return nil
	case !apierrors.IsNotFound(err):
		return err
	}
	if left := c.missed(p.Spec.NodeName); left > 0 {
		c.env.Queue.AddAfter(key, left)
		return nil
	}
	// The lister may be behind; the API is asked before anything is deleted.
	if _, err := c.env.Client.CoreV1().Nodes().Get(ctx, p.Spec.NodeName, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		return err
	}
	reason := pods.Disruption("DeletionByPodGC", "PodGC: node no longer exists")
	return c.delete(ctx, p, &reason)
}

// missed notes that a node is missing, and tells for how long its pods are left alone yet.
func (c *collector) missed(node string) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	since, ok := c.gone[node]
	if !ok {
		since = c.env.Clock.Now()
		c.gone[node] = since
	}
	return since.Add(quarantine).Sub(c.env.Clock.Now())
}

// delete deletes the pod at once, after its status says that it has failed, for no agent will say so.
func (c *collector) delete(ctx context.Context, p *corev1.Pod, reason *corev1.PodCondition) error {
	api := c.env.Client.CoreV1().Pods(p.Namespace)
	if !pods.IsTerminal(p) {
		marked := p.DeepCopy()
		if reason != nil {
			marked, _ = pods.WithCondition(marked, *reason, c.env.Clock.Now())
			marked = marked.DeepCopy()
		}
		marked.Status.Phase = corev1.PodFailed
		if _, err := api.UpdateStatus(ctx, marked, metav1.UpdateOptions{}); apierrors.IsNotFound(err) {
			return nil
		} else if err != nil {
			return fmt.Errorf("marking pod %s: %w", controller.Key(p), err)
		}
	}
	err := api.Delete(ctx, p.Name, metav1.DeleteOptions{
		GracePeriodSeconds: ptr.To(int64(0)),
		Preconditions:      metav1.NewUIDPreconditions(string(p.UID)),
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// deleteEnded deletes the oldest of the pods that have ended, down to the threshold.
func (c *collector) deleteEnded(ctx context.Context) error {
	all, err := c.lister.List(labels.Everything())
	if err != nil {
		return fmt.Errorf("listing pods: %w", err)
	}
	for _, p := range surplus(all, c.threshold) {
		if err := c.delete(ctx, p, nil); err != nil {
			return err
		}
	}
	return nil
}

// surplus gives the pods that have ended beyond the threshold: evicted ones first, then the oldest.
func surplus(all []*corev1.Pod, threshold int) []*corev1.Pod {
	var ended []*corev1.Pod
	for _, p := range all {
		if pods.IsTerminal(p) && p.DeletionTimestamp == nil {
			ended = append(ended, p)
		}
	}
	evicted := func(p *corev1.Pod) int {
		if p.Status.Reason == "Evicted" {
			return 0
		}
		return 1
	}
	slices.SortFunc(ended, func(a, b *corev1.Pod) int {
		return cmp.Or(cmp.Compare(evicted(a), evicted(b)), a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	return ended[:max(len(ended)-threshold, 0)]
}
