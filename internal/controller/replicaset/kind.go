package replicaset

import (
	"context"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/cache"

	"github.com/proa-k8s/proa/internal/controller"
)

// kind is what tells replica sets from replication controllers: both are handled in the shape of replica sets.
type kind struct {
	gvk          schema.GroupVersionKind
	informer     cache.SharedIndexInformer
	get          func(namespace, name string) (*appsv1.ReplicaSet, error)
	list         func(namespace string) ([]*appsv1.ReplicaSet, error)
	live         func(ctx context.Context, namespace, name string) (*appsv1.ReplicaSet, error)
	updateStatus func(ctx context.Context, set *appsv1.ReplicaSet) (*appsv1.ReplicaSet, error)
}

// replicaSets is the kind ReplicaSet.
func replicaSets(env *controller.Env) kind {
	informer := env.Informers.Apps().V1().ReplicaSets()
	lister, api := informer.Lister(), env.Client.AppsV1()
	return kind{
		gvk:      appsv1.SchemeGroupVersion.WithKind("ReplicaSet"),
		informer: informer.Informer(),
		get: func(namespace, name string) (*appsv1.ReplicaSet, error) {
			return lister.ReplicaSets(namespace).Get(name)
		},
		list: func(namespace string) ([]*appsv1.ReplicaSet, error) {
			return lister.ReplicaSets(namespace).List(labels.Everything())
		},
		live: func(ctx context.Context, namespace, name string) (*appsv1.ReplicaSet, error) {
			return api.ReplicaSets(namespace).Get(ctx, name, metav1.GetOptions{})
		},
		updateStatus: func(ctx context.Context, set *appsv1.ReplicaSet) (*appsv1.ReplicaSet, error) {
			return api.ReplicaSets(set.Namespace).UpdateStatus(ctx, set, metav1.UpdateOptions{})
		},
	}
}

// replicationControllers is the kind ReplicationController.
func replicationControllers(env *controller.Env) kind {
	informer := env.Informers.Core().V1().ReplicationControllers()
	lister, api := informer.Lister(), env.Client.CoreV1()
	return kind{
		gvk:      corev1.SchemeGroupVersion.WithKind("ReplicationController"),
		informer: informer.Informer(),
		get: func(namespace, name string) (*appsv1.ReplicaSet, error) {
			rc, err := lister.ReplicationControllers(namespace).Get(name)
			return fromRC(rc), err
		},
		list: func(namespace string) ([]*appsv1.ReplicaSet, error) {
			all, err := lister.ReplicationControllers(namespace).List(labels.Everything())
			sets := make([]*appsv1.ReplicaSet, len(all))
			for i, rc := range all {
				sets[i] = fromRC(rc)
			}
			return sets, err
		},
		live: func(ctx context.Context, namespace, name string) (*appsv1.ReplicaSet, error) {
			rc, err := api.ReplicationControllers(namespace).Get(ctx, name, metav1.GetOptions{})
			return fromRC(rc), err
		},
		updateStatus: func(ctx context.Context, set *appsv1.ReplicaSet) (*appsv1.ReplicaSet, error) {
			rc := &corev1.ReplicationController{ObjectMeta: set.ObjectMeta, Status: rcStatus(set.Status)}
			rc.Spec.Replicas, rc.Spec.MinReadySeconds = set.Spec.Replicas, set.Spec.MinReadySeconds
			rc.Spec.Selector, rc.Spec.Template = set.Spec.Selector.MatchLabels, &set.Spec.Template
			rc, err := api.ReplicationControllers(set.Namespace).UpdateStatus(ctx, rc, metav1.UpdateOptions{})
			return fromRC(rc), err
		},
	}
}

// fromRC gives a replication controller the shape of a replica set, which shares its memory.
func fromRC(rc *corev1.ReplicationController) *appsv1.ReplicaSet {
	if rc == nil {
		return nil
	}
	set := &appsv1.ReplicaSet{
		ObjectMeta: rc.ObjectMeta,
		Spec: appsv1.ReplicaSetSpec{
			Replicas: rc.Spec.Replicas, MinReadySeconds: rc.Spec.MinReadySeconds,
			Selector: &metav1.LabelSelector{MatchLabels: rc.Spec.Selector},
		},
		Status: appsv1.ReplicaSetStatus{
			Replicas: rc.Status.Replicas, FullyLabeledReplicas: rc.Status.FullyLabeledReplicas,
			ReadyReplicas: rc.Status.ReadyReplicas, AvailableReplicas: rc.Status.AvailableReplicas,
			ObservedGeneration: rc.Status.ObservedGeneration,
		},
	}
	if rc.Spec.Template != nil {
		set.Spec.Template = *rc.Spec.Template
	}
	for _, c := range rc.Status.Conditions {
		set.Status.Conditions = append(set.Status.Conditions, appsv1.ReplicaSetCondition{
			Type: appsv1.ReplicaSetConditionType(c.Type), Status: c.Status, LastTransitionTime: c.LastTransitionTime,
			Reason: c.Reason, Message: c.Message,
		})
	}
	return set
}

func rcStatus(s appsv1.ReplicaSetStatus) corev1.ReplicationControllerStatus {
	out := corev1.ReplicationControllerStatus{
		Replicas: s.Replicas, FullyLabeledReplicas: s.FullyLabeledReplicas, ReadyReplicas: s.ReadyReplicas,
		AvailableReplicas: s.AvailableReplicas, ObservedGeneration: s.ObservedGeneration,
	}
	for _, c := range s.Conditions {
		out.Conditions = append(out.Conditions, corev1.ReplicationControllerCondition{
			Type: corev1.ReplicationControllerConditionType(c.Type), Status: c.Status,
			LastTransitionTime: c.LastTransitionTime, Reason: c.Reason, Message: c.Message,
		})
	}
	return out
}
