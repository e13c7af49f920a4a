// Package codec turns objects into bytes and back: what is stored, what is received, and what is sent.
//
// What flows in are request bodies, stored values and objects; what flows out are objects of hub types, and encodings.
// It knows the catalogue's versions, and nothing of HTTP or of the store's caches.
package codec

import (
	"reflect"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/proa-k8s/proa/internal/api"
)

// schemeName is what upstream's errors about unknown kinds name as the place where kinds are registered.
const schemeName = "pkg/api/legacyscheme/scheme.go:30"

// Types knows the Go types of all kinds that are served. It is safe for concurrent use, and kinds can be added while it is
// in use. It implements runtime.ObjectCreater and runtime.ObjectTyper.
type Types struct {
	mu    sync.RWMutex
	makes map[schema.GroupVersionKind]func() runtime.Object
	kinds map[reflect.Type][]schema.GroupVersionKind

	json, strictJSON, yaml, strictYAML *json.Serializer
	proto                              *protobuf.Serializer
}

// NewTypes returns the types of the given resources, those of their subresources, and those of the meta group.
func NewTypes(resources []*api.Resource) *Types {
	t := &Types{
		makes: map[schema.GroupVersionKind]func() runtime.Object{},
		kinds: map[reflect.Type][]schema.GroupVersionKind{},
	}
	t.json = json.NewSerializerWithOptions(json.DefaultMetaFactory, t, t, json.SerializerOptions{})
	t.strictJSON = json.NewSerializerWithOptions(json.DefaultMetaFactory, t, t, json.SerializerOptions{Strict: true})
	t.yaml = json.NewSerializerWithOptions(json.DefaultMetaFactory, t, t, json.SerializerOptions{Yaml: true})
	t.strictYAML = json.NewSerializerWithOptions(json.DefaultMetaFactory, t, t, json.SerializerOptions{Yaml: true, Strict: true})
	t.proto = protobuf.NewSerializer(t, t)
	for _, r := range resources {
		t.AddResource(r)
	}
	return t
}

// AddResource adds the kinds of a resource, in all versions, and those of its subresources.
func (t *Types) AddResource(r *api.Resource) {
	for i := range r.Versions {
		v := &r.Versions[i]
		t.add(v.WithKind(r.Kind), v.New)
		if v.NewList != nil {
			t.add(v.WithKind(r.Kind+"List"), v.NewList)
		}
	}
	for _, sub := range r.Subresources {
		t.addKnown(sub.Kind)
		for _, kind := range sub.Accepts {
			t.addKnown(kind)
		}
	}
}

// addKnown adds a kind whose Go type client-go knows.
func (t *Types) addKnown(kind schema.GroupVersionKind) {
	if kind.Kind == "" || t.Recognizes(kind) || !scheme.Scheme.Recognizes(kind) {
		return
	}
	t.add(kind, func() runtime.Object {
		obj, err := scheme.Scheme.New(kind)
		if err != nil {
			panic(err) // Recognizes said that there is such a kind
		}
		return obj
	})
}

func (t *Types) add(kind schema.GroupVersionKind, make func() runtime.Object) {
	typ := reflect.TypeOf(make())
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.makes[kind]; ok {
		return
	}
	t.makes[kind] = make
	t.kinds[typ] = append(t.kinds[typ], kind)
}

// New makes an empty object of a kind, which it carries.
func (t *Types) New(kind schema.GroupVersionKind) (runtime.Object, error) {
	t.mu.RLock()
	make, ok := t.makes[kind]
	t.mu.RUnlock()
	if !ok {
		return nil, runtime.NewNotRegisteredErrForKind(schemeName, kind)
	}
	obj := make()
	obj.GetObjectKind().SetGroupVersionKind(kind)
	return obj, nil
}

// Recognizes says whether there is such a kind.
func (t *Types) Recognizes(kind schema.GroupVersionKind) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	_, ok := t.makes[kind]
	return ok
}

// ObjectKinds names the kinds that the object's Go type has. No type is unversioned.
func (t *Types) ObjectKinds(obj runtime.Object) ([]schema.GroupVersionKind, bool, error) {
	if u, ok := obj.(runtime.Unstructured); ok {
		return []schema.GroupVersionKind{u.GetObjectKind().GroupVersionKind()}, false, nil
	}
	t.mu.RLock()
	kinds, ok := t.kinds[reflect.TypeOf(obj)]
	t.mu.RUnlock()
	if !ok {
		return nil, false, runtime.NewNotRegisteredErrForType(schemeName, reflect.TypeOf(obj).Elem())
	}
	return kinds, false, nil
}

// StatusKind is the kind of all errors.
var StatusKind = metav1.Unversioned.WithKind("Status")
