package garbagecollector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/metadata"
	"k8s.io/utils/ptr"

	"github.com/proa-k8s/proa/internal/client"
	"github.com/proa-k8s/proa/internal/controller"
	"github.com/proa-k8s/proa/internal/store"
)

// read gives the present metadata of an object: nil if there is none, or another of its name.
func (c *collector) read(ctx context.Context, cache *store.Cache, id identity) (*metav1.ObjectMeta, error) {
	o, err := cache.Get(ctx, id.namespace, id.name, -1)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s %s/%s: %w", id.resource.Resource, id.namespace, id.name, err)
	}
	meta, err := client.Metadata(o)
	if err != nil || meta.UID != id.uid {
		return nil, err
	}
	return meta, nil
}

func (c *collector) readNode(ctx context.Context, id identity) (*metav1.ObjectMeta, error) {
	r, ok := c.env.Resources.Find(schema.GroupKind{Group: id.resource.Group, Kind: id.kind})
	if !ok {
		return nil, fmt.Errorf("%w: %s", errNoResource, id.kind)
	}
	return c.read(ctx, r.Cache, id)
}

func (c *collector) api(id identity) metadata.ResourceInterface {
	if id.namespace == "" {
		return c.metadata.Resource(id.resource)
	}
	return c.metadata.Resource(id.resource).Namespace(id.namespace)
}

// fate is what becomes of an object because of one owner.
type fate int

const (
	solid    fate = iota // the owner is there
	dangling             // the owner is gone
	waiting              // the owner waits for the object to be gone
)

// fateBy judges one reference of the object. An owner that the graph doesn't know is looked up.
func (c *collector) fateBy(ctx context.Context, id identity, ref metav1.OwnerReference) (fate, error) {
	blocking := ptr.Deref(ref.BlockOwnerDeletion, false)
	if there, foreground := c.graph.knows(ref, id.namespace); there {
		if foreground && blocking {
			return waiting, nil
		}
		return solid, nil
	}
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return solid, nil // Nothing can be known of such an owner: the object stays.
	}
	r, ok := c.env.Resources.Find(schema.GroupKind{Group: gv.Group, Kind: ref.Kind})
	if !ok {
		return solid, fmt.Errorf("%w: %s %s", errNoResource, ref.APIVersion, ref.Kind)
	}
	owner := identity{resource: r.GroupVersionResource, kind: r.Kind, name: ref.Name, uid: ref.UID}
	if r.Namespaced {
		if id.namespace == "" {
			return solid, nil // A cluster-wide object can't have a namespaced owner: the reference is void.
		}
		owner.namespace = id.namespace
	}
	meta, err := c.read(ctx, r.Cache, owner)
	switch {
	case err != nil:
		return solid, err
	case meta == nil:
		return dangling, nil
	case blocking && meta.DeletionTimestamp != nil && slices.Contains(meta.Finalizers, metav1.FinalizerDeleteDependents):
		return waiting, nil
	}
	return solid, nil
}

// deleteIfUnowned deletes an object all of whose owners are gone, or wait for it; from one that has another owner left, it
// takes the references to those.
func (c *collector) deleteIfUnowned(ctx context.Context, n view) error {
	meta, err := c.readNode(ctx, n.identity)
	if err != nil || meta == nil || meta.DeletionTimestamp != nil || len(meta.OwnerReferences) == 0 {
		return err
	}
	var stay []metav1.OwnerReference
	isWaitedFor := false
	for _, ref := range meta.OwnerReferences {
		f, err := c.fateBy(ctx, n.identity, ref)
		if errors.Is(err, errNoResource) {
			// The resource may come back. Until then the owner counts as there.
			c.env.Log.Debug("an owner can't be looked up", "namespace", n.namespace, "name", n.name, "err", err)
		} else if err != nil {
			return err
		}
		switch f {
		case solid:
			stay = append(stay, ref)
		case waiting:
			isWaitedFor = true
		case dangling:
		}
	}
	switch {
	case len(stay) == len(meta.OwnerReferences):
		return nil
	case len(stay) > 0:
		return c.patch(ctx, n.identity, meta, map[string]any{"ownerReferences": stay})
	}
	policy := metav1.DeletePropagationBackground
	switch {
	case isWaitedFor && len(n.dependents) > 0:
		if err := c.breakCircles(ctx, n); err != nil {
			return err
		}
		policy = metav1.DeletePropagationForeground
	case slices.Contains(meta.Finalizers, metav1.FinalizerOrphanDependents):
		policy = metav1.DeletePropagationOrphan
	case slices.Contains(meta.Finalizers, metav1.FinalizerDeleteDependents):
		policy = metav1.DeletePropagationForeground
	}
	err = c.api(n.identity).Delete(ctx, n.name, metav1.DeleteOptions{
		PropagationPolicy: &policy,
		Preconditions:     &metav1.Preconditions{UID: &meta.UID, ResourceVersion: &meta.ResourceVersion},
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// breakCircles has dependents that themselves wait for their dependents block the object no longer: they might wait for
// each other for ever.
func (c *collector) breakCircles(ctx context.Context, n view) error {
	if !slices.ContainsFunc(n.dependents, func(d dependent) bool { return d.foreground }) {
		return nil
	}
	meta, err := c.readNode(ctx, n.identity)
	if err != nil || meta == nil {
		return err
	}
	refs := slices.Clone(meta.OwnerReferences)
	for i := range refs {
		refs[i].BlockOwnerDeletion = ptr.To(false)
	}
	return c.patch(ctx, n.identity, meta, map[string]any{"ownerReferences": refs})
}

// deleteDependents has the dependents of an object deleted that waits for them, and lets it go when none blocks it.
func (c *collector) deleteDependents(ctx context.Context, n view) error {
	blocked := false
	for _, d := range n.dependents {
		if d.blocking {
			blocked = true
			c.env.Queue.Add(string(d.uid))
		}
	}
	if blocked {
		return nil // Each of them wakes its owner when it goes.
	}
	return c.dropFinalizer(ctx, n.identity, metav1.FinalizerDeleteDependents)
}

// orphan takes the references to an object out of its dependents, and then lets it go.
func (c *collector) orphan(ctx context.Context, n view) error {
	for _, d := range n.dependents {
		meta, err := c.readNode(ctx, d.identity)
		if err != nil {
			return err
		}
		if meta == nil {
			continue
		}
		refs := slices.DeleteFunc(slices.Clone(meta.OwnerReferences), func(r metav1.OwnerReference) bool { return r.UID == n.uid })
		if len(refs) == len(meta.OwnerReferences) {
			continue
		}
		if err := c.patch(ctx, d.identity, meta, map[string]any{"ownerReferences": refs}); err != nil {
			return err
		}
	}
	return c.dropFinalizer(ctx, n.identity, metav1.FinalizerOrphanDependents)
}

func (c *collector) dropFinalizer(ctx context.Context, id identity, finalizer string) error {
	meta, err := c.readNode(ctx, id)
	if err != nil || meta == nil || !slices.Contains(meta.Finalizers, finalizer) {
		return err
	}
	rest := slices.DeleteFunc(slices.Clone(meta.Finalizers), func(f string) bool { return f == finalizer })
	return c.patch(ctx, id, meta, map[string]any{"finalizers": rest})
}

// patch changes metadata of the object, if it is still in the state that was read. One that is gone needs no change.
func (c *collector) patch(ctx context.Context, id identity, read *metav1.ObjectMeta, change map[string]any) error {
	change["resourceVersion"], change["uid"] = read.ResourceVersion, read.UID
	for k, v := range change { // An empty list is sent as null, which removes the field.
		if refs, ok := v.([]metav1.OwnerReference); ok && len(refs) == 0 {
			change[k] = nil
		}
	}
	data, err := json.Marshal(map[string]any{"metadata": change})
	if err != nil {
		return fmt.Errorf("encoding a patch: %w", err)
	}
	_, err = c.api(id).Patch(ctx, id.name, types.MergePatchType, data, metav1.PatchOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if apierrors.IsConflict(err) {
		return controller.ErrStale
	}
	return err
}
