package client

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

func encoded(t testing.TB, o *corev1.ConfigMap) []byte {
	raw, err := o.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	value, err := (&runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}, Raw: raw}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return append([]byte("k8s\x00"), value...)
}

func TestDecodeMetadata(t *testing.T) {
	object := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "n", Namespace: "ns", UID: "u", Annotations: map[string]string{"a": "b"}},
		Data:       map[string]string{"k": "v"},
	}
	for name, value := range map[string][]byte{
		"protobuf": encoded(t, object),
		"json":     []byte(`{"metadata":{"name":"n","namespace":"ns","uid":"u","annotations":{"a":"b"}},"data":{"k":"v"}}`),
	} {
		m, err := decodeMetadata(value)
		if err != nil || m.Name != "n" || m.Namespace != "ns" || m.UID != "u" || m.Annotations != nil {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
}

func FuzzDecodeMetadata(f *testing.F) {
	f.Add(encoded(f, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "n", OwnerReferences: []metav1.OwnerReference{{Name: "o"}}}}))
	f.Add([]byte(`{"metadata":{"name":"n"}}`))
	f.Add([]byte("k8s\x00\x12\x03\x0a\xff\xff"))
	f.Fuzz(func(t *testing.T, value []byte) {
		if m, err := decodeMetadata(value); err == nil && m == nil {
			t.Error("neither metadata nor an error")
		}
	})
}
