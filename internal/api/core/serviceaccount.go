package core

import (
	"context"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-k8s/proa/internal/api"
)

// enforceMountableSecrets is the annotation that limited which secrets a service account's pods could mount.
const enforceMountableSecrets = "kubernetes.io/enforce-mountable-secrets"

// ServiceAccount describes serviceaccounts. Tokens are made by the subresource token.
func ServiceAccount() *api.Resource {
	return api.Define[corev1.ServiceAccount, corev1.ServiceAccountList](corev1.SchemeGroupVersion, api.Resource{
		Plural: "serviceaccounts", Singular: "serviceaccount", Kind: "ServiceAccount", ShortNames: []string{"sa"},
		Namespaced: true, ReturnDeleted: true,
		Prefix: "serviceaccounts",
		Strategy: api.Typed[*corev1.ServiceAccount]{
			PrepareCreate: func(_ context.Context, sa *corev1.ServiceAccount) { cleanSecretReferences(sa) },
			PrepareUpdate: func(_ context.Context, sa, _ *corev1.ServiceAccount) { cleanSecretReferences(sa) },
			Warn:          warnServiceAccount,
		}.Strategy(),
		Subresources: []api.Subresource{{
			Name: "token", Kind: authenticationv1.SchemeGroupVersion.WithKind("TokenRequest"), Verbs: []string{"create"},
		}},
		Columns: []metav1.TableColumnDefinition{api.NameColumn(), api.AgeColumn()},
		Row: api.Row(func(sa *corev1.ServiceAccount) []any {
			return []any{sa.Name, api.Since(sa.CreationTimestamp)}
		}),
	})
}

// cleanSecretReferences keeps nothing but the names: secrets are always those of the account's own namespace.
func cleanSecretReferences(sa *corev1.ServiceAccount) {
	for i, secret := range sa.Secrets {
		sa.Secrets[i] = corev1.ObjectReference{Name: secret.Name}
	}
}

func warnServiceAccount(_ context.Context, sa, old *corev1.ServiceAccount) []string {
	if old != nil && old.Annotations[enforceMountableSecrets] == sa.Annotations[enforceMountableSecrets] {
		return nil
	}
	if _, ok := sa.Annotations[enforceMountableSecrets]; !ok {
		return nil
	}
	return []string{"metadata.annotations[" + enforceMountableSecrets +
		"]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"}
}
