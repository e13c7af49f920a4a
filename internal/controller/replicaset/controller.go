// Package replicaset keeps the declared number of pods of ReplicaSets and of ReplicationControllers.
//
// What flows in are the sets and all pods; what flows out are pods created and deleted, owner references of pods that are
// adopted and released, and the status of the sets.
package replicaset

import (
	"context"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"github.com/proa-k8s/proa/internal/controller"
	"github.com/proa-k8s/proa/internal/controller/claim"
	"github.com/proa-k8s/proa/internal/controller/pods"
)

// burst is how many pods are created or deleted at most in one go.
const burst = 500

// New declares the controller of ReplicaSets.
func New() controller.Controller {
	return declare("replicaset", appsv1.SchemeGroupVersion.WithResource("replicasets"), replicaSets)
}

// NewReplication declares the controller of ReplicationControllers.
func NewReplication() controller.Controller {
	return declare("replication", corev1.SchemeGroupVersion.WithResource("replicationcontrollers"), replicationControllers)
}

func declare(name string, sets schema.GroupVersionResource, of func(*controller.Env) kind) controller.Controller {
	return controller.Controller{
		Name:  name,
		Reads: []schema.GroupVersionResource{sets, corev1.SchemeGroupVersion.WithResource("pods")},
		Writes: []rbacv1.PolicyRule{
			controller.Rule(sets.Group, []string{sets.Resource + "/status", sets.Resource + "/finalizers"}, "update"),
			controller.Rule("", []string{"pods"}, "create", "delete", "patch"),
		},
		Workers: 5,
		Setup: func(env *controller.Env) (controller.Sync, error) {
			return newEngine(env, of(env))
		},
	}
}

// settle is how long changes of pods are gathered that only the status tells of, so that a burst is one write.
const settle = 10 * time.Millisecond

// engine keeps the numbers of one kind of sets.
type engine struct {
	env     *controller.Env
	kind    kind
	pods    cache.Indexer
	control pods.Control
	expect  *pods.Expectations
}

func newEngine(env *controller.Env, k kind) (controller.Sync, error) {
	informer := env.Informers.Core().V1().Pods().Informer()
	if err := claim.Index(informer); err != nil {
		return nil, err
	}
	e := &engine{
		env: env, kind: k, pods: informer.GetIndexer(),
		control: pods.Control{Client: env.Client, Events: env.Events},
		expect:  pods.NewExpectations(env.Clock),
	}
	if k.gvk.Kind == "ReplicationController" {
		controller.Watch(env, k.informer, func(old, rc *corev1.ReplicationController) { e.onSet(fromRC(old), fromRC(rc)) })
	} else {
		controller.Watch(env, k.informer, e.onSet)
	}
	controller.Watch(env, informer, e.onPod)
	return e.sync, nil
}

// onSet handles events of sets.
func (e *engine) onSet(old, set *appsv1.ReplicaSet) {
	if old != nil && (set == nil || set.UID != old.UID) {
		e.expect.Forget(controller.Key(old))
	}
	if set == nil {
		set = old
	}
	e.env.Queue.Add(controller.Key(set))
}

// onPod handles events of pods: it fulfils expectations and wakes the sets concerned.
func (e *engine) onPod(old, p *corev1.Pod) {
	if old == nil {
		if key, ok := e.owner(p.Namespace, metav1.GetControllerOfNoCopy(p)); ok {
			e.expect.Created(key, 1)
			if p.DeletionTimestamp != nil {
				e.expect.Deleted(key, p.UID)
			}
			e.wake(key)
		} else if p.DeletionTimestamp == nil {
			e.wakeMatching(p)
		}
		return
	}
	before, hadOwner := e.owner(old.Namespace, metav1.GetControllerOfNoCopy(old))
	if p == nil {
		if hadOwner {
			e.expect.Deleted(before, old.UID)
			e.wake(before)
		}
		return
	}
	if p.ResourceVersion == old.ResourceVersion {
		return
	}
	now, hasOwner := e.owner(p.Namespace, metav1.GetControllerOfNoCopy(p))
	if hadOwner && now != before {
		e.env.Queue.Add(before)
	}
	switch {
	case hasOwner:
		if p.DeletionTimestamp != nil {
			e.expect.Deleted(now, p.UID)
		}
		if hadOwner && pods.IsActive(p) == pods.IsActive(old) && labels.Equals(p.Labels, old.Labels) {
			e.env.Queue.AddAfter(now, settle) // it counts as before: there is only the status to write
		} else {
			e.env.Queue.Add(now)
		}
	case metav1.GetControllerOfNoCopy(p) == nil && (hadOwner || !labels.Equals(p.Labels, old.Labels)):
		e.wakeMatching(p)
	}
}

// wake has a set handled: at once if there may be something to do, else, while more pods are to come or go, when some have.
func (e *engine) wake(key string) {
	if e.expect.Satisfied(key) {
		e.env.Queue.Add(key)
	} else {
		e.env.Queue.AddAfter(key, settle)
	}
}

// owner gives the key of the set that a reference means, if it is of this kind and exists.
func (e *engine) owner(namespace string, ref *metav1.OwnerReference) (string, bool) {
	if ref == nil || ref.Kind != e.kind.gvk.Kind {
		return "", false
	}
	set, err := e.kind.get(namespace, ref.Name)
	if err != nil || set.UID != ref.UID {
		return "", false
	}
	return namespace + "/" + ref.Name, true
}

// wakeMatching wakes the sets that may adopt an orphan.
func (e *engine) wakeMatching(p *corev1.Pod) {
	if metav1.GetControllerOfNoCopy(p) != nil || len(p.Labels) == 0 {
		return
	}
	sets, err := e.kind.list(p.Namespace)
	if err != nil {
		e.env.Log.Error("listing sets", "err", err)
		return
	}
	for _, set := range sets {
		selector, err := metav1.LabelSelectorAsSelector(set.Spec.Selector)
		if err == nil && !selector.Empty() && selector.Matches(labels.Set(p.Labels)) {
			e.env.Queue.Add(controller.Key(set))
		}
	}
}

// sync brings the number of a set's pods closer to what is declared, and writes its status.
func (e *engine) sync(ctx context.Context, key string) error {
	namespace, name := controller.SplitKey(key)
	set, err := e.kind.get(namespace, name)
	if apierrors.IsNotFound(err) {
		e.expect.Forget(key)
		return nil
	}
	if err != nil {
		return err
	}
	// Asked before the pods are listed: what is fulfilled now is in the list.
	mayChange := e.expect.Satisfied(key) && set.DeletionTimestamp == nil
	active, terminating, err := e.claim(ctx, set)
	if err != nil {
		return err
	}
	var manageErr error
	if mayChange {
		manageErr = e.manage(ctx, key, set, active)
	}
	now := e.env.Clock.Now()
	wanted, next := status(set, active, terminating, manageErr, now)
	if err := e.writeStatus(ctx, set, wanted); err != nil {
		return err
	}
	if next > 0 {
		e.env.Queue.AddAfter(key, next)
	}
	return manageErr
}

// claim gives the set's pods that are active, and the number of those that are going.
func (e *engine) claim(ctx context.Context, set *appsv1.ReplicaSet) (active []*corev1.Pod, terminating int32, err error) {
	selector, err := metav1.LabelSelectorAsSelector(set.Spec.Selector)
	if err != nil { // Validation doesn't let such a set in.
		return nil, 0, fmt.Errorf("converting the selector: %w", err)
	}
	all, err := claim.Candidates[*corev1.Pod](e.pods, set.Namespace, set.UID, selector)
	if err != nil {
		return nil, 0, fmt.Errorf("listing pods: %w", err)
	}
	candidates := all[:0]
	for _, p := range all {
		switch {
		case pods.IsActive(p):
			candidates = append(candidates, p)
		case pods.IsTerminating(p) && metav1.IsControlledBy(p, set) && selector.Matches(labels.Set(p.Labels)):
			terminating++
		}
	}
	owner := claim.Owner[*corev1.Pod]{
		Object: set, Kind: e.kind.gvk, Selector: selector,
		Live: func(ctx context.Context) (metav1.Object, error) { return e.kind.live(ctx, set.Namespace, set.Name) },
		Patch: func(ctx context.Context, p *corev1.Pod, patch []byte) error {
			_, err := e.env.Client.CoreV1().Pods(p.Namespace).Patch(ctx, p.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
			return err
		},
	}
	active, err = owner.Claim(ctx, candidates)
	return active, terminating, err
}

// manage creates or deletes pods so that their number becomes the declared one.
func (e *engine) manage(ctx context.Context, key string, set *appsv1.ReplicaSet, active []*corev1.Pod) error {
	missing := int(ptr.Deref(set.Spec.Replicas, 1)) - len(active)
	switch {
	case missing > 0:
		return e.create(ctx, key, set, min(missing, burst))
	case missing < 0:
		return e.delete(ctx, key, set, active, min(-missing, burst))
	}
	return nil
}

func (e *engine) create(ctx context.Context, key string, set *appsv1.ReplicaSet, n int) error {
	e.expect.Expect(key, n)
	ref, about := claim.Reference(set, e.kind.gvk), e.reference(set)
	created, err := pods.SlowStart(n, func(int) error {
		p := pods.FromTemplate(&set.Spec.Template, set.Name, ref)
		err := e.control.Create(ctx, set.Namespace, p, about)
		if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return errTerminating // Nothing can be created here any more; not worth a word.
		}
		return err
	})
	e.expect.Created(key, n-created)
	if err == errTerminating {
		return nil
	}
	return err
}

var errTerminating = fmt.Errorf("the namespace is being terminated")

func (e *engine) delete(ctx context.Context, key string, set *appsv1.ReplicaSet, active []*corev1.Pod, n int) error {
	neighbours, err := e.neighbours(set, active)
	if err != nil {
		return err
	}
	surplus := pods.Surplus(active, neighbours, n, e.env.Clock.Now())
	uids := make([]types.UID, len(surplus))
	for i, p := range surplus {
		uids[i] = p.UID
	}
	e.expect.Expect(key, 0, uids...)
	about := e.reference(set)
	_, err = pods.All(len(surplus), func(i int) error {
		err := e.control.Delete(ctx, surplus[i], about)
		if err != nil {
			e.expect.Deleted(key, surplus[i].UID)
		}
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	})
	return err
}

// neighbours gives the pods of all sets that have the same controller as this one.
func (e *engine) neighbours(set *appsv1.ReplicaSet, own []*corev1.Pod) ([]*corev1.Pod, error) {
	ref := metav1.GetControllerOfNoCopy(set)
	if ref == nil {
		return own, nil
	}
	sets, err := e.kind.list(set.Namespace)
	if err != nil {
		return nil, fmt.Errorf("listing sets: %w", err)
	}
	var all []*corev1.Pod
	for _, s := range sets {
		if r := metav1.GetControllerOfNoCopy(s); r != nil && r.UID == ref.UID {
			owned, err := claim.Owned[*corev1.Pod](e.pods, s.UID)
			if err != nil {
				return nil, fmt.Errorf("listing pods: %w", err)
			}
			all = append(all, owned...)
		}
	}
	return all, nil
}

// reference is what events are about.
func (e *engine) reference(set *appsv1.ReplicaSet) *corev1.ObjectReference {
	return &corev1.ObjectReference{
		APIVersion: e.kind.gvk.GroupVersion().String(), Kind: e.kind.gvk.Kind,
		Namespace: set.Namespace, Name: set.Name, UID: set.UID, ResourceVersion: set.ResourceVersion,
	}
}

// writeStatus writes the status if it differs from what is there.
func (e *engine) writeStatus(ctx context.Context, set *appsv1.ReplicaSet, wanted appsv1.ReplicaSetStatus) error {
	if e.kind.gvk.Kind == "ReplicationController" {
		wanted.TerminatingReplicas = nil // It has no such field.
	}
	if same(set.Status, wanted) {
		return nil
	}
	updated := set.DeepCopy()
	updated.Status = wanted
	_, err := e.kind.updateStatus(ctx, updated)
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// minWait keeps a wait for availability from ending a hair too early.
const minWait = 5 * time.Millisecond
