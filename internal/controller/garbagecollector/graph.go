package garbagecollector

import (
	"slices"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// identity says which object a node stands for.
type identity struct {
	resource  schema.GroupVersionResource
	kind      string
	namespace string
	name      string
	uid       types.UID
}

// node is an object in the graph of owners.
type node struct {
	identity
	owners     []metav1.OwnerReference
	dependents map[types.UID]*node

	deleting   bool // has a deletionTimestamp
	orphaning  bool // deleting, and its dependents are to be left alone
	foreground bool // deleting, and waits for its dependents to be gone

	// virtual nodes are owners that somebody refers to and that were not observed. Their identity is the reference's word.
	virtual bool
}

// graph knows who owns whom. It is safe for concurrent use.
type graph struct {
	mu    sync.Mutex
	nodes map[types.UID]*node
}

func newGraph() *graph { return &graph{nodes: make(map[types.UID]*node)} }

// view is a copy of a node that can be read without the lock.
type view struct {
	identity
	deleting, orphaning, foreground, virtual bool
	owners                                   []metav1.OwnerReference // not to be changed
	dependents                               []dependent
}

// dependent is an object that refers to the node of a view.
type dependent struct {
	identity
	foreground bool
	blocking   bool // by ownerReference.blockOwnerDeletion
}

// get gives a view of the node.
func (g *graph) get(uid types.UID) (view, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.nodes[uid]
	if n == nil {
		return view{}, false
	}
	v := view{identity: n.identity, deleting: n.deleting, orphaning: n.orphaning, foreground: n.foreground, virtual: n.virtual, owners: n.owners}
	for _, d := range n.dependents {
		v.dependents = append(v.dependents, dependent{identity: d.identity, foreground: d.foreground, blocking: blocks(d, uid)})
	}
	return v, true
}

// blocks tells whether a dependent keeps an owner from being deleted in the foreground.
func blocks(d *node, owner types.UID) bool {
	return slices.ContainsFunc(d.owners, func(r metav1.OwnerReference) bool {
		return r.UID == owner && r.BlockOwnerDeletion != nil && *r.BlockOwnerDeletion
	})
}

// observed takes in the present state of an object. It returns the objects that must be looked at, and the references
// that mean an object of another namespace.
func (g *graph) observed(id identity, meta *metav1.ObjectMeta) (look []types.UID, foreign []metav1.OwnerReference) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.nodes[id.uid]
	if n == nil {
		n = &node{}
		g.nodes[id.uid] = n
	}
	if n.virtual {
		// Dependents that took it for another object will find that out.
		for uid, d := range n.dependents {
			if !n.meantBy(d, id) {
				look = append(look, uid)
			}
		}
	}
	before := n.owners
	n.identity, n.virtual = id, false
	n.owners = slices.Clone(meta.OwnerReferences)
	wasForeground := n.foreground
	n.deleting = meta.DeletionTimestamp != nil
	n.orphaning = n.deleting && slices.Contains(meta.Finalizers, metav1.FinalizerOrphanDependents)
	n.foreground = n.deleting && slices.Contains(meta.Finalizers, metav1.FinalizerDeleteDependents)

	for _, ref := range before {
		if i := slices.IndexFunc(n.owners, func(r metav1.OwnerReference) bool { return r.UID == ref.UID }); i < 0 {
			look = append(look, g.unlink(n, ref.UID)...)
		} else if !slices.ContainsFunc(n.owners, func(r metav1.OwnerReference) bool { return equalRefs(r, ref) }) {
			look = append(look, ref.UID) // It may block no longer.
		}
	}
	for _, ref := range n.owners {
		l, f := g.link(n, ref)
		look = append(look, l...)
		if f {
			foreign = append(foreign, ref)
		}
	}
	if n.orphaning || n.foreground {
		look = append(look, n.uid)
	}
	if n.foreground && !wasForeground {
		for uid := range n.dependents {
			look = append(look, uid)
		}
	}
	return look, foreign
}

func equalRefs(a, b metav1.OwnerReference) bool {
	block := func(r metav1.OwnerReference) bool { return r.BlockOwnerDeletion != nil && *r.BlockOwnerDeletion }
	return a.UID == b.UID && a.Name == b.Name && a.Kind == b.Kind && a.APIVersion == b.APIVersion && block(a) == block(b)
}

// meantBy tells whether the dependent's reference describes an object of that identity.
func (n *node) meantBy(d *node, id identity) bool {
	return slices.ContainsFunc(d.owners, func(r metav1.OwnerReference) bool { return r.UID == id.uid && refersTo(r, d.namespace, id) })
}

// refersTo tells whether a reference in an object of the namespace describes the object: not its uid alone, but kind, name
// and place.
func refersTo(r metav1.OwnerReference, namespace string, id identity) bool {
	gv, err := schema.ParseGroupVersion(r.APIVersion)
	return err == nil && r.UID == id.uid && gv.Group == id.resource.Group && r.Kind == id.kind && r.Name == id.name &&
		(id.namespace == "" || id.namespace == namespace)
}

// link puts a node among the dependents of an owner, which is made up if it wasn't observed.
func (g *graph) link(n *node, ref metav1.OwnerReference) (look []types.UID, foreign bool) {
	owner := g.nodes[ref.UID]
	if owner == nil {
		owner = &node{virtual: true, identity: identity{kind: ref.Kind, name: ref.Name, uid: ref.UID}}
		g.nodes[ref.UID] = owner
		look = append(look, n.uid) // The dependent's reference is what there is to verify.
	}
	if _, there := owner.dependents[n.uid]; there {
		return look, false
	}
	if owner.dependents == nil {
		owner.dependents = make(map[types.UID]*node)
	}
	owner.dependents[n.uid] = n
	if owner.virtual {
		return append(look, n.uid), false
	}
	if !refersTo(ref, n.namespace, owner.identity) {
		return append(look, n.uid), owner.namespace != "" && owner.namespace != n.namespace
	}
	if owner.foreground {
		look = append(look, n.uid)
	}
	return look, false
}

// unlink takes a node from an owner's dependents; it returns the owner if that waits for its dependents.
func (g *graph) unlink(n *node, owner types.UID) (look []types.UID) {
	o := g.nodes[owner]
	if o == nil {
		return nil
	}
	delete(o.dependents, n.uid)
	if o.virtual && len(o.dependents) == 0 {
		delete(g.nodes, owner)
	}
	if o.foreground || o.orphaning {
		look = append(look, owner)
	}
	return look
}

// gone takes out an object that is deleted. It returns the objects that must be looked at: its dependents, and owners
// that waited for it.
func (g *graph) gone(uid types.UID) (look []types.UID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.nodes[uid]
	if n == nil {
		return nil
	}
	for _, ref := range n.owners {
		look = append(look, g.unlink(n, ref.UID)...)
	}
	for d := range n.dependents {
		look = append(look, d)
	}
	if len(n.dependents) == 0 {
		delete(g.nodes, uid)
		return look
	}
	// Those who still refer to it keep it as a made-up node, until they are gone or refer to it no longer.
	*n = node{identity: n.identity, dependents: n.dependents, virtual: true}
	return look
}

// knows tells whether the graph has seen the object that a reference from the namespace describes; deleting is set if it
// waits for its dependents to be gone.
func (g *graph) knows(ref metav1.OwnerReference, namespace string) (there, foreground bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.nodes[ref.UID]
	if n == nil || n.virtual || !refersTo(ref, namespace, n.identity) {
		return false, false
	}
	return true, n.foreground
}

// of gives the uids of the observed objects of a resource.
func (g *graph) of(resource schema.GroupVersionResource) []types.UID {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []types.UID
	for uid, n := range g.nodes {
		if !n.virtual && n.resource == resource {
			out = append(out, uid)
		}
	}
	return out
}
