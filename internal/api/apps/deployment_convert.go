package apps

import (
	"fmt"
	"maps"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	appsv1beta1 "k8s.io/api/apps/v1beta1"
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

func deploymentFromV1beta1(in *appsv1beta1.Deployment, out *appsv1.Deployment) error {
	if err := convertShape(in, out); err != nil {
		return err
	}
	if to := in.Spec.RollbackTo; to != nil {
		rollbackToAnnotation(&out.ObjectMeta, to.Revision)
	}
	return nil
}

func deploymentToV1beta1(in *appsv1.Deployment, out *appsv1beta1.Deployment) error {
	if err := convertShape(in, out); err != nil {
		return err
	}
	revision, ok, err := takeRollbackTo(&out.ObjectMeta)
	if ok {
		out.Spec.RollbackTo = &appsv1beta1.RollbackConfig{Revision: revision}
	}
	return err
}

func deploymentFromExtensions(in *extensionsv1beta1.Deployment, out *appsv1.Deployment) error {
	if err := convertShape(in, out); err != nil {
		return err
	}
	if to := in.Spec.RollbackTo; to != nil {
		rollbackToAnnotation(&out.ObjectMeta, to.Revision)
	}
	return nil
}

func deploymentToExtensions(in *appsv1.Deployment, out *extensionsv1beta1.Deployment) error {
	if err := convertShape(in, out); err != nil {
		return err
	}
	revision, ok, err := takeRollbackTo(&out.ObjectMeta)
	if ok {
		out.Spec.RollbackTo = &extensionsv1beta1.RollbackConfig{Revision: revision}
	}
	return err
}
