package fieldmanager

import (
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	smdschema "sigs.k8s.io/structured-merge-diff/v6/schema"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
	"sigs.k8s.io/structured-merge-diff/v6/value"
)

// unmanaged are the fields that nobody manages: apimachinery's list.
var unmanaged = fieldpath.NewSet(
	fieldpath.MakePathOrDie("apiVersion"),
	fieldpath.MakePathOrDie("kind"),
	fieldpath.MakePathOrDie("metadata"),
	fieldpath.MakePathOrDie("metadata", "name"),
	fieldpath.MakePathOrDie("metadata", "namespace"),
	fieldpath.MakePathOrDie("metadata", "creationTimestamp"),
	fieldpath.MakePathOrDie("metadata", "selfLink"),
	fieldpath.MakePathOrDie("metadata", "uid"),
	fieldpath.MakePathOrDie("metadata", "clusterName"),
	fieldpath.MakePathOrDie("metadata", "generation"),
	fieldpath.MakePathOrDie("metadata", "managedFields"),
	fieldpath.MakePathOrDie("metadata", "resourceVersion"),
)

// creator records the fields of new objects. It comes to what an update of an empty object comes to, in a third of the
// time: there is nobody else to take fields from, and nothing to compare with.
type creator struct {
	converter converter
	kind      schema.GroupVersionKind
	filter    fieldpath.Filter // of fields that the endpoint drops; nil for none

	schema  *smdschema.Schema
	typeRef smdschema.TypeRef
	// zero are the fields that an empty object has, too: they are managed where they are not empty any more.
	zero []zeroField
	// containers are those of an empty object: all others are managed as such, beside what is in them.
	containers containers
}

// containers are the fields of an object that can hold others, by name.
type containers map[string]containers

func containersOf(v value.Value) containers {
	c := containers{}
	if v == nil || !v.IsMap() {
		return c
	}
	v.AsMap().Iterate(func(name string, inner value.Value) bool {
		c[name] = containersOf(inner)
		return true
	})
	return c
}

// insert adds what holds the set's fields to the set, but for what is in c.
func (c containers) insert(set *fieldpath.Set) {
	var elements []fieldpath.PathElement
	set.Children.Iterate(func(element fieldpath.PathElement) { elements = append(elements, element) })
	for _, element := range elements {
		var inner containers
		known := false
		if element.FieldName != nil {
			inner, known = c[*element.FieldName]
		}
		if !known {
			set.Members.Insert(element)
		}
		if child, ok := set.Children.Get(element); ok {
			inner.insert(child)
		}
	}
}

type zeroField struct {
	path  fieldpath.Path
	value value.Value
}

func newCreator(types managedfields.TypeConverter, c converter, kind schema.GroupVersionKind, filter fieldpath.Filter) (*creator, error) {
	empty, err := c.types.New(kind)
	if err != nil {
		return nil, err
	}
	t, err := types.ObjectToTyped(empty)
	if err != nil {
		return nil, err
	}
	set, err := t.ToFieldSet()
	if err != nil {
		return nil, err
	}
	cr := &creator{
		converter: c, kind: kind, filter: filter, schema: t.Schema(), typeRef: t.TypeRef(), containers: containersOf(t.AsValue()),
	}
	set.Difference(unmanaged).Iterate(func(p fieldpath.Path) {
		cr.zero = append(cr.zero, zeroField{p.Copy(), at(t.AsValue(), p)})
	})
	return cr, nil
}

// at finds the value of a path of fields; nil if there is none.
func at(v value.Value, path fieldpath.Path) value.Value {
	for _, element := range path {
		if v == nil || element.FieldName == nil || !v.IsMap() {
			return nil
		}
		var ok bool
		if v, ok = v.AsMap().Get(*element.FieldName); !ok {
			return nil
		}
	}
	return v
}

// record sets the managed fields of a new object of the hub type.
func (c *creator) record(obj runtime.Object, manager, subresource string) error {
	m, err := meta.Accessor(obj)
	if err != nil {
		return err
	}
	m.SetManagedFields(nil)
	versioned, err := c.converter.ConvertToVersion(obj, c.kind.GroupVersion())
	if err != nil {
		return err
	}
	v, err := value.NewValueReflect(versioned)
	if err != nil {
		return fmt.Errorf("looking into a %s: %w", c.kind.Kind, err)
	}
	set, err := typed.AsTypedUnvalidated(v, c.schema, c.typeRef).ToFieldSet()
	if err != nil {
		return fmt.Errorf("finding the fields of a %s: %w", c.kind.Kind, err)
	}
	drop := unmanaged
	for _, zero := range c.zero {
		if now := at(v, zero.path); now == nil || value.Equals(now, zero.value) {
			drop = drop.Union(fieldpath.NewSet(zero.path))
		}
	}
	c.containers.insert(set)
	set = set.Difference(drop)
	if c.filter != nil {
		set = c.filter.Filter(set)
	}
	if set.Empty() {
		return nil
	}
	raw, err := set.ToJSON()
	if err != nil {
		return fmt.Errorf("encoding the fields of a %s: %w", c.kind.Kind, err)
	}
	now := metav1.NewTime(time.Now().UTC().Truncate(time.Second))
	m.SetManagedFields([]metav1.ManagedFieldsEntry{{
		Manager: manager, Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: c.kind.GroupVersion().String(), Time: &now,
		FieldsType: "FieldsV1", FieldsV1: &metav1.FieldsV1{Raw: raw}, Subresource: subresource,
	}})
	return nil
}

// Create sets the managed fields of obj, which is new. live is an empty object. It changes obj.
func (m *Manager) Create(live, obj runtime.Object, manager string) (runtime.Object, error) {
	accessor, err := meta.Accessor(obj)
	if err != nil {
		return nil, err
	}
	if accessor.GetManagedFields() == nil {
		if c, err := m.creator(); err == nil && c.record(obj, manager, "") == nil {
			return obj, nil
		}
	}
	return m.Update(live, obj, manager) // restored objects bring managed fields along
}

// lazyCreator makes the creator when it is first needed, with the schema.
func lazyCreator(types func() managedfields.TypeConverter, c converter, kind schema.GroupVersionKind, filter fieldpath.Filter) func() (*creator, error) {
	return sync.OnceValues(func() (*creator, error) { return newCreator(types(), c, kind, filter) })
}
