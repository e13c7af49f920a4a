// Package coordination describes the kinds of coordination.k8s.io. What flows in are k8s.io/api/coordination/v1
// objects; what flows out are verdicts and cells.
package coordination

import (
	"context"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/proa-k8s/proa/internal/api"
)

// Lease describes leases, by which nodes say that they are alive and components elect a leader.
func Lease() *api.Resource {
	return api.Define[coordinationv1.Lease, coordinationv1.LeaseList](coordinationv1.SchemeGroupVersion, api.Resource{
		Plural: "leases", Singular: "lease", Kind: "Lease",
		Namespaced: true,
		Prefix:     "leases",
		Strategy: api.Typed[*coordinationv1.Lease]{
			PrepareCreate: func(_ context.Context, lease *coordinationv1.Lease) { dropCoordinated(lease, nil) },
			PrepareUpdate: func(_ context.Context, lease, old *coordinationv1.Lease) { dropCoordinated(lease, old) },
			Validate: func(_ context.Context, lease *coordinationv1.Lease) field.ErrorList {
				return validateLease(&lease.Spec)
			},
			ValidateUpdate: func(_ context.Context, lease, _ *coordinationv1.Lease) field.ErrorList {
				return validateLease(&lease.Spec)
			},
			AllowCreateOnUpdate:     true,
			DenyUnconditionalUpdate: true,
		}.Strategy(),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.Column("Holder", "string", coordinationv1.LeaseSpec{}.SwaggerDoc()["holderIdentity"]),
			api.AgeColumn(),
		},
		Row: api.Row(func(lease *coordinationv1.Lease) []any {
			return []any{lease.Name, ptr.Deref(lease.Spec.HolderIdentity, ""), api.Since(lease.CreationTimestamp)}
		}),
	})
}

// dropCoordinated drops the fields of coordinated leader election, a feature that is off by default upstream too.
func dropCoordinated(lease, old *coordinationv1.Lease) {
	if old == nil || old.Spec.Strategy == nil && old.Spec.PreferredHolder == nil {
		lease.Spec.Strategy, lease.Spec.PreferredHolder = nil, nil
	}
}

func validateLease(spec *coordinationv1.LeaseSpec) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("spec")
	if d := spec.LeaseDurationSeconds; d != nil && *d <= 0 {
		errs = append(errs, field.Invalid(path.Child("leaseDurationSeconds"), *d, "must be greater than 0"))
	}
	if t := spec.LeaseTransitions; t != nil && *t < 0 {
		errs = append(errs, field.Invalid(path.Child("leaseTransitions"), *t, "must be greater than or equal to 0"))
	}
	return errs
}
