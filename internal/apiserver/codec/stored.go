package codec

import (
	"bytes"
	"encoding/json"
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/proa-k8s/proa/internal/api"
	"github.com/proa-k8s/proa/internal/store"
)

// Stored describes a resource to the store: protobuf in upstream's envelope where the Go type can, JSON otherwise.
// Decoded objects carry the hub's apiVersion and kind.
func (t *Types) Stored(r *api.Resource) store.Resource {
	return store.Resource{
		Prefix:     r.Prefix,
		Namespaced: r.Namespaced,
		TTL:        r.TTL,
		Encode:     func(obj runtime.Object) ([]byte, error) { return t.encodeStored(r, obj) },
		Decode:     func(data []byte) (runtime.Object, error) { return t.decodeStored(r, data) },
		Fields:     func(obj runtime.Object) fields.Set { return objectFields(r, obj) },
	}
}

// protoMessage is what the Go types of k8s.io/api are.
type protoMessage interface {
	runtime.ProtobufMarshaller
	Size() int
}

// envelopeSize is enough for the envelope around a message: its first four bytes, apiVersion and kind, and the lengths.
const envelopeSize = 96

func (t *Types) encodeStored(r *api.Resource, obj runtime.Object) ([]byte, error) {
	obj.GetObjectKind().SetGroupVersionKind(r.Hub.WithKind(r.Kind))
	if m, ok := obj.(protoMessage); ok {
		// The cache keeps what is returned: it is allocated once and in its size, and what it is made in is used again.
		var buf bytes.Buffer
		buf.Grow(m.Size() + envelopeSize)
		memory := runtime.AllocatorPool.Get().(*runtime.Allocator)
		defer runtime.AllocatorPool.Put(memory)
		if err := t.proto.EncodeWithAllocator(obj, &buf, memory); err != nil {
			return nil, fmt.Errorf("encoding a %s to store it: %w", r.Kind, err)
		}
		return buf.Bytes(), nil
	}
	data, err := json.Marshal(obj)
	if err != nil {
		return nil, fmt.Errorf("encoding a %s to store it: %w", r.Kind, err)
	}
	return data, nil
}

// decodeStored reads what was stored in any served version: an older cluster stored older ones.
func (t *Types) decodeStored(r *api.Resource, data []byte) (runtime.Object, error) {
	hub := r.Hub.WithKind(r.Kind)
	var obj runtime.Object
	var kind *schema.GroupVersionKind
	var err error
	if IsProto(data) {
		obj, kind, err = t.proto.Decode(data, &hub, nil)
	} else {
		obj, kind, err = t.json.Decode(data, &hub, nil)
	}
	if err != nil {
		return nil, fmt.Errorf("decoding a stored %s: %w", r.Kind, err)
	}
	if *kind != hub {
		version := VersionOf(r, kind.GroupVersion())
		if version == nil || kind.Kind != r.Kind {
			return nil, fmt.Errorf("decoding a stored %s: it is a %s", r.Kind, kind)
		}
		return ToHub(r, version, obj)
	}
	if r.Default != nil {
		r.Default(obj)
	}
	return obj, nil
}

func objectFields(r *api.Resource, obj runtime.Object) fields.Set {
	var set fields.Set
	if r.Fields != nil {
		set = r.Fields(obj)
	} else {
		set = make(fields.Set, 2)
	}
	if m, err := meta.Accessor(obj); err == nil {
		set["metadata.name"] = m.GetName()
		if r.Namespaced {
			set["metadata.namespace"] = m.GetNamespace()
		}
	}
	return set
}

// VersionOf finds a version in which the resource is served, or nil.
func VersionOf(r *api.Resource, gv schema.GroupVersion) *api.Version {
	for i := range r.Versions {
		if r.Versions[i].GroupVersion == gv {
			return &r.Versions[i]
		}
	}
	return nil
}

// ToHub makes an object of the hub type of one of a version's type, and sets all defaults. It owns obj.
func ToHub(r *api.Resource, v *api.Version, obj runtime.Object) (runtime.Object, error) {
	if v.Default != nil {
		v.Default(obj)
	}
	hub := obj
	if v.ToHub != nil {
		hub = r.New()
		if err := v.ToHub(obj, hub); err != nil {
			return nil, err
		}
	}
	if r.Default != nil {
		r.Default(hub)
	}
	hub.GetObjectKind().SetGroupVersionKind(r.Hub.WithKind(r.Kind))
	return hub, nil
}

// FromHub makes an object of a version's type of one of the hub type, which it may share memory with: the result is
// read-only unless hub is the caller's own. The hub's own version is hub itself.
func FromHub(r *api.Resource, v *api.Version, hub runtime.Object) (runtime.Object, error) {
	if v.FromHub == nil {
		return hub, nil
	}
	obj := v.New()
	if err := v.FromHub(hub, obj); err != nil {
		return nil, err
	}
	obj.GetObjectKind().SetGroupVersionKind(v.WithKind(r.Kind))
	return obj, nil
}
