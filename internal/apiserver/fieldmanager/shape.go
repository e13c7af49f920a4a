package fieldmanager

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	smdschema "sigs.k8s.io/structured-merge-diff/v6/schema"
)

// A shape says how to write the fields of a value of one Go type, as one part of the schema reads it, in the form of
// metav1.FieldsV1. It is compiled once from the type and the schema, so that writing is nothing but a walk.
type shape struct {
	form   shapeForm
	fields []shapeField // of a structure, by name
	elem   *shape       // of a mapping or a keyed list
	keys   []keyField   // of a keyed list, by name
}

type shapeForm uint8

const (
	leaf      shapeForm = iota // managed as a whole
	structure                  // a Go struct
	mapping                    // a Go map by strings
	keyed                      // a list whose items are told apart by some of their fields
	set                        // a list of strings, each there once
)

// shapeField is a field of a structure.
type shapeField struct {
	label     []byte // `"f:name":`
	index     []int
	omitEmpty bool
	omitZero  bool
	// known says that an empty object has the field, too: it is managed only where it isn't zero, and not as a container.
	known bool
	shape *shape
}

// keyField is a field that items of a list are told apart by.
type keyField struct {
	name      string
	index     []int
	byDefault any // nil when there is none
}

// compiler compiles the shapes of one schema.
type compiler struct {
	schema *smdschema.Schema
	done   map[compiled]*shape
}

// compiled is what a shape is made of, where nothing is known and dropped.
type compiled struct {
	typ  reflect.Type
	name string
	rel  smdschema.ElementRelationship
}

// compile makes the shape of a type. known says that an empty object has the value, too; drop are the fields that are
// never managed. An error says that there is something in the type that only apimachinery's way can deal with.
func (c *compiler) compile(typ reflect.Type, ref smdschema.TypeRef, known bool, drop *fieldpath.Set) (*shape, error) {
	for typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	atom, ok := c.schema.Resolve(ref)
	if !ok {
		return nil, fmt.Errorf("the schema has no type for %s", typ)
	}
	if atom.Scalar != nil ||
		atom.List != nil && atom.List.ElementRelationship == smdschema.Atomic ||
		atom.Map != nil && atom.Map.ElementRelationship == smdschema.Atomic {
		return &shape{}, nil
	}
	var key compiled
	if !known && drop == nil && ref.NamedType != nil {
		key = compiled{typ: typ, name: *ref.NamedType}
		if ref.ElementRelationship != nil {
			key.rel = *ref.ElementRelationship
		}
		if s := c.done[key]; s != nil {
			return s, nil
		}
	}
	s := &shape{}
	if key.typ != nil {
		c.done[key] = s // types may hold themselves
	}
	switch {
	case atom.Map != nil && typ.Kind() == reflect.Struct:
		return s, c.structure(s, typ, atom.Map, known, drop)
	case atom.Map != nil && typ.Kind() == reflect.Map && typ.Key().Kind() == reflect.String:
		var err error
		s.form = mapping
		s.elem, err = c.compile(typ.Elem(), atom.Map.ElementType, false, nil)
		return s, err
	case atom.List != nil && typ.Kind() == reflect.Slice:
		return s, c.list(s, typ, atom.List)
	}
	return nil, fmt.Errorf("%s is not what the schema says", typ)
}

func (c *compiler) structure(s *shape, typ reflect.Type, m *smdschema.Map, known bool, drop *fieldpath.Set) error {
	s.form = structure
	for _, f := range jsonFields(typ, nil) {
		element := fieldpath.PathElement{FieldName: &f.name}
		var inner *fieldpath.Set
		if drop != nil {
			if drop.Members.Has(element) && f.name != "metadata" {
				continue
			}
			inner, _ = drop.Children.Get(element)
		}
		field, ok := m.FindField(f.name)
		if !ok {
			return fmt.Errorf("the schema of %s has no field %s", typ, f.name)
		}
		// A pointer, map or list that is always written is null in an empty object: known, but nothing in it is.
		isKnown := known && !(f.omitEmpty && f.typ.Kind() != reflect.Struct) && !f.omitZero
		sub, err := c.compile(f.typ, field.Type, isKnown && f.typ.Kind() == reflect.Struct, inner)
		if err != nil {
			return err
		}
		s.fields = append(s.fields, shapeField{
			label: append(appendJSONString(nil, "f:"+f.name), ':'), index: f.index, omitEmpty: f.omitEmpty, omitZero: f.omitZero,
			known: isKnown, shape: sub,
		})
	}
	slices.SortFunc(s.fields, func(a, b shapeField) int { return bytes.Compare(a.label, b.label) })
	return nil
}

func (c *compiler) list(s *shape, typ reflect.Type, l *smdschema.List) error {
	item := typ.Elem()
	if len(l.Keys) == 0 {
		if item.Kind() != reflect.String {
			return fmt.Errorf("a set of %s", item)
		}
		s.form = set
		return nil
	}
	if item.Kind() != reflect.Struct {
		return fmt.Errorf("a list by keys of %s", item)
	}
	atom, ok := c.schema.Resolve(l.ElementType)
	if !ok || atom.Map == nil {
		return fmt.Errorf("the schema has no type for %s", item)
	}
	s.form = keyed
	for _, f := range jsonFields(item, nil) {
		if !slices.Contains(l.Keys, f.name) {
			continue
		}
		k := keyField{name: f.name, index: f.index}
		if field, ok := atom.Map.FindField(f.name); ok {
			k.byDefault = field.Default
		}
		s.keys = append(s.keys, k)
	}
	if len(s.keys) != len(l.Keys) {
		return fmt.Errorf("%s lacks keys of its list", item)
	}
	slices.SortFunc(s.keys, func(a, b keyField) int { return cmp.Compare(a.name, b.name) })
	var err error
	s.elem, err = c.compile(item, l.ElementType, false, nil)
	return err
}

// jsonField is a field of a struct as JSON sees it.
type jsonField struct {
	name                string
	typ                 reflect.Type
	index               []int
	omitEmpty, omitZero bool
}

// jsonFields are the fields of a struct, those of embedded structs included.
func jsonFields(typ reflect.Type, above []int) []jsonField {
	var list []jsonField
	for i := range typ.NumField() {
		f := typ.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		index := append(slices.Clone(above), i)
		switch {
		case name == "-" || !f.IsExported():
		case name == "" && f.Anonymous || strings.Contains(options, "inline"):
			list = append(list, jsonFields(f.Type, index)...)
		default:
			if name == "" {
				name = f.Name
			}
			list = append(list, jsonField{
				name: name, typ: f.Type, index: index,
				omitEmpty: strings.Contains(options, "omitempty"), omitZero: strings.Contains(options, "omitzero"),
			})
		}
	}
	return list
}

// appendJSONString appends a string in JSON.
func appendJSONString(dst []byte, s string) []byte {
	return append(appendQuoted(append(dst, '"'), s), '"')
}

// appendQuoted appends what is between the quotes of a string in JSON.
func appendQuoted[T ~string | ~[]byte](dst []byte, s T) []byte {
	start := len(dst)
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ' || c > '~':
			quoted, err := json.Marshal(string(s))
			if err != nil {
				panic(err) // strings are always encodable
			}
			return append(dst[:start], quoted[1:len(quoted)-1]...)
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

// appendKey appends what an item of a keyed list is told apart by: {"name":"c"}. ok is false where nothing does.
func (s *shape) appendKey(dst []byte, item reflect.Value) (key []byte, ok bool) {
	dst = append(dst, '{')
	for _, k := range s.keys {
		v := item.FieldByIndex(k.index)
		for v.Kind() == reflect.Pointer && !v.IsNil() {
			v = v.Elem()
		}
		if v.IsZero() && k.byDefault == nil {
			continue // whether it is there depends on omitempty: such items are left to apimachinery
		}
		if ok {
			dst = append(dst, ',')
		}
		dst = append(appendJSONString(dst, k.name), ':')
		var good bool
		if dst, good = appendScalar(dst, v, k.byDefault); !good {
			return dst, false
		}
		ok = true
	}
	return append(dst, '}'), ok
}

func appendScalar(dst []byte, v reflect.Value, byDefault any) ([]byte, bool) {
	if v.IsZero() {
		text, ok := byDefault.(string)
		return appendJSONString(dst, text), ok
	}
	switch v.Kind() {
	case reflect.String:
		return appendJSONString(dst, v.String()), true
	case reflect.Int, reflect.Int32, reflect.Int64:
		return strconv.AppendInt(dst, v.Int(), 10), true
	default:
		return dst, false
	}
}
