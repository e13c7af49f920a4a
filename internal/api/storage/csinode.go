package storage

import (
	"context"

	storagev1 "k8s.io/api/storage/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-k8s/proa/internal/api"
)

// maxNodeID is the longest name that a driver may have for a node, in bytes.
const maxNodeID = 256

// CSINode describes csinodes: which drivers a node has.
func CSINode() *api.Resource {
	return api.Define[storagev1.CSINode, storagev1.CSINodeList](storagev1.SchemeGroupVersion, api.Resource{
		Plural: "csinodes", Singular: "csinode", Kind: "CSINode",
		Prefix: "csinodes",
		Strategy: api.Typed[*storagev1.CSINode]{
			Validate: func(_ context.Context, node *storagev1.CSINode) field.ErrorList {
				return validateNodeDrivers(node.Spec.Drivers)
			},
			ValidateUpdate: func(_ context.Context, node, old *storagev1.CSINode) field.ErrorList {
				return append(validateNodeDrivers(node.Spec.Drivers), keepsDrivers(node.Spec.Drivers, old.Spec.Drivers)...)
			},
			DenyUnconditionalUpdate: true,
		}.Strategy(),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.Column("Drivers", "integer", "Drivers indicates the number of CSI drivers registered on the node"),
			api.AgeColumn(),
		},
		Row: api.Row(func(node *storagev1.CSINode) []any {
			return []any{node.Name, int64(len(node.Spec.Drivers)), api.Since(node.CreationTimestamp)}
		}),
	})
}

func validateNodeDrivers(drivers []storagev1.CSINodeDriver) field.ErrorList {
	var errs field.ErrorList
	names := sets.New[string]()
	for i := range drivers {
		driver, at := &drivers[i], field.NewPath("spec", "drivers").Index(i)
		errs = append(errs, validateDriverName(driver.Name, at.Child("name"))...)
		if names.Has(driver.Name) {
			errs = append(errs, field.Duplicate(at.Child("name"), driver.Name))
		}
		names.Insert(driver.Name)
		if driver.NodeID == "" {
			errs = append(errs, field.Required(at.Child("nodeID"), driver.NodeID))
		} else if len(driver.NodeID) > maxNodeID {
			errs = append(errs, field.Invalid(at.Child("nodeID"), driver.NodeID, validation.MaxLenError(maxNodeID)))
		}
		if driver.Allocatable != nil && driver.Allocatable.Count != nil {
			errs = append(errs, api.ValidateNonNegative(at.Child("allocatable", "count"), *driver.Allocatable.Count)...)
		}
		keys := sets.New[string]()
		for j, key := range driver.TopologyKeys {
			where := at.Child("topologyKeys").Index(j)
			if keys.Has(key) {
				errs = append(errs, field.Duplicate(where, key))
			}
			keys.Insert(key)
			errs = append(errs, api.InvalidAll(where, key, validation.IsQualifiedName(key))...)
		}
	}
	return errs
}

// keepsDrivers checks that a driver which stays is as it was, but for how many volumes it can take (KEP-4876).
func keepsDrivers(drivers, old []storagev1.CSINodeDriver) field.ErrorList {
	var errs field.ErrorList
	for i := range drivers {
		for j := range old {
			if drivers[i].Name != old[j].Name {
				continue
			}
			was := old[j]
			was.Allocatable = drivers[i].Allocatable
			if !apiequality.Semantic.DeepEqual(drivers[i], was) {
				errs = append(errs, field.Invalid(field.NewPath("spec", "drivers").Index(i), drivers[i], "field is immutable"))
			}
		}
	}
	return errs
}
