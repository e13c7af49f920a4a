package networking

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-k8s/proa/internal/api"
)

// IPAddress describes ipaddresses: an object named like an address says whose it is.
func IPAddress() *api.Resource {
	return api.Define[networkingv1.IPAddress, networkingv1.IPAddressList](networkingv1.SchemeGroupVersion, api.Resource{
		Plural: "ipaddresses", Singular: "ipaddress", Kind: "IPAddress", ShortNames: []string{"ip"},
		Prefix: "ipaddresses",
		Strategy: api.Typed[*networkingv1.IPAddress]{
			Validate: func(_ context.Context, ip *networkingv1.IPAddress) field.ErrorList {
				return validateParent(ip.Spec.ParentRef, field.NewPath("spec", "parentRef"))
			},
			ValidateUpdate: func(_ context.Context, ip, old *networkingv1.IPAddress) field.ErrorList {
				return apivalidation.ValidateImmutableField(ip.Spec.ParentRef, old.Spec.ParentRef, field.NewPath("spec", "parentRef"))
			},
			ValidateName: validateIPName,
		}.Strategy(),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.Column("ParentRef", "string", networkingv1.IPAddressSpec{}.SwaggerDoc()["parentRef"]),
		},
		Row: api.Row(func(ip *networkingv1.IPAddress) []any {
			return []any{ip.Name, parentCell(ip.Spec.ParentRef)}
		}),
	})
}

func parentCell(parent *networkingv1.ParentReference) string {
	if parent == nil {
		return "<none>"
	}
	cell := strings.ToLower(schema.GroupResource{Group: parent.Group, Resource: parent.Resource}.String())
	if parent.Namespace != "" {
		cell += "/" + parent.Namespace
	}
	return cell + "/" + parent.Name
}

// validateIPName demands an address in canonical form: an address has only one name.
func validateIPName(name string, _ bool) []string {
	ip, err := netip.ParseAddr(name)
	if err != nil || ip.Zone() != "" || ip.Is4In6() {
		return []string{"must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"}
	}
	if ip.String() != name {
		return []string{fmt.Sprintf("must be in canonical form (%q)", ip)}
	}
	return nil
}

func validateParent(parent *networkingv1.ParentReference, at *field.Path) field.ErrorList {
	if parent == nil {
		return field.ErrorList{field.Required(at, "")}
	}
	var errs field.ErrorList
	if parent.Group != "" {
		errs = append(errs, api.InvalidAll(at.Child("group"), parent.Group, validation.IsDNS1123Subdomain(parent.Group))...)
	}
	for _, segment := range []struct {
		name, value string
		required    bool
	}{{"resource", parent.Resource, true}, {"name", parent.Name, true}, {"namespace", parent.Namespace, false}} {
		if segment.value == "" {
			if segment.required {
				errs = append(errs, field.Required(at.Child(segment.name), ""))
			}
			continue
		}
		errs = append(errs, api.InvalidAll(at.Child(segment.name), segment.value, content.IsPathSegmentName(segment.value))...)
	}
	return errs
}
