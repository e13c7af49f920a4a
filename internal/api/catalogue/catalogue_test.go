package catalogue

import (
	"context"
	"math/rand"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/apitesting/fuzzer"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metafuzzer "k8s.io/apimachinery/pkg/apis/meta/fuzzer"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/randfill"

	"github.com/proa-k8s/proa/internal/api"
)

func name(r *api.Resource) string { return r.GroupResource().String() }

func filler(seed int64) *randfill.Filler {
	return fuzzer.FuzzerFor(fuzzer.MergeFuzzerFuncs(metafuzzer.Funcs), rand.NewSource(seed), serializer.NewCodecFactory(scheme.Scheme))
}

// TestDescriptions checks what every description must keep to.
func TestDescriptions(t *testing.T) {
	seen := map[string]bool{}
	prefixes := map[string]string{}
	for _, r := range Builtin() {
		t.Run(name(r), func(t *testing.T) {
			if seen[name(r)] {
				t.Error("described twice")
			}
			seen[name(r)] = true
			if r.Prefix == "" && !slices.Equal(r.Verbs, []string{"create"}) {
				t.Error("a resource that is not stored can only be created")
			}
			if other, ok := prefixes[r.Prefix]; ok && r.Prefix != "" {
				t.Errorf("stored where %s is: %s", other, r.Prefix)
			}
			prefixes[r.Prefix] = name(r)
			if r.Singular != strings.ToLower(r.Kind) {
				t.Errorf("singular %q of kind %q", r.Singular, r.Kind)
			}
			hub := 0
			for _, v := range r.Versions {
				if v.GroupVersion == r.Hub {
					hub++
				}
				gvks, _, err := scheme.Scheme.ObjectKinds(v.New())
				if err != nil || gvks[0] != v.WithKind(r.Kind) {
					t.Errorf("%s: the Go type is that of %v (%v)", v.GroupVersion, gvks, err)
				}
				if r.Prefix == "" {
					continue
				}
				gvks, _, err = scheme.Scheme.ObjectKinds(v.NewList())
				if err != nil || gvks[0] != v.WithKind(r.Kind+"List") {
					t.Errorf("%s: the Go type of the list is that of %v (%v)", v.GroupVersion, gvks, err)
				}
				if r.ResetFields != nil && r.ResetFields[v.GroupVersion.String()] == nil {
					t.Errorf("%s resets no fields", v.GroupVersion)
				}
			}
			if hub != 1 {
				t.Errorf("the hub %s is %d times among the versions", r.Hub, hub)
			}
		})
	}
}

// TestCells checks that a row has a cell of the right type for each column, for an empty object and for full ones.
func TestCells(t *testing.T) {
	for _, r := range Builtin() {
		if r.Row == nil { // shown with the columns that any object has
			if len(r.Columns) > 0 {
				t.Errorf("%s: columns without cells", name(r))
			}
			continue
		}
		t.Run(name(r), func(t *testing.T) {
			for seed := range int64(20) {
				obj := r.New()
				if seed > 0 {
					filler(seed).Fill(obj)
					if r.Default != nil {
						r.Default(obj)
					}
				}
				row := r.Row(obj)
				if len(row) != len(r.Columns) {
					t.Fatalf("%d cells in %d columns", len(row), len(r.Columns))
				}
				for i, cell := range row {
					switch cell.(type) {
					case string, int64, bool, nil:
					default:
						t.Errorf("column %s has a %T", r.Columns[i].Name, cell)
					}
				}
			}
			for _, c := range r.Columns {
				if c.Description == "" {
					t.Errorf("column %s has no description", c.Name)
				}
			}
		})
	}
}

// TestFields checks that exactly the selectable fields have values.
func TestFields(t *testing.T) {
	for _, r := range Builtin() {
		if (r.Fields == nil) != (len(r.SelectableFields) == 0) {
			t.Errorf("%s: selectable fields and their values don't agree", name(r))
		}
		if r.Fields == nil {
			continue
		}
		var set fields.Set = r.Fields(r.New())
		var got []string
		for f := range set {
			got = append(got, f)
		}
		slices.Sort(got)
		if diff := cmp.Diff(slices.Sorted(slices.Values(r.SelectableFields)), got); diff != "" {
			t.Errorf("%s (-selectable +valued):\n%s", name(r), diff)
		}
	}
}

// TestDefaultsIdempotent checks that defaults that are set again change nothing, neither for objects that are made up
// nor for an empty one.
func TestDefaultsIdempotent(t *testing.T) {
	for _, r := range Builtin() {
		t.Run(name(r), func(t *testing.T) {
			for _, v := range r.Versions {
				for seed := range int64(50) {
					obj := v.New()
					if seed > 0 {
						filler(seed).Fill(obj)
					}
					own := []func(runtime.Object){v.Default}
					if v.GroupVersion == r.Hub {
						own = append(own, r.Default)
					}
					for _, setDefaults := range own {
						if setDefaults == nil {
							continue
						}
						setDefaults(obj)
						once := obj.DeepCopyObject()
						setDefaults(obj)
						if !apiequality.Semantic.DeepEqual(once, obj) {
							t.Fatalf("%s, seed %d (-once +twice):\n%s", v.GroupVersion, seed, cmp.Diff(once, obj))
						}
					}
				}
			}
		})
	}
}

// TestRoundTrip checks that conversion from the hub and back, and to the hub and back, loses nothing.
func TestRoundTrip(t *testing.T) {
	for _, r := range Builtin() {
		for _, v := range r.Versions {
			if v.GroupVersion == r.Hub {
				continue
			}
			t.Run(name(r)+" "+v.GroupVersion.String(), func(t *testing.T) {
				for seed := range int64(200) {
					obj, hub, back := v.New(), r.New(), v.New()
					filler(seed).Fill(obj)
					before := obj.DeepCopyObject()
					must(t, v.ToHub(obj, hub))
					must(t, v.FromHub(hub, back))
					clearKind(before, back, obj)
					if !apiequality.Semantic.DeepEqual(before, back) {
						t.Fatalf("seed %d (-%s +by the hub):\n%s", seed, v.GroupVersion, cmp.Diff(before, back))
					}
					if !apiequality.Semantic.DeepEqual(before, obj) {
						t.Fatalf("seed %d: conversion changes what it converts:\n%s", seed, cmp.Diff(before, obj))
					}

					hub, hubBack, other := r.New(), r.New(), v.New()
					filler(seed).Fill(hub)
					must(t, v.FromHub(hub, other))
					must(t, v.ToHub(other, hubBack))
					clearKind(hub, hubBack)
					if !apiequality.Semantic.DeepEqual(hub, hubBack) {
						t.Fatalf("seed %d (-hub +by %s):\n%s", seed, v.GroupVersion, cmp.Diff(hub, hubBack))
					}
				}
			})
		}
	}
}

// TestStrategiesTakeAnything checks that no function of a strategy panics on made-up objects, and that an update
// without a change is as valid as the object itself.
func TestStrategiesTakeAnything(t *testing.T) {
	ctx := context.Background()
	for _, r := range Builtin() {
		t.Run(name(r), func(t *testing.T) {
			strategies := []*api.Strategy{&r.Strategy}
			for _, sub := range r.Subresources {
				if sub.Strategy != nil {
					strategies = append(strategies, sub.Strategy)
				}
			}
			for seed := range int64(100) {
				obj, old := r.New(), r.New()
				if seed > 0 {
					filler(seed).Fill(obj)
					filler(seed + 1000).Fill(old)
				}
				if r.Default != nil && seed%2 == 0 {
					r.Default(obj)
					r.Default(old)
				}
				for _, s := range strategies {
					callAll(ctx, s, obj.DeepCopyObject(), nil)
					callAll(ctx, s, obj.DeepCopyObject(), old.DeepCopyObject())
				}
			}
		})
	}
}

func callAll(ctx context.Context, s *api.Strategy, obj, old runtime.Object) {
	valid := true
	if old == nil {
		if s.PrepareCreate != nil {
			s.PrepareCreate(ctx, obj)
		}
		if s.Validate != nil {
			valid = len(s.Validate(ctx, obj)) == 0
		}
	} else {
		if s.PrepareUpdate != nil {
			s.PrepareUpdate(ctx, obj, old)
		}
		if s.ValidateUpdate != nil {
			valid = len(s.ValidateUpdate(ctx, obj, old)) == 0
		}
	}
	if s.Warn != nil && valid { // only what is valid is warned about
		s.Warn(ctx, obj, old)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func clearKind(objs ...runtime.Object) {
	for _, obj := range objs {
		accessor, _ := meta.TypeAccessor(obj)
		accessor.SetAPIVersion("")
		accessor.SetKind("")
	}
}
