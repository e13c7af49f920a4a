package node

import (
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/proa-k8s/proa/internal/apiserver/auth/podrefs"
)

// key names an object of a namespace.
type key struct{ namespace, name string }

// reference is one object that a pod uses.
type reference struct {
	kind podrefs.Kind
	key
}

// localRef is a reference within the pod's namespace.
type localRef struct {
	kind podrefs.Kind
	name string
}

// refSet is what one or many pods use. The pods of one Deployment share one set, so that a pod costs little memory.
type refSet struct {
	id   string
	refs []localRef
	pods int
}

// podEntry is what is remembered of a pod that has a node.
type podEntry struct {
	uid  types.UID
	node string
	refs *refSet
	// What references depend on that can change while a pod is on its node.
	ephemeral, claims int
}

// volume is what is remembered of a persistent volume.
type volume struct {
	claim   reference
	secrets []key
}

// Graph knows what is used on which node. It is kept in step with pods, persistent volumes and volume attachments one
// change at a time, and is safe for concurrent use.
type Graph struct {
	mu       sync.RWMutex
	pods     map[key]podEntry
	sets     map[string]*refSet
	uses     map[string]map[reference]int // node → what its pods use → by how many of them
	volumes  map[string]volume
	bySecret map[key][]string // secret → the persistent volumes that need it
	attached map[string]string
}

// NewGraph returns a graph without anything in it.
func NewGraph() *Graph {
	return &Graph{
		pods:     map[key]podEntry{},
		sets:     map[string]*refSet{},
		uses:     map[string]map[reference]int{},
		volumes:  map[string]volume{},
		bySecret: map[key][]string{},
		attached: map[string]string{},
	}
}

// SetPod takes over the present state of a pod.
func (g *Graph) SetPod(pod *corev1.Pod) {
	k := key{pod.Namespace, pod.Name}
	g.mu.Lock()
	defer g.mu.Unlock()
	old, had := g.pods[k]
	if had && old.uid == pod.UID && old.node == pod.Spec.NodeName &&
		old.ephemeral == len(pod.Spec.EphemeralContainers) && old.claims == len(pod.Status.ResourceClaimStatuses) {
		return // the usual case: a new status
	}
	if had {
		g.removePod(k, old)
	}
	if pod.Spec.NodeName != "" {
		g.addPod(k, pod)
	}
}

// DeletePod forgets a pod.
func (g *Graph) DeletePod(namespace, name string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	k := key{namespace, name}
	if old, ok := g.pods[k]; ok {
		g.removePod(k, old)
	}
}

// ReplacePods takes over the whole state of all pods.
func (g *Graph) ReplacePods(pods []*corev1.Pod) {
	g.mu.Lock()
	defer g.mu.Unlock()
	clear(g.pods)
	clear(g.sets)
	clear(g.uses)
	for _, pod := range pods {
		if pod.Spec.NodeName != "" {
			g.addPod(key{pod.Namespace, pod.Name}, pod)
		}
	}
}

func (g *Graph) addPod(k key, pod *corev1.Pod) {
	set := g.intern(pod)
	set.pods++
	g.pods[k] = podEntry{
		uid: pod.UID, node: pod.Spec.NodeName, refs: set,
		ephemeral: len(pod.Spec.EphemeralContainers), claims: len(pod.Status.ResourceClaimStatuses),
	}
	uses := g.uses[pod.Spec.NodeName]
	if uses == nil {
		uses = map[reference]int{}
		g.uses[pod.Spec.NodeName] = uses
	}
	for _, r := range set.refs {
		uses[reference{r.kind, key{k.namespace, r.name}}]++
	}
}

func (g *Graph) removePod(k key, e podEntry) {
	delete(g.pods, k)
	uses := g.uses[e.node]
	for _, r := range e.refs.refs {
		ref := reference{r.kind, key{k.namespace, r.name}}
		if uses[ref]--; uses[ref] <= 0 {
			delete(uses, ref)
		}
	}
	if len(uses) == 0 {
		delete(g.uses, e.node)
	}
	if e.refs.pods--; e.refs.pods == 0 {
		delete(g.sets, e.refs.id)
	}
}

// intern gives the set of the pod's references, one for all pods that use the same.
func (g *Graph) intern(pod *corev1.Pod) *refSet {
	var refs []localRef
	podrefs.Visit(pod, false, func(kind podrefs.Kind, name string, _ *field.Path) bool {
		if r := (localRef{kind, name}); !slices.Contains(refs, r) {
			refs = append(refs, r)
		}
		return true
	})
	var id strings.Builder
	for _, r := range refs {
		id.WriteByte(byte(r.kind))
		id.WriteString(r.name)
		id.WriteByte(0xff) // never in a name
	}
	set := g.sets[id.String()]
	if set == nil {
		set = &refSet{id: id.String(), refs: slices.Clip(refs)}
		g.sets[set.id] = set
	}
	return set
}

// SetVolume takes over the present state of a persistent volume.
func (g *Graph) SetVolume(pv *corev1.PersistentVolume) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.removeVolume(pv.Name)
	if pv.Spec.ClaimRef == nil {
		return
	}
	v := volume{claim: reference{podrefs.PersistentVolumeClaim, key{pv.Spec.ClaimRef.Namespace, pv.Spec.ClaimRef.Name}}}
	podrefs.VisitVolumeSecrets(pv, func(namespace, name string) {
		secret := key{namespace, name}
		if !slices.Contains(v.secrets, secret) {
			v.secrets = append(v.secrets, secret)
			g.bySecret[secret] = append(g.bySecret[secret], pv.Name)
		}
	})
	g.volumes[pv.Name] = v
}

// DeleteVolume forgets a persistent volume.
func (g *Graph) DeleteVolume(name string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.removeVolume(name)
}

func (g *Graph) removeVolume(name string) {
	for _, secret := range g.volumes[name].secrets {
		left := slices.DeleteFunc(g.bySecret[secret], func(v string) bool { return v == name })
		if len(left) == 0 {
			delete(g.bySecret, secret)
		} else {
			g.bySecret[secret] = left
		}
	}
	delete(g.volumes, name)
}

// ReplaceVolumes takes over the whole state of all persistent volumes.
func (g *Graph) ReplaceVolumes(all []*corev1.PersistentVolume) {
	g.mu.Lock()
	clear(g.volumes)
	clear(g.bySecret)
	g.mu.Unlock()
	for _, pv := range all {
		g.SetVolume(pv)
	}
}

// SetAttachment takes over the present state of a volume attachment.
func (g *Graph) SetAttachment(a *storagev1.VolumeAttachment) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.attached[a.Name] = a.Spec.NodeName
}

// DeleteAttachment forgets a volume attachment.
func (g *Graph) DeleteAttachment(name string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.attached, name)
}

// ReplaceAttachments takes over the whole state of all volume attachments.
func (g *Graph) ReplaceAttachments(all []*storagev1.VolumeAttachment) {
	g.mu.Lock()
	clear(g.attached)
	g.mu.Unlock()
	for _, a := range all {
		g.SetAttachment(a)
	}
}

// Uses says whether a pod on the node uses the object. A secret is also used by the persistent volumes of the pods.
func (g *Graph) Uses(node string, kind podrefs.Kind, namespace, name string) bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	uses := g.uses[node]
	k := key{namespace, name}
	if uses[reference{kind, k}] > 0 {
		return true
	}
	return kind == podrefs.Secret && slices.ContainsFunc(g.bySecret[k], func(pv string) bool {
		return uses[g.volumes[pv].claim] > 0
	})
}

// Mounts says whether a pod on the node uses the claim that the persistent volume is bound to.
func (g *Graph) Mounts(node, volume string) bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	v, ok := g.volumes[volume]
	return ok && g.uses[node][v.claim] > 0
}

// Attaches says whether the volume attachment is for the node.
func (g *Graph) Attaches(node, attachment string) bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return node != "" && g.attached[attachment] == node
}

// Runs says whether the pod is bound to the node.
func (g *Graph) Runs(node, namespace, name string) bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return node != "" && g.pods[key{namespace, name}].node == node
}
