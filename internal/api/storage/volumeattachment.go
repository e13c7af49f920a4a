package storage

import (
	"context"

	storagev1 "k8s.io/api/storage/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/proa-k8s/proa/internal/api"
	"github.com/proa-k8s/proa/internal/api/core"
)

// maxErrorMessage is the longest message of a failed attachment, in bytes.
const maxErrorMessage = 1024

// VolumeAttachment describes volumeattachments.
func VolumeAttachment() *api.Resource {
	versions := []string{storagev1.SchemeGroupVersion.String()}
	spec, status := storagev1.VolumeAttachmentSpec{}.SwaggerDoc(), storagev1.VolumeAttachmentStatus{}.SwaggerDoc()
	return api.Define[storagev1.VolumeAttachment, storagev1.VolumeAttachmentList](storagev1.SchemeGroupVersion, api.Resource{
		Plural: "volumeattachments", Singular: "volumeattachment", Kind: "VolumeAttachment",
		Prefix: "volumeattachments",
		Strategy: api.Typed[*storagev1.VolumeAttachment]{
			PrepareCreate: func(_ context.Context, a *storagev1.VolumeAttachment) { a.Status = storagev1.VolumeAttachmentStatus{} },
			PrepareUpdate: func(_ context.Context, a, old *storagev1.VolumeAttachment) { a.Status = old.Status },
			Validate: func(_ context.Context, a *storagev1.VolumeAttachment) field.ErrorList {
				return validateAttachment(&a.Spec, field.NewPath("spec"))
			},
			ValidateUpdate:          validateAttachmentUpdate,
			DenyUnconditionalUpdate: true,
			ResetFields:             api.Reset(versions, fieldpath.MakePathOrDie("status")),
		}.Strategy(),
		Subresources: []api.Subresource{
			api.Status(storagev1.SchemeGroupVersion.WithKind("VolumeAttachment"), api.Typed[*storagev1.VolumeAttachment]{
				PrepareUpdate:           func(_ context.Context, a, old *storagev1.VolumeAttachment) { a.Spec = old.Spec },
				ValidateUpdate:          validateAttachmentUpdate,
				DenyUnconditionalUpdate: true,
				ResetFields:             api.Reset(versions, fieldpath.MakePathOrDie("metadata"), fieldpath.MakePathOrDie("spec")),
			}.Strategy()),
		},
		Columns: []metav1.TableColumnDefinition{
			{Name: "Name", Type: "string", Format: "name", Description: metav1.ObjectMeta{}.SwaggerDoc()["name"]},
			api.Column("Attacher", "string", spec["attacher"]),
			api.Column("PV", "string", storagev1.VolumeAttachmentSource{}.SwaggerDoc()["persistentVolumeName"]),
			api.Column("Node", "string", spec["nodeName"]),
			api.Column("Attached", "boolean", status["attached"]),
			api.AgeColumn(),
		},
		Row: api.Row(func(a *storagev1.VolumeAttachment) []any {
			return []any{
				a.Name, a.Spec.Attacher, ptr.Deref(a.Spec.Source.PersistentVolumeName, ""), a.Spec.NodeName,
				a.Status.Attached, api.Since(a.CreationTimestamp),
			}
		}),
	})
}

func validateAttachment(spec *storagev1.VolumeAttachmentSpec, path *field.Path) field.ErrorList {
	errs := validateDriverName(spec.Attacher, path.Child("attacher"))
	source := path.Child("source")
	const exactlyOne = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
	switch name, inline := spec.Source.PersistentVolumeName, spec.Source.InlineVolumeSpec; {
	case name == nil && inline == nil:
		errs = append(errs, field.Required(source, exactlyOne))
	case name != nil && inline != nil:
		errs = append(errs, field.Forbidden(source, exactlyOne))
	case inline != nil:
		errs = append(errs, core.ValidateInlineVolumeSpec(inline, source.Child("inlineVolumeSpec"))...)
	case *name == "":
		errs = append(errs, field.Required(source.Child("persistentVolumeName"), "must specify non empty persistentVolumeName"))
	default:
		errs = append(errs, api.InvalidAll(source.Child("persistentVolumeName"), *name, apivalidation.NameIsDNSSubdomain(*name, false))...)
	}
	return append(errs, api.InvalidAll(path.Child("nodeName"), spec.NodeName, apivalidation.NameIsDNSSubdomain(spec.NodeName, false))...)
}

func validateAttachmentUpdate(_ context.Context, a, old *storagev1.VolumeAttachment) field.ErrorList {
	errs := apivalidation.ValidateImmutableField(a.Spec, old.Spec, field.NewPath("spec"))
	path := field.NewPath("status")
	errs = append(errs, validateParameters(a.Status.AttachmentMetadata, path.Child("attachmentMetadata"))...)
	for name, failure := range map[string]*storagev1.VolumeError{"attachError": a.Status.AttachError, "detachError": a.Status.DetachError} {
		if failure != nil && len(failure.Message) > maxErrorMessage {
			errs = append(errs, field.TooLong(path.Child(name, "message"), "", maxErrorMessage))
		}
	}
	return errs
}
