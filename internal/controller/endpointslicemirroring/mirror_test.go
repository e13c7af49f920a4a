//lint:file-ignore SA1019 Endpoints are deprecated, and mirrored as long as users may write them.

package endpointslicemirroring

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func endpoints(subsets ...corev1.EndpointSubset) *corev1.Endpoints {
	return &corev1.Endpoints{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "ns", Name: "custom", UID: "u", Labels: map[string]string{"a": "b"},
			Annotations: map[string]string{"keep": "x", corev1.EndpointsLastChangeTriggerTime: "t", corev1.LastAppliedConfigAnnotation: "{}"},
		},
		Subsets: subsets,
	}
}

func subset(port int32, ready, unready string) corev1.EndpointSubset {
	s := corev1.EndpointSubset{Ports: []corev1.EndpointPort{{Name: "p", Port: port, Protocol: corev1.ProtocolTCP}}}
	for _, ip := range strings.Fields(ready) {
		s.Addresses = append(s.Addresses, corev1.EndpointAddress{IP: ip})
	}
	for _, ip := range strings.Fields(unready) {
		s.NotReadyAddresses = append(s.NotReadyAddresses, corev1.EndpointAddress{IP: ip})
	}
	return s
}

// text is what slices hold, in a line each: family, port, addresses (in brackets those that are not ready).
func text(list []*discoveryv1.EndpointSlice) []string {
	var lines []string
	for _, s := range list {
		line := fmt.Sprintf("%s %d", s.AddressType, *s.Ports[0].Port)
		for _, e := range s.Endpoints {
			if *e.Conditions.Ready {
				line += " " + e.Addresses[0]
			} else {
				line += " (" + e.Addresses[0] + ")"
			}
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return lines
}

func TestMirror(t *testing.T) {
	one := endpoints(subset(80, "10.0.0.1", ""))
	present := Mirror(one, nil).Create
	var many []string
	for n := range capacity + 5 {
		many = append(many, fmt.Sprintf("10.1.%d.%d", n/200, n%200))
	}
	relabelled := endpoints(one.Subsets...)
	relabelled.Labels["a"] = "c"
	for name, tc := range map[string]struct {
		endpoints              *corev1.Endpoints
		present                []*discoveryv1.EndpointSlice
		create, update, delete []string
		invalid, skipped       int
	}{
		"ready and not":          {endpoints: endpoints(subset(80, "10.0.0.1", "10.0.0.2")), create: []string{"IPv4 80 10.0.0.1 (10.0.0.2)"}},
		"families":               {endpoints: endpoints(subset(80, "10.0.0.1 fd00::1", "")), create: []string{"IPv4 80 10.0.0.1", "IPv6 80 fd00::1"}},
		"ports":                  {endpoints: endpoints(subset(80, "10.0.0.1", ""), subset(81, "10.0.0.1", "")), create: []string{"IPv4 80 10.0.0.1", "IPv4 81 10.0.0.1"}},
		"the same ports twice":   {endpoints: endpoints(subset(80, "10.0.0.1", ""), subset(80, "10.0.0.2 10.0.0.1", "")), create: []string{"IPv4 80 10.0.0.1 10.0.0.2"}},
		"nothing to do":          {endpoints: one, present: present},
		"another address":        {endpoints: endpoints(subset(80, "10.0.0.2", "")), present: present, update: []string{"IPv4 80 10.0.0.2"}},
		"another label":          {endpoints: relabelled, present: present, update: []string{"IPv4 80 10.0.0.1"}},
		"another port":           {endpoints: endpoints(subset(81, "10.0.0.1", "")), present: present, create: []string{"IPv4 81 10.0.0.1"}, delete: []string{"IPv4 80 10.0.0.1"}},
		"one slice too many":     {endpoints: one, present: []*discoveryv1.EndpointSlice{present[0], present[0]}, delete: []string{"IPv4 80 10.0.0.1"}},
		"no addresses":           {endpoints: endpoints(), present: present, delete: []string{"IPv4 80 10.0.0.1"}},
		"an address that is not": {endpoints: endpoints(subset(80, "10.0.0.1 x", "")), create: []string{"IPv4 80 10.0.0.1"}, invalid: 1},
		"too many":               {endpoints: endpoints(subset(80, strings.Join(many, " "), "")), create: []string{"IPv4 80 " + strings.Join(many[:capacity], " ")}, skipped: 5},
	} {
		plan := Mirror(tc.endpoints, tc.present)
		for what, lists := range map[string][2][]string{"create": {text(plan.Create), tc.create}, "update": {text(plan.Update), tc.update}, "delete": {text(plan.Delete), tc.delete}} {
			if !slices.Equal(lists[0], lists[1]) {
				t.Errorf("%s: %s %q, want %q", name, what, lists[0], lists[1])
			}
		}
		if plan.Invalid != tc.invalid || plan.Skipped != tc.skipped {
			t.Errorf("%s: %d invalid, %d skipped", name, plan.Invalid, plan.Skipped)
		}
	}
}

func TestMetadata(t *testing.T) {
	e := endpoints(subset(80, "10.0.0.1", ""))
	e.Subsets[0].Addresses[0].Hostname, e.Subsets[0].Addresses[0].NodeName = "h", ptr.To("n")
	slice := Mirror(e, nil).Create[0]
	if slice.GenerateName != "custom-" || slice.Namespace != "ns" || slice.OwnerReferences[0].Kind != "Endpoints" || slice.OwnerReferences[0].UID != "u" || !*slice.OwnerReferences[0].Controller {
		t.Errorf("metadata %+v", slice.ObjectMeta)
	}
	if l := slice.Labels; len(l) != 3 || l["a"] != "b" || l[discoveryv1.LabelServiceName] != "custom" || l[discoveryv1.LabelManagedBy] != managedBy {
		t.Errorf("labels %v", l)
	}
	if a := slice.Annotations; len(a) != 1 || a["keep"] != "x" {
		t.Errorf("annotations %v", a)
	}
	if p := slice.Endpoints[0]; *p.Hostname != "h" || *p.NodeName != "n" {
		t.Errorf("endpoint %+v", p)
	}
	if len(e.Labels) != 1 || len(e.Annotations) != 3 {
		t.Errorf("the Endpoints were changed: %+v", e.ObjectMeta)
	}
}

func TestMirrored(t *testing.T) {
	e := endpoints()
	if !mirrored(e) {
		t.Error("ordinary Endpoints are not mirrored")
	}
	e.Labels[discoveryv1.LabelSkipMirror] = "true"
	if mirrored(e) {
		t.Error("Endpoints that ask not to be mirrored are")
	}
	lock := endpoints()
	lock.Annotations["control-plane.alpha.kubernetes.io/leader"] = "{}"
	if mirrored(lock) {
		t.Error("a lock is mirrored")
	}
}
