package fieldmanager

import (
	"encoding/json"
	"math/rand"
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/apitesting/fuzzer"
	"k8s.io/apimachinery/pkg/api/meta"
	metafuzzer "k8s.io/apimachinery/pkg/apis/meta/fuzzer"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/proa-k8s/proa/internal/api"
	"github.com/proa-k8s/proa/internal/api/catalogue"
	"github.com/proa-k8s/proa/internal/api/core"
	"github.com/proa-k8s/proa/internal/apiserver/codec"
)

// TestUpdateOfWhatDiffers wants updates recorded of the parts that differ to come to what updates of the whole come to,
// for random objects of all kinds, of which random parts change, by several managers.
func TestUpdateOfWhatDiffers(t *testing.T) {
	resources := catalogue.Builtin()
	types := codec.NewTypes(resources)
	factory := NewFactory(types)
	random := rand.New(rand.NewSource(1))
	filler := fuzzer.FuzzerFor(metafuzzer.Funcs, rand.NewSource(2), serializer.NewCodecFactory(scheme.Scheme)).NumElements(1, 2).NilChance(0.3)
	for _, r := range resources {
		if r.Prefix == "" {
			continue
		}
		t.Run(r.Kind, func(t *testing.T) {
			m := factory.New(r, codec.VersionOf(r, r.Hub), "", nil)
			fill := func() runtime.Object {
				obj := r.New()
				filler.Fill(obj)
				obj.GetObjectKind().SetGroupVersionKind(r.Hub.WithKind(r.Kind))
				accessor, err := meta.Accessor(obj)
				if err != nil {
					t.Fatal(err)
				}
				accessor.SetManagedFields(nil)
				return obj
			}
			for range 4 {
				empty := r.New()
				empty.GetObjectKind().SetGroupVersionKind(r.Hub.WithKind(r.Kind))
				live, err := m.update(empty, fill(), "a")
				if err != nil {
					t.Fatal(err)
				}
				for _, manager := range []string{"b", "a", "c"} {
					next, other := live.DeepCopyObject(), fill()
					for i := range reflect.ValueOf(next).Elem().NumField() {
						if !reflect.TypeOf(next).Elem().Field(i).Anonymous && random.Intn(2) == 0 {
							reflect.ValueOf(next).Elem().Field(i).Set(reflect.ValueOf(other).Elem().Field(i))
						}
					}
					whole, err := m.update(live, next.DeepCopyObject(), manager)
					if err != nil {
						t.Fatal(err)
					}
					parts, err := m.Update(live, next.DeepCopyObject(), manager)
					if err != nil {
						t.Fatal(err)
					}
					if a, b := timeless(t, whole), timeless(t, parts); a != b {
						t.Fatalf("the whole gives\n%s\nthe parts\n%s", a, b)
					}
					live = parts
				}
			}
		})
	}
}

// timeless is an object in JSON without the times of its managed fields.
func timeless(t *testing.T, obj runtime.Object) string {
	t.Helper()
	for i := range obj.(metav1.Object).GetManagedFields() {
		obj.(metav1.Object).GetManagedFields()[i].Time = nil
	}
	data, err := json.Marshal(obj)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func BenchmarkUpdateStatus(b *testing.B) {
	pod := core.Pod()
	m := NewFactory(codec.NewTypes([]*api.Resource{pod})).New(pod, &pod.Versions[0], "status", nil)
	live := &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}}
	live.Name = "p"
	for _, name := range []string{"a", "b", "c"} {
		live.Spec.Containers = append(live.Spec.Containers, corev1.Container{Name: name, Image: "i", Env: []corev1.EnvVar{{Name: "A", Value: "B"}, {Name: "C", Value: "D"}}})
	}
	pod.Default(live)
	if _, err := m.Create(&corev1.Pod{TypeMeta: live.TypeMeta}, live, "maker"); err != nil {
		b.Fatal(err)
	}
	next := live.DeepCopy()
	next.Status.Phase = corev1.PodRunning
	for name, record := range map[string]func(live, obj runtime.Object, manager string) (runtime.Object, error){"parts": m.Update, "whole": m.update} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				next.ManagedFields = live.ManagedFields
				if _, err := record(live, next, "me"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
