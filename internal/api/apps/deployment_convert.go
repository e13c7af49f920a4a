package apps

import (
	"fmt"
	"maps"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	appsv1beta1 "k8s.io/api/apps/v1beta1"
	appsv1beta2 "k8s.io/api/apps/v1beta2"
	extensionsv1beta1 "k8s.io/api/extensions/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The versions of a deployment differ in their defaults and in rollbackTo, a request to go back that v1beta1 put in the
// spec; in the hub it is the annotation that v1 keeps it in.

// rollbackToAnnotation stores the revision to go back to.
func rollbackToAnnotation(meta *metav1.ObjectMeta, revision int64) {
	annotations := maps.Clone(meta.Annotations)
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[appsv1.DeprecatedRollbackTo] = strconv.FormatInt(revision, 10)
	meta.Annotations = annotations
}

// takeRollbackTo takes the revision out of the annotations.
func takeRollbackTo(meta *metav1.ObjectMeta) (revision int64, ok bool, err error) {
	value, ok := meta.Annotations[appsv1.DeprecatedRollbackTo]
	if !ok {
		return 0, false, nil
	}
	revision, err = strconv.ParseInt(value, 10, 64)
	if err != nil {
		return 0, false, fmt.Errorf("reading the annotation %s: %w", appsv1.DeprecatedRollbackTo, err)
	}
	annotations := maps.Clone(meta.Annotations)
	delete(annotations, appsv1.DeprecatedRollbackTo)
	meta.Annotations = annotations
	return revision, true, nil
}

func deploymentFromV1beta2(in *appsv1beta2.Deployment, out *appsv1.Deployment) error {
	s := &in.Spec
	*out = appsv1.Deployment{
		ObjectMeta: in.ObjectMeta,
		Spec: appsv1.DeploymentSpec{
			Replicas: s.Replicas, Selector: s.Selector, Template: s.Template,
			Strategy: appsv1.DeploymentStrategy{
				Type:          appsv1.DeploymentStrategyType(s.Strategy.Type),
				RollingUpdate: (*appsv1.RollingUpdateDeployment)(s.Strategy.RollingUpdate),
			},
			MinReadySeconds: s.MinReadySeconds, RevisionHistoryLimit: s.RevisionHistoryLimit, Paused: s.Paused,
			ProgressDeadlineSeconds: s.ProgressDeadlineSeconds,
		},
		Status: appsv1.DeploymentStatus{
			ObservedGeneration: in.Status.ObservedGeneration, Replicas: in.Status.Replicas,
			UpdatedReplicas: in.Status.UpdatedReplicas, ReadyReplicas: in.Status.ReadyReplicas,
			AvailableReplicas: in.Status.AvailableReplicas, UnavailableReplicas: in.Status.UnavailableReplicas,
			TerminatingReplicas: in.Status.TerminatingReplicas, CollisionCount: in.Status.CollisionCount,
		},
	}
	for _, c := range in.Status.Conditions {
		out.Status.Conditions = append(out.Status.Conditions, appsv1.DeploymentCondition{
			Type: appsv1.DeploymentConditionType(c.Type), Status: c.Status, LastUpdateTime: c.LastUpdateTime,
			LastTransitionTime: c.LastTransitionTime, Reason: c.Reason, Message: c.Message,
		})
	}
	return nil
}

func deploymentToV1beta2(in *appsv1.Deployment, out *appsv1beta2.Deployment) error {
	s := &in.Spec
	*out = appsv1beta2.Deployment{
		ObjectMeta: in.ObjectMeta,
		Spec: appsv1beta2.DeploymentSpec{
			Replicas: s.Replicas, Selector: s.Selector, Template: s.Template,
			Strategy: appsv1beta2.DeploymentStrategy{
				Type:          appsv1beta2.DeploymentStrategyType(s.Strategy.Type),
				RollingUpdate: (*appsv1beta2.RollingUpdateDeployment)(s.Strategy.RollingUpdate),
			},
			MinReadySeconds: s.MinReadySeconds, RevisionHistoryLimit: s.RevisionHistoryLimit, Paused: s.Paused,
			ProgressDeadlineSeconds: s.ProgressDeadlineSeconds,
		},
		Status: appsv1beta2.DeploymentStatus{
			ObservedGeneration: in.Status.ObservedGeneration, Replicas: in.Status.Replicas,
			UpdatedReplicas: in.Status.UpdatedReplicas, ReadyReplicas: in.Status.ReadyReplicas,
			AvailableReplicas: in.Status.AvailableReplicas, UnavailableReplicas: in.Status.UnavailableReplicas,
			TerminatingReplicas: in.Status.TerminatingReplicas, CollisionCount: in.Status.CollisionCount,
		},
	}
	for _, c := range in.Status.Conditions {
		out.Status.Conditions = append(out.Status.Conditions, appsv1beta2.DeploymentCondition{
			Type: appsv1beta2.DeploymentConditionType(c.Type), Status: c.Status, LastUpdateTime: c.LastUpdateTime,
			LastTransitionTime: c.LastTransitionTime, Reason: c.Reason, Message: c.Message,
		})
	}
	return nil
}

func deploymentFromV1beta1(in *appsv1beta1.Deployment, out *appsv1.Deployment) error {
	s := &in.Spec
	*out = appsv1.Deployment{
		ObjectMeta: in.ObjectMeta,
		Spec: appsv1.DeploymentSpec{
			Replicas: s.Replicas, Selector: s.Selector, Template: s.Template,
			Strategy: appsv1.DeploymentStrategy{
				Type:          appsv1.DeploymentStrategyType(s.Strategy.Type),
				RollingUpdate: (*appsv1.RollingUpdateDeployment)(s.Strategy.RollingUpdate),
			},
			MinReadySeconds: s.MinReadySeconds, RevisionHistoryLimit: s.RevisionHistoryLimit, Paused: s.Paused,
			ProgressDeadlineSeconds: s.ProgressDeadlineSeconds,
		},
		Status: appsv1.DeploymentStatus{
			ObservedGeneration: in.Status.ObservedGeneration, Replicas: in.Status.Replicas,
			UpdatedReplicas: in.Status.UpdatedReplicas, ReadyReplicas: in.Status.ReadyReplicas,
			AvailableReplicas: in.Status.AvailableReplicas, UnavailableReplicas: in.Status.UnavailableReplicas,
			TerminatingReplicas: in.Status.TerminatingReplicas, CollisionCount: in.Status.CollisionCount,
		},
	}
	for _, c := range in.Status.Conditions {
		out.Status.Conditions = append(out.Status.Conditions, appsv1.DeploymentCondition{
			Type: appsv1.DeploymentConditionType(c.Type), Status: c.Status, LastUpdateTime: c.LastUpdateTime,
			LastTransitionTime: c.LastTransitionTime, Reason: c.Reason, Message: c.Message,
		})
	}
	if s.RollbackTo != nil {
		rollbackToAnnotation(&out.ObjectMeta, s.RollbackTo.Revision)
	}
	return nil
}

func deploymentToV1beta1(in *appsv1.Deployment, out *appsv1beta1.Deployment) error {
	s := &in.Spec
	*out = appsv1beta1.Deployment{
		ObjectMeta: in.ObjectMeta,
		Spec: appsv1beta1.DeploymentSpec{
			Replicas: s.Replicas, Selector: s.Selector, Template: s.Template,
			Strategy: appsv1beta1.DeploymentStrategy{
				Type:          appsv1beta1.DeploymentStrategyType(s.Strategy.Type),
				RollingUpdate: (*appsv1beta1.RollingUpdateDeployment)(s.Strategy.RollingUpdate),
			},
			MinReadySeconds: s.MinReadySeconds, RevisionHistoryLimit: s.RevisionHistoryLimit, Paused: s.Paused,
			ProgressDeadlineSeconds: s.ProgressDeadlineSeconds,
		},
		Status: appsv1beta1.DeploymentStatus{
			ObservedGeneration: in.Status.ObservedGeneration, Replicas: in.Status.Replicas,
			UpdatedReplicas: in.Status.UpdatedReplicas, ReadyReplicas: in.Status.ReadyReplicas,
			AvailableReplicas: in.Status.AvailableReplicas, UnavailableReplicas: in.Status.UnavailableReplicas,
			TerminatingReplicas: in.Status.TerminatingReplicas, CollisionCount: in.Status.CollisionCount,
		},
	}
	for _, c := range in.Status.Conditions {
		out.Status.Conditions = append(out.Status.Conditions, appsv1beta1.DeploymentCondition{
			Type: appsv1beta1.DeploymentConditionType(c.Type), Status: c.Status, LastUpdateTime: c.LastUpdateTime,
			LastTransitionTime: c.LastTransitionTime, Reason: c.Reason, Message: c.Message,
		})
	}
	revision, ok, err := takeRollbackTo(&out.ObjectMeta)
	if ok {
		out.Spec.RollbackTo = &appsv1beta1.RollbackConfig{Revision: revision}
	}
	return err
}

func deploymentFromExtensions(in *extensionsv1beta1.Deployment, out *appsv1.Deployment) error {
	s := &in.Spec
	*out = appsv1.Deployment{
		ObjectMeta: in.ObjectMeta,
		Spec: appsv1.DeploymentSpec{
			Replicas: s.Replicas, Selector: s.Selector, Template: s.Template,
			Strategy: appsv1.DeploymentStrategy{
				Type:          appsv1.DeploymentStrategyType(s.Strategy.Type),
				RollingUpdate: (*appsv1.RollingUpdateDeployment)(s.Strategy.RollingUpdate),
			},
			MinReadySeconds: s.MinReadySeconds, RevisionHistoryLimit: s.RevisionHistoryLimit, Paused: s.Paused,
			ProgressDeadlineSeconds: s.ProgressDeadlineSeconds,
		},
		Status: appsv1.DeploymentStatus{
			ObservedGeneration: in.Status.ObservedGeneration, Replicas: in.Status.Replicas,
			UpdatedReplicas: in.Status.UpdatedReplicas, ReadyReplicas: in.Status.ReadyReplicas,
			AvailableReplicas: in.Status.AvailableReplicas, UnavailableReplicas: in.Status.UnavailableReplicas,
			TerminatingReplicas: in.Status.TerminatingReplicas, CollisionCount: in.Status.CollisionCount,
		},
	}
	for _, c := range in.Status.Conditions {
		out.Status.Conditions = append(out.Status.Conditions, appsv1.DeploymentCondition{
			Type: appsv1.DeploymentConditionType(c.Type), Status: c.Status, LastUpdateTime: c.LastUpdateTime,
			LastTransitionTime: c.LastTransitionTime, Reason: c.Reason, Message: c.Message,
		})
	}
	if s.RollbackTo != nil {
		rollbackToAnnotation(&out.ObjectMeta, s.RollbackTo.Revision)
	}
	return nil
}

func deploymentToExtensions(in *appsv1.Deployment, out *extensionsv1beta1.Deployment) error {
	s := &in.Spec
	*out = extensionsv1beta1.Deployment{
		ObjectMeta: in.ObjectMeta,
		Spec: extensionsv1beta1.DeploymentSpec{
			Replicas: s.Replicas, Selector: s.Selector, Template: s.Template,
			Strategy: extensionsv1beta1.DeploymentStrategy{
				Type:          extensionsv1beta1.DeploymentStrategyType(s.Strategy.Type),
				RollingUpdate: (*extensionsv1beta1.RollingUpdateDeployment)(s.Strategy.RollingUpdate),
			},
			MinReadySeconds: s.MinReadySeconds, RevisionHistoryLimit: s.RevisionHistoryLimit, Paused: s.Paused,
			ProgressDeadlineSeconds: s.ProgressDeadlineSeconds,
		},
		Status: extensionsv1beta1.DeploymentStatus{
			ObservedGeneration: in.Status.ObservedGeneration, Replicas: in.Status.Replicas,
			UpdatedReplicas: in.Status.UpdatedReplicas, ReadyReplicas: in.Status.ReadyReplicas,
			AvailableReplicas: in.Status.AvailableReplicas, UnavailableReplicas: in.Status.UnavailableReplicas,
			TerminatingReplicas: in.Status.TerminatingReplicas, CollisionCount: in.Status.CollisionCount,
		},
	}
	for _, c := range in.Status.Conditions {
		out.Status.Conditions = append(out.Status.Conditions, extensionsv1beta1.DeploymentCondition{
			Type: extensionsv1beta1.DeploymentConditionType(c.Type), Status: c.Status, LastUpdateTime: c.LastUpdateTime,
			LastTransitionTime: c.LastTransitionTime, Reason: c.Reason, Message: c.Message,
		})
	}
	revision, ok, err := takeRollbackTo(&out.ObjectMeta)
	if ok {
		out.Spec.RollbackTo = &extensionsv1beta1.RollbackConfig{Revision: revision}
	}
	return err
}
