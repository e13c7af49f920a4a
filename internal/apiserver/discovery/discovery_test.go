package discovery

import (
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/proa-k8s/proa/internal/api"
)

// kubectl warns of a short name that two groups have, so a group that a resource has left must not have it.
func TestShortNamesOfSupersededGroups(t *testing.T) {
	gv := func(group, version string) schema.GroupVersion {
		return schema.GroupVersion{Group: group, Version: version}
	}
	r := &api.Resource{Group: "apps", Plural: "deployments", Kind: "Deployment", ShortNames: []string{"deploy"}, Categories: []string{"all"}, Versions: []api.Version{
		{GroupVersion: gv("apps", "v1")},
		{GroupVersion: gv("apps", "v1beta1"), Deprecated: "old"},
		{GroupVersion: gv("extensions", "v1beta1"), Deprecated: "older"},
		{GroupVersion: gv("events.k8s.io", "v1")},
	}}
	for gv, want := range map[schema.GroupVersion]int{gv("apps", "v1"): 1, gv("apps", "v1beta1"): 1, gv("extensions", "v1beta1"): 0, gv("events.k8s.io", "v1"): 1} {
		plain, aggregated := resource(r, gv), aggregatedResource(r, gv)
		if len(plain.ShortNames) != want || len(plain.Categories) != want {
			t.Errorf("%s: short names %v, categories %v", gv, plain.ShortNames, plain.Categories)
		}
		if len(aggregated.ShortNames) != want || len(aggregated.Categories) != want {
			t.Errorf("%s, aggregated: short names %v, categories %v", gv, aggregated.ShortNames, aggregated.Categories)
		}
	}
}
