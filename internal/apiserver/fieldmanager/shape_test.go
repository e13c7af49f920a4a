package fieldmanager

import (
	"testing"

	"github.com/proa-k8s/proa/internal/api/catalogue"
	"github.com/proa-k8s/proa/internal/apiserver/codec"
)

// TestShapes wants all kinds of the catalogue recorded the short way.
func TestShapes(t *testing.T) {
	resources := catalogue.Builtin()
	factory := NewFactory(codec.NewTypes(resources))
	for _, r := range resources {
		for i := range r.Versions {
			if r.Prefix == "" {
				continue
			}
			if _, err := factory.New(r, &r.Versions[i], "", r.ResetFields).creator(); err != nil {
				t.Errorf("%s in %s: %v", r.Kind, r.Versions[i].GroupVersion, err)
			}
		}
	}
}
