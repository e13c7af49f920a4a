package assemble

import (
	"net/http"
	"slices"
	"strings"

	"k8s.io/kube-openapi/pkg/common"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/proa-k8s/proa/internal/api"
)

// Media types of requests and answers, in the order of upstream's documents.
var (
	bodyTypes  = []string{"application/json", "application/yaml", "application/vnd.kubernetes.protobuf"}
	watchTypes = append(slices.Clone(bodyTypes), "application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch")
	patchTypes = []string{"application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json", "application/apply-patch+yaml"}
)

// route is one operation; it implements common.Route.
type route struct {
	method, path, operation, description string
	action                               string // x-kubernetes-action
	kind                                 schema.GroupVersionKind
	params                               []common.Parameter
	consumes, produces                   []string
	body, answer                         any
	codes                                []int
}

func (r *route) Method() string                 { return r.method }
func (r *route) Path() string                   { return r.path }
func (r *route) OperationName() string          { return r.operation }
func (r *route) Parameters() []common.Parameter { return r.params }
func (r *route) Description() string            { return r.description }
func (r *route) Consumes() []string             { return r.consumes }
func (r *route) Produces() []string             { return r.produces }
func (r *route) RequestPayloadSample() any      { return r.body }
func (r *route) ResponsePayloadSample() any     { return r.answer }
func (r *route) Metadata() map[string]any {
	m := map[string]any{"x-kubernetes-action": r.action}
	if !r.kind.Empty() {
		m["x-kubernetes-group-version-kind"] = gvkExtension(r.kind)
	}
	return m
}

func (r *route) StatusCodeResponses() []common.StatusCodeResponse {
	var all []common.StatusCodeResponse
	for _, code := range r.codes {
		all = append(all, response{code, r.answer})
	}
	return all
}

type response struct {
	code  int
	model any
}

func (r response) Code() int       { return r.code }
func (r response) Message() string { return http.StatusText(r.code) }
func (r response) Model() any      { return r.model }

// container holds the routes of one group and version.
type container struct {
	gv     schema.GroupVersion
	root   string
	routes []common.Route
}

func (c *container) RootPath() string                   { return c.root }
func (c *container) PathParameters() []common.Parameter { return nil }
func (c *container) Routes() []common.Route             { return c.routes }

// containers makes the routes of everything in the catalogue, by group and version.
func containers(resources []*api.Resource) map[schema.GroupVersion]*container {
	all := map[schema.GroupVersion]*container{}
	for _, r := range resources {
		for _, v := range r.Versions {
			c := all[v.GroupVersion]
			if c == nil {
				root := "/apis/" + v.Group + "/" + v.Version
				if v.Group == "" {
					root = "/api/" + v.Version
				}
				c = &container{gv: v.GroupVersion, root: root}
				all[v.GroupVersion] = c
			}
			b := &routeBuilder{c: c, r: r, v: v, kind: v.WithKind(r.Kind)}
			b.resource()
			for _, s := range r.Subresources {
				b.subresource(s)
			}
		}
	}
	return all
}

// routeBuilder makes the routes of one resource in one version.
type routeBuilder struct {
	c    *container
	r    *api.Resource
	v    api.Version
	kind schema.GroupVersionKind
}

var allVerbs = []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}

func (b *routeBuilder) has(verb string) bool {
	verbs := b.r.Verbs
	if verbs == nil {
		verbs = allVerbs
	}
	return slices.Contains(verbs, verb)
}

func (b *routeBuilder) collection() string {
	if b.r.Namespaced {
		return b.c.root + "/namespaces/{namespace}/" + b.r.Plural
	}
	return b.c.root + "/" + b.r.Plural
}

// operation names an operation as upstream does: listCoreV1NamespacedPod.
func (b *routeBuilder) operation(verb, suffix string) string {
	scope := ""
	if b.r.Namespaced && suffix != "ForAllNamespaces" && suffix != "ListForAllNamespaces" {
		scope = "Namespaced"
	}
	return verb + groupName(b.c.gv) + scope + b.r.Kind + suffix
}

func (b *routeBuilder) add(r route) {
	if r.produces == nil {
		r.produces = bodyTypes
	}
	if r.consumes == nil {
		r.consumes = []string{"*/*"}
	}
	b.c.routes = append(b.c.routes, &r)
}

func (b *routeBuilder) pathParams(named bool) []common.Parameter {
	params := []common.Parameter{prettyParam}
	if b.r.Namespaced {
		params = append(params, namespaceParam)
	}
	if named {
		params = append(params, nameParam(b.r.Kind))
	}
	return params
}

func (b *routeBuilder) resource() {
	collection, object := b.collection(), b.collection()+"/{name}"
	what := b.r.Kind
	if b.has("list") {
		b.add(route{method: "GET", path: collection, operation: b.operation("list", ""), action: "list", description: "list or watch objects of kind " + what, kind: b.kind,
			params: append(b.pathParams(false), listParams...), produces: watchTypes, answer: b.v.NewList(), codes: []int{200}})
	}
	if b.has("list") && b.r.Namespaced {
		b.add(route{method: "GET", path: b.c.root + "/" + b.r.Plural, operation: b.operation("list", "ForAllNamespaces"), action: "list", description: "list or watch objects of kind " + what, kind: b.kind,
			params: append([]common.Parameter{prettyParam}, listParams...), produces: watchTypes, answer: b.v.NewList(), codes: []int{200}})
	}
	if b.has("create") {
		b.add(route{method: "POST", path: collection, operation: b.operation("create", ""), action: "post", description: "create " + article(what), kind: b.kind,
			params: append(append(b.pathParams(false), bodyParam), writeParams...), body: b.v.New(), answer: b.v.New(), codes: []int{200, 201, 202}})
	}
	if b.has("deletecollection") {
		b.add(route{method: "DELETE", path: collection, operation: b.operation("delete", "Collection"), action: "deletecollection", description: "delete collection of " + what, kind: b.kind,
			params: append(append(append(b.pathParams(false), optionalBody), listParams...), deleteParams...), body: &metav1.DeleteOptions{}, answer: &metav1.Status{}, codes: []int{200}})
	}
	b.object(object, "", b.kind, b.v.New(), what)
	if b.has("delete") {
		b.add(route{method: "DELETE", path: object, operation: b.operation("delete", ""), action: "delete", description: "delete " + article(what), kind: b.kind,
			params: append(append(b.pathParams(true), optionalBody), deleteParams...), body: &metav1.DeleteOptions{}, answer: &metav1.Status{}, codes: []int{200, 202}})
	}
	b.watches()
}

// object makes the routes to get, replace and patch an object or a part of it.
func (b *routeBuilder) object(path, suffix string, kind schema.GroupVersionKind, model any, what string) {
	verbs := b.r.Verbs
	if verbs == nil {
		verbs = allVerbs
	}
	b.parts(path, suffix, kind, model, what, verbs)
}

func (b *routeBuilder) parts(path, suffix string, kind schema.GroupVersionKind, model any, what string, verbs []string) {
	if slices.Contains(verbs, "get") {
		b.add(route{method: "GET", path: path, operation: b.operation("read", suffix), action: "get", description: "read the specified " + what, kind: kind,
			params: b.pathParams(true), answer: model, codes: []int{200}})
	}
	if slices.Contains(verbs, "update") {
		b.add(route{method: "PUT", path: path, operation: b.operation("replace", suffix), action: "put", description: "replace the specified " + what, kind: kind,
			params: append(append(b.pathParams(true), bodyParam), writeParams...), body: model, answer: model, codes: []int{200, 201}})
	}
	if slices.Contains(verbs, "patch") {
		b.add(route{method: "PATCH", path: path, operation: b.operation("patch", suffix), action: "patch", description: "partially update the specified " + what, kind: kind, consumes: patchTypes,
			params: append(append(append(b.pathParams(true), bodyParam), writeParams...), forceParam), body: &metav1.Patch{}, answer: model, codes: []int{200, 201}})
	}
}

// watches makes the old paths below /watch.
func (b *routeBuilder) watches() {
	if !b.has("watch") {
		return
	}
	add := func(path, suffix, action string, params []common.Parameter) {
		b.add(route{method: "GET", path: path, operation: b.operation("watch", suffix), action: action, description: "watch changes to " + b.r.Kind + ". deprecated: use the 'watch' parameter with a list operation instead", kind: b.kind,
			params: append(params, listParams...), produces: watchTypes, answer: &metav1.WatchEvent{}, codes: []int{200}})
	}
	below := strings.Replace(b.collection(), b.c.root, b.c.root+"/watch", 1)
	add(below, "List", "watchlist", b.pathParams(false))
	add(below+"/{name}", "", "watch", b.pathParams(true))
	if b.r.Namespaced {
		add(b.c.root+"/watch/"+b.r.Plural, "ListForAllNamespaces", "watchlist", []common.Parameter{prettyParam})
	}
}

func (b *routeBuilder) subresource(s api.Subresource) {
	path := b.collection() + "/{name}/" + s.Name
	suffix := strings.ToUpper(s.Name[:1]) + s.Name[1:]
	kind := s.Kind
	if kind.Kind == b.r.Kind || kind.Empty() {
		kind = b.kind
	}
	model, connect := subresourceModel(b, s, kind)
	if connect {
		b.connect(path, suffix, kind, s)
		return
	}
	what := s.Name + " of " + article(b.r.Kind)
	b.parts(path, suffix, kind, model, what, s.Verbs)
	if slices.Contains(s.Verbs, "create") {
		b.add(route{method: "POST", path: path, operation: b.operation("create", suffix), action: "post", description: "create " + what, kind: kind,
			params: append(append(b.pathParams(true), bodyParam), writeParams...), body: model, answer: model, codes: []int{200, 201, 202}})
	}
}

// connect makes the routes of a subresource that is a stream or a proxy.
func (b *routeBuilder) connect(path, suffix string, kind schema.GroupVersionKind, s api.Subresource) {
	if s.Name == "log" {
		b.add(route{method: "GET", path: path, operation: b.operation("read", suffix), action: "get", description: "read log of the specified " + b.r.Kind, kind: b.kind,
			params: append(b.pathParams(true), logParams...), produces: append([]string{"text/plain"}, bodyTypes...), answer: "", codes: []int{200}})
		return
	}
	methods := map[string]string{"get": "GET", "create": "POST", "update": "PUT", "delete": "DELETE", "patch": "PATCH"}
	for _, verb := range s.Verbs {
		method := methods[verb]
		name := strings.ToUpper(method[:1]) + strings.ToLower(method[1:])
		b.add(route{method: method, path: path, operation: "connect" + strings.TrimPrefix(b.operation("", name+suffix), ""), action: "connect", description: "connect " + method + " requests to " + s.Name + " of " + b.r.Kind, kind: kind,
			params: b.pathParams(true)[1:], produces: []string{"*/*"}, answer: "", codes: []int{200}})
	}
}

// groupName is how operations name a group and version: AppsV1, RbacAuthorizationV1, CoreV1.
func groupName(gv schema.GroupVersion) string {
	group := strings.TrimSuffix(gv.Group, ".k8s.io")
	if group == "" {
		group = "core"
	}
	var name strings.Builder
	for _, part := range append(strings.Split(group, "."), gv.Version) {
		name.WriteString(strings.ToUpper(part[:1]) + part[1:])
	}
	return name.String()
}

func article(kind string) string {
	if strings.ContainsAny(kind[:1], "AEIOU") {
		return "an " + kind
	}
	return "a " + kind
}
