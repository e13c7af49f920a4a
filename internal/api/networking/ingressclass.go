package networking

import (
	"context"

	networkingv1 "k8s.io/api/networking/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/proa-k8s/proa/internal/api"
)

// maxControllerLength is the longest name of a controller, in characters.
const maxControllerLength = 250

// IngressClass describes ingressclasses.
func IngressClass() *api.Resource {
	return api.Define[networkingv1.IngressClass, networkingv1.IngressClassList](networkingv1.SchemeGroupVersion, api.Resource{
		Plural: "ingressclasses", Singular: "ingressclass", Kind: "IngressClass",
		Prefix: "ingressclasses",
		Strategy: api.Typed[*networkingv1.IngressClass]{
			Default: func(class *networkingv1.IngressClass) {
				if p := class.Spec.Parameters; p != nil && p.Scope == nil {
					p.Scope = ptr.To(networkingv1.IngressClassParametersReferenceScopeCluster)
				}
			},
			PrepareCreate: func(_ context.Context, class *networkingv1.IngressClass) { class.Generation = 1 },
			PrepareUpdate: func(_ context.Context, class, old *networkingv1.IngressClass) {
				if !apiequality.Semantic.DeepEqual(class.Spec, old.Spec) {
					class.Generation = old.Generation + 1
				}
			},
			Validate: func(_ context.Context, class *networkingv1.IngressClass) field.ErrorList {
				return validateIngressClass(&class.Spec, field.NewPath("spec"))
			},
			ValidateUpdate: func(_ context.Context, class, old *networkingv1.IngressClass) field.ErrorList {
				errs := apivalidation.ValidateImmutableField(class.Spec.Controller, old.Spec.Controller, field.NewPath("spec", "controller"))
				return append(errs, validateIngressClass(&class.Spec, field.NewPath("spec"))...)
			},
		}.Strategy(),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.Column("Controller", "string", "Controller that is responsible for handling this class"),
			api.Column("Parameters", "string", "A reference to a resource with additional parameters"),
			api.AgeColumn(),
		},
		Row: api.Row(func(class *networkingv1.IngressClass) []any {
			parameters := "<none>"
			if p := class.Spec.Parameters; p != nil {
				parameters = p.Kind
				if p.APIGroup != nil {
					parameters += "." + *p.APIGroup
				}
				parameters += "/" + p.Name
			}
			return []any{class.Name, class.Spec.Controller, parameters, api.Since(class.CreationTimestamp)}
		}),
	})
}

func validateIngressClass(spec *networkingv1.IngressClassSpec, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	controller := at.Child("controller")
	if len(spec.Controller) > maxControllerLength {
		errs = append(errs, field.TooLong(controller, "", maxControllerLength))
	}
	errs = append(errs, validation.IsDomainPrefixedPath(controller, spec.Controller)...)
	if spec.Parameters == nil {
		return errs
	}
	parameters, at := spec.Parameters, at.Child("parameters")
	if parameters.APIGroup != nil {
		errs = append(errs, api.InvalidAll(at.Child("apiGroup"), *parameters.APIGroup, validation.IsDNS1123Subdomain(*parameters.APIGroup))...)
	}
	errs = append(errs, validateSegment(parameters.Kind, "kind is required", at.Child("kind"))...)
	errs = append(errs, validateSegment(parameters.Name, "name is required", at.Child("name"))...)
	if parameters.Scope == nil {
		return append(errs, field.Required(at.Child("scope"), ""))
	}
	const cluster, namespaced = networkingv1.IngressClassParametersReferenceScopeCluster, networkingv1.IngressClassParametersReferenceScopeNamespace
	errs = append(errs, api.ValidateSupported(at.Child("scope"), *parameters.Scope, cluster, namespaced)...)
	switch namespace := parameters.Namespace; {
	case *parameters.Scope == namespaced && ptr.Deref(namespace, "") == "":
		errs = append(errs, field.Required(at.Child("namespace"), "`parameters.scope` is set to 'Namespace'"))
	case *parameters.Scope == namespaced:
		errs = append(errs, api.InvalidAll(at.Child("namespace"), *namespace, apivalidation.ValidateNamespaceName(*namespace, false))...)
	case *parameters.Scope == cluster && namespace != nil:
		errs = append(errs, field.Forbidden(at.Child("namespace"), "`parameters.scope` is set to 'Cluster'"))
	}
	return errs
}
