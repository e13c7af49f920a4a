// Package discovery describes the kinds of discovery.k8s.io. What flows in are k8s.io/api/discovery/v1 objects; what
// flows out are defaults, verdicts and cells.
package discovery

import (
	"context"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/proa-k8s/proa/internal/api"
)

// shown is how many ports and addresses the table shows.
const shown = 3

// EndpointSlice describes endpointslices.
func EndpointSlice() *api.Resource {
	doc := discoveryv1.EndpointSlice{}.SwaggerDoc()
	return api.Define[discoveryv1.EndpointSlice, discoveryv1.EndpointSliceList](discoveryv1.SchemeGroupVersion, api.Resource{
		Plural: "endpointslices", Singular: "endpointslice", Kind: "EndpointSlice",
		Namespaced: true,
		Prefix:     "endpointslices",
		Strategy: api.Typed[*discoveryv1.EndpointSlice]{
			Default: defaultSlice,
			PrepareCreate: func(_ context.Context, slice *discoveryv1.EndpointSlice) {
				slice.Generation = 1
				for i := range slice.Endpoints {
					slice.Endpoints[i].DeprecatedTopology = nil // not writable through v1
				}
			},
			PrepareUpdate: prepareSliceUpdate,
			Validate: func(_ context.Context, slice *discoveryv1.EndpointSlice) field.ErrorList {
				return validateSlice(slice, nil)
			},
			ValidateUpdate: func(_ context.Context, slice, old *discoveryv1.EndpointSlice) field.ErrorList {
				return validateSlice(slice, old)
			},
			Warn: warnSlice,
		}.Strategy(),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.Column("AddressType", "string", doc["addressType"]),
			api.Column("Ports", "string", doc["ports"]),
			api.Column("Endpoints", "string", doc["endpoints"]),
			api.AgeColumn(),
		},
		Row: api.Row(func(slice *discoveryv1.EndpointSlice) []any {
			return []any{
				slice.Name, string(slice.AddressType), portsCell(slice.Ports), addressesCell(slice.Endpoints),
				api.Since(slice.CreationTimestamp),
			}
		}),
	})
}

func defaultSlice(slice *discoveryv1.EndpointSlice) {
	for i := range slice.Ports {
		port := &slice.Ports[i]
		if port.Name == nil {
			port.Name = ptr.To("")
		}
		if port.Protocol == nil {
			port.Protocol = ptr.To(corev1.ProtocolTCP)
		}
	}
}

func prepareSliceUpdate(_ context.Context, slice, old *discoveryv1.EndpointSlice) {
	for i := range slice.Endpoints {
		if i >= len(old.Endpoints) || !apiequality.Semantic.DeepEqual(slice.Endpoints[i].DeprecatedTopology, old.Endpoints[i].DeprecatedTopology) {
			slice.Endpoints[i].DeprecatedTopology = nil
		}
	}
	// Labels count too: one of them says whose endpoints these are.
	if slice.AddressType != old.AddressType || !apiequality.Semantic.DeepEqual(slice.Endpoints, old.Endpoints) ||
		!apiequality.Semantic.DeepEqual(slice.Ports, old.Ports) || !apiequality.Semantic.DeepEqual(slice.Labels, old.Labels) {
		slice.Generation = old.Generation + 1
	}
}

func warnSlice(_ context.Context, slice, _ *discoveryv1.EndpointSlice) []string {
	if slice.AddressType == discoveryv1.AddressTypeFQDN {
		return nil
	}
	var warnings []string
	for i := range slice.Endpoints {
		for j, address := range slice.Endpoints[i].Addresses {
			warnings = append(warnings, validation.GetWarningsForIP(field.NewPath("endpoints").Index(i).Child("addresses").Index(j), address)...)
		}
	}
	return warnings
}

func portsCell(ports []discoveryv1.EndpointPort) string {
	if len(ports) == 0 {
		return "<unset>"
	}
	list := make([]string, len(ports))
	for i, port := range ports {
		list[i] = "*"
		if port.Port != nil {
			list[i] = strconv.Itoa(int(*port.Port))
		}
	}
	return api.ListCell(list, shown)
}

func addressesCell(endpoints []discoveryv1.Endpoint) string {
	var list []string
	for i := range endpoints {
		list = append(list, endpoints[i].Addresses...)
	}
	if len(list) == 0 {
		return "<unset>"
	}
	return api.ListCell(list, shown)
}
