package admission

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/proa-k8s/proa/internal/store"
)

// audience checks that the pod has a use for a token of that audience: a projected volume, a CSI driver of one of its inline
// volumes, or a special permission of the node (KEP-4412).
func (r *nodeRestriction) audience(ctx context.Context, a admission.Attributes, pod *corev1.Pod, audiences []string) error {
	if len(audiences) > 1 {
		return errors.New("node may only request 0 or 1 audiences")
	}
	wanted := ""
	if len(audiences) == 1 {
		wanted = audiences[0]
	}
	for i := range pod.Spec.Volumes {
		found, err := r.volumeWants(ctx, &pod.Spec.Volumes[i], wanted)
		if found || err != nil {
			return err
		}
	}
	if r.Authorizer != nil && allowed(ctx, r.Authorizer, authorizer.AttributesRecord{
		User: a.GetUserInfo(), Verb: "request-serviceaccounts-token-audience", Namespace: a.GetNamespace(),
		APIVersion: "v1", Resource: wanted, Name: a.GetName(), ResourceRequest: true,
	}) {
		return nil
	}
	return fmt.Errorf("audience %q not found in pod spec volume", wanted)
}

func (r *nodeRestriction) volumeWants(ctx context.Context, v *corev1.Volume, audience string) (bool, error) {
	switch {
	case v.Projected != nil:
		return slices.ContainsFunc(v.Projected.Sources, func(s corev1.VolumeProjection) bool {
			return s.ServiceAccountToken != nil && s.ServiceAccountToken.Audience == audience
		}), nil
	case v.CSI != nil && r.CSIDrivers != nil:
		driver, err := r.CSIDrivers(ctx, "", v.CSI.Driver)
		if errors.Is(err, store.ErrNotFound) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("reading CSIDriver %s: %w", v.CSI.Driver, err)
		}
		return slices.ContainsFunc(driver.Spec.TokenRequests, func(t storagev1.TokenRequest) bool { return t.Audience == audience }), nil
	}
	return false, nil
}
