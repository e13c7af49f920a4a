package codec

import (
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"

	"github.com/proa-k8s/proa/internal/api"
	"github.com/proa-k8s/proa/internal/api/core"
)

// TestDecodeExpected wants the short way to read JSON to be taken where it leads to the same as the long one, and only there.
func TestDecodeExpected(t *testing.T) {
	types := NewTypes([]*api.Resource{core.ConfigMap(), core.Secret()})
	want := corev1.SchemeGroupVersion.WithKind("ConfigMap")
	long := json.NewSerializerWithOptions(json.DefaultMetaFactory, types, types, json.SerializerOptions{Strict: true})
	for name, test := range map[string]struct {
		body  string
		short bool
	}{
		"whole":           {`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x","labels":{"a":"b"}},"data":{"k":"v"}}`, true},
		"without kind":    {`{"metadata":{"name":"x"}}`, true},
		"kind at its end": {`{"metadata":{"name":"x"},"kind":"ConfigMap","apiVersion":"v1"}`, true},
		"null kind":       {`{"apiVersion":null,"kind":null,"metadata":{"name":"x"}}`, true},
		"empty kind":      {`{"apiVersion":"","kind":"","metadata":{"name":"x"}}`, false},
		"another kind":    {`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"x"}}`, false},
		"another version": {`{"apiVersion":"v2","kind":"ConfigMap","metadata":{"name":"x"}}`, false},
		"kind twice":      {`{"kind":"ConfigMap","kind":"ConfigMap"}`, false},
		"unknown field":   {`{"kind":"ConfigMap","metadata":{"nam":"x"}}`, false},
		"other case":      {`{"Kind":"Secret","metadata":{"name":"x"}}`, false},
		"wrong type":      {`{"kind":"ConfigMap","data":{"k":1}}`, false},
		"no JSON":         {`{"kind":`, false},
		"more after it":   {`{"kind":"ConfigMap"}{}`, false},
	} {
		into, err := types.New(want)
		if err != nil {
			t.Fatal(err)
		}
		if got := decodeExpected([]byte(test.body), want, into); got != test.short {
			t.Errorf("%s: the short way: %v", name, got)
		}
		obj, kind, flaws, err := types.Decode([]byte(test.body), JSON, want, true)
		other, err2 := types.New(want)
		if err2 != nil {
			t.Fatal(err2)
		}
		wantObj, wantKind, wantErr := long.Decode([]byte(test.body), &want, other)
		switch {
		case wantErr == nil && wantKind.Kind == want.Kind && (err != nil || len(flaws) > 0 || !reflect.DeepEqual(obj, wantObj) || kind != *wantKind):
			t.Errorf("%s: got %+v %v %v %v, want %+v", name, obj, kind, flaws, err, wantObj)
		case (wantErr != nil || wantKind.Kind != want.Kind) && err == nil && len(flaws) == 0:
			t.Errorf("%s: no flaw is found", name)
		}
	}
}
