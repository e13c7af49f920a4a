package networking

import (
	"slices"
	"testing"

	"github.com/proa-k8s/proa/internal/api/apitest"
)

func TestIPAddress(t *testing.T) {
	r := IPAddress()
	base := `{metadata: {name: 10.0.0.1}, spec: {parentRef: {resource: services, namespace: default, name: a}}}`
	apitest.Run(t, r, base, []apitest.Case{
		{Name: "good"},
		{Name: "nobody's", Patch: `{spec: {parentRef: null}}`, Want: []string{"spec.parentRef: Required value"}},
		{Name: "bad parent", Patch: `{spec: {parentRef: {group: "!", resource: null, name: a/b}}}`, Want: []string{
			`spec.parentRef.group: Invalid value: "!": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')`,
			"spec.parentRef.resource: Required value", `spec.parentRef.name: Invalid value: "a/b": may not contain '/'`}},
		{Name: "parent changes", Old: `{}`, Patch: `{spec: {parentRef: {name: b}}}`, Want: []string{
			`spec.parentRef: Invalid value: {"resource":"services","namespace":"default","name":"b"}: field is immutable`}},
	})
	for name, valid := range map[string]bool{"10.0.0.1": true, "fd00::1": true, "fd00:0::1": false, "::ffff:10.0.0.1": false, "a": false, "fe80::1%eth0": false} {
		if msgs := r.ValidateName(name, false); (len(msgs) == 0) != valid {
			t.Errorf("%s: %q", name, msgs)
		}
	}
	if got, want := r.Row(apitest.Decode(t, r, base, "")), []any{"10.0.0.1", "services/default/a"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestServiceCIDR(t *testing.T) {
	apitest.Run(t, ServiceCIDR(), `{metadata: {name: a}, spec: {cidrs: [10.0.0.0/16]}}`, []apitest.Case{
		{Name: "good"},
		{Name: "none", Patch: `{spec: {cidrs: []}}`, Want: []string{"spec.cidrs: Required value: at least one CIDR required"}},
		{Name: "three", Patch: `{spec: {cidrs: [10.0.0.0/16, 10.1.0.0/16, 10.2.0.0/16]}}`, Want: []string{
			`spec.cidrs: Invalid value: ["10.0.0.0/16","10.1.0.0/16","10.2.0.0/16"]: may only hold up to 2 values`}},
		{Name: "one family", Patch: `{spec: {cidrs: [10.0.0.0/16, 10.1.0.0/16]}}`, Want: []string{
			`spec.cidrs: Invalid value: ["10.0.0.0/16","10.1.0.0/16"]: may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/96`}},
		{Name: "becomes dual", Old: `{}`, Patch: `{spec: {cidrs: [10.0.0.0/16, "fd00::/112"]}}`},
		{Name: "changes", Old: `{}`, Patch: `{spec: {cidrs: [10.1.0.0/16]}}`, Want: []string{`spec.cidrs: Invalid value: ["10.1.0.0/16"]: field is immutable`}},
	})
}
