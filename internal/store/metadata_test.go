package store

import (
	"bytes"
	"encoding/json"
	"maps"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

func asMap(l labelList) map[string]string {
	m := map[string]string{}
	for _, x := range l {
		m[x.key.Value()] = x.value.Value()
	}
	return m
}

func fullPod() *corev1.Pod {
	p := newPod("ns", "a", "app", "x", "empty", "", "pod-template-hash", "abc")
	p.Annotations = map[string]string{"labels": `{"a":"b"}`}
	p.OwnerReferences = []metav1.OwnerReference{{Kind: "ReplicaSet", Name: "r", UID: "u"}}
	p.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "m", FieldsV1: metav1.NewFieldsV1(`{"f:metadata":{}}`)}}
	p.Status.Phase = corev1.PodRunning
	return p
}

func TestReadLabels(t *testing.T) {
	protobuf, err := encodeProtobuf(fullPod())
	if err != nil {
		t.Fatal(err)
	}
	noLabels, err := encodeProtobuf(&corev1.Pod{})
	if err != nil {
		t.Fatal(err)
	}
	full := map[string]string{"app": "x", "empty": "", "pod-template-hash": "abc"}
	for _, tc := range []struct {
		name, value string
		want        map[string]string
		bad         bool
	}{
		{"protobuf", string(protobuf), full, false},
		{"protobuf without labels", string(noLabels), nil, false},
		{"protobuf cut off", string(protobuf[:40]), nil, true},
		{"protobuf of nothing", "k8s\x00", nil, false},
		{"json", `{"kind":"W","metadata":{"name":"x","labels":{"a":"b","c":"d"}},"spec":{"metadata":{"labels":{"e":"f"}}}}`,
			map[string]string{"a": "b", "c": "d"}, false},
		{"json with space", "\n{ \"metadata\" : {\t\"annotations\":{\"labels\":\"}\"}, \"labels\" : { \"a\" : \"b\" } } }\n", map[string]string{"a": "b"}, false},
		{"json with escapes", `{"metadata":{"labels":{"a\u002fb":"c\"d"}},"x":"\"labels\""}`, map[string]string{"a/b": `c"d`}, false},
		{"json with nested values", `{"a":[{"b":[1,2,{"c":"]"}]},null,true,-1.5e3],"metadata":{"x":[],"labels":{"a":"b"}}}`, map[string]string{"a": "b"}, false},
		{"json with a label twice", `{"metadata":{"labels":{"a":"b","a":"c"}}}`, map[string]string{"a": "c"}, false},
		{"json without labels", `{"metadata":{"labels":null}}`, nil, false},
		{"json without metadata", `{}`, nil, false},
		{"json cut off", `{"metadata":{"labels":{"a":"b`, nil, true},
		{"json with a label that is no string", `{"metadata":{"labels":{"a":1}}}`, nil, true},
		{"nothing", ``, nil, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := readLabels([]byte(tc.value))
			if (err != nil) != tc.bad {
				t.Fatalf("error is %v", err)
			}
			if !tc.bad && !maps.Equal(asMap(got), tc.want) {
				t.Errorf("got %v, want %v", asMap(got), tc.want)
			}
		})
	}
}

// FuzzProtobufLabels compares the labels that are read with those of a real decoding.
func FuzzProtobufLabels(f *testing.F) {
	for _, p := range []*corev1.Pod{{}, newPod("ns", "a", "a", "b"), fullPod()} {
		data, err := encodeProtobuf(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data[len(protobufPrefix):])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := protobufLabels(data)
		var u runtime.Unknown
		if u.Unmarshal(data) != nil {
			return
		}
		var meta metav1.PartialObjectMetadata
		if meta.Unmarshal(u.Raw) != nil || bytes.Contains(data, protobufPrefix) {
			return
		}
		// Several raw fields are merged here, and replace each other there: only one is ever written.
		if n := 0; eachBytes(data, unknownRaw, func([]byte) error { n++; return nil }) == nil && n > 1 {
			return
		}
		if err != nil {
			return // as for groups, which the generated decoders skip without a look
		}
		if want := meta.Labels; !maps.Equal(asMap(got), want) {
			t.Fatalf("got %v, want %v", asMap(got), want)
		}
	})
}

// FuzzJSONLabels compares the labels that are read with those of a real decoding.
func FuzzJSONLabels(f *testing.F) {
	f.Add([]byte(`{"metadata":{"labels":{"a":"b"}},"x":[1,{"y":null}]}`))
	f.Add([]byte(`{"metadata":{"labels":{"\u0061":"\n"},"name":"\\"}}`))
	f.Add([]byte(`{"metadata":null,"a":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := jsonLabels(data)
		var want struct {
			Metadata struct {
				Labels map[string]string
			}
		}
		// The decoder takes keys in any case, and merges keys that come twice.
		if strings.Count(strings.ToLower(string(data)), "meta") > 1 || strings.Contains(string(data), `\`) ||
			json.Unmarshal(data, &want) != nil || strings.Contains(string(data), "null") {
			return
		}
		lower := strings.ToLower(string(data))
		if strings.Count(lower, "labels") != strings.Count(string(data), "labels") || strings.Count(lower, "labels") > 1 ||
			strings.Count(lower, "metadata") != strings.Count(string(data), "metadata") {
			return
		}
		if err != nil {
			t.Fatalf("%v, but it decodes", err)
		}
		if !maps.Equal(asMap(got), want.Metadata.Labels) {
			t.Fatalf("got %v, want %v", asMap(got), want.Metadata.Labels)
		}
	})
}
