package storage

import (
	"slices"
	"testing"

	"github.com/proa-k8s/proa/internal/api/apitest"
)

func TestStorageClass(t *testing.T) {
	r := StorageClass()
	base := `{metadata: {name: a, annotations: {storageclass.kubernetes.io/is-default-class: "true"}}, provisioner: example.org/p, parameters: {a: b}}`
	apitest.Run(t, r, base, []apitest.Case{
		{Name: "good"},
		{Name: "no provisioner", Patch: `{provisioner: ""}`, Want: []string{"provisioner: Required value"}},
		{Name: "words", Patch: `{reclaimPolicy: Recycle, volumeBindingMode: Later}`, Want: []string{
			`reclaimPolicy: Unsupported value: "Recycle": supported values: "Delete", "Retain"`,
			`volumeBindingMode: Unsupported value: "Later": supported values: "Immediate", "WaitForFirstConsumer"`}},
		{Name: "topology", Patch: `{allowedTopologies: [{matchLabelExpressions: [{key: zone}, {key: zone, values: [a, a]}]}]}`, Want: []string{
			"allowedTopologies[0].matchLabelExpressions[0].values: Required value", `allowedTopologies[0].matchLabelExpressions[1].key: Duplicate value: "zone"`,
			`allowedTopologies[0].matchLabelExpressions[1].values[1]: Duplicate value: "a"`}},
		{Name: "changes", Old: `{}`, Patch: `{provisioner: x/y, reclaimPolicy: Retain, parameters: {a: c}, volumeBindingMode: WaitForFirstConsumer, allowVolumeExpansion: true}`, Want: []string{
			`provisioner: Invalid value: "x/y": field is immutable`, `parameters: Invalid value: {"a":"c"}: field is immutable`,
			`reclaimPolicy: Invalid value: "Retain": field is immutable`, `volumeBindingMode: Invalid value: "WaitForFirstConsumer": field is immutable`}},
	})
	if got, want := r.Row(apitest.Decode(t, r, base, "")), []any{"a (default)", "example.org/p", "Delete", "Immediate", false, "<unknown>"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestCSIDriver(t *testing.T) {
	r := CSIDriver()
	base := `{metadata: {name: d.example}, spec: {}}`
	apitest.Run(t, r, base, []apitest.Case{
		{Name: "good", Patch: `{spec: {tokenRequests: [{audience: a, expirationSeconds: 600}], serviceAccountTokenInSecrets: true}}`},
		{Name: "bad", Patch: `{metadata: {name: a_}, spec: {fsGroupPolicy: Some, volumeLifecycleModes: [Short], tokenRequests: [{audience: a, expirationSeconds: 5}, {audience: a, expirationSeconds: 4294967297}], nodeAllocatableUpdatePeriodSeconds: 9}}`, Want: []string{
			`name: Invalid value: "a_": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')`,
			`spec.fsGroupPolicy: Unsupported value: "Some": supported values: "File", "None", "ReadWriteOnceWithFSType"`,
			`spec.volumeLifecycleModes: Unsupported value: "Short": supported values: "Persistent", "Ephemeral"`,
			`spec.tokenRequests[0].expirationSeconds: Invalid value: 5: may not specify a duration less than 10 minutes`,
			`spec.tokenRequests[1].audience: Duplicate value: "a"`,
			`spec.tokenRequests[1].expirationSeconds: Invalid value: 4294967297: may not specify a duration larger than 2^32 seconds`,
			`spec.nodeAllocatableUpdatePeriodSeconds: Invalid value: 9: must be greater than or equal to 10 seconds`}},
		{Name: "secrets without tokens", Patch: `{spec: {serviceAccountTokenInSecrets: true}}`, Want: []string{
			`spec.serviceAccountTokenInSecrets: Invalid value: true: can only be set when tokenRequests is configured`}},
		{Name: "changes", Old: `{}`, Patch: `{spec: {attachRequired: false, volumeLifecycleModes: [Ephemeral], podInfoOnMount: true}}`, Want: []string{
			`spec.attachedRequired: Invalid value: false: field is immutable`, `spec.volumeLifecycleModes: Invalid value: ["Ephemeral"]: field is immutable`}},
	})
	if got, want := r.Row(apitest.Decode(t, r, base, "")), []any{"d.example", true, false, false, "<unset>", false, "Persistent", "<unknown>"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestCSINode(t *testing.T) {
	r := CSINode()
	base := `{metadata: {name: a}, spec: {drivers: [{name: d.example, nodeID: x, topologyKeys: [zone]}]}}`
	apitest.Run(t, r, base, []apitest.Case{
		{Name: "good"},
		{Name: "bad", Patch: `{spec: {drivers: [{name: d.example, nodeID: "", topologyKeys: [z, z]}, {name: d.example, nodeID: x, topologyKeys: [], allocatable: {count: -1}}]}}`, Want: []string{
			"spec.drivers[0].nodeID: Required value", `spec.drivers[0].topologyKeys[1]: Duplicate value: "z"`, `spec.drivers[1].name: Duplicate value: "d.example"`,
			"spec.drivers[1].allocatable.count: Invalid value: -1: must be greater than or equal to 0"}},
		{Name: "another count", Old: `{}`, Patch: `{spec: {drivers: [{name: d.example, nodeID: x, topologyKeys: [zone], allocatable: {count: 5}}]}}`},
		{Name: "none left", Old: `{}`, Patch: `{spec: {drivers: []}}`},
		{Name: "another ID", Old: `{}`, Patch: `{spec: {drivers: [{name: d.example, nodeID: "y1", topologyKeys: [zone]}]}}`, Want: []string{
			`spec.drivers[0]: Invalid value: {"name":"d.example","nodeID":"y1","topologyKeys":["zone"]}: field is immutable`}},
	})
}

func TestVolumeAttachment(t *testing.T) {
	r := VolumeAttachment()
	base := `{metadata: {name: a}, spec: {attacher: d.example, nodeName: n1, source: {persistentVolumeName: pv}}}`
	exactlyOne := "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
	apitest.Run(t, r, base, []apitest.Case{
		{Name: "good"},
		{Name: "no source", Patch: `{spec: {source: {persistentVolumeName: null}}}`, Want: []string{"spec.source: Required value: " + exactlyOne}},
		{Name: "both sources", Patch: `{spec: {source: {inlineVolumeSpec: {}}}}`, Want: []string{"spec.source: Forbidden: " + exactlyOne}},
		{Name: "no name", Patch: `{spec: {source: {persistentVolumeName: ""}}}`, Want: []string{"spec.source.persistentVolumeName: Required value: must specify non empty persistentVolumeName"}},
		{Name: "inline volume", Patch: `{spec: {source: {persistentVolumeName: null, inlineVolumeSpec: {accessModes: [ReadWriteOnce], csi: {driver: d, volumeHandle: h}}}}}`},
		{Name: "bad inline volume", Patch: `{spec: {source: {persistentVolumeName: null, inlineVolumeSpec: {capacity: {storage: 1Gi}, storageClassName: a, persistentVolumeReclaimPolicy: Delete, volumeMode: Block, hostPath: {path: /x}}}}}`, Want: []string{
			"spec.source.inlineVolumeSpec.accessModes: Required value",
			"spec.source.inlineVolumeSpec.capacity: Forbidden: may not be specified in the context of inline volumes",
			"spec.source.inlineVolumeSpec.csi: Required value: has to be specified in the context of inline volumes",
			"spec.source.inlineVolumeSpec.persistentVolumeReclaimPolicy: Forbidden: may only be Retain in the context of inline volumes",
			"spec.source.inlineVolumeSpec.storageClassName: Forbidden: may not be specified in the context of inline volumes",
			"spec.source.inlineVolumeSpec.volumeMode: Forbidden: may not specify volumeMode other than Filesystem in the context of inline volumes"}},
		{Name: "moves", Old: `{}`, Patch: `{spec: {nodeName: n2}}`, Want: []string{
			`spec: Invalid value: {"attacher":"d.example","source":{"persistentVolumeName":"pv"},"nodeName":"n2"}: field is immutable`}},
	})
	if got, want := r.Row(apitest.Decode(t, r, base, `{status: {attached: true}}`)), []any{"a", "d.example", "pv", "n1", true, "<unknown>"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestCSIStorageCapacity(t *testing.T) {
	r := CSIStorageCapacity()
	apitest.Run(t, r, `{metadata: {name: a, namespace: default}, storageClassName: fast, capacity: 1Gi}`, []apitest.Case{
		{Name: "good"},
		{Name: "negative", Patch: `{capacity: -1}`, Want: []string{`capacity: Invalid value: "-1": must be greater than or equal to 0`}},
		{Name: "changes", Old: `{}`, Patch: `{storageClassName: slow, nodeTopology: {matchLabels: {a: b}}}`, Want: []string{
			`nodeTopology: Invalid value: {"matchLabels":{"a":"b"}}: field is immutable`, `storageClassName: Invalid value: "slow": field is immutable`}},
	})
}
