package storage

import (
	"context"

	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-k8s/proa/internal/api"
)

// CSIStorageCapacity describes csistoragecapacities: how much a driver can still provide where.
func CSIStorageCapacity() *api.Resource {
	doc := storagev1.CSIStorageCapacity{}.SwaggerDoc()
	return api.Define[storagev1.CSIStorageCapacity, storagev1.CSIStorageCapacityList](storagev1.SchemeGroupVersion, api.Resource{
		Plural: "csistoragecapacities", Singular: "csistoragecapacity", Kind: "CSIStorageCapacity",
		Namespaced: true,
		Prefix:     "csistoragecapacities",
		Strategy: api.Typed[*storagev1.CSIStorageCapacity]{
			Validate: func(_ context.Context, c *storagev1.CSIStorageCapacity) field.ErrorList { return validateCapacity(c) },
			ValidateUpdate: func(_ context.Context, c, old *storagev1.CSIStorageCapacity) field.ErrorList {
				errs := validateCapacity(c)
				errs = append(errs, apivalidation.ValidateImmutableField(c.NodeTopology, old.NodeTopology, field.NewPath("nodeTopology"))...)
				return append(errs, apivalidation.ValidateImmutableField(c.StorageClassName, old.StorageClassName, field.NewPath("storageClassName"))...)
			},
		}.Strategy(),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.Column("StorageClassName", "string", doc["storageClassName"]),
			api.Column("Capacity", "string", doc["capacity"]),
		},
		Row: api.Row(func(c *storagev1.CSIStorageCapacity) []any {
			capacity := "<unset>"
			if c.Capacity != nil {
				capacity = c.Capacity.String()
			}
			return []any{c.Name, c.StorageClassName, capacity}
		}),
	})
}

func validateCapacity(c *storagev1.CSIStorageCapacity) field.ErrorList {
	errs := metav1validation.ValidateLabelSelector(c.NodeTopology, metav1validation.LabelSelectorValidationOptions{}, field.NewPath("nodeTopology"))
	errs = append(errs, api.InvalidAll(field.NewPath("storageClassName"), c.StorageClassName, apivalidation.NameIsDNSSubdomain(c.StorageClassName, false))...)
	for name, quantity := range map[string]*resource.Quantity{"capacity": c.Capacity, "maximumVolumeSize": c.MaximumVolumeSize} {
		if quantity != nil && quantity.Sign() < 0 {
			errs = append(errs, field.Invalid(field.NewPath(name), quantity.String(), "must be greater than or equal to 0"))
		}
	}
	return errs
}
