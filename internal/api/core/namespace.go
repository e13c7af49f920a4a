package core

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/proa-k8s/proa/internal/api"
)

// Namespace describes namespaces. One that is deleted is Terminating until the controller has emptied it and taken the
// finalizer "kubernetes" from its spec, by the subresource finalize.
func Namespace() *api.Resource {
	kind := corev1.SchemeGroupVersion.WithKind("Namespace")
	finalize := api.Typed[*corev1.Namespace]{
		PrepareUpdate: func(_ context.Context, ns, old *corev1.Namespace) { ns.Status = old.Status },
		ValidateUpdate: func(_ context.Context, ns, old *corev1.Namespace) field.ErrorList {
			return validateNamespaceFinalizers(ns.Spec.Finalizers)
		},
		ResetFields: api.Reset([]string{"v1"}, fieldpath.MakePathOrDie("status")),
	}.Strategy()
	return api.Define[corev1.Namespace, corev1.NamespaceList](corev1.SchemeGroupVersion, api.Resource{
		Plural: "namespaces", Singular: "namespace", Kind: "Namespace", ShortNames: []string{"ns"},
		Verbs:  []string{"create", "delete", "get", "list", "patch", "update", "watch"},
		Prefix: "namespaces",
		Strategy: api.Typed[*corev1.Namespace]{
			Default:       labelNamespace,
			PrepareCreate: prepareNamespace,
			PrepareUpdate: func(_ context.Context, ns, old *corev1.Namespace) {
				ns.Spec.Finalizers = old.Spec.Finalizers
				ns.Status = old.Status
			},
			Validate: func(_ context.Context, ns *corev1.Namespace) field.ErrorList {
				return validateNamespaceFinalizers(ns.Spec.Finalizers)
			},
			Graceful: func(_ context.Context, ns *corev1.Namespace, _ *metav1.DeleteOptions) int64 {
				ns.Status.Phase = corev1.NamespaceTerminating
				return 0
			},
			Held:         func(ns *corev1.Namespace) bool { return len(ns.Spec.Finalizers) > 0 },
			ResetFields:  api.Reset([]string{"v1"}, fieldpath.MakePathOrDie("status")),
			ValidateName: apivalidation.ValidateNamespaceName,
		}.Strategy(),
		Subresources: []api.Subresource{
			{Name: "finalize", Kind: kind, Verbs: []string{"update"}, Strategy: &finalize},
			api.Status(kind, api.Typed[*corev1.Namespace]{
				PrepareUpdate:  func(_ context.Context, ns, old *corev1.Namespace) { ns.Spec = old.Spec },
				ValidateUpdate: validateNamespaceStatusUpdate,
				ResetFields:    api.Reset([]string{"v1"}, fieldpath.MakePathOrDie("spec")),
			}.Strategy()),
		},
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.Column("Status", "string", "The status of the namespace"),
			api.AgeColumn(),
		},
		Row: api.Row(func(ns *corev1.Namespace) []any {
			return []any{ns.Name, string(ns.Status.Phase), api.Since(ns.CreationTimestamp)}
		}),
		SelectableFields: []string{"status.phase", "name"},
		Fields: api.Fields(func(ns *corev1.Namespace) fields.Set {
			return fields.Set{"status.phase": string(ns.Status.Phase), "name": ns.Name}
		}),
	})
}

// labelNamespace keeps the label by which namespace selectors can name a namespace.
func labelNamespace(ns *corev1.Namespace) {
	if ns.Name == "" || ns.Labels[corev1.LabelMetadataName] == ns.Name {
		return
	}
	if ns.Labels == nil {
		ns.Labels = map[string]string{}
	}
	ns.Labels[corev1.LabelMetadataName] = ns.Name
}

func prepareNamespace(_ context.Context, ns *corev1.Namespace) {
	ns.Status = corev1.NamespaceStatus{Phase: corev1.NamespaceActive}
	if !slices.Contains(ns.Spec.Finalizers, corev1.FinalizerKubernetes) {
		ns.Spec.Finalizers = append(ns.Spec.Finalizers, corev1.FinalizerKubernetes)
	}
	labelNamespace(ns) // a generated name was not there yet when defaults were set
}

func validateNamespaceFinalizers(finalizers []corev1.FinalizerName) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("spec", "finalizers")
	for i, finalizer := range finalizers {
		errs = append(errs, api.ValidateFinalizerName(string(finalizer), path.Index(i))...)
	}
	return errs
}

func validateNamespaceStatusUpdate(_ context.Context, ns, _ *corev1.Namespace) field.ErrorList {
	want, deletion := corev1.NamespaceActive, "empty"
	if !ns.DeletionTimestamp.IsZero() {
		want, deletion = corev1.NamespaceTerminating, "not empty"
	}
	if ns.Status.Phase == want {
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath("status", "Phase"), ns.Status.Phase,
		fmt.Sprintf("may only be '%s' if `deletionTimestamp` is %s", want, deletion))}
}
