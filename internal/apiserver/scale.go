package apiserver

import (
	"net/http"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-k8s/proa/internal/apiserver/fieldmanager"
	"github.com/proa-k8s/proa/internal/apiserver/patch"
	"github.com/proa-k8s/proa/internal/store"
)

// scaleOf makes the Scale of an object of the hub type. Its managed fields are those of the number of replicas.
func (q *request) scaleOf(hub runtime.Object) (*autoscalingv1.Scale, error) {
	m, err := meta.Accessor(hub)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	spec, status, selector := q.sub.Scale.Get(hub)
	scale := &autoscalingv1.Scale{
		ObjectMeta: metav1.ObjectMeta{
			Name: m.GetName(), Namespace: m.GetNamespace(), UID: m.GetUID(),
			ResourceVersion: m.GetResourceVersion(), CreationTimestamp: m.GetCreationTimestamp(),
		},
		Spec:   autoscalingv1.ScaleSpec{Replicas: spec},
		Status: autoscalingv1.ScaleStatus{Replicas: status, Selector: selector},
	}
	scale.SetGroupVersionKind(autoscalingv1.SchemeGroupVersion.WithKind("Scale"))
	return scale, nil
}

// scaleFields translates between the managed fields of an object and of its scale.
func (q *request) scaleFields(hub runtime.Object) (*managedfields.ScaleHandler, error) {
	m, err := meta.Accessor(hub)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	paths := make(managedfields.ResourcePathMappings, len(q.ep.Versions))
	for _, v := range q.ep.Versions {
		paths[v.String()] = q.sub.Scale.ReplicasPath
	}
	return managedfields.NewScaleHandler(m.GetManagedFields(), q.ep.version.GroupVersion, paths), nil
}

func (s *Server) sendScale(q *request, code int, o *store.Object) error {
	hub, err := o.Decoded()
	if err != nil {
		return err
	}
	return s.sendScaleOf(q, code, hub)
}

func (s *Server) sendScaleOf(q *request, code int, hub runtime.Object) error {
	scale, err := q.scaleOf(hub)
	if err != nil {
		return err
	}
	return s.sendObject(q, code, scale)
}

// updateScale serves PUT of a scale.
func (s *Server) updateScale(q *request, obj runtime.Object, options *metav1.UpdateOptions) error {
	wanted, ok := obj.(*autoscalingv1.Scale)
	if !ok {
		return apierrors.NewBadRequest("the body is no Scale")
	}
	if err := matchNamespace(wanted, q.namespace()); err != nil {
		return err
	}
	if err := matchName(wanted, q.info.Name); err != nil {
		return err
	}
	manager := fieldmanager.Name(options.FieldManager, q.http.UserAgent())
	return s.changeScale(q, options, func(live *autoscalingv1.Scale) (*autoscalingv1.Scale, error) {
		next := wanted.DeepCopy()
		next.SetGroupVersionKind(live.GroupVersionKind())
		return recordScale(q, live, next, manager)
	})
}

// patchScale serves PATCH of a scale.
func (s *Server) patchScale(p *patcher) error {
	o := p.options
	update := &metav1.UpdateOptions{DryRun: o.DryRun, FieldManager: o.FieldManager, FieldValidation: o.FieldValidation}
	update.SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind("UpdateOptions"))
	manager := fieldmanager.Name(o.FieldManager, p.q.http.UserAgent())
	return s.changeScale(p.q, update, func(live *autoscalingv1.Scale) (*autoscalingv1.Scale, error) {
		if p.kind == types.ApplyYAMLPatchType {
			obj, err := p.apply(p.q.sub.manager, live)
			if err != nil {
				return nil, err
			}
			return obj.(*autoscalingv1.Scale), nil
		}
		next := &autoscalingv1.Scale{}
		flaws, err := patch.Apply(p.kind, p.body, live, next, p.directive() != metav1.FieldValidationIgnore)
		if err != nil {
			return nil, err
		}
		if err := p.judge(flaws); err != nil {
			return nil, err
		}
		if err := matchName(next, p.q.info.Name); err != nil {
			return nil, err
		}
		return recordScale(p.q, live, next, manager)
	})
}

func recordScale(q *request, live, next *autoscalingv1.Scale, manager string) (*autoscalingv1.Scale, error) {
	obj, err := q.sub.manager.Update(live, next, manager)
	if err != nil {
		return nil, err
	}
	return obj.(*autoscalingv1.Scale), nil
}

// changeScale writes the number of replicas that next says.
func (s *Server) changeScale(q *request, options *metav1.UpdateOptions, next func(live *autoscalingv1.Scale) (*autoscalingv1.Scale, error)) error {
	c := change{
		name: q.info.Name, dryRun: isDryRun(options.DryRun), updateOptions: options, createOptions: createOptionsOf(*options),
		next: func(cur runtime.Object) (runtime.Object, error) {
			live, err := q.scaleOf(cur)
			if err != nil {
				return nil, err
			}
			translate, err := q.scaleFields(cur)
			if err != nil {
				return nil, err
			}
			if live.ManagedFields, err = translate.ToSubresource(); err != nil {
				return nil, apierrors.NewInternalError(err)
			}
			scale, err := next(live.DeepCopy())
			if err != nil {
				return nil, err
			}
			return q.scaled(cur, live, scale, translate)
		},
	}
	made, _, err := s.change(q, c)
	if err != nil {
		return err
	}
	if made.stored != nil {
		return s.sendScale(q, http.StatusOK, made.stored)
	}
	return s.sendScaleOf(q, http.StatusOK, made.obj)
}

// scaled makes the object that a scale wants of the present one.
func (q *request) scaled(cur runtime.Object, live, scale *autoscalingv1.Scale, translate *managedfields.ScaleHandler) (runtime.Object, error) {
	if scale.UID != "" && scale.UID != live.UID {
		return nil, q.checkUID(scale, cur)
	}
	var errs field.ErrorList
	if scale.Spec.Replicas < 0 {
		errs = append(errs, field.Invalid(field.NewPath("spec", "replicas"), scale.Spec.Replicas, "must be greater than or equal to 0"))
	}
	if len(errs) > 0 {
		return nil, apierrors.NewInvalid(scale.GroupVersionKind().GroupKind(), scale.Name, errs)
	}
	entries, err := translate.ToParent(scale.ManagedFields)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	obj := cur.DeepCopyObject()
	m, err := meta.Accessor(obj)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	q.sub.Scale.Set(obj, scale.Spec.Replicas)
	m.SetManagedFields(entries)
	m.SetResourceVersion(scale.ResourceVersion)
	return obj, nil
}
