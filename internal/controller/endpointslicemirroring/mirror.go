//lint:file-ignore SA1019 Endpoints are deprecated, and mirrored as long as users may write them.

package endpointslicemirroring

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/endpointslice/util"
)

// managedBy is the value of the label endpointslice.kubernetes.io/managed-by on the controller's slices.
const managedBy = "endpointslicemirroring-controller.k8s.io"

// capacity is how many addresses with the same ports are mirrored at most. It is what one slice holds.
const capacity = 1000

// Plan is what must be done so that slices mirror Endpoints.
type Plan struct {
	Create, Update, Delete []*discoveryv1.EndpointSlice
	// Invalid and Skipped count the addresses that are none, and those beyond the capacity.
	Invalid, Skipped int
}

// mirrored tells whether Endpoints take part: not when they say that they don't, nor when they are somebody's lock.
func mirrored(e *corev1.Endpoints) bool {
	_, lock := e.Annotations[resourcelock.LeaderElectionRecordAnnotationKey]
	return e.Labels[discoveryv1.LabelSkipMirror] != "true" && !lock
}

// group tells what the endpoints of one slice have in common.
type group struct {
	family discoveryv1.AddressType
	ports  util.PortMapKey
}

// Mirror plans one slice for each family of addresses and set of ports.
func Mirror(endpoints *corev1.Endpoints, present []*discoveryv1.EndpointSlice) Plan {
	var plan Plan
	wanted := plan.group(endpoints)
	for _, slice := range present {
		g := group{slice.AddressType, util.NewPortMapKey(slice.Ports)}
		want, ok := wanted[g]
		delete(wanted, g) // a second slice of the group is one too many
		switch {
		case !ok:
			plan.Delete = append(plan.Delete, slice)
		case !equal(slice, want):
			changed := slice.DeepCopy()
			changed.Labels, changed.Annotations = want.Labels, want.Annotations
			changed.Endpoints, changed.Ports = want.Endpoints, want.Ports
			plan.Update = append(plan.Update, changed)
		}
	}
	for _, g := range slices.SortedFunc(maps.Keys(wanted), func(a, b group) int {
		return cmp.Or(cmp.Compare(a.family, b.family), cmp.Compare(a.ports, b.ports))
	}) {
		plan.Create = append(plan.Create, wanted[g])
	}
	return plan
}

func equal(a, b *discoveryv1.EndpointSlice) bool {
	return maps.Equal(a.Labels, b.Labels) && maps.Equal(a.Annotations, b.Annotations) &&
		equality.Semantic.DeepEqual(a.Endpoints, b.Endpoints) && equality.Semantic.DeepEqual(a.Ports, b.Ports)
}

// group gives the slice of each group that has addresses.
func (plan *Plan) group(endpoints *corev1.Endpoints) map[group]*discoveryv1.EndpointSlice {
	groups := map[group]*discoveryv1.EndpointSlice{}
	seen := map[group]map[string]bool{}
	for _, subset := range endpoints.Subsets {
		ports := portsOf(subset)
		key := util.NewPortMapKey(ports)
		add := func(address corev1.EndpointAddress, ready bool) {
			ip, err := netip.ParseAddr(address.IP)
			if err != nil {
				plan.Invalid++
				return
			}
			g := group{discoveryv1.AddressTypeIPv4, key}
			if ip.Is6() {
				g.family = discoveryv1.AddressTypeIPv6
			}
			slice := groups[g]
			switch {
			case slice == nil:
				slice = sliceFor(endpoints, g.family, ports)
				groups[g], seen[g] = slice, map[string]bool{}
			case seen[g][address.IP]:
				return
			case len(slice.Endpoints) == capacity:
				plan.Skipped++
				return
			}
			seen[g][address.IP] = true
			slice.Endpoints = append(slice.Endpoints, endpointOf(address, ready))
		}
		for _, address := range subset.Addresses {
			add(address, true)
		}
		for _, address := range subset.NotReadyAddresses {
			add(address, false)
		}
	}
	return groups
}

func endpointOf(address corev1.EndpointAddress, ready bool) discoveryv1.Endpoint {
	e := discoveryv1.Endpoint{
		Addresses:  []string{address.IP},
		Conditions: discoveryv1.EndpointConditions{Ready: &ready},
		TargetRef:  address.TargetRef,
		NodeName:   address.NodeName,
	}
	if address.Hostname != "" {
		e.Hostname = &address.Hostname
	}
	return e
}

func portsOf(subset corev1.EndpointSubset) []discoveryv1.EndpointPort {
	ports := make([]discoveryv1.EndpointPort, 0, len(subset.Ports))
	for _, p := range subset.Ports {
		ports = append(ports, discoveryv1.EndpointPort{Name: &p.Name, Port: &p.Port, Protocol: &p.Protocol, AppProtocol: p.AppProtocol})
	}
	return ports
}

// sliceFor is an empty slice that belongs to the Endpoints and carries their labels and annotations.
func sliceFor(endpoints *corev1.Endpoints, family discoveryv1.AddressType, ports []discoveryv1.EndpointPort) *discoveryv1.EndpointSlice {
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			GenerateName:    endpoints.Name + "-",
			Namespace:       endpoints.Namespace,
			Labels:          maps.Clone(endpoints.Labels),
			Annotations:     maps.Clone(endpoints.Annotations),
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(endpoints, corev1.SchemeGroupVersion.WithKind("Endpoints"))},
		},
		AddressType: family,
		Ports:       ports,
	}
	if slice.Labels == nil {
		slice.Labels = map[string]string{}
	}
	slice.Labels[discoveryv1.LabelServiceName] = endpoints.Name
	slice.Labels[discoveryv1.LabelManagedBy] = managedBy
	delete(slice.Annotations, corev1.EndpointsLastChangeTriggerTime)
	delete(slice.Annotations, corev1.LastAppliedConfigAnnotation)
	return slice
}
