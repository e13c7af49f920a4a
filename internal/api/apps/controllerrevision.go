package apps

import (
	"context"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	appsv1beta1 "k8s.io/api/apps/v1beta1"
	appsv1beta2 "k8s.io/api/apps/v1beta2"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-k8s/proa/internal/api"
)

// ControllerRevision describes controllerrevisions: the past templates of stateful sets and daemon sets.
func ControllerRevision() *api.Resource {
	doc := appsv1.ControllerRevision{}.SwaggerDoc()
	return api.Define[appsv1.ControllerRevision, appsv1.ControllerRevisionList](appsv1.SchemeGroupVersion, api.Resource{
		Plural: "controllerrevisions", Singular: "controllerrevision", Kind: "ControllerRevision", Namespaced: true,
		Prefix: "controllerrevisions",
		Versions: []api.Version{
			api.NewVersion[appsv1beta2.ControllerRevision, appsv1beta2.ControllerRevisionList, appsv1.ControllerRevision](
				appsv1beta2.SchemeGroupVersion,
				func(in *appsv1beta2.ControllerRevision, out *appsv1.ControllerRevision) error {
					out.ObjectMeta, out.Data, out.Revision = in.ObjectMeta, in.Data, in.Revision
					return nil
				},
				func(in *appsv1.ControllerRevision, out *appsv1beta2.ControllerRevision) error {
					out.ObjectMeta, out.Data, out.Revision = in.ObjectMeta, in.Data, in.Revision
					return nil
				}),
			api.NewVersion[appsv1beta1.ControllerRevision, appsv1beta1.ControllerRevisionList, appsv1.ControllerRevision](
				appsv1beta1.SchemeGroupVersion,
				func(in *appsv1beta1.ControllerRevision, out *appsv1.ControllerRevision) error {
					out.ObjectMeta, out.Data, out.Revision = in.ObjectMeta, in.Data, in.Revision
					return nil
				},
				func(in *appsv1.ControllerRevision, out *appsv1beta1.ControllerRevision) error {
					out.ObjectMeta, out.Data, out.Revision = in.ObjectMeta, in.Data, in.Revision
					return nil
				}),
		},
		Strategy: api.Typed[*appsv1.ControllerRevision]{
			Validate: func(_ context.Context, r *appsv1.ControllerRevision) field.ErrorList { return validateRevision(r) },
			ValidateUpdate: func(_ context.Context, r, old *appsv1.ControllerRevision) field.ErrorList {
				errs := validateRevision(r)
				if !apiequality.Semantic.DeepEqual(r.Data.Raw, old.Data.Raw) || !apiequality.Semantic.DeepEqual(r.Data.Object, old.Data.Object) {
					errs = append(errs, apivalidation.ValidateImmutableField(r.Data, old.Data, field.NewPath("data"))...)
				}
				return errs
			},
		}.Strategy(),
		Columns: []metav1.TableColumnDefinition{
			api.NameColumn(),
			api.Column("Controller", "string", "Controller of the object"),
			api.Column("Revision", "string", doc["revision"]),
			api.AgeColumn(),
		},
		Row: api.Row(func(r *appsv1.ControllerRevision) []any {
			return []any{r.Name, controllerCell(r), r.Revision, api.Since(r.CreationTimestamp)}
		}),
	})
}

func validateRevision(r *appsv1.ControllerRevision) field.ErrorList {
	var errs field.ErrorList
	if len(r.Data.Raw) == 0 && r.Data.Object == nil {
		errs = append(errs, field.Required(field.NewPath("data"), "data is mandatory"))
	}
	return append(errs, api.ValidateNonNegative(field.NewPath("revision"), r.Revision)...)
}

// controllerCell names the controller: statefulset.apps/web.
func controllerCell(r *appsv1.ControllerRevision) string {
	owner := metav1.GetControllerOf(r)
	if owner == nil {
		return "<none>"
	}
	kind := schema.FromAPIVersionAndKind(owner.APIVersion, owner.Kind).GroupKind()
	return strings.ToLower(kind.String()) + "/" + owner.Name
}
