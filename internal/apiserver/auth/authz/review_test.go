package authz

import (
	"context"
	"errors"
	"reflect"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
)

// part answers by the user's name, and remembers what it was asked.
type part struct {
	authorizer.AuthorizerFunc
	asked *authorizer.AttributesRecord
}

func newPart(name string) part {
	p := part{asked: &authorizer.AttributesRecord{}}
	p.AuthorizerFunc = func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
		*p.asked = a.(authorizer.AttributesRecord)
		switch a.GetUser().GetName() {
		case "allowed by " + name:
			return authorizer.DecisionAllow, "because of " + name, nil
		case "denied by " + name:
			return authorizer.DecisionDeny, "denied by " + name, nil
		case "broken":
			return authorizer.DecisionNoOpinion, "", errors.New(name + " is broken")
		}
		return authorizer.DecisionNoOpinion, name + " knows nothing", nil
	}
	return p
}

func (p part) RulesFor(_ context.Context, u user.Info, namespace string) ([]authorizer.ResourceRuleInfo, []authorizer.NonResourceRuleInfo, bool, error) {
	if u.GetName() == "broken" {
		return nil, nil, true, errors.New("incomplete")
	}
	return []authorizer.ResourceRuleInfo{&authorizer.DefaultResourceRuleInfo{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{namespace}}},
		[]authorizer.NonResourceRuleInfo{&authorizer.DefaultNonResourceRuleInfo{Verbs: []string{"get"}, NonResourceURLs: []string{"/x"}}}, false, nil
}

func TestSubjectAccessReview(t *testing.T) {
	a := New(newPart("a"), newPart("b"))
	pods := &authorizationv1.ResourceAttributes{Verb: "get", Resource: "pods", Namespace: "dev"}
	for name, test := range map[string]struct {
		groups []string
		want   authorizationv1.SubjectAccessReviewStatus
	}{
		"allowed by a": {want: authorizationv1.SubjectAccessReviewStatus{Allowed: true, Reason: "because of a"}},
		"allowed by b": {want: authorizationv1.SubjectAccessReviewStatus{Allowed: true, Reason: "because of b"}},
		"denied by a":  {want: authorizationv1.SubjectAccessReviewStatus{Denied: true, Reason: "denied by a"}},
		"nobody":       {want: authorizationv1.SubjectAccessReviewStatus{Reason: "a knows nothing\nb knows nothing"}},
		"broken":       {want: authorizationv1.SubjectAccessReviewStatus{EvaluationError: "[a is broken, b is broken]"}},
		"denied by b":  {groups: []string{"system:masters"}, want: authorizationv1.SubjectAccessReviewStatus{Allowed: true}},
	} {
		out, err := a.SubjectAccessReview(t.Context(), "", "", &authorizationv1.SubjectAccessReview{
			Spec: authorizationv1.SubjectAccessReviewSpec{User: name, Groups: test.groups, ResourceAttributes: pods},
		}, nil)
		if err != nil || !reflect.DeepEqual(out.(*authorizationv1.SubjectAccessReview).Status, test.want) {
			t.Errorf("%s: got %+v %v", name, out, err)
		}
		local, err := a.LocalSubjectAccessReview(t.Context(), "dev", "", &authorizationv1.LocalSubjectAccessReview{
			Spec: authorizationv1.SubjectAccessReviewSpec{User: name, Groups: test.groups, ResourceAttributes: pods},
		}, nil)
		if err != nil || !reflect.DeepEqual(local.(*authorizationv1.LocalSubjectAccessReview).Status, test.want) {
			t.Errorf("%s: got %+v %v", name, local, err)
		}
		self, err := a.SelfSubjectAccessReview(request.WithUser(t.Context(), &user.DefaultInfo{Name: name, Groups: test.groups}), "", "",
			&authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: pods}}, nil)
		if err != nil || !reflect.DeepEqual(self.(*authorizationv1.SelfSubjectAccessReview).Status, test.want) {
			t.Errorf("%s: got %+v %v", name, self, err)
		}
	}
	_, err := a.LocalSubjectAccessReview(t.Context(), "dev", "", &authorizationv1.LocalSubjectAccessReview{ObjectMeta: metav1.ObjectMeta{Namespace: "prod"}}, nil)
	if !apierrors.IsBadRequest(err) {
		t.Errorf("another namespace: %v", err)
	}
	if _, err := a.SelfSubjectAccessReview(t.Context(), "", "", &authorizationv1.SelfSubjectAccessReview{}, nil); !apierrors.IsBadRequest(err) {
		t.Errorf("no user: %v", err)
	}
}

// TestAttributes checks what authorizers are asked.
func TestAttributes(t *testing.T) {
	p := newPart("a")
	a := New(p)
	ask := func(s authorizationv1.SubjectAccessReviewSpec) authorizer.AttributesRecord {
		t.Helper()
		s.User = "u"
		if _, err := a.SubjectAccessReview(t.Context(), "", "", &authorizationv1.SubjectAccessReview{Spec: s}, nil); err != nil {
			t.Fatal(err)
		}
		return *p.asked
	}
	got := ask(authorizationv1.SubjectAccessReviewSpec{UID: "id", Extra: map[string]authorizationv1.ExtraValue{"k": {"v"}}, ResourceAttributes: &authorizationv1.ResourceAttributes{
		Namespace: "n", Verb: "v", Group: "g", Version: "v1", Resource: "r", Subresource: "s", Name: "x",
	}})
	if want := (authorizer.AttributesRecord{
		User: &user.DefaultInfo{Name: "u", UID: "id", Extra: map[string][]string{"k": {"v"}}}, Verb: "v", Namespace: "n", APIGroup: "g", APIVersion: "v1",
		Resource: "r", Subresource: "s", Name: "x", ResourceRequest: true,
	}); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
	got = ask(authorizationv1.SubjectAccessReviewSpec{NonResourceAttributes: &authorizationv1.NonResourceAttributes{Path: "/p", Verb: "get"}})
	if want := (authorizer.AttributesRecord{User: &user.DefaultInfo{Name: "u"}, Verb: "get", Path: "/p"}); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
	for name, test := range map[string]struct {
		fields     *authorizationv1.FieldSelectorAttributes
		labels     *authorizationv1.LabelSelectorAttributes
		want, errs string
	}{
		"raw":         {fields: &authorizationv1.FieldSelectorAttributes{RawSelector: "a=b,c!=d"}, labels: &authorizationv1.LabelSelectorAttributes{RawSelector: "x in (1,2)"}, want: "a=b;c!=d;x in (1,2);"},
		"bad raw":     {fields: &authorizationv1.FieldSelectorAttributes{RawSelector: "a"}, labels: &authorizationv1.LabelSelectorAttributes{RawSelector: "!!"}, errs: "both"},
		"requirement": {fields: &authorizationv1.FieldSelectorAttributes{Requirements: []metav1.FieldSelectorRequirement{{Key: "a", Operator: metav1.FieldSelectorOpIn, Values: []string{"b"}}}}, labels: &authorizationv1.LabelSelectorAttributes{Requirements: []metav1.LabelSelectorRequirement{{Key: "x", Operator: metav1.LabelSelectorOpExists}}}, want: "a=b;x;"},
		"unknown":     {fields: &authorizationv1.FieldSelectorAttributes{Requirements: []metav1.FieldSelectorRequirement{{Key: "a", Operator: "Like", Values: []string{"b"}}, {Key: "c", Operator: metav1.FieldSelectorOpNotIn, Values: []string{"d"}}}}, labels: &authorizationv1.LabelSelectorAttributes{Requirements: []metav1.LabelSelectorRequirement{{Key: "x", Operator: "Like"}}}, want: "c!=d;", errs: "both"},
	} {
		got := ask(authorizationv1.SubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{FieldSelector: test.fields, LabelSelector: test.labels}})
		text := ""
		for _, r := range got.FieldSelectorRequirements {
			text += r.Field + string(r.Operator) + r.Value + ";"
		}
		for _, r := range got.LabelSelectorRequirements {
			text += r.String() + ";"
		}
		if text != test.want || (test.errs != "") != (got.FieldSelectorParsingErr != nil) || (test.errs != "") != (got.LabelSelectorParsingErr != nil) {
			t.Errorf("%s: got %q %v %v", name, text, got.FieldSelectorParsingErr, got.LabelSelectorParsingErr)
		}
	}
}

func TestSelfSubjectRulesReview(t *testing.T) {
	a := New(newPart("a"), newPart("b"))
	ask := func(name, namespace string) (authorizationv1.SubjectRulesReviewStatus, error) {
		out, err := a.SelfSubjectRulesReview(request.WithUser(t.Context(), &user.DefaultInfo{Name: name}), "", "",
			&authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: namespace}}, nil)
		if err != nil {
			return authorizationv1.SubjectRulesReviewStatus{}, err
		}
		return out.(*authorizationv1.SelfSubjectRulesReview).Status, nil
	}
	rule := authorizationv1.ResourceRule{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"dev"}}
	path := authorizationv1.NonResourceRule{Verbs: []string{"get"}, NonResourceURLs: []string{"/x"}}
	want := authorizationv1.SubjectRulesReviewStatus{ResourceRules: []authorizationv1.ResourceRule{rule, rule}, NonResourceRules: []authorizationv1.NonResourceRule{path, path}}
	if got, err := ask("x", "dev"); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v %v", got, err)
	}
	want = authorizationv1.SubjectRulesReviewStatus{Incomplete: true, EvaluationError: "incomplete", ResourceRules: []authorizationv1.ResourceRule{}, NonResourceRules: []authorizationv1.NonResourceRule{}}
	if got, err := ask("broken", "dev"); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v %v", got, err)
	}
	if _, err := ask("x", ""); !apierrors.IsBadRequest(err) || err.Error() != "no namespace on request" {
		t.Errorf("got %v", err)
	}
}
