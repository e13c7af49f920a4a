package discovery

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"github.com/proa-k8s/proa/internal/api"
	"github.com/proa-k8s/proa/internal/api/core"
)

// Upper limits of a slice.
const (
	maxEndpoints      = 1000
	maxAddresses      = 100
	maxPorts          = 20000
	maxTopologyLabels = 16
	maxHints          = 8
)

// validateSlice checks a slice; old is nil on creation. Addresses that old has already may be written badly.
func validateSlice(slice, old *discoveryv1.EndpointSlice) field.ErrorList {
	var errs field.ErrorList
	var before []string
	if old != nil {
		errs = append(errs, apivalidation.ValidateImmutableField(slice.AddressType, old.AddressType, field.NewPath("addressType"))...)
		for i := range old.Endpoints {
			before = append(before, old.Endpoints[i].Addresses...)
		}
	}
	errs = append(errs, api.ValidateEnum(field.NewPath("addressType"), slice.AddressType,
		discoveryv1.AddressTypeFQDN, discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6)...)
	endpoints := field.NewPath("endpoints")
	if len(slice.Endpoints) > maxEndpoints {
		return append(errs, field.TooMany(endpoints, len(slice.Endpoints), maxEndpoints))
	}
	for i := range slice.Endpoints {
		errs = append(errs, validateEndpoint(&slice.Endpoints[i], slice.AddressType, before, endpoints.Index(i))...)
	}
	return append(errs, validatePorts(slice.Ports, field.NewPath("ports"))...)
}

func validateEndpoint(endpoint *discoveryv1.Endpoint, typ discoveryv1.AddressType, before []string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	addresses := path.Child("addresses")
	if len(endpoint.Addresses) == 0 {
		errs = append(errs, field.Required(addresses, "must contain at least 1 address"))
	} else if len(endpoint.Addresses) > maxAddresses {
		errs = append(errs, field.TooMany(addresses, len(endpoint.Addresses), maxAddresses))
	}
	for i, address := range endpoint.Addresses {
		errs = append(errs, validateAddress(address, typ, before, addresses.Index(i))...)
	}
	if endpoint.NodeName != nil {
		errs = append(errs, api.InvalidAll(path.Child("nodeName"), *endpoint.NodeName, validation.IsDNS1123Subdomain(*endpoint.NodeName))...)
	}
	topology := path.Child("deprecatedTopology")
	if len(endpoint.DeprecatedTopology) > maxTopologyLabels {
		errs = append(errs, field.TooMany(topology, len(endpoint.DeprecatedTopology), maxTopologyLabels))
	}
	errs = append(errs, metav1validation.ValidateLabels(endpoint.DeprecatedTopology, topology)...)
	if endpoint.Hostname != nil {
		errs = append(errs, api.InvalidAll(path.Child("hostname"), *endpoint.Hostname, validation.IsDNS1123Label(*endpoint.Hostname))...)
	}
	return append(errs, validateHints(endpoint.Hints, path.Child("hints"))...)
}

func validateAddress(address string, typ discoveryv1.AddressType, before []string, path *field.Path) field.ErrorList {
	switch typ {
	case discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6:
		if errs := validation.IsValidIPForLegacyField(path, address, true, before); len(errs) > 0 {
			return errs
		}
		if netutils.IsIPv6String(address) != (typ == discoveryv1.AddressTypeIPv6) {
			return field.ErrorList{field.Invalid(path, address, "must be an "+string(typ)+" address")}
		}
		return core.ValidateNonSpecialIP(address, path)
	case discoveryv1.AddressTypeFQDN:
		return validation.IsFullyQualifiedDomainName(path, address)
	}
	return nil
}

func validateHints(hints *discoveryv1.EndpointHints, path *field.Path) field.ErrorList {
	if hints == nil {
		return nil
	}
	var zones, nodes []string
	for _, zone := range hints.ForZones {
		zones = append(zones, zone.Name)
	}
	for _, node := range hints.ForNodes {
		nodes = append(nodes, node.Name)
	}
	errs := validateHintNames(zones, path.Child("forZones"), func(name string) []string {
		return validation.IsValidLabelValue(name)
	})
	return append(errs, validateHintNames(nodes, path.Child("forNodes"), validation.IsDNS1123Subdomain)...)
}

func validateHintNames(names []string, path *field.Path, check func(string) []string) field.ErrorList {
	if len(names) > maxHints {
		return field.ErrorList{field.TooMany(path, len(names), maxHints)}
	}
	var errs field.ErrorList
	seen := sets.New[string]()
	for i, name := range names {
		at := path.Index(i).Child("name")
		if seen.Has(name) {
			errs = append(errs, field.Duplicate(at, name))
		}
		seen.Insert(name)
		if name == "" {
			errs = append(errs, field.Required(at, ""))
		}
		if msgs := check(name); name != "" && len(msgs) > 0 {
			errs = append(errs, field.Invalid(at, name, strings.Join(msgs, ";")))
		}
	}
	return errs
}

func validatePorts(ports []discoveryv1.EndpointPort, path *field.Path) field.ErrorList {
	if len(ports) > maxPorts {
		return field.ErrorList{field.TooMany(path, len(ports), maxPorts)}
	}
	var errs field.ErrorList
	names := sets.New[string]()
	for i := range ports {
		port, at := &ports[i], path.Index(i)
		if name := port.Name; name != nil {
			if *name != "" {
				errs = append(errs, api.InvalidAll(at.Child("name"), *name, validation.IsDNS1123Label(*name))...)
			}
			if names.Has(*name) {
				errs = append(errs, field.Duplicate(at.Child("name"), *name))
			}
			names.Insert(*name)
		}
		if port.Protocol == nil {
			errs = append(errs, field.Required(at.Child("protocol"), ""))
		} else {
			errs = append(errs, api.ValidateSupported(at.Child("protocol"), *port.Protocol,
				corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP)...)
		}
		if port.Port != nil {
			errs = append(errs, api.InvalidAll(at.Child("port"), *port.Port, validation.IsValidPortNum(int(*port.Port)))...)
		}
		if port.AppProtocol != nil {
			errs = append(errs, api.InvalidAll(at.Child("appProtocol"), *port.AppProtocol, validation.IsQualifiedName(*port.AppProtocol))...)
		}
	}
	return errs
}
