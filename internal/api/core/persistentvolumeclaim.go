package core

import (
	"context"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/proa-k8s/proa/internal/api"
)

// PersistentVolumeClaim describes persistentvolumeclaims.
func PersistentVolumeClaim() *api.Resource {
	status := api.Typed[*corev1.PersistentVolumeClaim]{
		PrepareUpdate:  func(_ context.Context, claim, old *corev1.PersistentVolumeClaim) { claim.Spec = old.Spec },
		ValidateUpdate: validateClaimStatusUpdate,
		ResetFields:    api.Reset([]string{"v1"}, fieldpath.MakePathOrDie("spec")),
	}.Strategy()
	return api.Define[corev1.PersistentVolumeClaim, corev1.PersistentVolumeClaimList](corev1.SchemeGroupVersion, api.Resource{
		Plural: "persistentvolumeclaims", Singular: "persistentvolumeclaim", Kind: "PersistentVolumeClaim",
		ShortNames: []string{"pvc"}, Namespaced: true, Prefix: "persistentvolumeclaims", ReturnDeleted: true,
		Strategy: api.Typed[*corev1.PersistentVolumeClaim]{
			Default:        defaultClaim,
			PrepareCreate:  prepareClaimCreate,
			PrepareUpdate:  prepareClaimUpdate,
			Validate:       validateClaim,
			ValidateUpdate: validateClaimUpdate,
			Warn:           warnClaim,
			ResetFields:    api.Reset([]string{"v1"}, fieldpath.MakePathOrDie("status")),
		}.Strategy(),
		Subresources: []api.Subresource{api.Status(corev1.SchemeGroupVersion.WithKind("PersistentVolumeClaim"), status)},
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.Column("Status", "string", corev1.PersistentVolumeClaimStatus{}.SwaggerDoc()["phase"]),
			api.Column("Volume", "string", corev1.PersistentVolumeClaimSpec{}.SwaggerDoc()["volumeName"]),
			api.Column("Capacity", "string", corev1.PersistentVolumeClaimStatus{}.SwaggerDoc()["capacity"]),
			api.Column("Access Modes", "string", corev1.PersistentVolumeClaimStatus{}.SwaggerDoc()["accessModes"]),
			api.Column("StorageClass", "string", "StorageClass of the pvc"),
			api.Column("VolumeAttributesClass", "string", "VolumeAttributesClass of the pvc"),
			api.AgeColumn(),
			api.WideColumn("VolumeMode", "string", corev1.PersistentVolumeClaimSpec{}.SwaggerDoc()["volumeMode"]),
		},
		Row: api.Row(claimRow),
	})
}

func defaultClaim(claim *corev1.PersistentVolumeClaim) {
	if claim.Status.Phase == "" {
		claim.Status.Phase = corev1.ClaimPending
	}
	DefaultPersistentVolumeClaimSpec(&claim.Spec)
}

func prepareClaimCreate(_ context.Context, claim *corev1.PersistentVolumeClaim) {
	claim.Status = corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimPending}
	alignDataSources(&claim.Spec)
}

func prepareClaimUpdate(_ context.Context, claim, old *corev1.PersistentVolumeClaim) {
	claim.Status = old.Status
	alignDataSources(&claim.Spec)
}

// alignDataSources keeps dataSource, the older field, and dataSourceRef telling the same (KEP-1495). dataSource may name a
// claim or a snapshot only, and is dropped otherwise, as it always has been; the namespace of dataSourceRef belongs to a
// feature that is off (CrossNamespaceVolumeDataSource).
func alignDataSources(spec *corev1.PersistentVolumeClaimSpec) {
	if ref := spec.DataSourceRef; ref != nil {
		ref.Namespace = nil
	}
	if s := spec.DataSource; s != nil && spec.DataSourceRef == nil {
		group := ""
		if s.APIGroup != nil {
			group = *s.APIGroup
		}
		isClaim := group == "" && s.Kind == "PersistentVolumeClaim"
		isSnapshot := group == "snapshot.storage.k8s.io" && s.Kind == "VolumeSnapshot"
		if !isClaim && !isSnapshot {
			spec.DataSource = nil
		}
	}
	switch {
	case spec.DataSource != nil && spec.DataSourceRef == nil:
		s := spec.DataSource
		spec.DataSourceRef = &corev1.TypedObjectReference{APIGroup: s.APIGroup, Kind: s.Kind, Name: s.Name}
	case spec.DataSource == nil && spec.DataSourceRef != nil:
		r := spec.DataSourceRef
		spec.DataSource = &corev1.TypedLocalObjectReference{APIGroup: r.APIGroup, Kind: r.Kind, Name: r.Name}
	}
}

func validateClaim(_ context.Context, claim *corev1.PersistentVolumeClaim) field.ErrorList {
	return ValidatePersistentVolumeClaimSpec(&claim.Spec, field.NewPath("spec"))
}

// ValidatePersistentVolumeClaimSpec checks the spec of a claim or of a template for claims.
func ValidatePersistentVolumeClaimSpec(spec *corev1.PersistentVolumeClaimSpec, path *field.Path) field.ErrorList {
	errs := validateAccessModes(spec.AccessModes, path.Child("accessModes"), "at least 1 access mode is required")
	if spec.Selector != nil {
		errs = append(errs, metav1validation.ValidateLabelSelector(spec.Selector,
			metav1validation.LabelSelectorValidationOptions{}, path.Child("selector"))...)
	}
	storage := path.Child("resources").Key(string(corev1.ResourceStorage))
	if size, ok := spec.Resources.Requests[corev1.ResourceStorage]; !ok {
		errs = append(errs, field.Required(storage, ""))
	} else if size.Sign() <= 0 {
		errs = append(errs, field.Invalid(storage, size.String(), "must be greater than zero"))
	}
	if name := spec.StorageClassName; name != nil && *name != "" {
		errs = append(errs, invalidName(*name, path.Child("storageClassName"))...)
	}
	if name := spec.VolumeAttributesClassName; name != nil && *name != "" {
		errs = append(errs, invalidName(*name, path.Child("volumeAttributesClassName"))...)
	}
	errs = append(errs, validateVolumeMode(spec.VolumeMode, path.Child("volumeMode"))...)
	if s := spec.DataSource; s != nil {
		errs = append(errs, validateDataSource(s.APIGroup, s.Kind, s.Name, path.Child("dataSource"))...)
	}
	if r := spec.DataSourceRef; r != nil {
		errs = append(errs, validateDataSource(r.APIGroup, r.Kind, r.Name, path.Child("dataSourceRef"))...)
		if s := spec.DataSource; s != nil && (s.Kind != r.Kind || s.Name != r.Name || !equality.Semantic.DeepEqual(s.APIGroup, r.APIGroup)) {
			errs = append(errs, field.Invalid(path, path.Child("dataSource").String(), "must match dataSourceRef"))
		}
	}
	return errs
}

func invalidName(name string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, message := range apivalidation.NameIsDNSSubdomain(name, false) {
		errs = append(errs, field.Invalid(path, name, message))
	}
	return errs
}

func validateVolumeMode(mode *corev1.PersistentVolumeMode, path *field.Path) field.ErrorList {
	if mode == nil || *mode == corev1.PersistentVolumeBlock || *mode == corev1.PersistentVolumeFilesystem {
		return nil
	}
	return field.ErrorList{field.NotSupported(path, *mode,
		[]corev1.PersistentVolumeMode{corev1.PersistentVolumeBlock, corev1.PersistentVolumeFilesystem})}
}

var allAccessModes = []corev1.PersistentVolumeAccessMode{
	corev1.ReadOnlyMany, corev1.ReadWriteMany, corev1.ReadWriteOnce, corev1.ReadWriteOncePod,
}

func validateAccessModes(modes []corev1.PersistentVolumeAccessMode, path *field.Path, missing string) field.ErrorList {
	if len(modes) == 0 {
		return field.ErrorList{field.Required(path, missing)}
	}
	var errs field.ErrorList
	for _, mode := range modes {
		if !slices.Contains(allAccessModes, mode) {
			errs = append(errs, field.NotSupported(path, mode, allAccessModes))
		}
	}
	if len(modes) > 1 && slices.Contains(modes, corev1.ReadWriteOncePod) {
		errs = append(errs, field.Forbidden(path, "may not use ReadWriteOncePod with other access modes"))
	}
	return errs
}

func validateDataSource(group *string, kind, name string, path *field.Path) field.ErrorList {
	errs := requireAll(path, "name", name, "kind", kind)
	if group == nil || *group == "" {
		if kind != "" && kind != "PersistentVolumeClaim" {
			errs = append(errs, field.Invalid(path, kind, "must be 'PersistentVolumeClaim' when referencing the default apiGroup"))
		}
		return errs
	}
	for _, message := range validation.IsDNS1123Subdomain(*group) {
		errs = append(errs, field.Invalid(path.Child("apiGroup"), *group, message))
	}
	return errs
}

// validateClaimUpdate: a claim is immutable but for its size, which may grow once it is bound, and its attributes class.
func validateClaimUpdate(ctx context.Context, claim, old *corev1.PersistentVolumeClaim) field.ErrorList {
	errs := validateClaim(ctx, claim)
	path := field.NewPath("spec")
	next, prev := claim.Spec.DeepCopy(), old.Spec.DeepCopy()
	if prev.VolumeName == "" {
		// The controller that binds the claim sets it, once.
		prev.VolumeName = next.VolumeName
	}
	errs = append(errs, validateClassUpdate(claim, old, prev)...)
	bound := claim.Status.Phase == corev1.ClaimBound
	if bound && next.Resources.Requests != nil {
		next.Resources.Requests[corev1.ResourceStorage] = prev.Resources.Requests[corev1.ResourceStorage]
	}
	nextClass, prevClass := next.VolumeAttributesClassName, prev.VolumeAttributesClassName
	if bound && nextClass != nil {
		next.VolumeAttributesClassName = prevClass
	}
	if !equality.Semantic.DeepEqual(next, prev) {
		errs = append(errs, field.Forbidden(path, "spec is immutable after creation except resources.requests and "+
			"volumeAttributesClassName for bound claims\n"+diff.Diff(prev, next)))
	}
	newSize, oldSize := claim.Spec.Resources.Requests[corev1.ResourceStorage], old.Spec.Resources.Requests[corev1.ResourceStorage]
	if newSize.Cmp(oldSize) < 0 {
		// A resize that could not be done may be taken back, down to what the volume has.
		size := old.Status.Capacity[corev1.ResourceStorage]
		if newSize.Cmp(size) <= 0 {
			errs = append(errs, field.Forbidden(path.Child("resources", "requests", "storage"),
				"field can not be less than status.capacity"))
		}
	}
	if !equality.Semantic.DeepEqual(nextClass, prevClass) && prevClass != nil && nextClass == nil {
		errs = append(errs, field.Forbidden(path.Child("volumeAttributesClassName"), "update from non-nil value to nil is forbidden"))
	}
	return append(errs, apivalidation.ValidateImmutableField(claim.Spec.VolumeMode, old.Spec.VolumeMode, field.NewPath("volumeMode"))...)
}

// validateClassUpdate: a claim that was created without a storage class may get one, once: that of its annotation, if it has
// the annotation. prev is the old spec as it is going to be compared with the new one.
func validateClassUpdate(claim, old *corev1.PersistentVolumeClaim, prev *corev1.PersistentVolumeClaimSpec) field.ErrorList {
	was, annotated := old.Annotations[corev1.BetaStorageClassAnnotation]
	is, stays := claim.Annotations[corev1.BetaStorageClassAnnotation]
	next := claim.Spec.StorageClassName
	fits := old.Spec.StorageClassName == nil && next != nil && (!annotated || *next == was)
	if fits {
		prev.StorageClassName = next
	}
	if is == was || fits && annotated && !stays {
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath("metadata", "annotations", corev1.BetaStorageClassAnnotation), is, "field is immutable")}
}

func validateClaimStatusUpdate(_ context.Context, claim, _ *corev1.PersistentVolumeClaim) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("status")
	if len(claim.Spec.AccessModes) == 0 {
		errs = append(errs, field.Required(field.NewPath("spec", "accessModes"), ""))
	}
	for _, name := range sortedNames(claim.Status.Capacity) {
		q := claim.Status.Capacity[name]
		errs = append(errs, validateStoredAmount(q, path.Child("capacity").Key(string(name)))...)
	}
	statuses := path.Child("allocatedResourceStatus")
	for _, name := range slices.Sorted(maps.Keys(claim.Status.AllocatedResourceStatuses)) {
		errs = append(errs, validateClaimResource(name, statuses)...)
		if !slices.Contains(resizeStatuses, claim.Status.AllocatedResourceStatuses[name]) {
			errs = append(errs, field.NotSupported(statuses, name, resizeStatuses))
		}
	}
	allocated := path.Child("allocatedResources")
	for _, name := range sortedNames(claim.Status.AllocatedResources) {
		if bad := validateClaimResource(name, allocated); len(bad) > 0 {
			errs = append(errs, bad...)
			continue
		}
		errs = append(errs, validateStoredAmount(claim.Status.AllocatedResources[name], allocated.Key(string(name)))...)
	}
	return errs
}

var resizeStatuses = []corev1.ClaimResourceStatus{
	corev1.PersistentVolumeClaimControllerResizeInProgress, corev1.PersistentVolumeClaimControllerResizeInfeasible,
	corev1.PersistentVolumeClaimNodeResizeInProgress, corev1.PersistentVolumeClaimNodeResizeInfeasible,
	corev1.PersistentVolumeClaimNodeResizePending,
}

func validateStoredAmount(q resource.Quantity, path *field.Path) field.ErrorList {
	if q.Sign() < 0 {
		return field.ErrorList{field.Invalid(path, q.Value(), "must be a valid resource quantity")}
	}
	return nil
}

// validateClaimResource: a claim is about storage, and what others define under names of their own.
func validateClaimResource(name corev1.ResourceName, path *field.Path) field.ErrorList {
	errs := api.InvalidAll(path, name, validation.IsQualifiedName(string(name)))
	if len(errs) == 0 && isNative(name) && name != corev1.ResourceStorage {
		errs = append(errs, field.NotSupported(path, name, []corev1.ResourceName{corev1.ResourceStorage}))
	}
	return errs
}

func warnClaim(_ context.Context, claim, old *corev1.PersistentVolumeClaim) []string {
	if old != nil && equality.Semantic.DeepEqual(claim.Spec, old.Spec) {
		return nil
	}
	var warnings []string
	if _, ok := claim.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		warnings = append(warnings, `metadata.annotations[volume.beta.kubernetes.io/storage-class]: deprecated since v1.8; use "storageClassName" attribute instead`)
	}
	return append(warnings, warnFractionalBytes(claim.Spec.Resources.Requests, field.NewPath("spec", "resources", "requests"))...)
}

// warnFractionalBytes: "100m" of memory or storage is a tenth of a byte, and hardly ever meant.
func warnFractionalBytes(list corev1.ResourceList, path *field.Path) []string {
	var warnings []string
	for _, name := range sortedNames(list) {
		q := list[name]
		bytes := name == corev1.ResourceMemory || name == corev1.ResourceStorage || name == corev1.ResourceEphemeralStorage
		if bytes && q.MilliValue()%1000 != 0 {
			warnings = append(warnings, path.Key(string(name)).String()+": fractional byte value \""+q.String()+"\" is invalid, must be an integer")
		}
	}
	return warnings
}

func claimRow(claim *corev1.PersistentVolumeClaim) []any {
	phase := string(claim.Status.Phase)
	if claim.DeletionTimestamp != nil {
		phase = "Terminating"
	}
	capacity, modes, mode := "", "", "<unset>"
	if claim.Spec.VolumeName != "" {
		modes = accessModesCell(claim.Status.AccessModes)
		storage := claim.Status.Capacity[corev1.ResourceStorage]
		capacity = quantityCell(storage)
	}
	if claim.Spec.VolumeMode != nil {
		mode = string(*claim.Spec.VolumeMode)
	}
	attributes := "<unset>"
	if claim.Spec.VolumeAttributesClassName != nil {
		attributes = *claim.Spec.VolumeAttributesClassName
	}
	return []any{claim.Name, phase, claim.Spec.VolumeName, capacity, modes, claimClass(claim), attributes,
		api.Since(claim.CreationTimestamp), mode}
}

// claimClass is the claim's storage class; the annotation is how it was named first.
func claimClass(claim *corev1.PersistentVolumeClaim) string {
	if class, ok := claim.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		return class
	}
	if claim.Spec.StorageClassName != nil {
		return *claim.Spec.StorageClassName
	}
	return ""
}

func quantityCell(q resource.Quantity) string { return q.String() }

// accessModesCell abbreviates access modes: RWO,ROX,RWX,RWOP.
func accessModesCell(modes []corev1.PersistentVolumeAccessMode) string {
	var cells []string
	for _, m := range []struct {
		mode corev1.PersistentVolumeAccessMode
		cell string
	}{
		{corev1.ReadWriteOnce, "RWO"}, {corev1.ReadOnlyMany, "ROX"}, {corev1.ReadWriteMany, "RWX"}, {corev1.ReadWriteOncePod, "RWOP"},
	} {
		if slices.Contains(modes, m.mode) {
			cells = append(cells, m.cell)
		}
	}
	return strings.Join(cells, ",")
}
