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
