// Package deployment rolls out Deployments: it makes a ReplicaSet of each state of the pod template, and moves the replicas
// from the old sets to the newest, all at once or step by step, within the bounds that the strategy gives.
//
// What flows in are deployments, replica sets and the ends of pods; what flows out are replica sets and the status and
// revision of deployments. What is to be scaled is decided by pure functions (plan.go), as is the status (status.go).
package deployment

import (
	"context"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	appslisters "k8s.io/client-go/listers/apps/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/proa-k8s/proa/internal/controller"
	"github.com/proa-k8s/proa/internal/controller/claim"
	"github.com/proa-k8s/proa/internal/controller/pods"
)

var (
	deploymentKind = appsv1.SchemeGroupVersion.WithKind("Deployment")
	setKind        = appsv1.SchemeGroupVersion.WithKind("ReplicaSet")
)

// New declares the controller.
func New() controller.Controller {
	return controller.Controller{
		Name: "deployment",
		Reads: []schema.GroupVersionResource{
			appsv1.SchemeGroupVersion.WithResource("deployments"),
			appsv1.SchemeGroupVersion.WithResource("replicasets"),
			corev1.SchemeGroupVersion.WithResource("pods"),
		},
		Writes: []rbacv1.PolicyRule{
			controller.Rule("apps", []string{"deployments"}, "update"),
			controller.Rule("apps", []string{"deployments/status", "deployments/finalizers"}, "update"),
			controller.Rule("apps", []string{"replicasets"}, "create", "delete", "patch", "update"),
		},
		Workers: 5,
		Setup:   setup,
	}
}

// rollout is the controller at work.
type rollout struct {
	env         *controller.Env
	deployments appslisters.DeploymentLister
	setLister   appslisters.ReplicaSetLister
	sets        cache.Indexer
	pods        cache.Indexer
}

func setup(env *controller.Env) (controller.Sync, error) {
	deployments := env.Informers.Apps().V1().Deployments()
	sets := env.Informers.Apps().V1().ReplicaSets()
	podInformer := env.Informers.Core().V1().Pods().Informer()
	for _, informer := range []cache.SharedIndexInformer{sets.Informer(), podInformer} {
		if err := claim.Index(informer); err != nil {
			return nil, err
		}
	}
	r := &rollout{
		env: env, deployments: deployments.Lister(), setLister: sets.Lister(),
		sets: sets.Informer().GetIndexer(), pods: podInformer.GetIndexer(),
	}
	controller.WatchKeys[*appsv1.Deployment](env, deployments.Informer())
	controller.Watch(env, sets.Informer(), r.onSet)
	controller.Watch(env, podInformer, r.onPod)
	return r.sync, nil
}

// onSet wakes the deployment that owns a set, or did, or may adopt it.
func (r *rollout) onSet(old, set *appsv1.ReplicaSet) {
	if old != nil && set != nil && old.ResourceVersion == set.ResourceVersion {
		return
	}
	before := r.wakeOwner(old)
	if set == nil {
		return
	}
	if r.wakeOwner(set) || metav1.GetControllerOfNoCopy(set) != nil {
		return
	}
	if old != nil && !before && labels.Equals(old.Labels, set.Labels) || set.DeletionTimestamp != nil {
		return
	}
	all, err := r.deployments.Deployments(set.Namespace).List(labels.Everything())
	if err != nil {
		r.env.Log.Error("listing deployments", "err", err)
	}
	for _, d := range all {
		selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
		if err == nil && !selector.Empty() && selector.Matches(labels.Set(set.Labels)) {
			r.env.Queue.Add(controller.Key(d))
		}
	}
}

// wakeOwner wakes the deployment that owns the set.
func (r *rollout) wakeOwner(set *appsv1.ReplicaSet) bool {
	if set == nil {
		return false
	}
	if d := r.owner(set); d != nil {
		r.env.Queue.Add(controller.Key(d))
		return true
	}
	return false
}

func (r *rollout) owner(set *appsv1.ReplicaSet) *appsv1.Deployment {
	ref := metav1.GetControllerOfNoCopy(set)
	if ref == nil || ref.Kind != deploymentKind.Kind {
		return nil
	}
	d, err := r.deployments.Deployments(set.Namespace).Get(ref.Name)
	if err != nil || d.UID != ref.UID {
		return nil
	}
	return d
}

// onPod wakes a deployment that waits for its old pods to be gone before it creates new ones.
func (r *rollout) onPod(old, p *corev1.Pod) {
	if old == nil || p != nil && (pods.IsTerminal(old) || !pods.IsTerminal(p)) {
		return
	}
	ref := metav1.GetControllerOfNoCopy(old)
	if ref == nil || ref.Kind != setKind.Kind {
		return
	}
	set, err := r.setLister.ReplicaSets(old.Namespace).Get(ref.Name)
	if err != nil || set.UID != ref.UID {
		return
	}
	if d := r.owner(set); d != nil && d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		r.env.Queue.Add(controller.Key(d))
	}
}

// sync takes one step of a roll-out.
func (r *rollout) sync(ctx context.Context, key string) error {
	namespace, name := controller.SplitKey(key)
	shared, err := r.deployments.Deployments(namespace).Get(name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	d := shared.DeepCopy()
	if selector := d.Spec.Selector; selector != nil && len(selector.MatchLabels)+len(selector.MatchExpressions) == 0 {
		return r.refuse(ctx, d)
	}
	sets, err := r.claim(ctx, d)
	if err != nil {
		return err
	}
	s := &step{rollout: r, d: d, was: shared, now: r.env.Clock.Now()}
	s.split(sets)
	switch {
	case d.DeletionTimestamp != nil:
		return s.writeStatus(ctx)
	case s.markPaused():
		return s.writeConditions(ctx)
	case d.Spec.Paused:
		return s.paused(ctx)
	case isScaling(d, sets):
		return s.scaled(ctx)
	case d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType:
		return s.recreate(ctx)
	default:
		return s.rolling(ctx)
	}
}

// refuse handles a deployment whose selector is empty and would select every pod.
func (r *rollout) refuse(ctx context.Context, d *appsv1.Deployment) error {
	r.env.Events.Event(d, corev1.EventTypeWarning, "SelectingAll", "This deployment is selecting all pods. A non-empty selector is required.")
	if d.Status.ObservedGeneration >= d.Generation {
		return nil
	}
	d.Status.ObservedGeneration = d.Generation
	_, err := r.env.Client.AppsV1().Deployments(d.Namespace).UpdateStatus(ctx, d, metav1.UpdateOptions{})
	return err
}

// claim gives the deployment's replica sets, oldest first.
func (r *rollout) claim(ctx context.Context, d *appsv1.Deployment) ([]*appsv1.ReplicaSet, error) {
	selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
	if err != nil {
		return nil, fmt.Errorf("converting the selector: %w", err)
	}
	candidates, err := claim.Candidates[*appsv1.ReplicaSet](r.sets, d.Namespace, d.UID, selector)
	if err != nil {
		return nil, err
	}
	owner := claim.Owner[*appsv1.ReplicaSet]{
		Object: d, Kind: deploymentKind, Selector: selector,
		Live: func(ctx context.Context) (metav1.Object, error) {
			return r.env.Client.AppsV1().Deployments(d.Namespace).Get(ctx, d.Name, metav1.GetOptions{})
		},
		Patch: func(ctx context.Context, set *appsv1.ReplicaSet, patch []byte) error {
			_, err := r.env.Client.AppsV1().ReplicaSets(set.Namespace).Patch(ctx, set.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
			return err
		},
	}
	sets, err := owner.Claim(ctx, candidates)
	slices.SortFunc(sets, olderFirst)
	return sets, err
}

// oldPodsRun tells whether pods of other sets than the newest still run, or end.
func (r *rollout) oldPodsRun(old []*appsv1.ReplicaSet) (bool, error) {
	for _, set := range old {
		if set.Status.Replicas > 0 {
			return true, nil
		}
		owned, err := claim.Owned[*corev1.Pod](r.pods, set.UID)
		if err != nil {
			return false, err
		}
		if slices.ContainsFunc(owned, func(p *corev1.Pod) bool { return !pods.IsTerminal(p) }) {
			return true, nil
		}
	}
	return false, nil
}

// grain is added to deadlines, so that they have passed for certain when they are looked at.
const grain = time.Second
