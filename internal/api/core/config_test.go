package core

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/proa-k8s/proa/internal/api/apitest"
)

func TestConfigMap(t *testing.T) {
	apitest.Run(t, ConfigMap(), `{metadata: {name: a, namespace: default}, data: {a: b}}`, []apitest.Case{
		{Name: "good"},
		{Name: "bad key", Patch: `{data: {"a b": x}}`, Want: []string{
			`data[a b]: Invalid value: "a b": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')`}},
		{Name: "key in both", Patch: `{binaryData: {a: Yg==}}`, Want: []string{`data[a]: Invalid value: "a": duplicate of key present in binaryData`}},
		{Name: "too large", Patch: `{data: {a: ` + strings.Repeat("x", corev1.MaxSecretSize) + `, b: y}}`, Want: []string{`[]: Too long: may not be more than 1048576 bytes`}},
		{Name: "update", Old: `{}`, Patch: `{data: {a: c}}`},
		{Name: "made immutable", Old: `{}`, Patch: `{immutable: true, data: {a: c}}`},
		{Name: "immutable data", Old: `{immutable: true}`, Patch: `{immutable: true, data: {a: c}, binaryData: {c: Yg==}}`, Want: []string{
			"data: Forbidden: field is immutable when `immutable` is set", "binaryData: Forbidden: field is immutable when `immutable` is set"}},
		{Name: "immutable stays", Old: `{immutable: true}`, Want: []string{"immutable: Forbidden: field is immutable when `immutable` is set"}},
	})
}

func TestSecret(t *testing.T) {
	apitest.Run(t, Secret(), `{metadata: {name: a, namespace: default}}`, []apitest.Case{
		{Name: "empty"},
		{Name: "bad key", Patch: `{data: {"..": ""}}`, Want: []string{`data[..]: Invalid value: "..": must not be '..'`}},
		{Name: "token without account", Patch: `{type: kubernetes.io/service-account-token}`, Want: []string{`metadata.annotations[kubernetes.io/service-account.name]: Required value`}},
		{Name: "token", Patch: `{type: kubernetes.io/service-account-token, metadata: {annotations: {kubernetes.io/service-account.name: x}}}`},
		{Name: "dockercfg", Patch: `{type: kubernetes.io/dockercfg}`, Want: []string{`data[.dockercfg]: Required value`}},
		{Name: "dockerconfigjson is no JSON", Patch: `{type: kubernetes.io/dockerconfigjson, stringData: {.dockerconfigjson: "nope"}}`, Want: []string{
			`data[.dockerconfigjson]: Invalid value: "<secret contents redacted>": invalid character 'o' in literal null (expecting 'u')`}},
		{Name: "basic-auth", Patch: `{type: kubernetes.io/basic-auth}`, Want: []string{`data[username]: Required value`, `data[password]: Required value`}},
		{Name: "basic-auth with a name", Patch: `{type: kubernetes.io/basic-auth, stringData: {username: u}}`},
		{Name: "ssh-auth", Patch: `{type: kubernetes.io/ssh-auth}`, Want: []string{`data[ssh-privatekey]: Required value`}},
		{Name: "tls", Patch: `{type: kubernetes.io/tls}`, Want: []string{`data[tls.crt]: Required value`, `data[tls.key]: Required value`}},
		{Name: "tls of rubbish", Patch: `{type: kubernetes.io/tls, stringData: {tls.crt: "", tls.key: ""}}`, Warn: []string{"tls: failed to find any PEM data in certificate input"}},
		{Name: "type changes", Old: `{}`, Patch: `{type: x/y}`, Want: []string{`type: Invalid value: "x/y": field is immutable`}},
		{Name: "immutable", Old: `{immutable: true, stringData: {a: b}}`, Patch: `{immutable: true, stringData: {a: c}}`, Want: []string{
			"data: Forbidden: field is immutable when `immutable` is set"}},
	})
	s := apitest.Decode(t, Secret(), `{metadata: {name: a}, data: {a: eA==, b: eQ==}, stringData: {a: new}}`, "").(*corev1.Secret)
	if string(s.Data["a"]) != "new" || string(s.Data["b"]) != "y" || s.StringData != nil || s.Type != corev1.SecretTypeOpaque {
		t.Errorf("stringData was not merged: %+v", s)
	}
}

func TestNamespace(t *testing.T) {
	r := Namespace()
	apitest.Run(t, r, `{metadata: {name: a}}`, []apitest.Case{
		{Name: "good"},
		{Name: "finalizers", Patch: `{spec: {finalizers: [x, a.b/c]}}`, Want: []string{
			`spec.finalizers[0]: Invalid value: "x": name is neither a standard finalizer name nor is it fully qualified`}},
		{Name: "status of a living one", Old: `{}`, Subresource: "status", Patch: `{status: {phase: Terminating}}`, Want: []string{
			"status.Phase: Invalid value: \"Terminating\": may only be 'Active' if `deletionTimestamp` is empty"}},
		{Name: "status of a dying one", Old: `{}`, Subresource: "status", Patch: `{metadata: {deletionTimestamp: "2020-01-01T00:00:00Z"}, status: {phase: Active}}`, Want: []string{
			"status.Phase: Invalid value: \"Active\": may only be 'Terminating' if `deletionTimestamp` is not empty"}},
		{Name: "finalize", Old: `{spec: {finalizers: [kubernetes]}}`, Subresource: "finalize"},
	})
	ns := apitest.Decode(t, r, `{metadata: {name: a}, status: {phase: Terminating}}`, "").(*corev1.Namespace)
	apitest.Apply(&r.Strategy, ns, nil)
	if ns.Status.Phase != corev1.NamespaceActive || !slices.Equal(ns.Spec.Finalizers, []corev1.FinalizerName{"kubernetes"}) ||
		ns.Labels["kubernetes.io/metadata.name"] != "a" {
		t.Errorf("created: %+v", ns)
	}
	if r.Graceful(t.Context(), ns, nil) != 0 || ns.Status.Phase != corev1.NamespaceTerminating || !r.Held(ns) {
		t.Errorf("deleted: %+v", ns)
	}
	old := ns.DeepCopy()
	ns.Spec.Finalizers = nil
	finalize := r.Subresources[0]
	if finalize.Name != "finalize" {
		t.Fatal("the first subresource is not finalize")
	}
	apitest.Apply(finalize.Strategy, ns, old)
	if r.Held(ns) {
		t.Error("finalize did not take the finalizer")
	}
	apitest.Apply(&r.Strategy, ns, old)
	if !r.Held(ns) {
		t.Error("an ordinary update took the finalizer")
	}
}

func TestServiceAccount(t *testing.T) {
	r := ServiceAccount()
	apitest.Run(t, r, `{metadata: {name: a, namespace: default}}`, []apitest.Case{
		{Name: "good"},
		{Name: "deprecated annotation", Patch: `{metadata: {annotations: {kubernetes.io/enforce-mountable-secrets: "true"}}}`, Warn: []string{
			"metadata.annotations[kubernetes.io/enforce-mountable-secrets]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"}},
	})
	sa := apitest.Decode(t, r, `{metadata: {name: a}, secrets: [{name: x, namespace: other, kind: Secret}]}`, "").(*corev1.ServiceAccount)
	apitest.Apply(&r.Strategy, sa, nil)
	if sa.Secrets[0] != (corev1.ObjectReference{Name: "x"}) {
		t.Errorf("a secret is %+v", sa.Secrets[0])
	}
}

func TestNode(t *testing.T) {
	apitest.Run(t, Node(), `{metadata: {name: a}}`, []apitest.Case{
		{Name: "good", Patch: `{spec: {podCIDRs: [10.1.0.0/24, "fd00::/64"], taints: [{key: a/b, value: c, effect: NoSchedule}, {key: a/b, effect: NoExecute}]}}`},
		{Name: "taints", Patch: `{spec: {taints: [{key: "", effect: NoSchedule}, {key: a, value: "b c", effect: Never}, {key: x, effect: NoExecute}, {key: x, effect: NoExecute}, {key: y}]}}`, Want: []string{
			`metadata.taints[0].key: Invalid value: "": name part must be non-empty`,
			`metadata.taints[0].key: Invalid value: "": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')`,
			`metadata.taints[1].value: Invalid value: "b c": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')`,
			`metadata.taints[1].effect: Unsupported value: "Never": supported values: "NoSchedule", "PreferNoSchedule", "NoExecute"`,
			`metadata.taints[3]: Duplicate value: {"key":"x","effect":"NoExecute"}: taints must be unique by key and effect pair`,
			`metadata.taints[4].effect: Required value`,
		}},
		{Name: "two ranges of a family", Patch: `{spec: {podCIDRs: [10.1.0.0/24, 10.2.0.0/24]}}`, Want: []string{
			`spec.podCIDRs: Invalid value: ["10.1.0.0/24","10.2.0.0/24"]: may specify no more than one CIDR for each IP family`}},
		{Name: "one range twice", Patch: `{spec: {podCIDRs: [10.1.0.0/24, 10.1.0.0/24]}}`, Want: []string{
			`spec.podCIDRs: Invalid value: ["10.1.0.0/24","10.1.0.0/24"]: may specify no more than one CIDR for each IP family`,
			`spec.podCIDRs[1]: Duplicate value: "10.1.0.0/24"`}},
		{Name: "podCIDR is set", Old: `{}`, Patch: `{spec: {podCIDR: 10.1.0.0/24, providerID: x, unschedulable: true}}`},
		{Name: "podCIDR changes", Old: `{spec: {podCIDR: 10.1.0.0/24}}`, Patch: `{spec: {podCIDR: 10.2.0.0/24}}`, Want: []string{
			`spec.podCIDRs: Forbidden: node updates may not change podCIDR except from "" to valid`}},
		{Name: "providerID changes", Old: `{spec: {providerID: x}}`, Patch: `{spec: {providerID: y}}`, Want: []string{
			`spec.providerID: Forbidden: node updates may not change providerID except from "" to valid`}},
		{Name: "externalID changes", Old: `{}`, Patch: `{spec: {externalID: y}}`, Want: []string{`spec.externalID: Forbidden: may not be updated`}},
		{Name: "resources", Old: `{}`, Subresource: "status", Patch: `{status: {capacity: {cpu: -1, pods: 500m}, allocatable: {memory: -1}}}`, Want: []string{
			`status.capacity.cpu: Invalid value: "-1": must be greater than or equal to 0`,
			`status.capacity.pods: Invalid value: "500m": must be an integer`,
			`status.allocatable.memory: Invalid value: "-1": must be greater than or equal to 0`}},
		{Name: "duplicate address", Old: `{}`, Subresource: "status", Patch: `{status: {addresses: [{type: InternalIP, address: 10.0.0.1}, {type: InternalIP, address: 10.0.0.1}]}}`, Want: []string{
			`status.addresses[1]: Duplicate value: {"type":"InternalIP","address":"10.0.0.1"}`}},
	})
	node := apitest.Decode(t, Node(), `{metadata: {name: a}, spec: {podCIDR: 10.1.0.0/24}, status: {capacity: {cpu: 2}}}`, "").(*corev1.Node)
	if !slices.Equal(node.Spec.PodCIDRs, []string{"10.1.0.0/24"}) || node.Status.Allocatable.Cpu().Value() != 2 {
		t.Errorf("defaults: %+v", node)
	}
	node = apitest.Decode(t, Node(), `{metadata: {name: a, labels: {node-role.kubernetes.io/worker: "", node-role.kubernetes.io/control-plane: ""}}, spec: {unschedulable: true},
		status: {conditions: [{type: Ready, status: "True"}], addresses: [{type: InternalIP, address: 10.0.0.1}], nodeInfo: {kubeletVersion: v1.37.2}}}`, "").(*corev1.Node)
	row := nodeRow(node)
	want := []any{"a", "Ready,SchedulingDisabled", "control-plane,worker", "<unknown>", "v1.37.2", "10.0.0.1", "<none>", "<unknown>", "<unknown>", "<unknown>"}
	if !slices.Equal(row, want) {
		t.Errorf("row %q\nwant %q", row, want)
	}
}
