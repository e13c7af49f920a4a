package coordination

import (
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"

	"github.com/proa-k8s/proa/internal/api/apitest"
)

func TestLease(t *testing.T) {
	apitest.Run(t, Lease(), `{metadata: {name: a, namespace: default}}`, []apitest.Case{
		{Name: "good", Patch: `{spec: {holderIdentity: me, leaseDurationSeconds: 40, renewTime: "2020-01-01T00:00:00.000000Z"}}`},
		{Name: "bad", Patch: `{spec: {leaseDurationSeconds: 0, leaseTransitions: -1}}`, Want: []string{
			"spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0", "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0"}},
	})
	r := Lease()
	lease := apitest.Decode(t, r, `{spec: {strategy: OldestEmulationVersion, preferredHolder: x}}`, "").(*coordinationv1.Lease)
	apitest.Apply(&r.Strategy, lease, nil)
	if lease.Spec.Strategy != nil || lease.Spec.PreferredHolder != nil {
		t.Error("fields of a feature that is off are kept")
	}
}
