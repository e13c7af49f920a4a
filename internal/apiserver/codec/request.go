package codec

import (
	"bytes"
	"encoding/hex"
	stdjson "encoding/json"
	"fmt"
	"reflect"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// Encoding is a way to write objects.
type Encoding uint8

// The encodings of requests and answers.
const (
	JSON Encoding = iota
	YAML
	Protobuf
)

// MediaType is the encoding's media type.
func (e Encoding) MediaType() string {
	switch e {
	case YAML:
		return runtime.ContentTypeYAML
	case Protobuf:
		return runtime.ContentTypeProtobuf
	default:
		return runtime.ContentTypeJSON
	}
}

// Decode reads a request's body that should be of the wanted kind (which is the default for a missing apiVersion or kind).
// It returns the object, the kind that the body says, and, if strict, what is wrong with it beyond being decodable
// (unknown and duplicate fields). Errors are those for the client; an object of another kind is one, an object of
// another version is not: the caller compares.
func (t *Types) Decode(body []byte, enc Encoding, want schema.GroupVersionKind, strict bool) (runtime.Object, schema.GroupVersionKind, []error, error) {
	into, err := t.New(want)
	if err != nil {
		return nil, want, nil, apierrors.NewInternalError(err)
	}
	if enc == JSON && strict {
		if decodeExpected(body, want, into) {
			return into, want, nil, nil
		}
		if into, err = t.New(want); err != nil {
			return nil, want, nil, apierrors.NewInternalError(err)
		}
	}
	obj, kind, err := t.decoder(enc, strict).Decode(body, &want, into)
	var flaws []error
	if err != nil {
		strictErr, ok := runtime.AsStrictDecodingError(err)
		if !ok || obj == nil {
			return nil, want, nil, decodeError(err, want, kind, body)
		}
		flaws = strictErr.Errors()
	}
	if reflect.TypeOf(obj) != reflect.TypeOf(into) && kind.Kind != want.Kind {
		err := fmt.Errorf("converting (%s) to (%s): unknown conversion", goName(*kind), internalName(want))
		return nil, want, nil, decodeError(err, want, kind, body)
	}
	return obj, *kind, flaws, nil
}

// decodeExpected reads JSON that is what nearly all is: of the wanted kind and without flaws. Without looking for the kind first
// it is read once and not twice. False says nothing about the body, but that it is to be read in the other way, into a new object.
func decodeExpected(body []byte, want schema.GroupVersionKind, into runtime.Object) bool {
	if _, ok := into.(runtime.Unstructured); ok {
		return false
	}
	flaws, err := kjson.UnmarshalStrict(body, into)
	return err == nil && len(flaws) == 0 && into.GetObjectKind().GroupVersionKind() == want
}

func (t *Types) decoder(enc Encoding, strict bool) runtime.Decoder {
	switch {
	case enc == Protobuf:
		return t.proto
	case enc == YAML && strict:
		return t.strictYAML
	case enc == YAML:
		return t.yaml
	case strict:
		return t.strictJSON
	default:
		return t.json
	}
}

// StrictError is the error for a body with flaws, when the client asked for strict validation.
func StrictError(flaws []error, want, kind schema.GroupVersionKind) error {
	return decodeError(runtime.NewStrictDecodingError(flaws), want, &kind, nil)
}

// decodeError says in upstream's words that a body could not be decoded.
func decodeError(err error, want schema.GroupVersionKind, kind *schema.GroupVersionKind, body []byte) error {
	if kind != nil && kind.Kind != "" {
		return apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: %v", kind.Kind, kind.Version, want.Kind, err))
	}
	return apierrors.NewBadRequest(fmt.Sprintf("the object provided is unrecognized (must be of type %s): %v (%s)", want.Kind, err, excerpt(body)))
}

// excerpt is the start of a body, as text if it looks like JSON and in hexadecimal digits otherwise.
func excerpt(body []byte) string {
	const length = 30
	if len(body) == 0 {
		return "<empty>"
	}
	rest := ""
	if len(body) > length {
		body, rest = body[:length], " ..."
	}
	if body[0] == '{' {
		return string(body) + rest
	}
	return hex.EncodeToString(body) + rest
}

// goName and internalName are how upstream's Go types of a kind are called.
func goName(kind schema.GroupVersionKind) string { return kind.Version + "." + kind.Kind }

func internalName(kind schema.GroupVersionKind) string {
	pkg, _, _ := strings.Cut(kind.Group, ".")
	if pkg == "" {
		pkg = "core"
	}
	return pkg + "." + kind.Kind
}

// Encode writes an object, which carries its apiVersion and kind. Text ends with a newline, as upstream's does.
func (t *Types) Encode(obj runtime.Object, enc Encoding) ([]byte, error) {
	if enc == Protobuf {
		var buf bytes.Buffer
		err := t.proto.Encode(obj, &buf)
		return buf.Bytes(), err
	}
	data, err := stdjson.Marshal(obj)
	if err != nil {
		return nil, err
	}
	if enc == YAML {
		return yaml.JSONToYAML(data)
	}
	return append(data, '\n'), nil
}
