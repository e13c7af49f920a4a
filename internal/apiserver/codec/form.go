package codec

import (
	"bytes"
	stdjson "encoding/json"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/proa-k8s/proa/internal/api"
	"github.com/proa-k8s/proa/internal/store"
)

// Form encodes the stored objects of one resource in one version. What was stored in that version is copied, not decoded;
// JSON is made once and shared by all who ask while it is in use.
type Form struct {
	types    *Types
	resource *api.Resource
	version  *api.Version

	apiVersion string
	isHub      bool
	protoHead  []byte // how a stored value of the version starts
	jsonHead   []byte // how an object's JSON starts
	jsonKey    store.EncodingKey
}

// NewForm returns the form of a resource in a version.
func NewForm(types *Types, r *api.Resource, v *api.Version) *Form {
	f := &Form{types: types, resource: r, version: v, apiVersion: v.String(), isHub: v.GroupVersion == r.Hub}
	// The envelope's type comes first, then the tag of the message.
	f.protoHead = appendEnvelope(nil, f.apiVersion, r.Kind, 0)
	f.protoHead = f.protoHead[:len(f.protoHead)-1]
	f.jsonHead = fmt.Appendf(nil, `{"kind":%q,"apiVersion":%q,`, r.Kind, f.apiVersion)
	f.jsonKey = store.EncodingKey{Version: f.apiVersion, Form: "json"}
	return f
}

// Versioned returns the object in the form's version. It is shared: nobody may change it.
func (f *Form) Versioned(o *store.Object) (runtime.Object, error) {
	hub, err := o.Decoded()
	if err != nil {
		return nil, err
	}
	return FromHub(f.resource, f.version, hub)
}

// JSON returns the object in JSON, with apiVersion and kind, without a newline at its end. It is shared.
func (f *Form) JSON(o *store.Object) ([]byte, error) {
	line, err := f.Line(o)
	if err != nil {
		return nil, err
	}
	return line[:len(line)-1], nil
}

// Line returns the object in JSON with a newline at its end. It is shared.
func (f *Form) Line(o *store.Object) ([]byte, error) {
	return o.Encoding(f.jsonKey, func() ([]byte, error) {
		obj, err := f.Versioned(o)
		if err != nil {
			return nil, err
		}
		data, err := stdjson.Marshal(obj)
		if err != nil {
			return nil, err
		}
		return append(data, '\n'), nil
	})
}

// JSONItem returns the object in JSON as an item of a list, which has neither apiVersion nor kind. It is the opening
// brace, and the rest.
func (f *Form) JSONItem(o *store.Object) (rest []byte, err error) {
	data, err := f.JSON(o)
	if err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(data, f.jsonHead) {
		return nil, fmt.Errorf("the JSON of a %s starts with %.60s", f.resource.Kind, data)
	}
	return data[len(f.jsonHead):], nil
}

// RawProto returns the object's message in protobuf, where metadata.resourceVersion may be missing: append it. It may be
// shared.
func (f *Form) RawProto(o *store.Object) ([]byte, error) {
	if value := o.Value(); f.isHub && bytes.HasPrefix(value, f.protoHead) {
		return Raw(value)
	}
	obj, err := f.Versioned(o)
	if err != nil {
		return nil, err
	}
	return marshalProto(obj)
}

// Proto appends the object in protobuf.
func (f *Form) Proto(dst []byte, o *store.Object) ([]byte, error) {
	raw, err := f.RawProto(o)
	if err != nil {
		return nil, err
	}
	return AppendObject(dst, f.apiVersion, f.resource.Kind, raw, o.Rev), nil
}

// Empty returns an object of the version with nothing but a revision and annotations: a bookmark.
func (f *Form) Empty(rev string, annotations map[string]string) (runtime.Object, error) {
	obj := f.version.New()
	obj.GetObjectKind().SetGroupVersionKind(f.version.WithKind(f.resource.Kind))
	m, ok := obj.(metav1.Object)
	if !ok {
		return nil, fmt.Errorf("a %s has no metadata", f.resource.Kind)
	}
	m.SetResourceVersion(rev)
	m.SetAnnotations(annotations)
	return obj, nil
}

func marshalProto(obj runtime.Object) ([]byte, error) {
	m, ok := obj.(runtime.ProtobufMarshaller)
	if !ok {
		return nil, fmt.Errorf("object %T does not implement the protobuf marshalling interface and cannot be encoded to a protobuf message", obj)
	}
	data := make([]byte, m.Size())
	n, err := m.MarshalTo(data)
	return data[:n], err
}
