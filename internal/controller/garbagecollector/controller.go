// Package garbagecollector deletes objects whose owners are gone, and carries out what a deletion says about dependents:
// to delete them behind it (background), before it (foreground), or to leave them (orphan).
//
// What flows in is the metadata of all objects of all resources, from the caches; what flows out are deletions, and
// patches of owner references and finalizers. The graph of owners (graph.go) says what must be looked at; what is done to an
// object is decided on its present state, read anew.
package garbagecollector

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/metadata"

	"github.com/proa-k8s/proa/internal/client"
	"github.com/proa-k8s/proa/internal/controller"
)

// New declares the controller.
func New() controller.Controller {
	return controller.Controller{
		Name:    "generic-garbage-collector",
		Writes:  []rbacv1.PolicyRule{controller.Rule("*", []string{"*"}, "delete", "get", "list", "patch", "update", "watch")},
		Workers: 8,
		Setup: func(env *controller.Env) (controller.Sync, error) {
			m, err := metadata.NewForConfig(env.REST)
			if err != nil {
				return nil, fmt.Errorf("making a metadata client: %w", err)
			}
			c := &collector{env: env, metadata: m, graph: newGraph(), ready: make(chan struct{})}
			env.Go(c.observe)
			return c.sync, nil
		},
	}
}

type collector struct {
	env      *controller.Env
	metadata metadata.Interface
	graph    *graph
	ready    chan struct{} // closed when all resources that were there at the start have been read
}

// ignored are resources that neither own nor are owned, and come and go in great number.
var ignored = sets.New(
	schema.GroupResource{Resource: "events"},
	schema.GroupResource{Group: "events.k8s.io", Resource: "events"},
)

// observe watches every resource, also those that appear later, until ctx ends.
func (c *collector) observe(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	type watched struct {
		client.Resource
		stop context.CancelFunc
	}
	running := make(map[schema.GroupVersionResource]watched)
	first := true
	for {
		resources, changed := c.env.Resources.Get()
		var initial sync.WaitGroup
		present := sets.New[schema.GroupVersionResource]()
		for _, r := range resources {
			if ignored.Has(r.GroupResource()) || !r.Verbs.HasAll("list", "watch", "delete") {
				continue
			}
			present.Insert(r.GroupVersionResource)
			if w, ok := running[r.GroupVersionResource]; ok {
				if w.Cache == r.Cache {
					continue
				}
				w.stop() // The resource was replaced by another of its name.
			}
			watching, stop := context.WithCancel(ctx)
			running[r.GroupVersionResource] = watched{r, stop}
			initial.Add(1)
			all.Go(func() { c.watch(watching, r, sync.OnceFunc(initial.Done)) })
		}
		for gvr, w := range running {
			if !present.Has(gvr) {
				w.stop()
				delete(running, gvr)
			}
		}
		if first && len(resources) > 0 {
			first = false
			all.Go(func() {
				initial.Wait()
				close(c.ready)
			})
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// watch feeds the graph with one resource, and calls synced when all present objects are in the graph, or never will be. A
// watch that breaks is begun anew; what is missing then was deleted meanwhile.
func (c *collector) watch(ctx context.Context, r client.Resource, synced func()) {
	defer synced()
	for ctx.Err() == nil {
		missing := sets.New(c.graph.of(r.GroupVersionResource)...)
		err := client.WatchMetadata(ctx, r.Cache, func(meta *metav1.ObjectMeta, deleted bool) {
			missing.Delete(meta.UID)
			if deleted {
				c.look(c.graph.gone(meta.UID))
				return
			}
			id := identity{r.GroupVersionResource, r.Kind, meta.Namespace, meta.Name, meta.UID}
			look, foreign := c.graph.observed(id, meta)
			c.look(look)
			for _, ref := range foreign {
				c.warnForeign(id, ref)
			}
		}, func() {
			for uid := range missing {
				c.look(c.graph.gone(uid))
			}
			synced()
		})
		if ctx.Err() != nil {
			return
		}
		c.env.Log.Debug("watching again", "resource", r.Resource, "err", err)
		select {
		case <-c.env.Clock.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func (c *collector) look(uids []types.UID) {
	for _, uid := range uids {
		c.env.Queue.Add(string(uid))
	}
}

// warnForeign tells the user about a reference to an object of another namespace, which means nothing.
func (c *collector) warnForeign(id identity, ref metav1.OwnerReference) {
	about := &corev1.ObjectReference{
		APIVersion: id.resource.GroupVersion().String(), Kind: id.kind,
		Namespace: id.namespace, Name: id.name, UID: id.uid,
	}
	c.env.Events.Eventf(about, corev1.EventTypeWarning, "OwnerRefInvalidNamespace",
		"ownerRef [%s/%s, namespace: %s, name: %s, uid: %s] does not exist in namespace %q",
		ref.APIVersion, ref.Kind, id.namespace, ref.Name, ref.UID, id.namespace)
}

// sync looks at one object: it carries out the deletion that is under way, or begins one if no owner is left.
func (c *collector) sync(ctx context.Context, key string) error {
	select {
	case <-c.ready:
	case <-ctx.Done():
		return ctx.Err()
	}
	n, ok := c.graph.get(types.UID(key))
	switch {
	case !ok, n.virtual:
		return nil
	case n.orphaning:
		return c.orphan(ctx, n)
	case n.foreground:
		return c.deleteDependents(ctx, n)
	case n.deleting:
		return nil // Somebody else's finalizers, or the grace period, keep it.
	case c.isOwned(n):
		return nil // The usual case: nothing has to be read.
	}
	return c.deleteIfUnowned(ctx, n)
}

// isOwned tells whether the graph knows all owners of an object, and none waits for it.
func (c *collector) isOwned(n view) bool {
	return !slices.ContainsFunc(n.owners, func(ref metav1.OwnerReference) bool {
		there, foreground := c.graph.knows(ref, n.namespace)
		return !there || foreground
	})
}

var errNoResource = errors.New("no resource of this kind is known")
