// Package node authorizes the agents of nodes (users system:node:<name> in the group system:nodes): besides what every node
// may do (rbac.NodeRules), a node may read what the pods on it use, its own objects, and nothing of other nodes.
//
// What flows in are pods, persistent volumes and volume attachments as they change (Follow), and requests; what flows out
// are decisions, without looking at any object but the graph's indexes.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/proa-k8s/proa/internal/apiserver/auth/podrefs"
	"github.com/proa-k8s/proa/internal/apiserver/auth/rbac"
	"github.com/proa-k8s/proa/internal/apiserver/lookup"
	"github.com/proa-k8s/proa/internal/store"
)

// Identity tells whether a user is a node, and which; a node without a name has name "".
func Identity(u user.Info) (name string, isNode bool) {
	if u == nil {
		return "", false
	}
	name, ok := strings.CutPrefix(u.GetName(), "system:node:")
	if !ok || !slices.Contains(u.GetGroups(), user.NodesGroup) {
		return "", false
	}
	return name, true
}

// Authorizer decides about requests of nodes, and has no opinion about others. It is safe for concurrent use.
type Authorizer struct {
	authorizer.AuthorizerFunc
	graph *Graph
	rules []rbacv1.PolicyRule
}

// New returns an Authorizer that decides by the graph.
func New(g *Graph) *Authorizer {
	a := &Authorizer{graph: g, rules: rbac.NodeRules()}
	a.AuthorizerFunc = a.authorize
	return a
}

// RulesFor implements authorizer.RuleResolver: what a node may do can't be listed.
func (a *Authorizer) RulesFor(_ context.Context, u user.Info, _ string) ([]authorizer.ResourceRuleInfo, []authorizer.NonResourceRuleInfo, bool, error) {
	if _, isNode := Identity(u); isNode {
		return nil, nil, true, errors.New("node authorizer does not support user rule resolution")
	}
	return nil, nil, false, nil
}

// denial is why a request is not allowed; empty when it is.
type denial string

const allowed denial = ""

func (a *Authorizer) authorize(_ context.Context, attrs authorizer.Attributes) (authorizer.Decision, string, error) {
	name, isNode := Identity(attrs.GetUser())
	if !isNode {
		return authorizer.DecisionNoOpinion, "", nil
	}
	if name == "" {
		return authorizer.DecisionNoOpinion, fmt.Sprintf("unknown node for user %q", attrs.GetUser().GetName()), nil
	}
	if attrs.IsResourceRequest() {
		gr := schema.GroupResource{Group: attrs.GetAPIGroup(), Resource: attrs.GetResource()}
		if decide := a.special(gr, attrs); decide != nil {
			if why := decide(name, attrs); why != allowed {
				return authorizer.DecisionNoOpinion, string(why), nil
			}
			return authorizer.DecisionAllow, "", nil
		}
	}
	if rbac.RulesAllow(attrs, a.rules) {
		return authorizer.DecisionAllow, "", nil
	}
	return authorizer.DecisionNoOpinion, "", nil
}

type decision func(node string, attrs authorizer.Attributes) denial

// special gives the function that decides about a resource where the general rules do not; nil where they do.
func (a *Authorizer) special(gr schema.GroupResource, attrs authorizer.Attributes) decision {
	switch gr {
	case corev1.Resource("secrets"):
		return a.readUsed(podrefs.Secret, "get", "list", "watch")
	case corev1.Resource("configmaps"):
		return a.readUsed(podrefs.ConfigMap, "get", "list", "watch")
	case corev1.Resource("persistentvolumeclaims"):
		if attrs.GetSubresource() == "status" {
			return a.updateClaimStatus
		}
		return a.readUsed(podrefs.PersistentVolumeClaim, "get")
	case schema.GroupResource{Group: "resource.k8s.io", Resource: "resourceclaims"}:
		return a.readUsed(podrefs.ResourceClaim, "get")
	case corev1.Resource("serviceaccounts"):
		if attrs.GetSubresource() == "token" {
			return a.createToken
		}
		return a.readUsed(podrefs.ServiceAccount, "get")
	case corev1.Resource("persistentvolumes"):
		return getNamed(a.graph.Mounts)
	case storagev1.Resource("volumeattachments"):
		return getNamed(a.graph.Attaches)
	case schema.GroupResource{Group: "coordination.k8s.io", Resource: "leases"}:
		return lease
	case storagev1.Resource("csinodes"):
		return csiNode
	case schema.GroupResource{Group: "resource.k8s.io", Resource: "resourceslices"}:
		return resourceSlice
	case corev1.Resource("nodes"):
		if attrs.GetSubresource() == "" && isRead(attrs.GetVerb()) {
			return ownNode
		}
	case corev1.Resource("pods"):
		if attrs.GetSubresource() == "" && isRead(attrs.GetVerb()) {
			return a.readPods
		}
	}
	return nil
}

func isRead(verb string) bool { return verb == "get" || verb == "list" || verb == "watch" }

func noRelationship(node string) denial {
	return denial(fmt.Sprintf("no relationship found between node '%s' and this object", node))
}

// readUsed allows to read single objects that a pod on the node uses; list and watch must name one by field selector.
func (a *Authorizer) readUsed(kind podrefs.Kind, verbs ...string) decision {
	return func(node string, attrs authorizer.Attributes) denial {
		switch {
		case !slices.Contains(verbs, attrs.GetVerb()) && len(verbs) == 1:
			return "can only get individual resources of this type"
		case !slices.Contains(verbs, attrs.GetVerb()):
			return "can only read resources of this type"
		case attrs.GetSubresource() != "":
			return "cannot read subresource"
		case attrs.GetNamespace() == "":
			return "can only read namespaced object of this type"
		case attrs.GetName() == "":
			return "No Object name found"
		case !a.graph.Uses(node, kind, attrs.GetNamespace(), attrs.GetName()):
			return noRelationship(node)
		}
		return allowed
	}
}

func (a *Authorizer) updateClaimStatus(node string, attrs authorizer.Attributes) denial {
	switch attrs.GetVerb() {
	case "get", "update", "patch":
	default:
		return "can only get/update/patch this type"
	}
	switch {
	case attrs.GetName() == "":
		return "No Object name found"
	case !a.graph.Uses(node, podrefs.PersistentVolumeClaim, attrs.GetNamespace(), attrs.GetName()):
		return noRelationship(node)
	}
	return allowed
}

func (a *Authorizer) createToken(node string, attrs authorizer.Attributes) denial {
	switch {
	case attrs.GetVerb() != "create" || attrs.GetName() == "":
		return "can only create tokens for individual service accounts"
	case !a.graph.Uses(node, podrefs.ServiceAccount, attrs.GetNamespace(), attrs.GetName()):
		return noRelationship(node)
	}
	return allowed
}

// getNamed allows to get single objects of the whole cluster that are related to the node.
func getNamed(related func(node, name string) bool) decision {
	return func(node string, attrs authorizer.Attributes) denial {
		switch {
		case attrs.GetVerb() != "get" || attrs.GetName() == "":
			return "can only get individual resources of this type"
		case attrs.GetSubresource() != "":
			return "cannot get subresource"
		case !related(node, attrs.GetName()):
			return noRelationship(node)
		}
		return allowed
	}
}

// lease allows a node everything with its own lease.
func lease(node string, attrs authorizer.Attributes) denial {
	verb := attrs.GetVerb()
	switch verb {
	case "get", "create", "update", "patch", "delete":
	default:
		return "can only get, create, update, patch, or delete a node lease"
	}
	switch {
	case attrs.GetNamespace() != corev1.NamespaceNodeLease:
		return denial(fmt.Sprintf("can only access leases in the %q system namespace", corev1.NamespaceNodeLease))
	case verb != "create" && attrs.GetName() != node: // the name in a creation is checked by admission
		return "can only access node lease with the same name as the requesting node"
	}
	return allowed
}

// csiNode allows a node everything with its own CSINode.
func csiNode(node string, attrs authorizer.Attributes) denial {
	verb := attrs.GetVerb()
	switch verb {
	case "get", "create", "update", "patch", "delete":
	default:
		return "can only get, create, update, patch, or delete a CSINode"
	}
	switch {
	case attrs.GetSubresource() != "":
		return "cannot authorize CSINode subresources"
	case verb != "create" && attrs.GetName() != node:
		return "can only access CSINode with the same name as the requesting node"
	}
	return allowed
}

// resourceSlice allows a node to write slices (admission checks whose they are) and to read its own by field selector.
func resourceSlice(node string, attrs authorizer.Attributes) denial {
	switch attrs.GetVerb() {
	case "create":
		return allowed
	case "list", "watch", "deletecollection":
		if !selects(attrs, "spec.nodeName", node) {
			return "can only list/watch/deletecollection resourceslices with nodeName field selector"
		}
		return allowed
	case "get", "update", "patch", "delete":
		if attrs.GetSubresource() != "" || attrs.GetName() == "" {
			return "cannot authorize ResourceSlice subresources"
		}
		return allowed
	}
	return "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection"
}

// ownNode allows a node to read itself; list and watch name it by field selector, which gives the request its name.
func ownNode(node string, attrs authorizer.Attributes) denial {
	switch {
	case attrs.GetName() == node:
		return allowed
	case attrs.GetVerb() == "get":
		return denial(fmt.Sprintf("node '%s' cannot read '%s', only its own Node object", node, attrs.GetName()))
	case selects(attrs, "metadata.name", node):
		return allowed
	}
	return denial(fmt.Sprintf("node '%s' cannot read all nodes, only its own Node object", node))
}

// readPods allows a node to read its own pods; list and watch select them by spec.nodeName.
func (a *Authorizer) readPods(node string, attrs authorizer.Attributes) denial {
	if attrs.GetVerb() == "get" {
		if a.graph.Runs(node, attrs.GetNamespace(), attrs.GetName()) {
			return allowed
		}
		return noRelationship(node)
	}
	if !selects(attrs, "spec.nodeName", node) {
		return "can only list/watch pods with spec.nodeName field selector"
	}
	return allowed
}

// selects says whether the request's field selector narrows the field to the value.
func selects(attrs authorizer.Attributes, name, value string) bool {
	requirements, err := attrs.GetFieldSelector()
	if err != nil {
		return false
	}
	for _, r := range requirements {
		if r.Field == name && r.Value == value && (r.Operator == selection.Equals || r.Operator == selection.DoubleEquals) {
			return true
		}
	}
	return false
}

// Caches are what the graph is made from. A nil cache is left out.
type Caches struct {
	Pods, PersistentVolumes, VolumeAttachments *store.Cache
}

// Follow keeps the graph in step with the store until the context ends. ready is called once, when the state of all caches is
// taken over.
func (g *Graph) Follow(ctx context.Context, log *slog.Logger, c Caches, ready func()) {
	var pending, all sync.WaitGroup
	run(ctx, log, c.Pods, &pending, &all, lookup.Handler[*corev1.Pod]{
		Replace: g.ReplacePods,
		Set:     g.SetPod,
		Delete:  func(o *corev1.Pod) { g.DeletePod(o.Namespace, o.Name) },
	})
	run(ctx, log, c.PersistentVolumes, &pending, &all, lookup.Handler[*corev1.PersistentVolume]{
		Replace: g.ReplaceVolumes,
		Set:     g.SetVolume,
		Delete:  func(o *corev1.PersistentVolume) { g.DeleteVolume(o.Name) },
	})
	run(ctx, log, c.VolumeAttachments, &pending, &all, lookup.Handler[*storagev1.VolumeAttachment]{
		Replace: g.ReplaceAttachments,
		Set:     g.SetAttachment,
		Delete:  func(o *storagev1.VolumeAttachment) { g.DeleteAttachment(o.Name) },
	})
	all.Go(func() {
		pending.Wait()
		if ctx.Err() == nil {
			ready()
		}
	})
	all.Wait()
}

func run[T runtime.Object](ctx context.Context, log *slog.Logger, c *store.Cache, pending, all *sync.WaitGroup, h lookup.Handler[T]) {
	if c == nil {
		return
	}
	pending.Add(1)
	done := sync.OnceFunc(pending.Done)
	replace := h.Replace
	h.Replace = func(all []T) {
		replace(all)
		done()
	}
	all.Go(func() {
		defer done()
		_ = lookup.Follow(ctx, log, c, h)
	})
}
