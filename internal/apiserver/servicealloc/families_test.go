package servicealloc

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

func TestSetFamilies(t *testing.T) {
	const v4, v6 = corev1.IPv4Protocol, corev1.IPv6Protocol
	const single, prefer, require = corev1.IPFamilyPolicySingleStack, corev1.IPFamilyPolicyPreferDualStack, corev1.IPFamilyPolicyRequireDualStack
	one, two, six := []corev1.IPFamily{v4}, []corev1.IPFamily{v4, v6}, []corev1.IPFamily{v6, v4}
	for _, tc := range []struct {
		name     string
		cluster  []corev1.IPFamily
		spec     corev1.ServiceSpec
		policy   corev1.IPFamilyPolicy
		families []corev1.IPFamily
		err      string
	}{
		{name: "nothing said", cluster: two, policy: single, families: one},
		{name: "nothing said where IPv6 is the default", cluster: six, policy: single, families: []corev1.IPFamily{v6}},
		{name: "prefers two, has one", cluster: one, spec: corev1.ServiceSpec{IPFamilyPolicy: ptr.To(prefer)}, policy: prefer, families: one},
		{name: "prefers two", cluster: two, spec: corev1.ServiceSpec{IPFamilyPolicy: ptr.To(prefer)}, policy: prefer, families: two},
		{name: "the second first", cluster: two, spec: corev1.ServiceSpec{IPFamilyPolicy: ptr.To(require), IPFamilies: []corev1.IPFamily{v6}}, policy: require, families: six},
		{name: "two families say two", cluster: two, spec: corev1.ServiceSpec{IPFamilies: six}, policy: require, families: six},
		{name: "two addresses say two", cluster: two, spec: corev1.ServiceSpec{ClusterIPs: []string{"fd00::1", "10.0.0.1"}}, policy: require, families: six},
		{name: "an address says its family", cluster: two, spec: corev1.ServiceSpec{ClusterIPs: []string{"fd00::1"}}, policy: single, families: []corev1.IPFamily{v6}},
		{name: "headless", cluster: two, spec: corev1.ServiceSpec{ClusterIPs: []string{"None"}, Selector: map[string]string{"a": "b"}}, policy: single, families: one},
		{name: "headless without pods", cluster: one, spec: corev1.ServiceSpec{ClusterIPs: []string{"None"}}, policy: require, families: two},
		{name: "headless without pods, single", cluster: one, spec: corev1.ServiceSpec{ClusterIPs: []string{"None"}, IPFamilyPolicy: ptr.To(single)}, policy: single, families: one},
		{name: "single with two addresses", cluster: two, spec: corev1.ServiceSpec{IPFamilyPolicy: ptr.To(single), ClusterIPs: []string{"10.0.0.1", "fd00::1"}},
			err: `spec.ipFamilyPolicy: Invalid value: "SingleStack": must be RequireDualStack or PreferDualStack when multiple 'clusterIPs' are specified`},
		{name: "single with two families", cluster: two, spec: corev1.ServiceSpec{IPFamilyPolicy: ptr.To(single), IPFamilies: two},
			err: `spec.ipFamilyPolicy: Invalid value: "SingleStack": must be RequireDualStack or PreferDualStack when multiple 'ipFamilies' are specified`},
		{name: "requires two, has one", cluster: one, spec: corev1.ServiceSpec{IPFamilyPolicy: ptr.To(require)},
			err: `spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			svc := &corev1.Service{Spec: tc.spec}
			svc.Spec.Type = corev1.ServiceTypeClusterIP
			errs := setFamilies(svc, tc.cluster)
			if tc.err != "" {
				if len(errs) != 1 || errs[0].Error() != tc.err {
					t.Errorf("got %v, want %s", errs, tc.err)
				}
				return
			}
			if len(errs) > 0 || ptr.Deref(svc.Spec.IPFamilyPolicy, "") != tc.policy || !slices.Equal(svc.Spec.IPFamilies, tc.families) {
				t.Errorf("%v %s %v", errs, ptr.Deref(svc.Spec.IPFamilyPolicy, ""), svc.Spec.IPFamilies)
			}
		})
	}
}
