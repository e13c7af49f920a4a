package authz

import (
	"context"
	"fmt"

	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/selection"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
)

// SubjectAccessReview serves the creation of authorization.k8s.io/subjectaccessreviews: may somebody do something? As all
// reviews here, it gets objects that the catalogue has validated.
func (a *Authorizer) SubjectAccessReview(ctx context.Context, _, _ string, obj runtime.Object, _ *metav1.CreateOptions) (runtime.Object, error) {
	r, ok := obj.(*authorizationv1.SubjectAccessReview)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a SubjectAccessReview: %T", obj))
	}
	r.Status = a.review(ctx, userOf(&r.Spec), r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes)
	return r, nil
}

// LocalSubjectAccessReview serves the creation of authorization.k8s.io/localsubjectaccessreviews: the same within one
// namespace, so that the right to ask can be given by namespace.
func (a *Authorizer) LocalSubjectAccessReview(ctx context.Context, namespace, _ string, obj runtime.Object, _ *metav1.CreateOptions) (runtime.Object, error) {
	r, ok := obj.(*authorizationv1.LocalSubjectAccessReview)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a LocalSubjectAccessReview: %T", obj))
	}
	if r.Namespace == "" {
		r.Namespace = namespace
	}
	if r.Namespace != namespace {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("namespace in metadata %q does not match the namespace of the request %q", r.Namespace, namespace))
	}
	r.Status = a.review(ctx, userOf(&r.Spec), r.Spec.ResourceAttributes, nil)
	return r, nil
}

// SelfSubjectAccessReview serves the creation of authorization.k8s.io/selfsubjectaccessreviews: may I do something?
func (a *Authorizer) SelfSubjectAccessReview(ctx context.Context, _, _ string, obj runtime.Object, _ *metav1.CreateOptions) (runtime.Object, error) {
	r, ok := obj.(*authorizationv1.SelfSubjectAccessReview)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a SelfSubjectAccessReview: %T", obj))
	}
	u, ok := request.UserFrom(ctx)
	if !ok {
		return nil, apierrors.NewBadRequest("no user present on request")
	}
	r.Status = a.review(ctx, u, r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes)
	return r, nil
}

// SelfSubjectRulesReview serves the creation of authorization.k8s.io/selfsubjectrulesreviews: what may I do in a namespace?
func (a *Authorizer) SelfSubjectRulesReview(ctx context.Context, _, _ string, obj runtime.Object, _ *metav1.CreateOptions) (runtime.Object, error) {
	r, ok := obj.(*authorizationv1.SelfSubjectRulesReview)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a SelfSubjectRulesReview: %T", obj))
	}
	u, ok := request.UserFrom(ctx)
	if !ok {
		return nil, apierrors.NewBadRequest("no user present on request")
	}
	if r.Spec.Namespace == "" {
		return nil, apierrors.NewBadRequest("no namespace on request")
	}
	resources, paths, incomplete, err := a.RulesFor(ctx, u, r.Spec.Namespace)
	// Both lists are required fields: they are empty, never null.
	r.Status = authorizationv1.SubjectRulesReviewStatus{
		Incomplete:       incomplete,
		ResourceRules:    []authorizationv1.ResourceRule{},
		NonResourceRules: []authorizationv1.NonResourceRule{},
	}
	for _, rule := range resources {
		r.Status.ResourceRules = append(r.Status.ResourceRules, authorizationv1.ResourceRule{
			Verbs: rule.GetVerbs(), APIGroups: rule.GetAPIGroups(), Resources: rule.GetResources(), ResourceNames: rule.GetResourceNames(),
		})
	}
	for _, rule := range paths {
		r.Status.NonResourceRules = append(r.Status.NonResourceRules, authorizationv1.NonResourceRule{
			Verbs: rule.GetVerbs(), NonResourceURLs: rule.GetNonResourceURLs(),
		})
	}
	if err != nil {
		r.Status.EvaluationError = err.Error()
	}
	return r, nil
}

func (a *Authorizer) review(ctx context.Context, u user.Info, ra *authorizationv1.ResourceAttributes, nra *authorizationv1.NonResourceAttributes) authorizationv1.SubjectAccessReviewStatus {
	decision, reason, err := a.Authorize(ctx, attributes(u, ra, nra))
	status := authorizationv1.SubjectAccessReviewStatus{
		Allowed: decision == authorizer.DecisionAllow,
		Denied:  decision == authorizer.DecisionDeny,
		Reason:  reason,
	}
	if err != nil {
		status.EvaluationError = err.Error()
	}
	return status
}

func userOf(s *authorizationv1.SubjectAccessReviewSpec) user.Info {
	u := &user.DefaultInfo{Name: s.User, Groups: s.Groups, UID: s.UID}
	if len(s.Extra) > 0 {
		u.Extra = make(map[string][]string, len(s.Extra))
		for k, v := range s.Extra {
			u.Extra[k] = v
		}
	}
	return u
}

// attributes turns what a review asks into the attributes of a request.
func attributes(u user.Info, ra *authorizationv1.ResourceAttributes, nra *authorizationv1.NonResourceAttributes) authorizer.AttributesRecord {
	switch {
	case ra == nil && nra == nil:
		return authorizer.AttributesRecord{User: u}
	case ra == nil:
		return authorizer.AttributesRecord{User: u, Verb: nra.Verb, Path: nra.Path}
	}
	record := authorizer.AttributesRecord{
		User:            u,
		Verb:            ra.Verb,
		Namespace:       ra.Namespace,
		APIGroup:        ra.Group,
		APIVersion:      ra.Version,
		Resource:        ra.Resource,
		Subresource:     ra.Subresource,
		Name:            ra.Name,
		ResourceRequest: true,
	}
	if s := ra.FieldSelector; s != nil {
		record.FieldSelectorRequirements, record.FieldSelectorParsingErr = fieldRequirements(s)
	}
	if s := ra.LabelSelector; s != nil {
		record.LabelSelectorRequirements, record.LabelSelectorParsingErr = labelRequirements(s)
	}
	return record
}

// fieldRequirements gives what an authorizer can rely on. Requirements only narrow access, so those that can't be
// expressed are left out and told in the error.
func fieldRequirements(s *authorizationv1.FieldSelectorAttributes) (fields.Requirements, error) {
	if s.RawSelector != "" {
		parsed, err := fields.ParseSelector(s.RawSelector)
		if err != nil {
			return nil, err
		}
		return parsed.Requirements(), nil
	}
	var out fields.Requirements
	var errs []error
	for i, r := range s.Requirements {
		path := field.NewPath("fieldSelector.requirements").Index(i)
		var op selection.Operator
		switch r.Operator {
		case metav1.FieldSelectorOpIn:
			op = selection.Equals
		case metav1.FieldSelectorOpNotIn:
			op = selection.NotEquals
		default:
			errs = append(errs, field.NotSupported(path.Child("operator"), r.Operator, []metav1.FieldSelectorOperator{metav1.FieldSelectorOpIn, metav1.FieldSelectorOpNotIn}))
			continue
		}
		if len(r.Values) != 1 {
			errs = append(errs, field.Invalid(path.Child("values"), r.Values, "fieldSelectors do not yet support multiple values"))
			continue
		}
		out = append(out, fields.Requirement{Operator: op, Field: r.Key, Value: r.Values[0]})
	}
	return out, utilerrors.NewAggregate(errs)
}

func labelRequirements(s *authorizationv1.LabelSelectorAttributes) (labels.Requirements, error) {
	if s.RawSelector != "" {
		parsed, err := labels.Parse(s.RawSelector)
		if err != nil {
			return nil, err
		}
		r, _ := parsed.Requirements()
		return r, nil
	}
	var out labels.Requirements
	var errs []error
	for _, r := range s.Requirements {
		parsed, err := metav1.LabelSelectorAsSelector(&metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{r}})
		if err != nil {
			errs = append(errs, err)
			continue
		}
		one, _ := parsed.Requirements()
		out = append(out, one...)
	}
	return out, utilerrors.NewAggregate(errs)
}
