package scheduling

import (
	"slices"
	"testing"

	"github.com/proa-k8s/proa/internal/api/apitest"
)

func TestPriorityClass(t *testing.T) {
	r := PriorityClass()
	apitest.Run(t, r, `{metadata: {name: a}, value: 5}`, []apitest.Case{
		{Name: "good"},
		{Name: "too high", Patch: `{value: 1000000001}`, Want: []string{"value: Forbidden: maximum allowed value of a user defined priority is 1000000000"}},
		{Name: "the system's own", Patch: `{metadata: {name: system-node-critical}, value: 2000001000}`},
		{Name: "another value", Patch: `{metadata: {name: system-node-critical}}`, Want: []string{
			"metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: value of system-node-critical PriorityClass must be 2000001000"}},
		{Name: "another name", Patch: `{metadata: {name: system-x}}`, Want: []string{
			"metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: system-x is not a known system priority class"}},
		{Name: "policy", Patch: `{preemptionPolicy: Ask}`, Want: []string{`preemptionPolicy: Unsupported value: "Ask": supported values: "PreemptLowerPriority", "Never"`}},
		{Name: "changes", Old: `{}`, Patch: `{value: 6, preemptionPolicy: Never}`, Want: []string{
			"value: Forbidden: may not be changed in an update.", `preemptionPolicy: Invalid value: "Never": field is immutable`}},
	})
	if got, want := r.Row(apitest.Decode(t, r, `{metadata: {name: a}, value: 5}`, "")), []any{"a", int64(5), false, "<unknown>", "PreemptLowerPriority"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
