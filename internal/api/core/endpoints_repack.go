//lint:file-ignore SA1019 Endpoints are deprecated, and served as long as Kubernetes serves them.

package core

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// portKey is an EndpointPort that can be compared.
type portKey struct {
	name     string
	port     int32
	protocol corev1.Protocol
	app      string // "=" and the application protocol, if there is one
}

func keyOf(port corev1.EndpointPort) portKey {
	key := portKey{name: port.Name, port: port.Port, protocol: port.Protocol}
	if port.AppProtocol != nil {
		key.app = "=" + *port.AppProtocol
	}
	return key
}

func (k portKey) endpointPort() corev1.EndpointPort {
	port := corev1.EndpointPort{Name: k.name, Port: k.port, Protocol: k.protocol}
	if app, ok := strings.CutPrefix(k.app, "="); ok {
		port.AppProtocol = ptr.To(app)
	}
	return port
}

func comparePorts(a, b portKey) int {
	return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.port, b.port), cmp.Compare(a.protocol, b.protocol), cmp.Compare(a.app, b.app))
}

// addressKey tells addresses apart: one IP may belong to several pods on the host's network.
type addressKey struct {
	ip  string
	uid types.UID
}

// packedAddress is an address and on which ports it is ready or not. The zero portKey stands for "without ports".
type packedAddress struct {
	address corev1.EndpointAddress
	ready   map[portKey]bool
}

// RepackSubsets brings subsets into the canonical form: addresses that have the same set of ports are in one subset, an
// address that is given as both ready and not ready on a port is not ready, and everything is sorted. So the same
// endpoints always look the same.
func RepackSubsets(subsets []corev1.EndpointSubset) []corev1.EndpointSubset {
	if len(subsets) == 0 {
		return subsets
	}
	merged := map[string]*corev1.EndpointSubset{}
	for _, packed := range packAddresses(subsets) {
		for _, ready := range []bool{true, false} {
			var ports []portKey
			for port, isReady := range packed.ready {
				if isReady == ready {
					ports = append(ports, port)
				}
			}
			for _, group := range splitPortless(ports) {
				place(merged, packed.address, group, ready)
			}
		}
	}
	result := make([]corev1.EndpointSubset, 0, len(merged))
	for _, subset := range merged {
		slices.SortFunc(subset.Addresses, compareAddresses)
		slices.SortFunc(subset.NotReadyAddresses, compareAddresses)
		result = append(result, *subset)
	}
	slices.SortFunc(result, compareSubsets)
	return result
}

func packAddresses(subsets []corev1.EndpointSubset) map[addressKey]*packedAddress {
	all := map[addressKey]*packedAddress{}
	add := func(address corev1.EndpointAddress, ports []corev1.EndpointPort, ready bool) {
		key := addressKey{ip: address.IP}
		if address.TargetRef != nil {
			key.uid = address.TargetRef.UID
		}
		packed := all[key]
		if packed == nil {
			packed = &packedAddress{address: address, ready: map[portKey]bool{}}
			all[key] = packed
		}
		keys := []portKey{{}}
		if len(ports) > 0 {
			keys = keys[:0]
			for _, port := range ports {
				keys = append(keys, keyOf(port))
			}
		}
		for _, key := range keys {
			before, known := packed.ready[key]
			packed.ready[key] = ready && (before || !known)
		}
	}
	for i := range subsets {
		for _, address := range subsets[i].Addresses {
			add(address, subsets[i].Ports, true)
		}
		for _, address := range subsets[i].NotReadyAddresses {
			add(address, subsets[i].Ports, false)
		}
	}
	return all
}

// splitPortless gives the set of real ports, and the empty set if the address is also there without ports.
func splitPortless(ports []portKey) [][]portKey {
	slices.SortFunc(ports, comparePorts)
	var groups [][]portKey
	if i := slices.Index(ports, portKey{}); i >= 0 {
		groups = append(groups, nil)
		ports = slices.Delete(ports, i, i+1)
	}
	if len(ports) > 0 {
		groups = append(groups, ports)
	}
	return groups
}

func place(merged map[string]*corev1.EndpointSubset, address corev1.EndpointAddress, ports []portKey, ready bool) {
	key := fmt.Sprintf("%q", ports)
	subset := merged[key]
	if subset == nil {
		subset = &corev1.EndpointSubset{}
		for _, port := range ports {
			subset.Ports = append(subset.Ports, port.endpointPort())
		}
		merged[key] = subset
	}
	if ready {
		subset.Addresses = append(subset.Addresses, address)
	} else {
		subset.NotReadyAddresses = append(subset.NotReadyAddresses, address)
	}
}

func compareAddresses(a, b corev1.EndpointAddress) int {
	var aUID, bUID types.UID
	if a.TargetRef != nil {
		aUID = a.TargetRef.UID
	}
	if b.TargetRef != nil {
		bUID = b.TargetRef.UID
	}
	return cmp.Or(cmp.Compare(a.IP, b.IP), cmp.Compare(aUID, bUID))
}

func compareSubsets(a, b corev1.EndpointSubset) int {
	return slices.CompareFunc(a.Ports, b.Ports, func(x, y corev1.EndpointPort) int { return comparePorts(keyOf(x), keyOf(y)) })
}
