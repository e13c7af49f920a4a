// Package discovery tells clients what is served: the documents under /api and /apis, and the aggregated one.
//
// What flows in is the catalogue; what flows out are documents, made once and encoded when first asked for.
package discovery

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"strings"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"

	"github.com/proa-k8s/proa/internal/api"
)

// AllVerbs are what a resource serves that lists none of its own.
var AllVerbs = []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}

// groupOrder is upstream's: that of apps like kubectl, which take the first group that has a kind.
var groupOrder = []string{
	"", "apiregistration.k8s.io", "apps", "events.k8s.io", "authentication.k8s.io", "authorization.k8s.io", "autoscaling", "batch",
	"certificates.k8s.io", "networking.k8s.io", "policy", "rbac.authorization.k8s.io", "storage.k8s.io",
	"admissionregistration.k8s.io", "apiextensions.k8s.io", "scheduling.k8s.io", "coordination.k8s.io", "node.k8s.io",
	"discovery.k8s.io", "resource.k8s.io", "flowcontrol.apiserver.k8s.io", "internal.apiserver.k8s.io",
}

func groupRank(group string) int {
	if i := slices.Index(groupOrder, group); i >= 0 {
		return i
	}
	if group == "extensions" {
		return len(groupOrder) + 1 // nobody should get a kind from there unless asked for
	}
	return len(groupOrder)
}

// catalogue is what is served, sorted: groups, their versions (the preferred one first), and their resources.
type catalogue struct {
	groups    []string
	versions  map[string][]string
	resources map[schema.GroupVersion][]*api.Resource
}

func sorted(resources []*api.Resource) catalogue {
	c := catalogue{versions: map[string][]string{}, resources: map[schema.GroupVersion][]*api.Resource{}}
	for _, r := range resources {
		for _, v := range r.Versions {
			if c.resources[v.GroupVersion] == nil {
				c.versions[v.Group] = append(c.versions[v.Group], v.Version)
			}
			c.resources[v.GroupVersion] = append(c.resources[v.GroupVersion], r)
		}
	}
	for group, versions := range c.versions {
		c.groups = append(c.groups, group)
		slices.SortFunc(versions, func(a, b string) int { return version.CompareKubeAwareVersionStrings(b, a) })
	}
	slices.SortFunc(c.groups, func(a, b string) int {
		return cmp.Or(cmp.Compare(groupRank(a), groupRank(b)), cmp.Compare(a, b))
	})
	for _, list := range c.resources {
		slices.SortFunc(list, func(a, b *api.Resource) int { return cmp.Compare(a.Plural, b.Plural) })
	}
	return c
}

// apiGroup describes a named group.
func (c catalogue) apiGroup(group string) metav1.APIGroup {
	g := metav1.APIGroup{Name: group}
	for _, v := range c.versions[group] {
		g.Versions = append(g.Versions, metav1.GroupVersionForDiscovery{GroupVersion: group + "/" + v, Version: v})
	}
	g.PreferredVersion = g.Versions[0]
	return g
}

// groupList is the document at /apis.
func (c catalogue) groupList() *metav1.APIGroupList {
	list := &metav1.APIGroupList{
		TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"},
		Groups:   []metav1.APIGroup{},
	}
	for _, group := range c.groups {
		if group != "" {
			list.Groups = append(list.Groups, c.apiGroup(group))
		}
	}
	return list
}

// resourceList is the document of one version.
func (c catalogue) resourceList(gv schema.GroupVersion) *metav1.APIResourceList {
	list := &metav1.APIResourceList{
		TypeMeta:     metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"},
		GroupVersion: gv.String(), APIResources: []metav1.APIResource{},
	}
	for _, r := range c.resources[gv] {
		list.APIResources = append(list.APIResources, resource(r, gv))
		for _, sub := range r.Subresources {
			list.APIResources = append(list.APIResources, subresource(r, sub, gv))
		}
	}
	return list
}

func resource(r *api.Resource, gv schema.GroupVersion) metav1.APIResource {
	out := metav1.APIResource{Name: r.Plural, SingularName: r.Singular, Namespaced: r.Namespaced, Kind: r.Kind, Verbs: verbs(r)}
	if !superseded(r, gv) {
		out.ShortNames, out.Categories = r.ShortNames, r.Categories
	}
	if r.Prefix != "" {
		out.StorageVersionHash = storageHash(r.Hub.WithKind(r.Kind))
	}
	return out
}

// superseded tells that a resource is served in a group that it has left (Deployment in extensions). It has no short names
// and categories there: kubectl would call them ambiguous, with a warning at every use.
func superseded(r *api.Resource, gv schema.GroupVersion) bool {
	if gv.Group == r.Group {
		return false
	}
	for _, v := range r.Versions {
		if v.GroupVersion == gv {
			return v.Deprecated != ""
		}
	}
	return false
}

func verbs(r *api.Resource) []string {
	if r.Verbs == nil {
		return AllVerbs
	}
	return r.Verbs
}

// subresource describes a subresource; its kind's version is only named where it is not the list's.
func subresource(r *api.Resource, sub api.Subresource, gv schema.GroupVersion) metav1.APIResource {
	out := metav1.APIResource{Name: r.Plural + "/" + sub.Name, Namespaced: r.Namespaced, Kind: sub.Kind.Kind, Verbs: sub.Verbs}
	if kind := subKind(r, sub, gv); kind.GroupVersion() != gv {
		out.Group, out.Version = kind.Group, kind.Version
	}
	return out
}

// subKind is the kind of a subresource in a version: that of a part of the object is the object's.
func subKind(r *api.Resource, sub api.Subresource, gv schema.GroupVersion) schema.GroupVersionKind {
	if sub.Kind.Kind == r.Kind {
		return gv.WithKind(r.Kind)
	}
	return sub.Kind
}

// storageHash tells storage versions apart, as upstream's storage migrator expects it.
func storageHash(kind schema.GroupVersionKind) string {
	sum := sha256.Sum256([]byte(kind.Group + "/" + kind.Version + "/" + kind.Kind))
	return base64.StdEncoding.EncodeToString(sum[:8])
}

// aggregated is the document with everything in some groups.
func (c catalogue) aggregated(core bool) *apidiscoveryv2.APIGroupDiscoveryList {
	list := &apidiscoveryv2.APIGroupDiscoveryList{
		TypeMeta: metav1.TypeMeta{Kind: "APIGroupDiscoveryList", APIVersion: "apidiscovery.k8s.io/v2"},
		Items:    []apidiscoveryv2.APIGroupDiscovery{},
	}
	for _, group := range c.groups {
		if (group == "") != core {
			continue
		}
		g := apidiscoveryv2.APIGroupDiscovery{ObjectMeta: metav1.ObjectMeta{Name: group}}
		for _, v := range c.versions[group] {
			gv := schema.GroupVersion{Group: group, Version: v}
			d := apidiscoveryv2.APIVersionDiscovery{Version: v, Freshness: apidiscoveryv2.DiscoveryFreshnessCurrent}
			for _, r := range c.resources[gv] {
				d.Resources = append(d.Resources, aggregatedResource(r, gv))
			}
			g.Versions = append(g.Versions, d)
		}
		list.Items = append(list.Items, g)
	}
	return list
}

func aggregatedResource(r *api.Resource, gv schema.GroupVersion) apidiscoveryv2.APIResourceDiscovery {
	out := apidiscoveryv2.APIResourceDiscovery{
		Resource: r.Plural, ResponseKind: kindOf(gv.WithKind(r.Kind)), Scope: apidiscoveryv2.ScopeCluster,
		SingularResource: r.Singular, Verbs: verbs(r),
	}
	if !superseded(r, gv) {
		out.ShortNames, out.Categories = r.ShortNames, r.Categories
	}
	if r.Namespaced {
		out.Scope = apidiscoveryv2.ScopeNamespace
	}
	for _, sub := range r.Subresources {
		out.Subresources = append(out.Subresources, apidiscoveryv2.APISubresourceDiscovery{
			Subresource: sub.Name, ResponseKind: kindOf(subKind(r, sub, gv)), Verbs: sub.Verbs,
		})
	}
	return out
}

func kindOf(kind schema.GroupVersionKind) *metav1.GroupVersionKind {
	return &metav1.GroupVersionKind{Group: kind.Group, Version: kind.Version, Kind: kind.Kind}
}

// Paths are the paths of the documents, for the index at /.
func (d *Documents) Paths() []string {
	paths := []string{"/api", "/apis"}
	for path := range d.plain {
		if path = strings.TrimSuffix(path, "/"); path != "/apis" {
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}
