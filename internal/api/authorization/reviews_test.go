package authorization

import (
	"testing"

	"github.com/proa-k8s/proa/internal/api/apitest"
)

func TestReviews(t *testing.T) {
	none := "spec.resourceAttributes: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified"
	apitest.Run(t, SubjectAccessReview(), `{spec: {user: u, resourceAttributes: {verb: get, resource: pods}}}`, []apitest.Case{
		{Name: "good"},
		{Name: "of a group", Patch: `{spec: {user: null, groups: [g]}}`},
		{Name: "of nobody", Patch: `{spec: {user: null}}`, Want: []string{`spec.user: Invalid value: "": at least one of user or group must be specified`}},
		{Name: "of nothing", Patch: `{spec: {resourceAttributes: null}}`, Want: []string{none}},
		{Name: "of both", Patch: `{spec: {nonResourceAttributes: {path: /x}}}`, Want: []string{
			`spec.nonResourceAttributes: Invalid value: {"path":"/x"}: cannot be specified in combination with resourceAttributes`}},
		{Name: "named", Patch: `{metadata: {name: x}}`, Want: []string{`metadata: Invalid value: {"name":"x"}: must be empty`}},
		{Name: "selectors", Patch: `{spec: {resourceAttributes: {fieldSelector: {}, labelSelector: {rawSelector: a, requirements: [{key: a, operator: Exists}]}}}}`, Want: []string{
			"spec.resourceAttributes.fieldSelector.requirements: Required value: when spec.resourceAttributes.fieldSelector is specified, requirements or rawSelector is required",
			`spec.resourceAttributes.labelSelector.rawSelector: Invalid value: "a": may not specified at the same time as requirements`}},
	})
	apitest.Run(t, SelfSubjectAccessReview(), `{spec: {nonResourceAttributes: {path: /x, verb: get}}}`, []apitest.Case{
		{Name: "good"}, {Name: "of nothing", Patch: `{spec: {nonResourceAttributes: null}}`, Want: []string{none}},
	})
	apitest.Run(t, LocalSubjectAccessReview(), `{metadata: {namespace: n}, spec: {user: u, resourceAttributes: {namespace: n, verb: get, resource: pods}}}`, []apitest.Case{
		{Name: "good"},
		{Name: "elsewhere", Patch: `{spec: {resourceAttributes: {namespace: m}}}`, Want: []string{
			`spec.resourceAttributes.namespace: Invalid value: "m": must match metadata.namespace`}},
		{Name: "of no resource", Patch: `{spec: {resourceAttributes: null, nonResourceAttributes: {path: /x}}}`, Want: []string{
			`spec.nonResourceAttributes: Invalid value: {"path":"/x"}: disallowed on this kind of request`}},
	})
}
