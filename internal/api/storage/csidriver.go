package storage

import (
	"context"
	"fmt"
	"strings"

	storagev1 "k8s.io/api/storage/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/proa-k8s/proa/internal/api"
)

// The limits of what a driver may ask for: characters of its name, seconds that a token lives, and the shortest period, in
// seconds, after which a node says anew how many volumes it can take.
const (
	maxDriverName     = 63
	minTokenSeconds   = 10 * 60
	maxTokenSeconds   = 1 << 32
	minUpdateInterval = 10
)

// CSIDriver describes csidrivers.
func CSIDriver() *api.Resource {
	doc := storagev1.CSIDriverSpec{}.SwaggerDoc()
	return api.Define[storagev1.CSIDriver, storagev1.CSIDriverList](storagev1.SchemeGroupVersion, api.Resource{
		Plural: "csidrivers", Singular: "csidriver", Kind: "CSIDriver",
		Prefix: "csidrivers",
		Strategy: api.Typed[*storagev1.CSIDriver]{
			Default: func(d *storagev1.CSIDriver) { defaultDriver(&d.Spec) },
			PrepareUpdate: func(_ context.Context, d, old *storagev1.CSIDriver) {
				if !apiequality.Semantic.DeepEqual(d.Spec.TokenRequests, old.Spec.TokenRequests) ||
					!apiequality.Semantic.DeepEqual(d.Spec.RequiresRepublish, old.Spec.RequiresRepublish) ||
					!apiequality.Semantic.DeepEqual(d.Spec.SELinuxMount, old.Spec.SELinuxMount) {
					d.Generation = old.Generation + 1
				}
			},
			Validate: func(_ context.Context, d *storagev1.CSIDriver) field.ErrorList {
				return append(validateDriverName(d.Name, field.NewPath("name")), validateDriverSpec(&d.Spec)...)
			},
			ValidateUpdate: func(_ context.Context, d, old *storagev1.CSIDriver) field.ErrorList {
				path := field.NewPath("spec")
				errs := validateDriverSpec(&d.Spec)
				errs = append(errs, apivalidation.ValidateImmutableField(d.Spec.AttachRequired, old.Spec.AttachRequired, path.Child("attachedRequired"))...)
				return append(errs, apivalidation.ValidateImmutableField(d.Spec.VolumeLifecycleModes, old.Spec.VolumeLifecycleModes, path.Child("volumeLifecycleModes"))...)
			},
			DenyUnconditionalUpdate: true,
		}.Strategy(),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.Column("AttachRequired", "boolean", doc["attachRequired"]),
			api.Column("PodInfoOnMount", "boolean", doc["podInfoOnMount"]),
			api.Column("StorageCapacity", "boolean", doc["storageCapacity"]),
			api.Column("TokenRequests", "string", doc["tokenRequests"]),
			api.Column("RequiresRepublish", "boolean", doc["requiresRepublish"]),
			api.Column("Modes", "string", doc["volumeLifecycleModes"]),
			api.AgeColumn(),
		},
		Row: api.Row(driverRow),
	})
}

func driverRow(d *storagev1.CSIDriver) []any {
	spec := &d.Spec
	tokens, modes := "<unset>", "<none>"
	if spec.TokenRequests != nil {
		audiences := make([]string, len(spec.TokenRequests))
		for i, request := range spec.TokenRequests {
			audiences[i] = request.Audience
		}
		tokens = strings.Join(audiences, ",")
	}
	if len(spec.VolumeLifecycleModes) > 0 {
		names := make([]string, len(spec.VolumeLifecycleModes))
		for i, mode := range spec.VolumeLifecycleModes {
			names[i] = string(mode)
		}
		modes = strings.Join(names, ",")
	}
	return []any{
		d.Name, ptr.Deref(spec.AttachRequired, true), ptr.Deref(spec.PodInfoOnMount, false), ptr.Deref(spec.StorageCapacity, false),
		tokens, ptr.Deref(spec.RequiresRepublish, false), modes, api.Since(d.CreationTimestamp),
	}
}

func defaultDriver(spec *storagev1.CSIDriverSpec) {
	for _, f := range []struct {
		value **bool
		to    bool
	}{
		{&spec.AttachRequired, true}, {&spec.PodInfoOnMount, false}, {&spec.StorageCapacity, false},
		{&spec.RequiresRepublish, false}, {&spec.SELinuxMount, false},
	} {
		if *f.value == nil {
			*f.value = ptr.To(f.to)
		}
	}
	if spec.FSGroupPolicy == nil {
		spec.FSGroupPolicy = ptr.To(storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy)
	}
	if len(spec.VolumeLifecycleModes) == 0 {
		spec.VolumeLifecycleModes = []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecyclePersistent}
	}
}

// validateDriverName checks the name of a CSI driver (CSI specification, GetPluginInfo).
func validateDriverName(name string, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if name == "" {
		errs = append(errs, field.Required(at, ""))
	}
	if len(name) > maxDriverName {
		errs = append(errs, field.TooLong(at, "", maxDriverName))
	}
	return append(errs, api.InvalidAll(at, name, validation.IsDNS1123Subdomain(strings.ToLower(name)))...)
}

func validateDriverSpec(spec *storagev1.CSIDriverSpec) field.ErrorList {
	path := field.NewPath("spec")
	errs := api.ValidateSupported(path.Child("fsGroupPolicy"), ptr.Deref(spec.FSGroupPolicy, ""),
		storagev1.FileFSGroupPolicy, storagev1.NoneFSGroupPolicy, storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy)
	for _, mode := range spec.VolumeLifecycleModes {
		errs = append(errs, api.ValidateSupported(path.Child("volumeLifecycleModes"), mode,
			storagev1.VolumeLifecyclePersistent, storagev1.VolumeLifecycleEphemeral)...)
	}
	audiences := sets.New[string]()
	for i, request := range spec.TokenRequests {
		at := path.Child("tokenRequests").Index(i)
		if audiences.Has(request.Audience) {
			errs = append(errs, field.Duplicate(at.Child("audience"), request.Audience))
		}
		audiences.Insert(request.Audience)
		switch seconds := ptr.Deref(request.ExpirationSeconds, minTokenSeconds); {
		case seconds < minTokenSeconds:
			errs = append(errs, field.Invalid(at.Child("expirationSeconds"), seconds, "may not specify a duration less than 10 minutes"))
		case seconds > maxTokenSeconds:
			errs = append(errs, field.Invalid(at.Child("expirationSeconds"), seconds, "may not specify a duration larger than 2^32 seconds"))
		}
	}
	if period := spec.NodeAllocatableUpdatePeriodSeconds; period != nil && *period < minUpdateInterval {
		errs = append(errs, field.Invalid(path.Child("nodeAllocatableUpdatePeriodSeconds"), *period,
			fmt.Sprintf("must be greater than or equal to %d seconds", minUpdateInterval)))
	}
	if spec.ServiceAccountTokenInSecrets != nil && len(spec.TokenRequests) == 0 {
		errs = append(errs, field.Invalid(path.Child("serviceAccountTokenInSecrets"), *spec.ServiceAccountTokenInSecrets,
			"can only be set when tokenRequests is configured"))
	}
	return errs
}
