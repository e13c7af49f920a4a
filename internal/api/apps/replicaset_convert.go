package apps

import (
	appsv1 "k8s.io/api/apps/v1"
	appsv1beta2 "k8s.io/api/apps/v1beta2"
	extensionsv1beta1 "k8s.io/api/extensions/v1beta1"
)

// The versions of a replica set differ in nothing but their defaults and names of Go types.

func replicaSetFromV1beta2(in *appsv1beta2.ReplicaSet, out *appsv1.ReplicaSet) error {
	*out = appsv1.ReplicaSet{
		ObjectMeta: in.ObjectMeta,
		Spec:       appsv1.ReplicaSetSpec(in.Spec),
		Status: appsv1.ReplicaSetStatus{
			Replicas: in.Status.Replicas, FullyLabeledReplicas: in.Status.FullyLabeledReplicas,
			ReadyReplicas: in.Status.ReadyReplicas, AvailableReplicas: in.Status.AvailableReplicas,
			TerminatingReplicas: in.Status.TerminatingReplicas, ObservedGeneration: in.Status.ObservedGeneration,
		},
	}
	for _, c := range in.Status.Conditions {
		out.Status.Conditions = append(out.Status.Conditions, appsv1.ReplicaSetCondition{
			Type: appsv1.ReplicaSetConditionType(c.Type), Status: c.Status,
			LastTransitionTime: c.LastTransitionTime, Reason: c.Reason, Message: c.Message,
		})
	}
	return nil
}

func replicaSetToV1beta2(in *appsv1.ReplicaSet, out *appsv1beta2.ReplicaSet) error {
	*out = appsv1beta2.ReplicaSet{
		ObjectMeta: in.ObjectMeta,
		Spec:       appsv1beta2.ReplicaSetSpec(in.Spec),
		Status: appsv1beta2.ReplicaSetStatus{
			Replicas: in.Status.Replicas, FullyLabeledReplicas: in.Status.FullyLabeledReplicas,
			ReadyReplicas: in.Status.ReadyReplicas, AvailableReplicas: in.Status.AvailableReplicas,
			TerminatingReplicas: in.Status.TerminatingReplicas, ObservedGeneration: in.Status.ObservedGeneration,
		},
	}
	for _, c := range in.Status.Conditions {
		out.Status.Conditions = append(out.Status.Conditions, appsv1beta2.ReplicaSetCondition{
			Type: appsv1beta2.ReplicaSetConditionType(c.Type), Status: c.Status,
			LastTransitionTime: c.LastTransitionTime, Reason: c.Reason, Message: c.Message,
		})
	}
	return nil
}

func replicaSetFromExtensions(in *extensionsv1beta1.ReplicaSet, out *appsv1.ReplicaSet) error {
	*out = appsv1.ReplicaSet{
		ObjectMeta: in.ObjectMeta,
		Spec:       appsv1.ReplicaSetSpec(in.Spec),
		Status: appsv1.ReplicaSetStatus{
			Replicas: in.Status.Replicas, FullyLabeledReplicas: in.Status.FullyLabeledReplicas,
			ReadyReplicas: in.Status.ReadyReplicas, AvailableReplicas: in.Status.AvailableReplicas,
			TerminatingReplicas: in.Status.TerminatingReplicas, ObservedGeneration: in.Status.ObservedGeneration,
		},
	}
	for _, c := range in.Status.Conditions {
		out.Status.Conditions = append(out.Status.Conditions, appsv1.ReplicaSetCondition{
			Type: appsv1.ReplicaSetConditionType(c.Type), Status: c.Status,
			LastTransitionTime: c.LastTransitionTime, Reason: c.Reason, Message: c.Message,
		})
	}
	return nil
}

func replicaSetToExtensions(in *appsv1.ReplicaSet, out *extensionsv1beta1.ReplicaSet) error {
	*out = extensionsv1beta1.ReplicaSet{
		ObjectMeta: in.ObjectMeta,
		Spec:       extensionsv1beta1.ReplicaSetSpec(in.Spec),
		Status: extensionsv1beta1.ReplicaSetStatus{
			Replicas: in.Status.Replicas, FullyLabeledReplicas: in.Status.FullyLabeledReplicas,
			ReadyReplicas: in.Status.ReadyReplicas, AvailableReplicas: in.Status.AvailableReplicas,
			TerminatingReplicas: in.Status.TerminatingReplicas, ObservedGeneration: in.Status.ObservedGeneration,
		},
	}
	for _, c := range in.Status.Conditions {
		out.Status.Conditions = append(out.Status.Conditions, extensionsv1beta1.ReplicaSetCondition{
			Type: extensionsv1beta1.ReplicaSetConditionType(c.Type), Status: c.Status,
			LastTransitionTime: c.LastTransitionTime, Reason: c.Reason, Message: c.Message,
		})
	}
	return nil
}
