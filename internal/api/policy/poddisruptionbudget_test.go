package policy

import (
	"slices"
	"testing"

	policyv1 "k8s.io/api/policy/v1"

	"github.com/proa-k8s/proa/internal/api/apitest"
)

func TestPodDisruptionBudget(t *testing.T) {
	r := PodDisruptionBudget()
	base := `{metadata: {name: a, namespace: default}, spec: {minAvailable: 50%, selector: {matchLabels: {a: b}}}}`
	apitest.Run(t, r, base, []apitest.Case{
		{Name: "good"},
		{Name: "both", Patch: `{spec: {minAvailable: 1, maxUnavailable: 1, selector: null}}`, Want: []string{
			`spec: Invalid value: {"minAvailable":1,"maxUnavailable":1}: minAvailable and maxUnavailable cannot be both set`}},
		{Name: "too much", Patch: `{spec: {minAvailable: 200%}}`, Want: []string{`spec.minAvailable: Invalid value: "200%": must not be greater than 100%`}},
		{Name: "negative", Patch: `{spec: {minAvailable: -1}}`, Want: []string{`spec.minAvailable: Invalid value: -1: must be greater than or equal to 0`}},
		{Name: "policy", Patch: `{spec: {unhealthyPodEvictionPolicy: Never}}`, Want: []string{
			`spec.unhealthyPodEvictionPolicy: Unsupported value: "Never": supported values: "AlwaysAllow", "IfHealthyBudget"`}},
		{Name: "status", Old: `{}`, Subresource: "status", Patch: `{status: {currentHealthy: -1}}`, Want: []string{
			"status.currentHealthy: Invalid value: -1: must be greater than or equal to 0"}},
	})
	pdb := apitest.Decode(t, r, base, `{metadata: {generation: 1}, status: {disruptionsAllowed: 2}}`).(*policyv1.PodDisruptionBudget)
	if got, want := r.Row(pdb), []any{"a", "50%", "N/A", int64(2), "<unknown>"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
