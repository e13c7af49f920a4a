package admission

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

var signingRequests = certificatesv1.Resource("certificatesigningrequests")

// maySign asks whether the user may use the verb on a signer, by its name or by its whole domain.
func (c *Config) maySign(ctx context.Context, a admission.Attributes, verb, signer string) bool {
	domain, _, _ := strings.Cut(signer, "/")
	for _, name := range []string{signer, domain + "/*"} {
		if allowed(ctx, c.Authorizer, authorizer.AttributesRecord{
			User: a.GetUserInfo(), Verb: verb, Name: name, APIGroup: certificatesv1.GroupName, APIVersion: "*", Resource: "signers", ResourceRequest: true,
		}) {
			return true
		}
	}
	return false
}

// newCertificateApproval lets only those approve requests who may for the signer.
func newCertificateApproval(c *Config) *Plugin {
	if c.Authorizer == nil {
		return nil
	}
	return &Plugin{
		Applies: func(t Target) bool {
			return t.GroupResource == signingRequests && t.Subresource == "approval" && t.Operation == admission.Update
		},
		Validate: func(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
			csr, ok := a.GetObject().(*certificatesv1.CertificateSigningRequest)
			if ok && !c.maySign(ctx, a, "approve", csr.Spec.SignerName) {
				return admission.NewForbidden(a, fmt.Errorf("user not permitted to approve requests with signerName %q", csr.Spec.SignerName))
			}
			return nil
		},
	}
}

// newCertificateSigning lets only those put certificates into requests who may for the signer.
func newCertificateSigning(c *Config) *Plugin {
	if c.Authorizer == nil {
		return nil
	}
	failed := func(csr *certificatesv1.CertificateSigningRequest) bool {
		return slices.ContainsFunc(csr.Status.Conditions, func(c certificatesv1.CertificateSigningRequestCondition) bool {
			return c.Type == certificatesv1.CertificateFailed
		})
	}
	return &Plugin{
		Applies: func(t Target) bool {
			return t.GroupResource == signingRequests && t.Subresource == "status" && t.Operation == admission.Update
		},
		Validate: func(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
			csr, ok1 := a.GetObject().(*certificatesv1.CertificateSigningRequest)
			old, ok2 := a.GetOldObject().(*certificatesv1.CertificateSigningRequest)
			if !ok1 || !ok2 || slices.Equal(csr.Status.Certificate, old.Status.Certificate) && failed(csr) == failed(old) {
				return nil
			}
			if !c.maySign(ctx, a, "sign", old.Spec.SignerName) {
				return admission.NewForbidden(a, fmt.Errorf("user not permitted to sign requests with signerName %q", old.Spec.SignerName))
			}
			return nil
		},
	}
}

// newCertificateSubjectRestriction refuses requests for client certificates that would be allowed everything.
func newCertificateSubjectRestriction() *Plugin {
	return &Plugin{
		Applies: func(t Target) bool { return t.Is(signingRequests, admission.Create) },
		Validate: func(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
			csr, ok := a.GetObject().(*certificatesv1.CertificateSigningRequest)
			if !ok || csr.Spec.SignerName != certificatesv1.KubeAPIServerClientSignerName {
				return nil
			}
			block, _ := pem.Decode(csr.Spec.Request)
			if block == nil || block.Type != "CERTIFICATE REQUEST" {
				return admission.NewForbidden(a, errors.New("failed to parse CSR: PEM block type must be CERTIFICATE REQUEST"))
			}
			request, err := x509.ParseCertificateRequest(block.Bytes)
			if err != nil {
				return admission.NewForbidden(a, fmt.Errorf("failed to parse CSR: %w", err))
			}
			if slices.Contains(request.Subject.Organization, user.SystemPrivilegedGroup) {
				return admission.NewForbidden(a, fmt.Errorf("use of %s signer with %s group is not allowed", certificatesv1.KubeAPIServerClientSignerName, user.SystemPrivilegedGroup))
			}
			return nil
		},
	}
}
