//lint:file-ignore SA1019 Endpoints are deprecated, and served as long as Kubernetes serves them.

package core

import (
	"context"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/endpoints/request"

	"github.com/proa-k8s/proa/internal/api/apitest"
)

func TestEvent(t *testing.T) {
	base := `{metadata: {name: a, namespace: default}, involvedObject: {kind: Pod, name: p, namespace: default}, reason: R, message: m, type: Normal}`
	apitest.Run(t, Event(), base, []apitest.Case{
		{Name: "old kind"},
		{Name: "of another namespace", Patch: `{involvedObject: {namespace: x}}`, Want: []string{`involvedObject.namespace: Invalid value: "x": does not match event.namespace`}},
		{Name: "of the cluster", Patch: `{involvedObject: {namespace: null}}`},
		{Name: "of the cluster in another namespace", Patch: `{metadata: {namespace: x}, involvedObject: {namespace: null}}`, Want: []string{
			`involvedObject.namespace: Invalid value: "": does not match event.namespace`}},
		{Name: "new kind", Patch: `{eventTime: "2020-01-01T00:00:00.000000Z"}`, Want: []string{
			"reportingComponent: Required value", "reportingInstance: Required value", "action: Required value",
			`reportingComponent: Invalid value: "": name part must be non-empty`,
			`reportingComponent: Invalid value: "": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')`}},
		{Name: "new kind, good", Patch: `{eventTime: "2020-01-01T00:00:00.000000Z", reportingComponent: a/b, reportingInstance: i, action: A}`},
		{Name: "counted", Old: `{}`, Patch: `{count: 5, message: other}`},
	})
}

func TestStrictEvent(t *testing.T) {
	ctx := request.WithRequestInfo(context.Background(), &request.RequestInfo{APIGroup: "events.k8s.io", APIVersion: "v1"})
	base := `{metadata: {name: a, namespace: default}, involvedObject: {kind: Pod, name: p, namespace: default}, reason: R, type: Normal,
		eventTime: "2020-01-01T00:00:00.000000Z", reportingComponent: a/b, reportingInstance: i, action: A}`
	r := Event()
	event := apitest.Decode(t, r, base, "").(*corev1.Event)
	if errs := r.Validate(ctx, event); len(errs) > 0 {
		t.Error(errs)
	}
	bad := apitest.Decode(t, r, base, `{count: 1, type: Odd, source: {host: h}, series: {count: 1}}`).(*corev1.Event)
	var got []string
	for _, err := range r.Validate(ctx, bad) {
		got = append(got, err.Error())
	}
	want := []string{
		`series.count: Invalid value: "": should be at least 2`, `series.lastObservedTime: Required value`,
		`type: Invalid value: "": has invalid value: Odd`, `count: Invalid value: "": needs to be unset`, `source: Invalid value: "": needs to be unset`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	changed := event.DeepCopy()
	changed.Reason = "other"
	if errs := r.ValidateUpdate(ctx, changed, event); len(errs) != 1 || errs[0].Error() != `reason: Invalid value: "other": field is immutable` {
		t.Error(errs)
	}
}

func TestEventRow(t *testing.T) {
	event := apitest.Decode(t, Event(), `{metadata: {name: e}, involvedObject: {kind: Pod, name: p, fieldPath: spec.x}, reason: R, message: " m\n", type: Normal, source: {component: kubelet, host: n1}}`, "").(*corev1.Event)
	if got, want := eventRow(event), []any{"<unknown>", "Normal", "R", "pod/p", "spec.x", "kubelet, n1", "m", "<unknown>", int64(1), "e"}; !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

func TestEndpoints(t *testing.T) {
	r := Endpoints()
	apitest.Run(t, r, `{metadata: {name: a, namespace: default}}`, []apitest.Case{
		{Name: "empty"},
		{Name: "bad", Patch: `{subsets: [{addresses: [{ip: x, hostname: A}, {ip: 127.0.0.1}], ports: [{port: 0}, {port: 1, name: a, protocol: X}]}]}`, Want: []string{
			`subsets[0].addresses[0].ip: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)`,
			`subsets[0].addresses[1].ip: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)`,
			`subsets[0].addresses[1].hostname: Invalid value: "A": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')`,
			`subsets[0].ports[0].name: Required value`,
			`subsets[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive`,
			`subsets[0].ports[1].protocol: Unsupported value: "X": supported values: "SCTP", "TCP", "UDP"`}},
	})
	if want := "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"; r.Versions[0].Deprecated != want {
		t.Errorf("warns %q", r.Versions[0].Deprecated)
	}
	ep := apitest.Decode(t, r, `{subsets: [{addresses: [{ip: 10.0.0.2}, {ip: 10.0.0.1}], ports: [{port: 80}]}, {addresses: [{ip: 10.0.0.3}], notReadyAddresses: [{ip: 10.0.0.1}], ports: [{port: 80}]}, {addresses: [{ip: 10.0.0.1}], ports: [{name: x, port: 90}]}]}`, "").(*corev1.Endpoints)
	ep.Subsets = RepackSubsets(ep.Subsets)
	if len(ep.Subsets) != 2 || len(ep.Subsets[0].Addresses) != 2 || len(ep.Subsets[0].NotReadyAddresses) != 1 || ep.Subsets[0].Addresses[0].IP != "10.0.0.2" {
		t.Errorf("repacked: %+v", ep.Subsets)
	}
	if got := endpointsCell(ep.Subsets); got != "10.0.0.2:80,10.0.0.3:80,10.0.0.1:90" {
		t.Error(got)
	}
	ep.Subsets[0].Addresses = append(ep.Subsets[0].Addresses, corev1.EndpointAddress{IP: "fd00::1"})
	if got := endpointsCell(ep.Subsets); got != "10.0.0.2:80,10.0.0.3:80,[fd00::1]:80 + 1 more..." {
		t.Error(got)
	}
}
