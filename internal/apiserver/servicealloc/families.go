package servicealloc

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/proa-k8s/proa/internal/api/core"
)

func familyOf(ip netip.Addr) corev1.IPFamily {
	if ip.Is4() {
		return corev1.IPv4Protocol
	}
	return corev1.IPv6Protocol
}

// setFamilies completes ipFamilyPolicy and ipFamilies of a service from what it says and what the cluster has, the
// default family first (KEP-563). What the cluster can't give is refused.
func setFamilies(svc *corev1.Service, cluster []corev1.IPFamily) field.ErrorList {
	if !core.NeedsClusterIP(svc) {
		return nil
	}
	spec, path := &svc.Spec, field.NewPath("spec")
	if core.IsHeadless(svc) && len(spec.Selector) == 0 {
		setFamiliesWithoutPods(spec, cluster[0])
		return nil
	}
	if errs := checkPolicy(spec, path); len(errs) > 0 {
		return errs
	}
	if errs := familiesOfIPs(spec, cluster, path); len(errs) > 0 {
		return errs
	}
	if spec.IPFamilyPolicy == nil {
		policy := corev1.IPFamilyPolicySingleStack
		if len(spec.IPFamilies) == 2 {
			policy = corev1.IPFamilyPolicyRequireDualStack
		}
		spec.IPFamilyPolicy = &policy
	}
	if *spec.IPFamilyPolicy == corev1.IPFamilyPolicyRequireDualStack && len(cluster) < 2 {
		return field.ErrorList{field.Invalid(path.Child("ipFamilyPolicy"), *spec.IPFamilyPolicy,
			"this cluster is not configured for dual-stack services")}
	}
	if len(spec.IPFamilies) == 0 {
		spec.IPFamilies = []corev1.IPFamily{cluster[0]}
	}
	if *spec.IPFamilyPolicy != corev1.IPFamilyPolicySingleStack && len(spec.IPFamilies) == 1 && len(cluster) == 2 {
		spec.IPFamilies = append(slices.Clone(spec.IPFamilies), otherFamily(spec.IPFamilies[0]))
	}
	return nil
}

// setFamiliesWithoutPods is for headless services without a selector: their endpoints come from elsewhere and may be of
// families that the cluster doesn't have.
func setFamiliesWithoutPods(spec *corev1.ServiceSpec, first corev1.IPFamily) {
	if spec.IPFamilyPolicy == nil {
		spec.IPFamilyPolicy = ptr.To(corev1.IPFamilyPolicyRequireDualStack)
	}
	if len(spec.IPFamilies) == 0 {
		spec.IPFamilies = []corev1.IPFamily{first}
	}
	if *spec.IPFamilyPolicy != corev1.IPFamilyPolicySingleStack && len(spec.IPFamilies) == 1 {
		spec.IPFamilies = append(slices.Clone(spec.IPFamilies), otherFamily(spec.IPFamilies[0]))
	}
}

func otherFamily(family corev1.IPFamily) corev1.IPFamily {
	if family == corev1.IPv4Protocol {
		return corev1.IPv6Protocol
	}
	return corev1.IPv4Protocol
}

// checkPolicy refuses a single-stack service with two of anything.
func checkPolicy(spec *corev1.ServiceSpec, path *field.Path) field.ErrorList {
	if spec.IPFamilyPolicy == nil || *spec.IPFamilyPolicy != corev1.IPFamilyPolicySingleStack {
		return nil
	}
	var errs field.ErrorList
	for _, list := range []struct {
		name   string
		length int
	}{{"clusterIPs", len(spec.ClusterIPs)}, {"ipFamilies", len(spec.IPFamilies)}} {
		if list.length == 2 {
			errs = append(errs, field.Invalid(path.Child("ipFamilyPolicy"), *spec.IPFamilyPolicy,
				fmt.Sprintf("must be RequireDualStack or PreferDualStack when multiple '%s' are specified", list.name)))
		}
	}
	return errs
}

// familiesOfIPs infers families from the cluster IPs asked for, and checks that the cluster has all families.
func familiesOfIPs(spec *corev1.ServiceSpec, cluster []corev1.IPFamily, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	families := slices.Clone(spec.IPFamilies)
	for i, s := range spec.ClusterIPs {
		ip, err := netip.ParseAddr(s)
		if err != nil || i < len(families) {
			continue // "None", or checked against its family already
		}
		family := familyOf(ip)
		if !slices.Contains(cluster, family) {
			errs = append(errs, field.Invalid(path.Child("clusterIPs").Index(i), spec.ClusterIPs,
				fmt.Sprintf("may not use %s on a cluster which is not configured for it", family)))
			continue
		}
		families = append(families, family)
	}
	for i, family := range spec.IPFamilies {
		if !slices.Contains(cluster, family) {
			errs = append(errs, field.Invalid(path.Child("ipFamilies").Index(i), family,
				fmt.Sprintf("may not use %s on a cluster which is not configured for it", family)))
		}
	}
	spec.IPFamilies = families
	return errs
}
