package discovery

import (
	"slices"
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/proa-k8s/proa/internal/api/apitest"
)

func TestEndpointSlice(t *testing.T) {
	base := `{metadata: {name: a, namespace: default}, addressType: IPv4, endpoints: [{addresses: [10.0.0.1], nodeName: n, hints: {forZones: [{name: z}]}}], ports: [{port: 80}, {name: x, port: 81}]}`
	r := EndpointSlice()
	apitest.Run(t, r, base, []apitest.Case{
		{Name: "good"},
		{Name: "no type", Patch: `{addressType: null}`, Want: []string{"addressType: Required value"}},
		{Name: "other type", Patch: `{addressType: IPv5}`, Want: []string{`addressType: Unsupported value: "IPv5": supported values: "FQDN", "IPv4", "IPv6"`}},
		{Name: "wrong family", Patch: `{addressType: IPv6}`, Want: []string{`endpoints[0].addresses[0]: Invalid value: "10.0.0.1": must be an IPv6 address`}},
		{Name: "type changes", Old: `{}`, Patch: `{addressType: IPv6, endpoints: []}`, Want: []string{`addressType: Invalid value: "IPv6": field is immutable`}},
		{Name: "endpoints", Patch: `{endpoints: [{addresses: []}, {addresses: [127.0.0.1], hostname: A, nodeName: "", hints: {forZones: [{name: z}, {name: z}], forNodes: [{name: ""}]}}]}`, Want: []string{
			"endpoints[0].addresses: Required value: must contain at least 1 address",
			`endpoints[1].addresses[0]: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)`,
			`endpoints[1].nodeName: Invalid value: "": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')`,
			`endpoints[1].hostname: Invalid value: "A": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')`,
			`endpoints[1].hints.forZones[1].name: Duplicate value: "z"`, "endpoints[1].hints.forNodes[0].name: Required value"}},
		{Name: "ports", Patch: `{ports: [{name: x, port: 0}, {name: x, protocol: X, appProtocol: "?"}]}`, Want: []string{
			"ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive", `ports[1].name: Duplicate value: "x"`,
			`ports[1].protocol: Unsupported value: "X": supported values: "SCTP", "TCP", "UDP"`,
			`ports[1].appProtocol: Invalid value: "?": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')`}},
		{Name: "names", Patch: `{addressType: FQDN, endpoints: [{addresses: [a.example, "-"]}]}`, Want: []string{
			`endpoints[0].addresses[1]: Invalid value: "-": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')`}},
		{Name: "a name of one part", Patch: `{addressType: FQDN, endpoints: [{addresses: [host]}]}`, Want: []string{
			`endpoints[0].addresses[0]: Invalid value: "host": should be a domain with at least two segments separated by dots`}},
	})
	old := apitest.Decode(t, r, base, `{metadata: {generation: 3}}`)
	for patch, want := range map[string]int64{`{}`: 3, `{metadata: {annotations: {a: b}}}`: 3, `{metadata: {labels: {a: b}}}`: 4, `{ports: []}`: 4} {
		slice := apitest.Decode(t, r, base, patch).(*discoveryv1.EndpointSlice)
		slice.Generation = 3
		apitest.Apply(&r.Strategy, slice, old)
		if slice.Generation != want {
			t.Errorf("%s: generation %d, want %d", patch, slice.Generation, want)
		}
	}
	slice := apitest.Decode(t, r, base, `{endpoints: [{addresses: [10.0.0.1]}, {addresses: [10.0.0.2]}, {addresses: [10.0.0.3]}, {addresses: [10.0.0.4]}]}`)
	if got, want := r.Row(slice), []any{"a", "IPv4", "80,81", "10.0.0.1,10.0.0.2,10.0.0.3 + 1 more...", "<unknown>"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := r.Row(&discoveryv1.EndpointSlice{}), []any{"", "", "<unset>", "<unset>", "<unknown>"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
