// Package authentication describes the virtual kinds of authentication.k8s.io, which are answered and never stored.
package authentication

import (
	authenticationv1 "k8s.io/api/authentication/v1"

	"github.com/proa-k8s/proa/internal/api"
)

// TokenReview describes tokenreviews: whose token is this?
func TokenReview() *api.Resource {
	return api.DefineVirtual[authenticationv1.TokenReview](authenticationv1.SchemeGroupVersion, api.Resource{
		Plural: "tokenreviews", Singular: "tokenreview", Kind: "TokenReview",
	})
}

// SelfSubjectReview describes selfsubjectreviews: who am I?
func SelfSubjectReview() *api.Resource {
	return api.DefineVirtual[authenticationv1.SelfSubjectReview](authenticationv1.SchemeGroupVersion, api.Resource{
		Plural: "selfsubjectreviews", Singular: "selfsubjectreview", Kind: "SelfSubjectReview",
	})
}
