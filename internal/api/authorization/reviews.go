// Package authorization describes the virtual kinds of authorization.k8s.io, which are answered and never stored. What
// flows in are k8s.io/api/authorization/v1 objects; what flows out are verdicts on their form.
package authorization

import (
	"context"

	authorizationv1 "k8s.io/api/authorization/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-k8s/proa/internal/api"
)

// SubjectAccessReview describes subjectaccessreviews: may this user do that?
func SubjectAccessReview() *api.Resource {
	return api.DefineVirtual[authorizationv1.SubjectAccessReview](authorizationv1.SchemeGroupVersion, api.Resource{
		Plural: "subjectaccessreviews", Singular: "subjectaccessreview", Kind: "SubjectAccessReview",
		Strategy: api.Typed[*authorizationv1.SubjectAccessReview]{
			Validate: func(_ context.Context, r *authorizationv1.SubjectAccessReview) field.ErrorList {
				return append(validateSubject(&r.Spec), validateMeta(r.ObjectMeta, false)...)
			},
		}.Strategy(),
	})
}

// SelfSubjectAccessReview describes selfsubjectaccessreviews: may I do that?
func SelfSubjectAccessReview() *api.Resource {
	return api.DefineVirtual[authorizationv1.SelfSubjectAccessReview](authorizationv1.SchemeGroupVersion, api.Resource{
		Plural: "selfsubjectaccessreviews", Singular: "selfsubjectaccessreview", Kind: "SelfSubjectAccessReview",
		Strategy: api.Typed[*authorizationv1.SelfSubjectAccessReview]{
			Validate: func(_ context.Context, r *authorizationv1.SelfSubjectAccessReview) field.ErrorList {
				errs := validateAttributes(r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes)
				return append(errs, validateMeta(r.ObjectMeta, false)...)
			},
		}.Strategy(),
	})
}

// LocalSubjectAccessReview describes localsubjectaccessreviews: may this user do that in this namespace?
func LocalSubjectAccessReview() *api.Resource {
	return api.DefineVirtual[authorizationv1.LocalSubjectAccessReview](authorizationv1.SchemeGroupVersion, api.Resource{
		Plural: "localsubjectaccessreviews", Singular: "localsubjectaccessreview", Kind: "LocalSubjectAccessReview",
		Namespaced: true,
		Strategy: api.Typed[*authorizationv1.LocalSubjectAccessReview]{
			Validate: func(_ context.Context, r *authorizationv1.LocalSubjectAccessReview) field.ErrorList {
				return validateLocal(r)
			},
		}.Strategy(),
	})
}

// SelfSubjectRulesReview describes selfsubjectrulesreviews: what may I do in a namespace?
func SelfSubjectRulesReview() *api.Resource {
	return api.DefineVirtual[authorizationv1.SelfSubjectRulesReview](authorizationv1.SchemeGroupVersion, api.Resource{
		Plural: "selfsubjectrulesreviews", Singular: "selfsubjectrulesreview", Kind: "SelfSubjectRulesReview",
	})
}

func validateLocal(r *authorizationv1.LocalSubjectAccessReview) field.ErrorList {
	errs := validateSubject(&r.Spec)
	errs = append(errs, validateMeta(r.ObjectMeta, true)...)
	spec := field.NewPath("spec")
	if a := r.Spec.ResourceAttributes; a != nil && a.Namespace != r.Namespace {
		errs = append(errs, field.Invalid(spec.Child("resourceAttributes", "namespace"), a.Namespace, "must match metadata.namespace"))
	}
	if r.Spec.NonResourceAttributes != nil {
		errs = append(errs, field.Invalid(spec.Child("nonResourceAttributes"), r.Spec.NonResourceAttributes, "disallowed on this kind of request"))
	}
	return errs
}

// validateMeta demands that the metadata which a client can give is empty, except for a namespace where there is one.
func validateMeta(meta metav1.ObjectMeta, namespaced bool) field.ErrorList {
	given := metav1.ObjectMeta{
		Name: meta.Name, GenerateName: meta.GenerateName, Namespace: meta.Namespace, Labels: meta.Labels,
		Annotations: meta.Annotations, OwnerReferences: meta.OwnerReferences, Finalizers: meta.Finalizers,
		ResourceVersion: meta.ResourceVersion,
	}
	why := "must be empty"
	if namespaced {
		given.Namespace = ""
		why = "must be empty except for namespace"
	}
	if apiequality.Semantic.DeepEqual(given, metav1.ObjectMeta{}) {
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath("metadata"), meta, why)}
}

func validateSubject(spec *authorizationv1.SubjectAccessReviewSpec) field.ErrorList {
	errs := validateAttributes(spec.ResourceAttributes, spec.NonResourceAttributes)
	if spec.User == "" && len(spec.Groups) == 0 {
		errs = append(errs, field.Invalid(field.NewPath("spec", "user"), spec.User, "at least one of user or group must be specified"))
	}
	return errs
}

func validateAttributes(resource *authorizationv1.ResourceAttributes, other *authorizationv1.NonResourceAttributes) field.ErrorList {
	spec := field.NewPath("spec")
	var errs field.ErrorList
	if resource != nil && other != nil {
		errs = append(errs, field.Invalid(spec.Child("nonResourceAttributes"), other, "cannot be specified in combination with resourceAttributes"))
	}
	if resource == nil && other == nil {
		errs = append(errs, field.Invalid(spec.Child("resourceAttributes"), resource,
			"exactly one of nonResourceAttributes or resourceAttributes must be specified"))
	}
	if resource == nil {
		return errs
	}
	if s := resource.FieldSelector; s != nil {
		at := spec.Child("resourceAttributes", "fieldSelector")
		errs = append(errs, validateSelector(s.RawSelector, len(s.Requirements), at)...)
		for i := range s.Requirements {
			errs = append(errs, metav1validation.ValidateFieldSelectorRequirement(s.Requirements[i],
				metav1validation.FieldSelectorValidationOptions{AllowUnknownOperatorInRequirement: true}, at.Child("requirements").Index(i))...)
		}
	}
	if s := resource.LabelSelector; s != nil {
		at := spec.Child("resourceAttributes", "labelSelector")
		errs = append(errs, validateSelector(s.RawSelector, len(s.Requirements), at)...)
		for i := range s.Requirements {
			errs = append(errs, metav1validation.ValidateLabelSelectorRequirement(s.Requirements[i],
				metav1validation.LabelSelectorValidationOptions{AllowUnknownOperatorInRequirement: true}, at.Child("requirements").Index(i))...)
		}
	}
	return errs
}

// validateSelector demands either the raw form of a selector or its requirements.
func validateSelector(raw string, requirements int, path *field.Path) field.ErrorList {
	switch {
	case raw != "" && requirements > 0:
		return field.ErrorList{field.Invalid(path.Child("rawSelector"), raw, "may not specified at the same time as requirements")}
	case raw == "" && requirements == 0:
		return field.ErrorList{field.Required(path.Child("requirements"),
			"when "+path.String()+" is specified, requirements or rawSelector is required")}
	}
	return nil
}
