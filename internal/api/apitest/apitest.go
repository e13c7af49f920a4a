// Package apitest runs tables of rules against the description of a kind: what flows in are manifests in YAML, what is
// compared are the errors, warnings and cells that a client would see. It is for tests only.
package apitest

import (
	"context"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"

	"github.com/proa-k8s/proa/internal/api"
)

// Case is one row: a manifest, or two (Old and New) for an update, and what comes of it.
type Case struct {
	Name string
	// Patch is merged into the base manifest of the table (JSON merge patch in YAML; null deletes).
	Patch string
	// Old is merged into the base for the object before; the row is an update when it is not empty. "{}" is the base.
	Old string
	// Subresource names the endpoint of an update; empty is the object itself.
	Subresource string
	// Want are the errors without the kind and the name, in any order; none means that the object is valid.
	Want []string
	// Warn are the warnings in order.
	Warn []string
}

// Run checks every case of a table.
func Run(t *testing.T, r *api.Resource, base string, cases []Case) {
	t.Helper()
	for _, tc := range cases {
		t.Run(tc.Name, func(t *testing.T) {
			obj := Decode(t, r, base, tc.Patch)
			var old runtime.Object
			strategy := &r.Strategy
			if tc.Subresource != "" {
				i := slices.IndexFunc(r.Subresources, func(s api.Subresource) bool { return s.Name == tc.Subresource })
				if i < 0 || r.Subresources[i].Strategy == nil {
					t.Fatalf("no subresource %s", tc.Subresource)
				}
				strategy = r.Subresources[i].Strategy
			}
			if tc.Old != "" {
				old = Decode(t, r, base, tc.Old)
			}
			errs := Apply(strategy, obj, old)
			compare(t, "error", errorTexts(errs), tc.Want, true)
			var warnings []string
			if strategy.Warn != nil && len(errs) == 0 {
				warnings = strategy.Warn(context.Background(), obj, old)
			}
			compare(t, "warning", warnings, tc.Warn, false)
		})
	}
}

// Apply prepares and validates obj as a creation (old is nil) or an update.
func Apply(s *api.Strategy, obj, old runtime.Object) field.ErrorList {
	ctx := context.Background()
	if old == nil {
		if s.PrepareCreate != nil {
			s.PrepareCreate(ctx, obj)
		}
		if s.Validate == nil {
			return nil
		}
		return s.Validate(ctx, obj)
	}
	if s.PrepareUpdate != nil {
		s.PrepareUpdate(ctx, obj, old)
	}
	if s.ValidateUpdate == nil {
		return nil
	}
	return s.ValidateUpdate(ctx, obj, old)
}

// Decode reads a manifest of the hub version with a patch merged in, strictly, and sets the defaults.
func Decode(t *testing.T, r *api.Resource, base, patch string) runtime.Object {
	t.Helper()
	var merged any
	for _, text := range []string{base, patch} {
		var value any
		if err := yaml.Unmarshal([]byte(text), &value); err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		merged = merge(merged, value)
	}
	data, err := yaml.Marshal(merged)
	if err != nil {
		t.Fatal(err)
	}
	obj := r.New()
	if err := yaml.UnmarshalStrict(data, obj); err != nil {
		t.Fatalf("%v in\n%s", err, data)
	}
	if r.Default != nil {
		r.Default(obj)
	}
	return obj
}

// merge is a JSON merge patch.
func merge(base, patch any) any {
	if patch == nil {
		return base
	}
	changes, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	result := map[string]any{}
	if b, ok := base.(map[string]any); ok {
		for k, v := range b {
			result[k] = v
		}
	}
	for k, v := range changes {
		if v == nil {
			delete(result, k)
		} else {
			result[k] = merge(result[k], v)
		}
	}
	return result
}

func errorTexts(errs field.ErrorList) []string {
	texts := make([]string, len(errs))
	for i, err := range errs {
		texts[i] = err.Error()
	}
	return texts
}

func compare(t *testing.T, what string, got, want []string, anyOrder bool) {
	t.Helper()
	if anyOrder {
		got, want = slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))
	}
	if !slices.Equal(got, want) {
		t.Errorf("%ss:\n got  %s\n want %s", what, strings.Join(got, "\n      "), strings.Join(want, "\n      "))
	}
}
