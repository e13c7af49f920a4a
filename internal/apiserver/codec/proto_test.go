package codec

import (
	"bytes"
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/proa-k8s/proa/internal/api"
	"github.com/proa-k8s/proa/internal/api/core"
)

var configMaps = core.ConfigMap()

func stored(t testing.TB, types *Types, cm *corev1.ConfigMap) []byte {
	t.Helper()
	value, err := types.Stored(configMaps).Encode(cm)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// TestCopiesOfStoredBytes wants what is put together of stored bytes to decode to the object with its revision.
func TestCopiesOfStoredBytes(t *testing.T) {
	types := NewTypes([]*api.Resource{configMaps})
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "x", Labels: map[string]string{"a": "b"}}, Data: map[string]string{"k": "v"}}
	value := stored(t, types, cm)
	raw, err := Raw(value)
	if err != nil {
		t.Fatal(err)
	}
	want := cm.DeepCopy()
	want.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("ConfigMap"))
	for _, rev := range []int64{1, 9, 10, 12345678901} {
		want.ResourceVersion = string(appendInt(rev))
		whole := AppendObject(nil, "v1", "ConfigMap", raw, rev)
		got, _, _, err := types.Decode(whole, Protobuf, want.GroupVersionKind(), true)
		if err != nil || !reflect.DeepEqual(got, runtime.Object(want)) {
			t.Fatalf("%+v, %v; want %+v", got, err, want)
		}
		size := ItemSize(raw, rev)
		list := AppendListHead(nil, "v1", "ConfigMapList", metav1.ListMeta{ResourceVersion: "7", Continue: "c"}, 2*size)
		list = AppendItem(AppendItem(list, raw, rev), raw, rev)
		got, _, _, err = types.Decode(list, Protobuf, corev1.SchemeGroupVersion.WithKind("ConfigMapList"), true)
		if err != nil {
			t.Fatal(err)
		}
		l := got.(*corev1.ConfigMapList)
		if l.ResourceVersion != "7" || l.Continue != "c" || len(l.Items) != 2 || l.Items[1].ResourceVersion != want.ResourceVersion || l.Items[1].Data["k"] != "v" {
			t.Fatalf("%+v", l)
		}
		part, err := RawMetadata(raw)
		if err != nil {
			t.Fatal(err)
		}
		var p metav1.PartialObjectMetadata
		if err := p.Unmarshal(appendRevision(part, rev)); err != nil || p.Name != "x" || p.Labels["a"] != "b" || p.ResourceVersion != want.ResourceVersion {
			t.Fatalf("%+v, %v", p, err)
		}
		var ev metav1.WatchEvent
		frame := append(AppendEventHead(nil, "ADDED", len(whole)), whole...)
		if err := ev.Unmarshal(frame[4:]); err != nil || ev.Type != "ADDED" || !bytes.Equal(ev.Object.Raw, whole) || int(frame[3])|int(frame[2])<<8 != len(frame)-4 {
			t.Fatalf("%+v, %v", ev, err)
		}
	}
}

func appendInt(n int64) []byte {
	text := appendRevision(nil, n)
	return text[4:]
}

// FuzzRaw wants no panic, and no more bytes than there are.
func FuzzRaw(f *testing.F) {
	f.Add(stored(f, NewTypes([]*api.Resource{configMaps}), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "x"}}))
	f.Add([]byte("k8s\x00\x12\xff"))
	f.Fuzz(func(t *testing.T, value []byte) {
		raw, err := Raw(value)
		if err != nil {
			return
		}
		if len(raw) > len(value) {
			t.Errorf("%d of %d bytes", len(raw), len(value))
		}
		_, _ = RawMetadata(raw)
	})
}
