// Package claim settles which objects belong to a controller object: it adopts those that its selector matches and nobody
// owns, and releases those that it owns and its selector doesn't match any more.
//
// What flows in are the candidates, from a lister; what flows out are those that belong, and patches of owner references.
package claim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// Owner is who claims objects of type T.
type Owner[T metav1.Object] struct {
	metav1.Object
	Kind     schema.GroupVersionKind
	Selector labels.Selector

	// Live reads the owner from the API, past any cache. It is asked once before the first adoption: an owner that was
	// deleted or replaced in the meantime must not adopt.
	Live func(ctx context.Context) (metav1.Object, error)
	// Patch sends a strategic merge patch of the object.
	Patch func(ctx context.Context, obj T, patch []byte) error
}

// Reference is the owner reference of a controller.
func Reference(owner metav1.Object, kind schema.GroupVersionKind) *metav1.OwnerReference {
	return metav1.NewControllerRef(owner, kind)
}

// Claim returns those of the candidates that belong to the owner, after adoptions and releases. Errors of single objects
// are joined, and these are left out.
func (o Owner[T]) Claim(ctx context.Context, candidates []T) ([]T, error) {
	var (
		mine    []T
		errs    []error
		checked bool
		refusal error
	)
	for _, obj := range candidates {
		switch decide(o.Object, o.Selector, obj) {
		case keep:
			mine = append(mine, obj)
		case release:
			err := o.Patch(ctx, obj, releasePatch(o.GetUID(), obj.GetUID()))
			if err != nil && !isGone(err) {
				errs = append(errs, err)
			}
		case adopt:
			if !checked {
				checked, refusal = true, o.mayAdopt(ctx)
			}
			if refusal != nil {
				errs = append(errs, fmt.Errorf("can't adopt %s/%s (%s): %w", obj.GetNamespace(), obj.GetName(), obj.GetUID(), refusal))
				continue
			}
			switch err := o.Patch(ctx, obj, adoptPatch(Reference(o.Object, o.Kind), obj.GetUID())); {
			case err == nil:
				mine = append(mine, obj)
			case !isGone(err):
				errs = append(errs, err)
			}
		case ignore:
		}
	}
	return mine, errors.Join(errs...)
}

// isGone tells whether a patch failed because the object is gone, or was replaced by another of its name.
func isGone(err error) bool { return apierrors.IsNotFound(err) || apierrors.IsInvalid(err) }

func (o Owner[T]) mayAdopt(ctx context.Context) error {
	live, err := o.Live(ctx)
	if err != nil {
		return err
	}
	if live.GetUID() != o.GetUID() {
		return fmt.Errorf("original %s %s/%s is gone: got uid %s, wanted %s", o.Kind.Kind, o.GetNamespace(), o.GetName(), live.GetUID(), o.GetUID())
	}
	if live.GetDeletionTimestamp() != nil {
		return fmt.Errorf("%s/%s has just been deleted at %s", o.GetNamespace(), o.GetName(), live.GetDeletionTimestamp())
	}
	return nil
}

type action int

const (
	ignore action = iota
	keep
	adopt
	release
)

// decide says what an owner does with an object.
func decide(owner metav1.Object, selector labels.Selector, obj metav1.Object) action {
	matches := selector.Matches(labels.Set(obj.GetLabels()))
	deleting := owner.GetDeletionTimestamp() != nil
	ref := metav1.GetControllerOfNoCopy(obj)
	switch {
	case ref != nil && ref.UID != owner.GetUID():
		return ignore
	case ref != nil && matches:
		return keep
	case ref != nil && !deleting:
		return release
	case ref == nil && matches && !deleting && obj.GetDeletionTimestamp() == nil && obj.GetNamespace() == owner.GetNamespace():
		return adopt
	default:
		return ignore
	}
}

type patchMeta struct {
	UID             types.UID `json:"uid"`
	OwnerReferences []any     `json:"ownerReferences"`
}

func adoptPatch(ref *metav1.OwnerReference, uid types.UID) []byte { return patchOf(ref, uid) }

func releasePatch(owner, uid types.UID) []byte {
	return patchOf(map[string]string{"$patch": "delete", "uid": string(owner)}, uid)
}

func patchOf(ref any, uid types.UID) []byte {
	data, err := json.Marshal(map[string]patchMeta{"metadata": {UID: uid, OwnerReferences: []any{ref}}})
	if err != nil { // Strings always marshal.
		panic(err)
	}
	return data
}
