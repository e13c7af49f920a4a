package admission

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/storage/names"
	"k8s.io/utils/ptr"

	"github.com/proa-k8s/proa/internal/apiserver/auth/podrefs"
	"github.com/proa-k8s/proa/internal/store"
)

const (
	defaultServiceAccount = "default"
	tokenVolumePrefix     = "kube-api-access-"
	tokenMountPath        = "/var/run/secrets/kubernetes.io/serviceaccount"
	// tokenSeconds asks for an hour, and the seven seconds tell the issuer that it was admission who asked.
	tokenSeconds = 60*60 + 7
	rootCA       = "kube-root-ca.crt"
)

var pods = corev1.Resource("pods")

// newServiceAccount gives every pod a service account, its pull secrets, and a volume with its token.
func newServiceAccount(c *Config) *Plugin {
	if c.ServiceAccounts == nil {
		return nil
	}
	account := func(ctx context.Context, a admission.Attributes, pod *corev1.Pod) (*corev1.ServiceAccount, error) {
		sa, err := c.ServiceAccounts(ctx, a.GetNamespace(), pod.Spec.ServiceAccountName)
		if errors.Is(err, store.ErrNotFound) {
			err = apierrors.NewNotFound(corev1.Resource("serviceaccount"), pod.Spec.ServiceAccountName)
		}
		if err != nil {
			return nil, admission.NewForbidden(a, fmt.Errorf("error looking up service account %s/%s: %w", a.GetNamespace(), pod.Spec.ServiceAccountName, err))
		}
		return sa, nil
	}
	return &Plugin{
		Applies: func(t Target) bool {
			return t.Is(pods, admission.Create) || t.GroupResource == pods && t.Subresource == "ephemeralcontainers" && t.Operation == admission.Update
		},
		Admit: func(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
			pod, ok := a.GetObject().(*corev1.Pod)
			if !ok || isMirror(pod) || a.GetOperation() != admission.Create {
				return nil
			}
			if pod.Spec.ServiceAccountName == "" {
				pod.Spec.ServiceAccountName = cmp.Or(pod.Spec.DeprecatedServiceAccount, defaultServiceAccount)
			}
			pod.Spec.DeprecatedServiceAccount = pod.Spec.ServiceAccountName // the old name of the field still says the same
			sa, err := account(ctx, a, pod)
			if err != nil {
				return err
			}
			completePod(pod, sa)
			return nil
		},
		Validate: func(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
			pod, ok := a.GetObject().(*corev1.Pod)
			if !ok {
				return nil
			}
			if isMirror(pod) {
				if a.GetOperation() != admission.Create {
					return nil
				}
				return checkMirror(a, pod)
			}
			sa, err := account(ctx, a, pod)
			if err != nil {
				return err
			}
			if sa.Annotations["kubernetes.io/enforce-mountable-secrets"] == "true" {
				if err := checkMountable(pod, sa); err != nil {
					return admission.NewForbidden(a, err)
				}
			}
			return nil
		},
	}
}

func isMirror(pod *corev1.Pod) bool {
	_, ok := pod.Annotations[corev1.MirrorPodAnnotationKey]
	return ok
}

// checkMirror refuses mirror pods that use secrets or accounts: the pod on the node runs without the API's consent.
func checkMirror(a admission.Attributes, pod *corev1.Pod) error {
	if pod.Spec.ServiceAccountName != "" {
		return admission.NewForbidden(a, errors.New("a mirror pod may not reference service accounts"))
	}
	secret := !podrefs.Visit(pod, false, func(kind podrefs.Kind, _ string, _ *field.Path) bool { return kind != podrefs.Secret })
	if secret {
		return admission.NewForbidden(a, errors.New("a mirror pod may not reference secrets"))
	}
	for _, v := range pod.Spec.Volumes {
		if v.Projected == nil {
			continue
		}
		for _, s := range v.Projected.Sources {
			if s.ServiceAccountToken != nil {
				return admission.NewForbidden(a, errors.New("a mirror pod may not use ServiceAccountToken volume projections"))
			}
		}
	}
	return nil
}

// completePod adds what a pod has from its account.
func completePod(pod *corev1.Pod, sa *corev1.ServiceAccount) {
	automount := true
	switch {
	case pod.Spec.AutomountServiceAccountToken != nil:
		automount = *pod.Spec.AutomountServiceAccountToken
	case sa.AutomountServiceAccountToken != nil:
		automount = *sa.AutomountServiceAccountToken
	}
	if automount {
		mountToken(pod)
	}
	if len(pod.Spec.ImagePullSecrets) == 0 && len(sa.ImagePullSecrets) > 0 {
		pod.Spec.ImagePullSecrets = append([]corev1.LocalObjectReference(nil), sa.ImagePullSecrets...)
	}
}

// mountToken mounts the token into every container that has nothing at that path, from a volume that is there already
// (a pod that was read and is created again) or is added when a container needs it.
func mountToken(pod *corev1.Pod) {
	volume, present := "", false
	for _, v := range pod.Spec.Volumes {
		if strings.HasPrefix(v.Name, tokenVolumePrefix) {
			volume, present = v.Name, true
			break
		}
	}
	if !present {
		volume = names.SimpleNameGenerator.GenerateName(tokenVolumePrefix)
	}
	mount := corev1.VolumeMount{Name: volume, ReadOnly: true, MountPath: tokenMountPath}
	needed := false
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			if !mountsAt(&containers[i], tokenMountPath) {
				containers[i].VolumeMounts = append(containers[i].VolumeMounts, mount)
				needed = true
			}
		}
	}
	if needed && !present {
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: volume, VolumeSource: tokenVolume()})
	}
}

func mountsAt(c *corev1.Container, path string) bool {
	for i := range c.VolumeMounts {
		if c.VolumeMounts[i].MountPath == path {
			return true
		}
	}
	return false
}

// tokenVolume holds what a client in a pod needs: token, authority and namespace.
func tokenVolume() corev1.VolumeSource {
	return corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		DefaultMode: ptr.To(corev1.ProjectedVolumeSourceDefaultMode),
		Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: ptr.To[int64](tokenSeconds)}},
			{ConfigMap: &corev1.ConfigMapProjection{
				LocalObjectReference: corev1.LocalObjectReference{Name: rootCA},
				Items:                []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}},
			}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{
				Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"},
			}}}},
		},
	}}
}

// checkMountable refuses secrets that the account doesn't list, for accounts that ask for it (deprecated).
func checkMountable(pod *corev1.Pod, sa *corev1.ServiceAccount) error {
	mountable, pull := map[string]bool{}, map[string]bool{}
	for _, s := range sa.Secrets {
		mountable[s.Name] = true
	}
	for _, s := range sa.ImagePullSecrets {
		pull[s.Name] = true
	}
	for _, v := range pod.Spec.Volumes {
		if v.Secret != nil && !mountable[v.Secret.SecretName] {
			return fmt.Errorf("volume with secret.secretName=%q is not allowed because service account %s does not reference that secret", v.Secret.SecretName, sa.Name)
		}
	}
	check := func(what string, containers []corev1.Container) error {
		for _, c := range containers {
			for _, e := range c.Env {
				if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil && !mountable[e.ValueFrom.SecretKeyRef.Name] {
					return fmt.Errorf("%s %s with envVar %s referencing secret.secretName=%q is not allowed because service account %s does not reference that secret",
						what, c.Name, e.Name, e.ValueFrom.SecretKeyRef.Name, sa.Name)
				}
			}
			for _, e := range c.EnvFrom {
				if e.SecretRef != nil && !mountable[e.SecretRef.Name] {
					return fmt.Errorf("%s %s with envFrom referencing secret.secretName=%q is not allowed because service account %s does not reference that secret",
						what, c.Name, e.SecretRef.Name, sa.Name)
				}
			}
		}
		return nil
	}
	var ephemeral []corev1.Container
	for i := range pod.Spec.EphemeralContainers {
		ephemeral = append(ephemeral, corev1.Container(pod.Spec.EphemeralContainers[i].EphemeralContainerCommon))
	}
	for _, err := range []error{
		check("init container", pod.Spec.InitContainers), check("container", pod.Spec.Containers), check("ephemeral container", ephemeral),
	} {
		if err != nil {
			return err
		}
	}
	for i, s := range pod.Spec.ImagePullSecrets {
		if !pull[s.Name] {
			return fmt.Errorf(`imagePullSecrets[%d].name="%s" is not allowed because service account %s does not reference that imagePullSecret`, i, s.Name, sa.Name)
		}
	}
	return nil
}
