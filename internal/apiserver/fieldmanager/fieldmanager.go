// Package fieldmanager records who manages which field of an object, and merges what is applied (server-side apply).
//
// What flows in are the present and the wanted object, both of the hub type, and the manager's name; what flows out is
// the object with metadata.managedFields brought up to date. The merging itself is apimachinery's.
package fieldmanager

import (
	"fmt"
	"reflect"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/client-go/applyconfigurations"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/proa-k8s/proa/internal/api"
	"github.com/proa-k8s/proa/internal/apiserver/codec"
)

// Factory makes managers, which share the schema of all kinds.
type Factory struct {
	types *codec.Types
	// schema is parsed at first use: it takes 50 ms and leaves 1 MB.
	schema func() managedfields.TypeConverter
}

// NewFactory returns a factory. The schema is not loaded yet: see Load.
func NewFactory(types *codec.Types) *Factory {
	return &Factory{
		types: types,
		schema: sync.OnceValue(func() managedfields.TypeConverter {
			return applyconfigurations.NewTypeConverter(scheme.Scheme)
		}),
	}
}

// Load reads the schema, so that the first write need not.
func (f *Factory) Load() { f.schema() }

// Manager keeps the managed fields of one endpoint: a resource or a subresource in one version. It is safe for concurrent
// use.
type Manager struct {
	fields  func() (*managedfields.FieldManager, error)
	creator func() (*creator, error)
}

// New makes the manager of an endpoint; subresource is empty for the main resource. reset are the fields that the
// endpoint drops, by API version.
func (f *Factory) New(r *api.Resource, v *api.Version, subresource string, reset map[string]*fieldpath.Set) *Manager {
	return f.newManager(f.schema, r, v, subresource, reset)
}

func (f *Factory) newManager(schema func() managedfields.TypeConverter, r *api.Resource, v *api.Version, subresource string, reset map[string]*fieldpath.Set) *Manager {
	c := converter{resource: r, types: f.types}
	kind := v.WithKind(r.Kind)
	return &Manager{
		fields: sync.OnceValues(func() (*managedfields.FieldManager, error) {
			return managedfields.NewDefaultFieldManager(schema(), c, c, f.types, kind, r.Hub, subresource, filters(reset))
		}),
		creator: lazyCreator(schema, c, kind, reset[v.String()]),
	}
}

// NewScale makes the manager of a scale subresource, whose objects are autoscaling/v1 Scales. They have no list whose
// merging a schema would have to describe, and client-go has no schema of them.
func (f *Factory) NewScale() *Manager {
	kind := schema.GroupVersionKind{Group: "autoscaling", Version: "v1", Kind: "Scale"}
	version := api.Version{GroupVersion: kind.GroupVersion()}
	r := &api.Resource{Kind: kind.Kind, Hub: kind.GroupVersion(), Versions: []api.Version{version}}
	return f.newManager(managedfields.NewDeducedTypeConverter, r, &version, "scale", nil)
}

func filters(reset map[string]*fieldpath.Set) map[fieldpath.APIVersion]fieldpath.Filter {
	if len(reset) == 0 {
		return nil
	}
	out := make(map[fieldpath.APIVersion]fieldpath.Filter, len(reset))
	for version, set := range reset {
		out[fieldpath.APIVersion(version)] = fieldpath.NewExcludeSetFilter(set)
	}
	return out
}

// Update sets the managed fields of obj, which replaces live (an empty object when it is new). It changes obj.
func (m *Manager) Update(live, obj runtime.Object, manager string) (runtime.Object, error) {
	before, after, ok := differing(live, obj)
	if !ok {
		return m.update(live, obj, manager)
	}
	recorded, err := m.update(before, after, manager)
	if err != nil {
		return nil, err
	}
	from, err := meta.Accessor(recorded)
	if err != nil {
		return nil, err
	}
	to, err := meta.Accessor(obj)
	if err != nil {
		return nil, err
	}
	to.SetManagedFields(from.GetManagedFields())
	return obj, nil
}

func (m *Manager) update(live, obj runtime.Object, manager string) (runtime.Object, error) {
	fields, err := m.fields()
	if err != nil {
		return nil, fmt.Errorf("making a field manager: %w", err)
	}
	obj = fields.UpdateNoErrors(live, obj, manager)
	return obj, wholeSeconds(obj)
}

// differing makes copies of two objects without those of their parts (spec, status, data...) that are the same in both:
// what does not change changes no manager, and finding that out here is cheaper than comparing field by field. The copies
// share memory with the objects. ok is false if the objects are not structs of one type.
func differing(live, obj runtime.Object) (before, after runtime.Object, ok bool) {
	x, y := reflect.ValueOf(live), reflect.ValueOf(obj)
	if x.Type() != y.Type() || x.Kind() != reflect.Pointer || x.Elem().Kind() != reflect.Struct {
		return nil, nil, false
	}
	x, y = shallow(x.Elem()), shallow(y.Elem())
	for i := range x.NumField() {
		if x.Type().Field(i).Anonymous { // TypeMeta and ObjectMeta
			continue
		}
		if a, b := x.Field(i), y.Field(i); reflect.DeepEqual(a.Interface(), b.Interface()) {
			a.SetZero()
			b.SetZero()
		}
	}
	before, ok = x.Addr().Interface().(runtime.Object)
	after, _ = y.Addr().Interface().(runtime.Object)
	return before, after, ok
}

func shallow(v reflect.Value) reflect.Value {
	c := reflect.New(v.Type()).Elem()
	c.Set(v)
	return c
}

// wholeSeconds cuts the times of managed fields to what is stored of them.
func wholeSeconds(obj runtime.Object) error {
	m, err := meta.Accessor(obj)
	if err != nil {
		return err
	}
	entries := m.GetManagedFields()
	for i := range entries {
		if t := entries[i].Time; t != nil && t.Nanosecond() != 0 {
			whole := t.Rfc3339Copy()
			entries[i].Time = &whole
		}
	}
	return nil
}

// Apply merges an applied configuration into live (an empty object when there is none), which it doesn't change.
func (m *Manager) Apply(live runtime.Object, config map[string]any, manager string, force bool) (runtime.Object, error) {
	fields, err := m.fields()
	if err != nil {
		return nil, fmt.Errorf("making a field manager: %w", err)
	}
	obj, err := fields.Apply(live, &unstructured.Unstructured{Object: config}, manager, force)
	if err != nil {
		return nil, err
	}
	return obj, wholeSeconds(obj)
}

// Unchanged says whether an update changes nothing: obj equals old but for the times of managed fields (which a write by
// the same manager renews) and metadata.resourceVersion.
func Unchanged(obj, old runtime.Object) bool {
	m, err := meta.Accessor(obj)
	if err != nil {
		return false
	}
	before, err := meta.Accessor(old)
	if err != nil {
		return false
	}
	if !sameEntries(m.GetManagedFields(), before.GetManagedFields()) {
		return false
	}
	entries, rev := m.GetManagedFields(), m.GetResourceVersion()
	m.SetManagedFields(before.GetManagedFields())
	m.SetResourceVersion(before.GetResourceVersion())
	same := apiequality.Semantic.DeepEqual(obj, old)
	if !same {
		m.SetManagedFields(entries)
		m.SetResourceVersion(rev)
	}
	return same
}

func sameEntries(a, b []metav1.ManagedFieldsEntry) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		x, y := a[i], b[i]
		x.Time, y.Time = nil, nil
		if !apiequality.Semantic.DeepEqual(x, y) {
			return false
		}
	}
	return true
}

// Name is the manager's name: the one that the client says, or the first part of its User-Agent.
func Name(manager, userAgent string) string {
	if manager != "" {
		return manager
	}
	product, _, _ := strings.Cut(userAgent, "/")
	var name strings.Builder
	for _, r := range product {
		if !unicode.IsPrint(r) {
			continue
		}
		if name.Len()+utf8.RuneLen(r) > validation.FieldManagerMaxLength {
			break
		}
		name.WriteRune(r)
	}
	return name.String()
}

// converter converts between a resource's versions, as apimachinery's field manager wants it.
type converter struct {
	resource *api.Resource
	types    *codec.Types
}

// Convert is never called by the field manager.
func (c converter) Convert(in, out, _ any) error {
	return fmt.Errorf("converting %T to %T is not supported", in, out)
}

// ConvertFieldLabel is never called by the field manager.
func (c converter) ConvertFieldLabel(_ schema.GroupVersionKind, label, _ string) (string, string, error) {
	return "", "", fmt.Errorf("field label not supported: %s", label)
}

// ConvertToVersion makes an object of another version's type of one that carries its own version, or is unstructured. The
// result may share memory with in.
func (c converter) ConvertToVersion(in runtime.Object, target runtime.GroupVersioner) (runtime.Object, error) {
	gv, ok := target.(schema.GroupVersion)
	if !ok {
		return nil, fmt.Errorf("converting a %s: the target is no version but %v", c.resource.Kind, target)
	}
	kind := in.GetObjectKind().GroupVersionKind()
	if u, ok := in.(*unstructured.Unstructured); ok {
		typed, err := c.types.New(kind)
		if err != nil {
			return nil, err
		}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, typed); err != nil {
			return nil, err
		}
		typed.GetObjectKind().SetGroupVersionKind(kind)
		in = typed
	}
	if kind.GroupVersion() == gv {
		return in, nil
	}
	from, to := codec.VersionOf(c.resource, kind.GroupVersion()), codec.VersionOf(c.resource, gv)
	if from == nil || to == nil {
		return nil, runtime.NewNotRegisteredGVKErrForTarget("the catalogue", kind, target)
	}
	hub := in
	if from.ToHub != nil {
		if from.Default != nil {
			in = in.DeepCopyObject()
		}
		var err error
		if hub, err = codec.ToHub(c.resource, from, in); err != nil {
			return nil, err
		}
	}
	return codec.FromHub(c.resource, to, hub)
}

// Default sets the defaults of the object's version.
func (c converter) Default(obj runtime.Object) {
	kind := obj.GetObjectKind().GroupVersionKind()
	if v := codec.VersionOf(c.resource, kind.GroupVersion()); v != nil && v.Default != nil {
		v.Default(obj)
	}
	if kind.GroupVersion() == c.resource.Hub && c.resource.Default != nil {
		c.resource.Default(obj)
	}
}
