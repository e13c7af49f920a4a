//lint:file-ignore SA1019 Endpoints are deprecated, and served as long as Kubernetes serves them.

package core

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"github.com/proa-k8s/proa/internal/api"
)

// shownEndpoints is how many addresses the table shows.
const shownEndpoints = 3

// Endpoints describes endpoints, the deprecated predecessor of EndpointSlice.
func Endpoints() *api.Resource {
	return api.Define[corev1.Endpoints, corev1.EndpointsList](corev1.SchemeGroupVersion, api.Resource{
		Plural: "endpoints", Singular: "endpoints", Kind: "Endpoints", ShortNames: []string{"ep"},
		Namespaced: true,
		Prefix:     "services/endpoints",
		Strategy: api.Typed[*corev1.Endpoints]{
			Default:       defaultEndpoints,
			PrepareCreate: func(_ context.Context, ep *corev1.Endpoints) { ep.Subsets = RepackSubsets(ep.Subsets) },
			PrepareUpdate: func(_ context.Context, ep, _ *corev1.Endpoints) { ep.Subsets = RepackSubsets(ep.Subsets) },
			Validate: func(_ context.Context, ep *corev1.Endpoints) field.ErrorList {
				return validateEndpointSubsets(ep.Subsets, nil)
			},
			ValidateUpdate: func(_ context.Context, ep, old *corev1.Endpoints) field.ErrorList {
				if apiequality.Semantic.DeepEqual(ep.Subsets, old.Subsets) {
					return nil
				}
				return validateEndpointSubsets(ep.Subsets, endpointIPs(old.Subsets))
			},
			Warn:                warnEndpoints,
			AllowCreateOnUpdate: true,
		}.Strategy(),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.Column("Endpoints", "string", corev1.Endpoints{}.SwaggerDoc()["subsets"]),
			api.AgeColumn(),
		},
		Row: api.Row(func(ep *corev1.Endpoints) []any {
			return []any{ep.Name, endpointsCell(ep.Subsets), api.Since(ep.CreationTimestamp)}
		}),
	})
}

func defaultEndpoints(ep *corev1.Endpoints) {
	for i := range ep.Subsets {
		for j := range ep.Subsets[i].Ports {
			if port := &ep.Subsets[i].Ports[j]; port.Protocol == "" {
				port.Protocol = corev1.ProtocolTCP
			}
		}
	}
}

func endpointsCell(subsets []corev1.EndpointSubset) string {
	var list []string
	for i := range subsets {
		subset := &subsets[i]
		if len(subset.Ports) == 0 { // a headless service without ports
			for _, address := range subset.Addresses {
				list = append(list, address.IP)
			}
		}
		for _, port := range subset.Ports {
			for _, address := range subset.Addresses {
				list = append(list, net.JoinHostPort(address.IP, strconv.Itoa(int(port.Port))))
			}
		}
	}
	return api.ListCell(list, shownEndpoints)
}

func endpointIPs(subsets []corev1.EndpointSubset) []string {
	var ips []string
	for i := range subsets {
		for _, address := range slices.Concat(subsets[i].Addresses, subsets[i].NotReadyAddresses) {
			ips = append(ips, address.IP)
		}
	}
	return ips
}

func validateEndpointSubsets(subsets []corev1.EndpointSubset, oldIPs []string) field.ErrorList {
	var errs field.ErrorList
	for i := range subsets {
		subset, path := &subsets[i], field.NewPath("subsets").Index(i)
		if len(subset.Addresses) == 0 && len(subset.NotReadyAddresses) == 0 {
			errs = append(errs, field.Required(path, "must specify `addresses` or `notReadyAddresses`"))
		}
		for j := range subset.Addresses {
			errs = append(errs, validateEndpointAddress(&subset.Addresses[j], path.Child("addresses").Index(j), oldIPs)...)
		}
		for j := range subset.NotReadyAddresses {
			errs = append(errs, validateEndpointAddress(&subset.NotReadyAddresses[j], path.Child("notReadyAddresses").Index(j), oldIPs)...)
		}
		for j := range subset.Ports {
			errs = append(errs, validateEndpointPort(&subset.Ports[j], len(subset.Ports) > 1, path.Child("ports").Index(j))...)
		}
	}
	return errs
}

func validateEndpointAddress(address *corev1.EndpointAddress, path *field.Path, oldIPs []string) field.ErrorList {
	errs := validation.IsValidIPForLegacyField(path.Child("ip"), address.IP, true, oldIPs)
	if address.Hostname != "" {
		errs = append(errs, api.InvalidAll(path.Child("hostname"), address.Hostname, validation.IsDNS1123Label(address.Hostname))...)
	}
	if address.NodeName != nil {
		errs = append(errs, api.InvalidAll(path.Child("nodeName"), *address.NodeName, validation.IsDNS1123Subdomain(*address.NodeName))...)
	}
	if len(errs) > 0 {
		return errs
	}
	return ValidateNonSpecialIP(address.IP, path.Child("ip"))
}

// ValidateNonSpecialIP refuses addresses that can't be those of an endpoint or of a service outside the cluster:
// unspecified, loopback, link-local.
func ValidateNonSpecialIP(value string, path *field.Path) field.ErrorList {
	ip := netutils.ParseIPSloppy(value)
	var why string
	switch {
	case ip == nil:
		why = "must be a valid IP address"
	case ip.IsUnspecified():
		why = fmt.Sprintf("may not be unspecified (%s)", value)
	case ip.IsLoopback():
		why = "may not be in the loopback range (127.0.0.0/8, ::1/128)"
	case ip.IsLinkLocalUnicast():
		why = "may not be in the link-local range (169.254.0.0/16, fe80::/10)"
	case ip.IsLinkLocalMulticast():
		why = "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"
	default:
		return nil
	}
	return field.ErrorList{field.Invalid(path, value, why)}
}

func validateEndpointPort(port *corev1.EndpointPort, requireName bool, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if requireName && port.Name == "" {
		errs = append(errs, field.Required(path.Child("name"), ""))
	} else if port.Name != "" {
		errs = append(errs, api.InvalidAll(path.Child("name"), port.Name, validation.IsDNS1123Label(port.Name))...)
	}
	errs = append(errs, api.InvalidAll(path.Child("port"), port.Port, validation.IsValidPortNum(int(port.Port)))...)
	errs = append(errs, api.ValidateEnum(path.Child("protocol"), port.Protocol,
		corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP)...)
	if port.AppProtocol != nil {
		errs = append(errs, api.InvalidAll(path.Child("appProtocol"), *port.AppProtocol, validation.IsQualifiedName(*port.AppProtocol))...)
	}
	return errs
}

func warnEndpoints(_ context.Context, ep, _ *corev1.Endpoints) []string {
	var warnings []string
	for i := range ep.Subsets {
		path := field.NewPath("subsets").Index(i)
		for j, address := range ep.Subsets[i].Addresses {
			warnings = append(warnings, validation.GetWarningsForIP(path.Child("addresses").Index(j).Child("ip"), address.IP)...)
		}
		for j, address := range ep.Subsets[i].NotReadyAddresses {
			warnings = append(warnings, validation.GetWarningsForIP(path.Child("notReadyAddresses").Index(j).Child("ip"), address.IP)...)
		}
	}
	return warnings
}
