package fieldmanager

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// unmanaged are the fields that nobody manages: apimachinery's list.
var unmanaged = fieldpath.NewSet(
	fieldpath.MakePathOrDie("apiVersion"),
	fieldpath.MakePathOrDie("kind"),
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

// creator records the fields of new objects. It comes to what an update of an empty object comes to, in a tenth of the
// time: there is nobody else to take fields from, and nothing to compare with.
type creator struct {
	converter  converter
	kind       schema.GroupVersionKind
	apiVersion string // of kind
	shape      *shape
}

func newCreator(types managedfields.TypeConverter, c converter, kind schema.GroupVersionKind, reset *fieldpath.Set) (*creator, error) {
	empty, err := c.types.New(kind)
	if err != nil {
		return nil, err
	}
	t, err := types.ObjectToTyped(empty)
	if err != nil {
		return nil, err
	}
	drop := unmanaged
	if reset != nil {
		drop = drop.Union(reset)
	}
	comp := compiler{schema: t.Schema(), done: map[compiled]*shape{}}
	s, err := comp.compile(reflect.TypeOf(empty), t.TypeRef(), true, drop)
	if err != nil {
		return nil, err
	}
	return &creator{converter: c, kind: kind, apiVersion: kind.GroupVersion().String(), shape: s}, nil
}

// errOdd says that an object has what only apimachinery's way can deal with: list items without keys, or twice.
var errOdd = errors.New("the object does not fit its schema")

// record sets the managed fields of a new object of the hub type.
func (c *creator) record(obj runtime.Object, m metav1.Object, manager string) error {
	versioned, err := c.converter.ConvertToVersion(obj, c.kind.GroupVersion())
	if err != nil {
		return err
	}
	w := writers.Get().(*writer)
	defer writers.Put(w)
	w.dst, w.odd = append(w.dst[:0], '{'), false
	w.content(c.shape, reflect.ValueOf(versioned).Elem())
	if w.odd {
		return errOdd
	}
	if len(w.dst) == 1 {
		return nil
	}
	raw := bytes.Clone(append(w.dst, '}'))
	now := metav1.NewTime(time.Now().UTC().Truncate(time.Second))
	var fields metav1.FieldsV1
	fields.SetRawBytes(raw)
	m.SetManagedFields([]metav1.ManagedFieldsEntry{{
		Manager: manager, Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: c.apiVersion, Time: &now,
		FieldsType: "FieldsV1", FieldsV1: &fields,
	}})
	return nil
}

// writer writes the fields of one object.
type writer struct {
	dst []byte
	odd bool // see errOdd

	// Of all lists and maps that the place being written is in: each takes what it needs, and gives it back at its end.
	keys  []byte // what their items are told apart by
	items []item // their items
	label []byte // the label being written
}

// item is an item of a list, or an entry of a map.
type item struct {
	from, to int // its key in writer.keys
	value    reflect.Value
}

var writers = sync.Pool{New: func() any { return new(writer) }}

// key is what an item is told apart by.
func (w *writer) key(it item) []byte { return w.keys[it.from:it.to] }

// sorted sorts the items from that one on by their keys. False says that there are two with the same.
func (w *writer) sorted(from int) bool {
	items := w.items[from:]
	slices.SortFunc(items, func(a, b item) int { return bytes.Compare(w.key(a), w.key(b)) })
	for i := 1; i < len(items); i++ {
		if bytes.Equal(w.key(items[i-1]), w.key(items[i])) {
			return false
		}
	}
	return true
}

// cut gives back what a list or map has taken.
func (w *writer) cut(items, keys int) {
	clear(w.items[items:])
	w.items, w.keys = w.items[:items], w.keys[:keys]
}

// labelled is the label of an item, until the next one is made: "k:KEY":
func (w *writer) labelled(kind string, key []byte) []byte {
	w.label = append(w.label[:0], '"')
	w.label = append(w.label, kind...)
	w.label = appendQuoted(w.label, key)
	w.label = append(w.label, '"', ':')
	return w.label
}

// open writes a label and an opening brace, and says where to cut if nothing comes after it.
func (w *writer) open(label []byte) (start int) {
	start = len(w.dst)
	if start > 0 && w.dst[start-1] != '{' {
		w.dst = append(w.dst, ',')
	}
	w.dst = append(append(w.dst, label...), '{')
	return start
}

// field writes what is labelled: a leaf, or a container with what is in it. member says that the container itself is
// managed, too.
func (w *writer) field(label []byte, s *shape, v reflect.Value, member bool) {
	start := w.open(label)
	inner := len(w.dst)
	if member {
		w.dst = append(w.dst, `".":{}`...)
	}
	if !w.content(s, v) {
		// Nothing is in it: it is a leaf.
		w.dst = append(w.dst[:inner], '}')
		return
	}
	if len(w.dst) == inner {
		w.dst = w.dst[:start] // all that is in it is not managed
		return
	}
	w.dst = append(w.dst, '}')
}

// content writes what is in a value; false says that it is a leaf: no container, or an empty one.
func (w *writer) content(s *shape, v reflect.Value) bool {
	for v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return false
		}
		v = v.Elem()
	}
	switch s.form {
	case structure:
		return w.structure(s, v)
	case mapping:
		return w.mapping(s, v)
	case keyed:
		return w.keyed(s, v)
	case set:
		return w.set(v)
	default:
		return false
	}
}

func (w *writer) structure(s *shape, v reflect.Value) bool {
	some := false
	for i := range s.fields {
		f := &s.fields[i]
		fv := v.FieldByIndex(f.index)
		if f.omitEmpty && isEmpty(fv) || f.omitZero && isZero(fv) {
			continue
		}
		some = true
		if f.known && fv.IsZero() {
			continue
		}
		w.field(f.label, f.shape, fv, f.shape.form != leaf && !f.known)
	}
	return some
}

// isZero is the rule of omitzero: what the type's IsZero says, if it has one.
func isZero(v reflect.Value) bool {
	if z, ok := v.Interface().(interface{ IsZero() bool }); ok {
		return z.IsZero()
	}
	if v.CanAddr() {
		if z, ok := v.Addr().Interface().(interface{ IsZero() bool }); ok {
			return z.IsZero()
		}
	}
	return v.IsZero()
}

// isEmpty is the rule of omitempty.
func isEmpty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Map, reflect.Slice, reflect.String:
		return v.Len() == 0
	case reflect.Struct:
		return false
	default:
		return v.IsZero()
	}
}

func (w *writer) mapping(s *shape, v reflect.Value) bool {
	if v.Len() == 0 {
		return false
	}
	items, keys := len(w.items), len(w.keys)
	defer w.cut(items, keys)
	if m, ok := v.Interface().(map[string]string); ok && s.elem.form == leaf {
		for name := range m {
			w.add(name, reflect.Value{})
		}
	} else {
		for entry := v.MapRange(); entry.Next(); {
			w.add(entry.Key().String(), entry.Value())
		}
	}
	w.sorted(items) // no two are the same
	for i := items; i < items+v.Len(); i++ {
		w.field(w.labelled("f:", w.key(w.items[i])), s.elem, w.items[i].value, s.elem.form != leaf)
	}
	return true
}

// add takes an item with a key that is written as it is.
func (w *writer) add(key string, value reflect.Value) {
	from := len(w.keys)
	w.keys = append(w.keys, key...)
	w.items = append(w.items, item{from, len(w.keys), value})
}

func (w *writer) keyed(s *shape, v reflect.Value) bool {
	if v.IsNil() {
		return false
	}
	items, keys := len(w.items), len(w.keys)
	defer w.cut(items, keys)
	for i := range v.Len() {
		from, ok := len(w.keys), false
		if w.keys, ok = s.appendKey(w.keys, v.Index(i)); !ok {
			w.odd = true
			return true
		}
		w.items = append(w.items, item{from, len(w.keys), v.Index(i)})
	}
	if !w.sorted(items) {
		w.odd = true
		return true
	}
	for i := items; i < items+v.Len(); i++ {
		w.field(w.labelled("k:", w.key(w.items[i])), s.elem, w.items[i].value, true)
	}
	return true
}

func (w *writer) set(v reflect.Value) bool {
	if v.IsNil() {
		return false
	}
	items, keys := len(w.items), len(w.keys)
	defer w.cut(items, keys)
	for i := range v.Len() {
		w.add(v.Index(i).String(), reflect.Value{})
	}
	if !w.sorted(items) {
		w.odd = true
		return true
	}
	for _, it := range w.items[items:] {
		value := len(w.keys)
		w.keys = appendJSONString(w.keys, string(w.key(it)))
		w.open(w.labelled("v:", w.keys[value:]))
		w.dst = append(w.dst, '}')
	}
	return true
}

// Create sets the managed fields of obj, which is new. live is an empty object. It changes obj.
func (m *Manager) Create(live, obj runtime.Object, manager string) (runtime.Object, error) {
	accessor, err := meta.Accessor(obj)
	if err != nil {
		return nil, err
	}
	if accessor.GetManagedFields() == nil { // restored objects bring some along
		if c, err := m.creator(); err == nil && c.record(obj, accessor, manager) == nil {
			return obj, nil
		}
	}
	return m.Update(live, obj, manager)
}

// lazyCreator makes the creator when it is first needed, with the schema.
func lazyCreator(types func() managedfields.TypeConverter, c converter, kind schema.GroupVersionKind, reset *fieldpath.Set) func() (*creator, error) {
	return sync.OnceValues(func() (*creator, error) { return newCreator(types(), c, kind, reset) })
}
