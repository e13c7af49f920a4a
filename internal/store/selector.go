package store

import (
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// The field selectors that every resource has.
const (
	fieldName      = "metadata.name"
	fieldNamespace = "metadata.namespace"
)

// matcher is a namespace and selectors, taken apart: what can be answered without looking at an object comes first.
type matcher struct {
	none      bool                 // nothing matches
	namespace string               // empty: all
	name      string               // empty: all
	equal     labelList            // labels that must be there
	labels    labels.Selector      // what else is asked of the labels; nil: nothing
	fields    []fields.Requirement // those that need more than the key
	exact     []fieldValue         // those of fields that ask for one value, which an index can answer
}

func newMatcher(namespaced bool, namespace string, ls labels.Selector, fs fields.Selector) *matcher {
	m := &matcher{namespace: namespace}
	if !namespaced {
		m.namespace = ""
	}
	if ls != nil && !ls.Empty() {
		m.addLabels(ls)
	}
	if fs == nil || fs.Empty() {
		return m
	}
	reqs := fs.Requirements()
	if len(reqs) == 0 {
		m.none = true // fields.Nothing
	}
	for _, r := range reqs {
		m.addField(r, namespaced)
	}
	return m
}

func (m *matcher) addLabels(ls labels.Selector) {
	reqs, selectable := ls.Requirements()
	if !selectable {
		m.none = true
		return
	}
	var rest []labels.Requirement
	for _, r := range reqs {
		op, values := r.Operator(), r.ValuesUnsorted()
		if len(values) == 1 && (op == selection.Equals || op == selection.DoubleEquals || op == selection.In) {
			// Several of one key can't be told from one another in a list that holds one value for each.
			if _, twice := m.equal.Lookup(r.Key()); !twice {
				m.equal = m.equal.with(r.Key(), values[0])
				continue
			}
		}
		rest = append(rest, r)
	}
	if len(rest) > 0 {
		m.labels = labels.NewSelector().Add(rest...)
	}
}

func (m *matcher) addField(r fields.Requirement, namespaced bool) {
	if r.Operator != selection.NotEquals {
		switch {
		case r.Field == fieldName:
			m.none = m.none || r.Value == "" || m.name != "" && m.name != r.Value
			m.name = r.Value
			return
		case r.Field == fieldNamespace && namespaced:
			m.none = m.none || r.Value == "" || m.namespace != "" && m.namespace != r.Value
			m.namespace = r.Value
			return
		}
		m.exact = append(m.exact, fieldValue{r.Field, r.Value})
	}
	m.fields = append(m.fields, r)
}

// everything says that all objects match.
func (m *matcher) everything() bool {
	return !m.none && m.namespace == "" && m.name == "" && len(m.equal) == 0 && m.labels == nil && len(m.fields) == 0
}

// selects says whether anything but the namespace is asked for.
func (m *matcher) selects() bool {
	return m.none || m.name != "" || len(m.equal) > 0 || m.labels != nil || len(m.fields) > 0
}

func (m *matcher) matches(v *view) (bool, error) {
	if m.namespace != "" && v.o.Namespace != m.namespace {
		return false, nil
	}
	return m.selected(v)
}

// selected is matches for an object in the right namespace.
func (m *matcher) selected(v *view) (bool, error) {
	if m.none || m.name != "" && v.o.Name != m.name {
		return false, nil
	}
	for i := range m.equal {
		if !v.o.labels.contains(m.equal[i]) {
			return false, nil
		}
	}
	if m.labels != nil && !m.labels.Matches(&v.o.labels) {
		return false, nil
	}
	for i := range m.fields {
		r := &m.fields[i]
		value, err := v.field(r.Field)
		if err != nil {
			return false, err
		}
		if (value == r.Value) == (r.Operator == selection.NotEquals) {
			return false, nil
		}
	}
	return true, nil
}

// view is an object being looked at by selectors. It decodes the object at most once, and only for fields that no index
// has.
type view struct {
	o   *Object
	set fields.Set
	err error
}

func (v *view) field(name string) (string, error) {
	switch name {
	case fieldName:
		return v.o.Name, nil
	case fieldNamespace:
		return v.o.Namespace, nil
	}
	if value, ok := v.o.indexedField(name); ok {
		return value, nil
	}
	if v.set == nil && v.err == nil {
		v.set, v.err = v.o.fields()
	}
	return v.set[name], v.err
}

// fields decodes the object, if nobody holds it decoded, and returns its fields.
func (o *Object) fields() (fields.Set, error) {
	obj, err := o.Decoded()
	if err != nil {
		return nil, err
	}
	set := fields.Set{}
	if f := o.cache.resource.Fields; f != nil {
		if got := f(obj); got != nil {
			set = got
		}
	}
	return set, nil
}
