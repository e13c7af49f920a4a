package node

import (
	"testing"

	"github.com/proa-k8s/proa/internal/api/apitest"
)

func TestRuntimeClass(t *testing.T) {
	apitest.Run(t, RuntimeClass(), `{metadata: {name: a}, handler: runsc}`, []apitest.Case{
		{Name: "good", Patch: `{overhead: {podFixed: {cpu: 100m}}, scheduling: {nodeSelector: {a: b}, tolerations: [{key: a, operator: Exists}]}}`},
		{Name: "handler", Patch: `{handler: A_}`, Want: []string{
			`handler: Invalid value: "A_": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')`}},
		{Name: "handler changes", Old: `{}`, Patch: `{handler: kata}`, Want: []string{`handler: Invalid value: "kata": field is immutable`}},
		{Name: "toleration twice", Patch: `{scheduling: {tolerations: [{key: a, operator: Exists}, {key: a, operator: Exists}, {operator: Equal}]}}`, Want: []string{
			`scheduling.tolerations[1]: Duplicate value: {"key":"a","operator":"Exists"}`,
			"scheduling.tolerations[2].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, which means \"match all values and all keys\""}},
	})
}
