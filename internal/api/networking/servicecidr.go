package networking

import (
	"context"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/proa-k8s/proa/internal/api"
)

// ServiceCIDR describes servicecidrs, the ranges that cluster IPs come from.
func ServiceCIDR() *api.Resource {
	versions := []string{networkingv1.SchemeGroupVersion.String()}
	return api.Define[networkingv1.ServiceCIDR, networkingv1.ServiceCIDRList](networkingv1.SchemeGroupVersion, api.Resource{
		Plural: "servicecidrs", Singular: "servicecidr", Kind: "ServiceCIDR",
		Prefix: "servicecidrs",
		Strategy: api.Typed[*networkingv1.ServiceCIDR]{
			PrepareCreate: func(_ context.Context, c *networkingv1.ServiceCIDR) { c.Status = networkingv1.ServiceCIDRStatus{} },
			PrepareUpdate: func(_ context.Context, c, old *networkingv1.ServiceCIDR) { c.Status = old.Status },
			Validate: func(_ context.Context, c *networkingv1.ServiceCIDR) field.ErrorList {
				return validateServiceCIDRs(c.Spec.CIDRs, field.NewPath("spec", "cidrs"))
			},
			ValidateUpdate: func(_ context.Context, c, old *networkingv1.ServiceCIDR) field.ErrorList {
				return validateServiceCIDRUpdate(c.Spec.CIDRs, old.Spec.CIDRs, field.NewPath("spec", "cidrs"))
			},
			ResetFields: api.Reset(versions, fieldpath.MakePathOrDie("status")),
		}.Strategy(),
		Subresources: []api.Subresource{
			api.Status(networkingv1.SchemeGroupVersion.WithKind("ServiceCIDR"), api.Typed[*networkingv1.ServiceCIDR]{
				PrepareUpdate: func(_ context.Context, c, old *networkingv1.ServiceCIDR) { c.Spec = old.Spec },
				ValidateUpdate: func(_ context.Context, c, _ *networkingv1.ServiceCIDR) field.ErrorList {
					return metav1validation.ValidateConditions(c.Status.Conditions, field.NewPath("status", "conditions"))
				},
				ResetFields: api.Reset(versions, fieldpath.MakePathOrDie("spec")),
			}.Strategy()),
		},
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.Column("CIDRs", "string", networkingv1.ServiceCIDRSpec{}.SwaggerDoc()["cidrs"]),
			api.AgeColumn(),
		},
		Row: api.Row(func(c *networkingv1.ServiceCIDR) []any {
			return []any{c.Name, strings.Join(c.Spec.CIDRs, ","), api.Since(c.CreationTimestamp)}
		}),
	})
}

func validateServiceCIDRs(cidrs []string, at *field.Path) field.ErrorList {
	if len(cidrs) == 0 {
		return field.ErrorList{field.Required(at, "at least one CIDR required")}
	}
	if len(cidrs) > 2 {
		return field.ErrorList{field.Invalid(at, cidrs, "may only hold up to 2 values")}
	}
	var errs field.ErrorList
	for i, cidr := range cidrs {
		errs = append(errs, validation.IsValidCIDR(at.Index(i), cidr)...)
	}
	if len(errs) == 0 && len(cidrs) == 2 && netutils.IsIPv6CIDRString(cidrs[0]) == netutils.IsIPv6CIDRString(cidrs[1]) {
		errs = append(errs, field.Invalid(at, cidrs,
			"may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/96"))
	}
	return errs
}

// validateServiceCIDRUpdate lets the ranges be as they are, or become dual-stack by a second one.
func validateServiceCIDRUpdate(cidrs, old []string, at *field.Path) field.ErrorList {
	if slices.Equal(cidrs, old) {
		return nil
	}
	if len(old) == 1 && len(cidrs) == 2 && cidrs[0] == old[0] {
		return validateServiceCIDRs(cidrs, at)
	}
	return field.ErrorList{field.Invalid(at, cidrs, "field is immutable")}
}
