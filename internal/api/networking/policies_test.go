package networking

import (
	"slices"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/proa-k8s/proa/internal/api/apitest"
)

func TestNetworkPolicy(t *testing.T) {
	r := NetworkPolicy()
	base := `{metadata: {name: a, namespace: default}, spec: {podSelector: {matchLabels: {a: b}}}}`
	apitest.Run(t, r, base, []apitest.Case{
		{Name: "good", Patch: `{spec: {ingress: [{ports: [{port: 80, endPort: 90}, {port: http}], from: [{podSelector: {}}, {ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]}]}}`},
		{Name: "ports", Patch: `{spec: {egress: [{ports: [{protocol: ICMP, port: 0}, {port: 80, endPort: 79}, {endPort: 80}, {port: http, endPort: 80}]}]}}`, Want: []string{
			`spec.egress[0].ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"`,
			"spec.egress[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
			"spec.egress[0].ports[1].endPort: Invalid value: 79: must be greater than or equal to `port`",
			"spec.egress[0].ports[2].endPort: Invalid value: 80: may not be specified when `port` is not specified",
			"spec.egress[0].ports[3].endPort: Invalid value: 80: may not be specified when `port` is non-numeric"}},
		{Name: "peers", Patch: `{spec: {ingress: [{from: [{}, {podSelector: {}, ipBlock: {cidr: 10.0.0.0/8}}, {ipBlock: {cidr: x}}, {ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8, 11.0.0.0/16]}}, {ipBlock: {cidr: ""}}]}]}}`, Want: []string{
			"spec.ingress[0].from[0]: Required value: must specify a peer",
			"spec.ingress[0].from[1]: Forbidden: may not specify both ipBlock and another peer",
			`spec.ingress[0].from[2].ipBlock.cidr: Invalid value: "x": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)`,
			"spec.ingress[0].from[3].ipBlock.except[0]: Invalid value: \"10.0.0.0/8\": must be a strict subset of `cidr`",
			"spec.ingress[0].from[3].ipBlock.except[1]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`",
			"spec.ingress[0].from[4].ipBlock.cidr: Required value"}},
		{Name: "types", Patch: `{spec: {policyTypes: [Ingress, Sideways]}}`, Want: []string{`spec.policyTypes[1]: Unsupported value: "Sideways": supported values: "Egress", "Ingress"`}},
		{Name: "too many types", Patch: `{spec: {policyTypes: [Ingress, Egress, Ingress]}}`, Want: []string{
			`spec.policyTypes: Invalid value: ["Ingress","Egress","Ingress"]: may not specify more than two policyTypes`}},
	})
	p := apitest.Decode(t, r, base, `{spec: {egress: [{ports: [{port: 53}]}]}}`).(*networkingv1.NetworkPolicy)
	if !slices.Equal(p.Spec.PolicyTypes, []networkingv1.PolicyType{"Ingress", "Egress"}) || *p.Spec.Egress[0].Ports[0].Protocol != "TCP" {
		t.Errorf("defaults: %+v", p.Spec)
	}
}

func TestIngress(t *testing.T) {
	r := Ingress()
	base := `{metadata: {name: a, namespace: default}, spec: {rules: [{host: a.example, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: s, port: {number: 80}}}}]}}]}}`
	backend := `backend: {service: {name: s, port: {number: 80}}}`
	apitest.Run(t, r, base, []apitest.Case{
		{Name: "good", Patch: `{spec: {ingressClassName: x, tls: [{hosts: ["*.example"], secretName: s}]}}`},
		{Name: "nothing", Patch: `{spec: {rules: null}}`, Want: []string{"spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"}},
		{Name: "hosts", Patch: `{spec: {rules: [{host: 10.0.0.1}, {host: "*a"}, {host: A}]}}`, Want: []string{
			`spec.rules[0].host: Invalid value: "10.0.0.1": must be a DNS name, not an IP address`,
			`spec.rules[1].host: Invalid value: "*a": a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\*\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')`,
			`spec.rules[2].host: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')`}},
		{Name: "no paths", Patch: `{spec: {rules: [{http: {paths: []}}]}}`, Want: []string{"spec.rules[0].http.paths: Required value"}},
		{Name: "paths", Patch: `{spec: {rules: [{http: {paths: [{` + backend + `}, {pathType: Exact, path: a, ` + backend + `}, {pathType: Prefix, path: "/a//b/.", ` + backend + `}, {pathType: Odd, ` + backend + `}, {pathType: ImplementationSpecific, path: "*", ` + backend + `}]}}]}}`, Want: []string{
			"spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified",
			`spec.rules[0].http.paths[1].path: Invalid value: "a": must be an absolute path`,
			`spec.rules[0].http.paths[2].path: Invalid value: "/a//b/.": must not contain '//'`,
			`spec.rules[0].http.paths[2].path: Invalid value: "/a//b/.": cannot end with '/.'`,
			`spec.rules[0].http.paths[3].pathType: Unsupported value: "Odd": supported values: "Exact", "ImplementationSpecific", "Prefix"`,
			`spec.rules[0].http.paths[4].path: Invalid value: "*": must be an absolute path`}},
		{Name: "backends", Patch: `{spec: {defaultBackend: {}}}`, Want: []string{`spec.defaultBackend: Invalid value: "": resource or service backend is required`}},
		{Name: "both backends", Patch: `{spec: {defaultBackend: {resource: {kind: K, name: n1}, service: {name: s}}}}`, Want: []string{`spec.defaultBackend: Invalid value: "": cannot set both resource and service backends`}},
		{Name: "bad service", Patch: `{spec: {defaultBackend: {service: {name: "", port: {}}}}}`, Want: []string{
			"spec.defaultBackend.service.name: Required value", "spec.defaultBackend: Required value: port name or number is required"}},
		{Name: "two ports", Patch: `{spec: {defaultBackend: {service: {name: s, port: {name: a, number: 1}}}}}`, Want: []string{
			`spec.defaultBackend: Invalid value: "": cannot set both port name & port number`}},
		{Name: "annotated", Patch: `{metadata: {annotations: {kubernetes.io/ingress.class: x}}}`, Warn: []string{
			`annotation "kubernetes.io/ingress.class" is deprecated, please use 'spec.ingressClassName' instead`}},
		{Name: "annotated and named", Patch: `{metadata: {annotations: {kubernetes.io/ingress.class: x}}, spec: {ingressClassName: x}}`, Want: []string{
			`annotations.kubernetes.io/ingress.class: Invalid value: "x": can not be set when the class field is also set`}},
		{Name: "status", Old: `{}`, Subresource: "status", Patch: `{status: {loadBalancer: {ingress: [{ip: x}, {hostname: 10.0.0.1}]}}}`, Want: []string{
			`status.loadBalancer.ingress[0].ip: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)`,
			`status.loadBalancer.ingress[1].hostname: Invalid value: "10.0.0.1": must be a DNS name, not an IP address`}},
	})
	ing := apitest.Decode(t, r, base, `{spec: {tls: [{}]}, status: {loadBalancer: {ingress: [{ip: 192.0.2.2}, {ip: 192.0.2.1}]}}}`)
	if got, want := r.Row(ing), []any{"a", "<none>", "a.example", "192.0.2.1,192.0.2.2", "80, 443", "<unknown>"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestIngressClass(t *testing.T) {
	r := IngressClass()
	base := `{metadata: {name: a}, spec: {controller: example.org/c, parameters: {apiGroup: g.example, kind: K, name: n1}}}`
	apitest.Run(t, r, base, []apitest.Case{
		{Name: "good"},
		{Name: "no controller", Patch: `{spec: {controller: ""}}`, Want: []string{"spec.controller: Required value"}},
		{Name: "controller changes", Old: `{}`, Patch: `{spec: {controller: example.org/d}}`, Want: []string{`spec.controller: Invalid value: "example.org/d": field is immutable`}},
		{Name: "parameters", Patch: `{spec: {parameters: {kind: "", name: a/b, namespace: x}}}`, Want: []string{
			"spec.parameters.kind: Required value: kind is required", `spec.parameters.name: Invalid value: "a/b": may not contain '/'`,
			"spec.parameters.namespace: Forbidden: `parameters.scope` is set to 'Cluster'"}},
		{Name: "of a namespace", Patch: `{spec: {parameters: {scope: Namespace}}}`, Want: []string{"spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'"}},
	})
	if got, want := r.Row(apitest.Decode(t, r, base, "")), []any{"a", "example.org/c", "K.g.example/n1", "<unknown>"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
