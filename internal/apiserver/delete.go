//lint:file-ignore SA1019 orphanDependents is deprecated, and obeyed as long as Kubernetes obeys it.

package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"

	"github.com/proa-k8s/proa/internal/apiserver/negotiate"
	"github.com/proa-k8s/proa/internal/store"
)

// delete serves DELETE of one object.
func (s *Server) delete(q *request) error {
	options, err := s.deleteOptions(q)
	if err != nil {
		return err
	}
	done, err := s.deleteObject(q, q.info.Name, options)
	if err != nil {
		return err
	}
	code := http.StatusOK
	if !done.gone && options.OrphanDependents != nil && !*options.OrphanDependents {
		code = http.StatusAccepted
	}
	if done.gone && !q.ep.ReturnDeleted {
		return s.sendDeleted(q, code, done)
	}
	return done.send(s, q, code)
}

// sendDeleted answers with the Status of an object that is gone.
func (s *Server) sendDeleted(q *request, code int, done deletion) error {
	status := &metav1.Status{Status: metav1.StatusSuccess, Details: &metav1.StatusDetails{
		Name: q.info.Name, Group: q.ep.gr.Group, Kind: q.ep.gr.Resource, UID: done.meta.GetUID(),
	}}
	status.Kind, status.APIVersion = "Status", "v1"
	return s.sendObject(q, code, status)
}

// deleteOptions reads the options of a deletion from the body, or from the query when there is no body.
func (s *Server) deleteOptions(q *request) (*metav1.DeleteOptions, error) {
	body, err := q.body()
	if err != nil {
		return nil, err
	}
	options := &metav1.DeleteOptions{}
	if len(body) > 0 {
		enc, err := negotiate.Body(q.http)
		if err != nil {
			return nil, err
		}
		if options, err = s.types.DecodeDeleteOptions(body, enc); err != nil {
			return nil, err
		}
	} else if values := q.query(); len(values) > 0 {
		if err := metav1.Convert_url_Values_To_v1_DeleteOptions(&values, options, nil); err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
	}
	// What unsafe deletion would skip, unreadable data in the store, can't be listed either: upstream's gate is off, too.
	options.IgnoreStoreReadErrorWithClusterBreakingPotential = nil
	if errs := metav1validation.ValidateDeleteOptions(options); len(errs) > 0 {
		return nil, apierrors.NewInvalid(errKind("DeleteOptions"), "", errs)
	}
	if g := options.GracePeriodSeconds; g != nil && *g < 0 {
		one := int64(1)
		options.GracePeriodSeconds = &one
	}
	options.SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind("DeleteOptions"))
	return options, nil
}

// deletion is what a deletion led to.
type deletion struct {
	outcome
	gone bool          // it is not there any more, or would not be (dry run)
	meta metav1.Object // of the last state
}

// errGone ends the marking of an object that is to be deleted at once.
var errGone = errors.New("nothing keeps the object")

// deleteObject deletes an object, or marks it when something keeps it: a grace period, finalizers, or the kind itself.
func (s *Server) deleteObject(q *request, name string, options *metav1.DeleteOptions) (deletion, error) {
	ctx := q.ctx()
	o := operation{name: name, op: admission.Delete, options: options, dryRun: isDryRun(options.DryRun)}
	for attempt := 0; ; attempt++ {
		var seen int64
		var marked runtime.Object
		update := func(cur *store.Object) (runtime.Object, []store.Op, error) {
			seen = cur.Rev
			old, err := cur.Decoded()
			if err != nil {
				return nil, nil, err
			}
			if err := q.checkPreconditions(options.Preconditions, old); err != nil {
				return nil, nil, err
			}
			if err := s.gate.both(ctx, q, o, nil, old); err != nil {
				return nil, nil, err
			}
			marked, err = q.mark(ctx, old, options.DeepCopy(), time.Now().Truncate(time.Second))
			return marked, nil, err
		}
		stored, err := s.applyChange(ctx, q, change{name: name, dryRun: o.dryRun}, update)
		switch {
		case errors.Is(err, errGone):
			gone, err := s.deleteNow(ctx, q, o, seen)
			if errors.Is(err, store.ErrGuard) && attempt < guardAttempts {
				continue
			}
			return gone, apiError(err, q.ep.gr, name)
		case err != nil:
			return deletion{}, apiError(err, q.ep.gr, name)
		case o.dryRun:
			return deletion{outcome: outcome{obj: marked}}, nil
		default:
			return deletion{outcome: outcome{stored: stored}}, nil
		}
	}
}

// deleteNow deletes an object that is still at the revision at which it was decided on; ErrGuard says that it isn't.
func (s *Server) deleteNow(ctx context.Context, q *request, o operation, seen int64) (deletion, error) {
	if o.dryRun {
		cur, err := q.ep.cache.Get(ctx, q.namespace(), o.name, 0)
		return s.deleted(cur, err)
	}
	return s.deleted(q.ep.cache.Delete(ctx, q.namespace(), o.name, func(cur *store.Object) ([]store.Op, error) {
		if cur.Rev != seen {
			return nil, store.ErrGuard
		}
		return s.deletionOps(ctx, q, cur)
	}))
}

func (s *Server) deleted(last *store.Object, err error) (deletion, error) {
	if err != nil {
		return deletion{}, err
	}
	obj, err := last.Decoded()
	if err != nil {
		return deletion{}, err
	}
	m, err := meta.Accessor(obj)
	return deletion{outcome: outcome{stored: last}, gone: true, meta: m}, err
}

// deletionOps are what must be written together with a deletion.
func (s *Server) deletionOps(ctx context.Context, q *request, cur *store.Object) ([]store.Op, error) {
	if q.ep.companion == nil {
		return nil, nil
	}
	old, err := cur.Decoded()
	if err != nil {
		return nil, err
	}
	return q.ep.companion(ctx, nil, old)
}

func (q *request) checkPreconditions(p *metav1.Preconditions, obj runtime.Object) error {
	if p == nil {
		return nil
	}
	m, err := meta.Accessor(obj)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	// Upstream names the kind here, where errors name the resource otherwise.
	kind := schema.GroupResource{Group: q.ep.kind.Group, Resource: q.ep.kind.Kind}
	if p.UID != nil && *p.UID != m.GetUID() {
		return apierrors.NewConflict(kind, m.GetName(), fmt.Errorf("the UID in the precondition (%s) does not match the UID in record (%s). "+
			"The object might have been deleted and then recreated", *p.UID, m.GetUID()))
	}
	if p.ResourceVersion != nil && *p.ResourceVersion != m.GetResourceVersion() {
		return apierrors.NewConflict(kind, m.GetName(), fmt.Errorf("the ResourceVersion in the precondition (%s) does not match the ResourceVersion "+
			"in record (%s). The object might have been modified", *p.ResourceVersion, m.GetResourceVersion()))
	}
	return nil
}

// mark makes the state of an object whose deletion is asked for: old itself if it changes nothing. errGone says that
// the object is to be deleted at once.
func (q *request) mark(ctx context.Context, old runtime.Object, options *metav1.DeleteOptions, now time.Time) (runtime.Object, error) {
	obj := old.DeepCopyObject()
	m, err := meta.Accessor(obj)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	graceful, pending := q.grace(ctx, obj, m, options, now)
	if pending {
		return old, nil
	}
	finalizers, changed := propagationFinalizers(m.GetFinalizers(), options, q.ep.defaultPropagation())
	if changed {
		m.SetFinalizers(finalizers)
	}
	if graceful {
		m.SetResourceVersion("")
		return obj, nil
	}
	if len(m.GetFinalizers()) == 0 && (q.ep.Held == nil || !q.ep.Held(obj)) {
		return nil, errGone
	}
	zero := int64(0)
	if m.GetDeletionTimestamp() != nil && !m.GetDeletionTimestamp().After(now) && !changed {
		if g := m.GetDeletionGracePeriodSeconds(); g != nil && *g == 0 {
			return old, nil
		}
	}
	if m.GetDeletionTimestamp() == nil {
		raiseGeneration(m)
	}
	if t := m.GetDeletionTimestamp(); t == nil || t.After(now) {
		m.SetDeletionTimestamp(&metav1.Time{Time: now})
	}
	m.SetDeletionGracePeriodSeconds(&zero)
	m.SetResourceVersion("")
	return obj, nil
}

// grace decides on a graceful deletion and marks the object for it. pending says that one is under way already that is
// not to be shortened. Source: the API conventions on metadata.deletionGracePeriodSeconds.
func (q *request) grace(ctx context.Context, obj runtime.Object, m metav1.Object, options *metav1.DeleteOptions, now time.Time) (graceful, pending bool) {
	if q.ep.Graceful == nil {
		return false, false
	}
	deleted, left := m.GetDeletionTimestamp(), m.GetDeletionGracePeriodSeconds()
	if deleted == nil {
		seconds := q.ep.Graceful(ctx, obj, options)
		if seconds <= 0 {
			return false, false
		}
		m.SetDeletionTimestamp(&metav1.Time{Time: now.Add(time.Duration(seconds) * time.Second)})
		m.SetDeletionGracePeriodSeconds(&seconds)
		raiseGeneration(m)
		return true, false
	}
	if left == nil || *left == 0 {
		return false, false
	}
	if options.GracePeriodSeconds == nil || *options.GracePeriodSeconds >= *left {
		return false, true
	}
	period := *options.GracePeriodSeconds
	if period == 0 {
		return false, false
	}
	sooner := deleted.Add(time.Duration(period-*left) * time.Second)
	if sooner.Before(now) {
		sooner, period = now, 1
	}
	m.SetDeletionTimestamp(&metav1.Time{Time: sooner})
	m.SetDeletionGracePeriodSeconds(&period)
	return true, false
}

func raiseGeneration(m metav1.Object) {
	if m.GetGeneration() > 0 {
		m.SetGeneration(m.GetGeneration() + 1)
	}
}

// propagationFinalizers are an object's finalizers after its deletion was asked for: the garbage collector's two are set as
// the propagation policy says. The policy is the request's, or else the one that a finalizer says already, or else the
// kind's.
func propagationFinalizers(have []string, options *metav1.DeleteOptions, byDefault metav1.DeletionPropagation) (finalizers []string, changed bool) {
	policy := byDefault
	switch {
	case options.OrphanDependents != nil && *options.OrphanDependents:
		policy = metav1.DeletePropagationOrphan
	case options.OrphanDependents != nil:
		policy = metav1.DeletePropagationBackground
	case options.PropagationPolicy != nil:
		policy = *options.PropagationPolicy
	case slices.Contains(have, metav1.FinalizerOrphanDependents):
		policy = metav1.DeletePropagationOrphan
	case slices.Contains(have, metav1.FinalizerDeleteDependents):
		policy = metav1.DeletePropagationForeground
	}
	for _, f := range have {
		if f != metav1.FinalizerOrphanDependents && f != metav1.FinalizerDeleteDependents {
			finalizers = append(finalizers, f)
		}
	}
	switch policy {
	case metav1.DeletePropagationOrphan:
		finalizers = append(finalizers, metav1.FinalizerOrphanDependents)
	case metav1.DeletePropagationForeground:
		finalizers = append(finalizers, metav1.FinalizerDeleteDependents)
	}
	before, after := slices.Sorted(slices.Values(have)), slices.Sorted(slices.Values(finalizers))
	return finalizers, !slices.Equal(before, after)
}

// deletionsAtOnce is how many objects of a collection are deleted at the same time: the store writes what is waiting together.
const deletionsAtOnce = 16

// deleteCollection serves DELETE of a list. What was begun is finished when one deletion fails.
func (s *Server) deleteCollection(q *request) error {
	list, err := s.listOptions(q)
	if err != nil {
		return err
	}
	options, err := s.deleteOptions(q)
	if err != nil {
		return err
	}
	found, err := s.list(q, list)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(q.ctx())
	group.SetLimit(deletionsAtOnce)
	for _, o := range found.Objects {
		if ctx.Err() != nil {
			break
		}
		one := *q
		info := *q.info
		one.info = &info
		one.info.Name, one.info.Namespace = o.Name, o.Namespace
		group.Go(func() error {
			if _, err := s.deleteObject(&one, o.Name, options.DeepCopy()); err != nil && !apierrors.IsNotFound(err) {
				return err
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if err := q.ctx().Err(); err != nil {
		return err
	}
	return s.sendList(q, found, strconv.FormatInt(found.Rev, 10))
}
