package apiserver

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/validate/content"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/admission"

	"github.com/proa-k8s/proa/internal/apiserver/codec"
	"github.com/proa-k8s/proa/internal/apiserver/fieldmanager"
	"github.com/proa-k8s/proa/internal/store"
)

// change is what is to become of an object: by PUT, PATCH or through a scale.
type change struct {
	name   string
	dryRun bool
	// next makes the wanted object of the present one, which it must not change, managed fields included. cur is nil
	// when there is none: the result is then created, if creates.
	next    func(cur runtime.Object) (runtime.Object, error)
	creates bool
	// applied says that next has recorded managed fields for a new object.
	applied bool
	manager string

	createOptions *metav1.CreateOptions
	updateOptions *metav1.UpdateOptions
}

// update serves PUT.
func (s *Server) update(q *request) error {
	body, err := q.body()
	if err != nil {
		return err
	}
	var options metav1.UpdateOptions
	if values := q.query(); len(values) > 0 {
		if err := metav1.Convert_url_Values_To_v1_UpdateOptions(&values, &options, nil); err != nil {
			return apierrors.NewBadRequest(err.Error())
		}
		if errs := metav1validation.ValidateUpdateOptions(&options); len(errs) > 0 {
			return apierrors.NewInvalid(errKind("UpdateOptions"), "", errs)
		}
	}
	options.SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind("UpdateOptions"))
	obj, kind, err := s.decode(q, body, q.kind(), fieldValidation(options.FieldValidation))
	if err != nil {
		return err
	}
	if err := checkVersion(kind, q.kind()); err != nil {
		return err
	}
	if q.sub != nil && q.sub.Scale != nil {
		return s.updateScale(q, obj, &options)
	}
	hub, err := codec.ToHub(q.ep.Resource, q.ep.version, obj)
	if err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	m, err := meta.Accessor(hub)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	if err := matchNamespace(m, q.namespace()); err != nil {
		return err
	}
	if err := matchName(hub, q.info.Name); err != nil {
		return err
	}
	dedupOwners(q.ctx(), m, false)
	manager := fieldmanager.Name(options.FieldManager, q.http.UserAgent())
	made, created, err := s.change(q, change{
		name: q.info.Name, dryRun: isDryRun(options.DryRun), manager: manager,
		creates:       q.sub == nil && q.ep.AllowCreateOnUpdate,
		createOptions: createOptionsOf(options), updateOptions: &options,
		next: func(cur runtime.Object) (runtime.Object, error) {
			wanted := hub.DeepCopyObject()
			if cur == nil {
				return wanted, nil
			}
			if err := q.checkUID(wanted, cur); err != nil {
				return nil, err
			}
			return q.manager().Update(cur, wanted, manager)
		},
	})
	if err != nil {
		return err
	}
	return made.send(s, q, statusCode(created))
}

func statusCode(created bool) int {
	if created {
		return http.StatusCreated
	}
	return http.StatusOK
}

func createOptionsOf(o metav1.UpdateOptions) *metav1.CreateOptions {
	create := &metav1.CreateOptions{DryRun: o.DryRun, FieldManager: o.FieldManager, FieldValidation: o.FieldValidation}
	create.SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind("CreateOptions"))
	return create
}

// checkUID refuses an update of an object that is not the one that the client means.
func (q *request) checkUID(obj, cur runtime.Object) error {
	m, err := meta.Accessor(obj)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	before, err := meta.Accessor(cur)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	if uid := m.GetUID(); uid != "" && uid != before.GetUID() {
		key := "/registry/" + q.ep.Prefix + "/"
		if q.ep.Namespaced {
			key += before.GetNamespace() + "/"
		}
		return errPrecondition(q.ep.gr, key+before.GetName(), before.GetName(), string(uid), string(before.GetUID()))
	}
	return nil
}

// errEmptied ends an update after which nothing keeps the object, which is deleted then.
var errEmptied = errors.New("the last finalizer of a deleted object is gone")

// change writes a change. It says whether the object was created.
func (s *Server) change(q *request, c change) (outcome, bool, error) {
	ctx := q.ctx()
	for attempt := 0; ; attempt++ {
		var final runtime.Object // what a dry run or a deletion gives
		var seen int64
		update := func(cur *store.Object) (runtime.Object, []store.Op, error) {
			old, err := cur.Decoded()
			if err != nil {
				return nil, nil, err
			}
			seen = cur.Rev
			obj, ops, err := s.changed(ctx, q, c, old)
			final = obj
			return obj, ops, err
		}
		stored, err := s.applyChange(ctx, q, c, update)
		switch {
		case err == nil && c.dryRun:
			return outcome{obj: final}, false, nil
		case err == nil:
			return outcome{stored: stored}, false, nil
		case errors.Is(err, errEmptied):
			err := s.deleteEmptied(ctx, q, c, seen)
			if errors.Is(err, store.ErrGuard) && attempt < guardAttempts {
				continue
			}
			if errors.Is(err, store.ErrNotFound) {
				err = nil // somebody else was faster
			}
			return outcome{obj: final}, false, apiError(err, q.ep.gr, c.name)
		case errors.Is(err, store.ErrGuard) && attempt < guardAttempts:
			continue
		case errors.Is(err, store.ErrNotFound) && c.creates:
			made, err := s.createByChange(q, c)
			if apierrors.IsAlreadyExists(err) && attempt < guardAttempts {
				continue
			}
			return made, true, err
		default:
			return outcome{}, false, apiError(err, q.ep.gr, c.name)
		}
	}
}

// applyChange runs update in a transaction, or on the present object when it is a dry run.
func (s *Server) applyChange(ctx context.Context, q *request, c change, update store.UpdateFunc) (*store.Object, error) {
	if !c.dryRun {
		return q.ep.cache.Update(ctx, q.namespace(), c.name, update)
	}
	cur, err := q.ep.cache.Get(ctx, q.namespace(), c.name, -1)
	if err != nil {
		return nil, err
	}
	_, _, err = update(cur)
	return cur, err
}

// changed computes what is written for a change of an object, and with it.
func (s *Server) changed(ctx context.Context, q *request, c change, old runtime.Object) (runtime.Object, []store.Op, error) {
	obj, err := c.next(old)
	if err != nil {
		return nil, nil, err
	}
	o := operation{name: c.name, op: admission.Update, options: c.updateOptions, dryRun: c.dryRun}
	m, err := meta.Accessor(obj)
	if err != nil {
		return nil, nil, apierrors.NewInternalError(err)
	}
	before, err := meta.Accessor(old)
	if err != nil {
		return nil, nil, apierrors.NewInternalError(err)
	}
	mutated, err := s.gate.mutate(ctx, q, o, obj, old)
	if err != nil {
		return nil, nil, err
	}
	dedupOwners(ctx, m, true)
	if mutated && q.ep.Default != nil {
		q.ep.Default(obj)
	}
	if err := q.checkRevision(m, before); err != nil {
		return nil, nil, err
	}
	if err := s.prepareUpdate(ctx, q, obj, old, m, before); err != nil {
		return nil, nil, err
	}
	if fieldmanager.Unchanged(obj, old) {
		if err := s.gate.validate(ctx, q, o, obj, old); err != nil {
			return nil, nil, err
		}
		if q.released(obj, m, before) {
			return obj, nil, errEmptied
		}
		return old, nil, nil
	}
	var ops []store.Op
	if q.ep.companion != nil {
		if ops, err = q.ep.companion(ctx, obj, old); err != nil {
			return nil, nil, err
		}
	}
	if err := s.gate.validate(ctx, q, o, obj, old); err != nil {
		return nil, nil, err
	}
	if q.released(obj, m, before) {
		return obj, nil, errEmptied
	}
	if !c.dryRun {
		m.SetResourceVersion("")
	}
	return obj, ops, nil
}

// checkRevision is the optimistic lock.
func (q *request) checkRevision(m, before metav1.Object) error {
	rev := m.GetResourceVersion()
	if rev == "" || rev == "0" {
		if q.strategy().DenyUnconditionalUpdate {
			return apierrors.NewInvalid(schema.GroupKind{Group: q.ep.gr.Group, Kind: q.ep.gr.Resource}, before.GetName(), field.ErrorList{
				field.Invalid(field.NewPath("metadata", "resourceVersion"), 0, "must be specified for an update"),
			})
		}
		m.SetResourceVersion(before.GetResourceVersion())
		return nil
	}
	if rev == before.GetResourceVersion() {
		return nil
	}
	if _, err := strconv.ParseUint(rev, 10, 64); err != nil {
		invalid := field.Invalid(field.NewPath("metadata", "resourceVersion"), rev, err.Error())
		return apierrors.NewInvalid(q.ep.kind.GroupKind(), before.GetName(), field.ErrorList{invalid})
	}
	return errModified(q.ep.gr, before.GetName())
}

// pathSegment checks the name of an object that exists: nothing but that it can be a part of a path.
func pathSegment(name string, prefix bool) []string {
	if prefix {
		return content.IsPathSegmentPrefix(name)
	}
	return content.IsPathSegmentName(name)
}

// prepareUpdate applies the strategy of the endpoint and validates.
func (s *Server) prepareUpdate(ctx context.Context, q *request, obj, old runtime.Object, m, before metav1.Object) error {
	strategy := q.strategy()
	if err := matchNamespace(m, q.namespace()); err != nil {
		return err
	}
	m.SetGeneration(before.GetGeneration())
	if strategy.PrepareUpdate != nil {
		strategy.PrepareUpdate(ctx, obj, old)
	}
	keepSystemFields(m, before)
	metadata := field.NewPath("metadata")
	errs := apivalidation.ValidateObjectMetaAccessor(m, q.ep.Namespaced, pathSegment, metadata)
	errs = append(errs, apivalidation.ValidateObjectMetaAccessorUpdate(m, before, metadata)...)
	errs = append(errs, validateFinalizers(m)...)
	if strategy.ValidateUpdate != nil {
		errs = append(errs, strategy.ValidateUpdate(ctx, obj, old)...)
	}
	if len(errs) > 0 {
		return apierrors.NewInvalid(q.ep.kind.GroupKind(), m.GetName(), errs)
	}
	if strategy.Warn != nil {
		for _, text := range strategy.Warn(ctx, obj, old) {
			warn(ctx, text)
		}
	}
	return nil
}

// keepSystemFields takes from the present object what an update can't change.
func keepSystemFields(m, before metav1.Object) {
	if m.GetUID() == "" {
		m.SetUID(before.GetUID())
	}
	if created := before.GetCreationTimestamp(); !created.IsZero() {
		m.SetCreationTimestamp(created)
	}
	if deleted := before.GetDeletionTimestamp(); !deleted.IsZero() {
		m.SetDeletionTimestamp(deleted)
	}
	if grace := before.GetDeletionGracePeriodSeconds(); grace != nil && m.GetDeletionGracePeriodSeconds() == nil {
		m.SetDeletionGracePeriodSeconds(grace)
	}
	m.SetSelfLink("")
}

// released says whether nothing keeps a deleted object any more after an update.
func (q *request) released(obj runtime.Object, m, before metav1.Object) bool {
	grace := before.GetDeletionGracePeriodSeconds()
	return before.GetDeletionTimestamp() != nil && len(m.GetFinalizers()) == 0 && (grace == nil || *grace == 0) &&
		(q.ep.Held == nil || !q.ep.Held(obj))
}

// deleteEmptied deletes an object that an update has freed, if it is still at the revision that the update saw; ErrGuard
// says that it isn't.
func (s *Server) deleteEmptied(ctx context.Context, q *request, c change, seen int64) error {
	if c.dryRun {
		return nil
	}
	_, err := q.ep.cache.Delete(ctx, q.namespace(), c.name, func(cur *store.Object) ([]store.Op, error) {
		if cur.Rev != seen {
			return nil, store.ErrGuard
		}
		return s.deletionOps(ctx, q, cur)
	})
	return err
}

// createByChange creates an object that an update or an apply did not find.
func (s *Server) createByChange(q *request, c change) (outcome, error) {
	obj, err := c.next(nil)
	if err != nil {
		return outcome{}, err
	}
	m, err := meta.Accessor(obj)
	if err != nil {
		return outcome{}, apierrors.NewInternalError(err)
	}
	if uid := m.GetUID(); uid != "" {
		return outcome{}, apierrors.NewConflict(q.ep.gr, c.name, errors.New(
			"uid mismatch: the provided object specified uid "+string(uid)+", and no existing object was found"))
	}
	if err := s.authorizeCreate(q, c.name); err != nil {
		return outcome{}, err
	}
	wipe(m)
	m.SetResourceVersion("")
	if err := matchNamespace(m, q.namespace()); err != nil {
		return outcome{}, err
	}
	if err := matchName(obj, c.name); err != nil {
		return outcome{}, err
	}
	return s.createObject(q, creation{
		obj: obj, manager: c.manager, applied: c.applied,
		operation: operation{name: c.name, op: admission.Create, options: c.createOptions, dryRun: c.dryRun},
	})
}
