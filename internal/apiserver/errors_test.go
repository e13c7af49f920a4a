package apiserver_test

import (
	"net/http"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestBadRequests wants the codes, reasons and texts that Kubernetes gives.
func TestBadRequests(t *testing.T) {
	e := newEnv(t, nil)
	e.namespace("ns")
	e.must(201, "POST", "/api/v1/namespaces/ns/configmaps", configMap("there", "a", "1"))
	const maps = "/api/v1/namespaces/ns/configmaps"
	long := strings.Repeat("x", 3<<20)
	for _, tc := range []struct {
		name, method, path, body string
		headers                  []string
		code                     int
		reason                   metav1.StatusReason
		message                  string
	}{
		{"wrong type", "POST", maps, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"data":{"a":1}}`, nil, 400, "BadRequest",
			`ConfigMap in version "v1" cannot be handled as a ConfigMap: json: cannot unmarshal number into Go struct field ConfigMap.data of type string`},
		{"unknown field, strict", "POST", maps + "?fieldValidation=Strict", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"dat":{}}`, nil, 400, "BadRequest",
			`ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: unknown field "dat"`},
		{"duplicate field, strict", "POST", maps + "?fieldValidation=Strict", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x","name":"y"}}`, nil, 400, "BadRequest",
			`ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: duplicate field "metadata.name"`},
		{"broken JSON", "POST", maps, `{"apiVersion":`, nil, 400, "BadRequest",
			`the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: unexpected end of JSON input ({"apiVersion":)`},
		{"empty body", "POST", maps, ``, nil, 400, "BadRequest",
			`the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: unexpected end of JSON input (<empty>)`},
		{"broken YAML", "POST", maps, "a: [", []string{"Content-Type: application/yaml"}, 400, "BadRequest",
			"the object provided is unrecognized (must be of type ConfigMap): yaml: line 1: did not find expected node content (613a205b)"},
		{"broken protobuf", "POST", maps, "hello", []string{"Content-Type: application/vnd.kubernetes.protobuf"}, 400, "BadRequest",
			"the object provided is unrecognized (must be of type ConfigMap): provided data does not appear to be a protobuf message, expected prefix [107 56 115 0] (68656c6c6f)"},
		{"unknown content type", "POST", maps, configMap("x"), []string{"Content-Type: text/plain"}, 415, "UnsupportedMediaType",
			"the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf"},
		{"unknown accept", "GET", maps, "", []string{"Accept: text/html"}, 406, "NotAcceptable",
			"only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf"},
		{"too large", "POST", maps, configMap("x", "a", long), nil, 413, "RequestEntityTooLarge", "Request entity too large: limit is 3145728"},
		{"other kind", "POST", maps, `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"x"}}`, nil, 400, "BadRequest",
			`Secret in version "v1" cannot be handled as a ConfigMap: converting (v1.Secret) to (core.ConfigMap): unknown conversion`},
		{"unknown version", "POST", maps, `{"apiVersion":"v2","kind":"ConfigMap","metadata":{"name":"x"}}`, nil, 400, "BadRequest",
			`ConfigMap in version "v2" cannot be handled as a ConfigMap: no kind "ConfigMap" is registered for version "v2" in scheme "pkg/api/legacyscheme/scheme.go:30"`},
		{"exists", "POST", maps, configMap("there"), nil, 409, "AlreadyExists", `configmaps "there" already exists`},
		{"no name", "POST", maps, `{"apiVersion":"v1","kind":"ConfigMap"}`, nil, 422, "Invalid",
			`ConfigMap "" is invalid: metadata.name: Required value: name or generateName is required`},
		{"bad name", "POST", maps, configMap("A_b"), nil, 422, "Invalid",
			`ConfigMap "A_b" is invalid: metadata.name: Invalid value: "A_b": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')`},
		{"finalizer without a domain", "POST", maps, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x","finalizers":["example.com/a","mine"]}}`, nil, 422, "Invalid",
			`ConfigMap "x" is invalid: metadata.finalizers[1]: Invalid value: "mine": name is neither a standard finalizer name nor is it fully qualified`},
		{"finalizer without a domain, patched", "PATCH", maps + "/there", `{"metadata":{"finalizers":["mine"]}}`, []string{"Content-Type: application/merge-patch+json"}, 422, "Invalid",
			`ConfigMap "there" is invalid: metadata.finalizers[0]: Invalid value: "mine": name is neither a standard finalizer name nor is it fully qualified`},
		{"resourceVersion on create", "POST", maps, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x","resourceVersion":"5"}}`, nil, 400, "BadRequest",
			"resourceVersion should not be set on objects to be created"},
		{"other namespace", "POST", maps, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x","namespace":"other"}}`, nil, 400, "BadRequest",
			"the namespace of the provided object does not match the namespace sent on the request"},
		{"update, other name", "PUT", maps + "/there", configMap("here"), nil, 400, "BadRequest",
			"the name of the object (here) does not match the name on the URL (there)"},
		{"update, missing", "PUT", maps + "/gone", configMap("gone"), nil, 404, "NotFound", `configmaps "gone" not found`},
		{"update, stale", "PUT", maps + "/there", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"there","resourceVersion":"1"}}`, nil, 409, "Conflict",
			`Operation cannot be fulfilled on configmaps "there": the object has been modified; please apply your changes to the latest version and try again`},
		{"update, other uid", "PUT", maps + "/there", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"there","uid":"u"}}`, nil, 409, "Conflict",
			`Operation cannot be fulfilled on configmaps "there": StorageError: invalid object, Code: 4, Key: /registry/configmaps/ns/there, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: u, UID in object meta: ` + e.uid(maps+"/there")},
		{"get, missing", "GET", maps + "/gone", "", nil, 404, "NotFound", `configmaps "gone" not found`},
		{"delete, missing", "DELETE", maps + "/gone", "", nil, 404, "NotFound", `configmaps "gone" not found`},
		{"delete, uid", "DELETE", maps + "/there", `{"preconditions":{"uid":"u"}}`, []string{"Content-Type: application/json"}, 409, "Conflict",
			`Operation cannot be fulfilled on ConfigMap "there": the UID in the precondition (u) does not match the UID in record (` + e.uid(maps+"/there") + `). The object might have been deleted and then recreated`},
		{"delete, bad policy", "DELETE", maps + "/there?propagationPolicy=Sideways", "", nil, 422, "Invalid",
			`DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Unsupported value: "Sideways": supported values: "Foreground", "Background", "Orphan", "nil"`},
		{"unknown resource", "GET", "/api/v1/namespaces/ns/nothings", "", nil, 404, "NotFound", "the server could not find the requested resource"},
		{"unknown subresource", "GET", maps + "/there/status", "", nil, 404, "NotFound", "the server could not find the requested resource"},
		{"unknown group", "GET", "/apis/nothing.example.com/v1", "", nil, 404, "NotFound", "the server could not find the requested resource"},
		{"POST with a name", "POST", maps + "/there", configMap("there"), nil, 405, "MethodNotAllowed", "the server does not allow this method on the requested resource"},
		{"POST to all namespaces", "POST", "/api/v1/configmaps", configMap("x"), nil, 405, "MethodNotAllowed", "the server does not allow this method on the requested resource"},
		{"deletecollection of namespaces", "DELETE", "/api/v1/namespaces", "", nil, 405, "MethodNotAllowed", "the server does not allow this method on the requested resource"},
		{"bad field selector", "GET", maps + "?fieldSelector=spec.x%3Dy", "", nil, 400, "BadRequest",
			`"spec.x" is not a known field selector: only "metadata.name", "metadata.namespace"`},
		{"bad label selector", "GET", maps + "?labelSelector=a%3D%3D%3Db", "", nil, 400, "BadRequest",
			"unable to parse requirement: found '=', expected: identifier"},
		{"bad revision", "GET", maps + "?resourceVersion=abc", "", nil, 400, "BadRequest",
			`invalid resource version: resourceVersion: Invalid value: "abc": strconv.ParseUint: parsing "abc": invalid syntax`},
		{"match without revision", "GET", maps + "?resourceVersionMatch=Exact", "", nil, 422, "Invalid",
			`ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided`},
		{"sendInitialEvents on list", "GET", maps + "?sendInitialEvents=true", "", nil, 422, "Invalid",
			`ListOptions.meta.k8s.io "" is invalid: sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list`},
		{"bad continue", "GET", maps + "?continue=xyz", "", nil, 400, "BadRequest", "invalid continue token: continue key is not valid: invalid character 'Ç' looking for beginning of value"},
		{"future revision", "GET", maps + "/there?resourceVersion=99999999", "", nil, 504, "Timeout", ""},
		{"dryRun", "POST", maps + "?dryRun=Maybe", configMap("x"), nil, 422, "Invalid",
			`CreateOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: ["Maybe"]: supported values: "All"`},
		{"patch type", "PATCH", maps + "/there", "{}", []string{"Content-Type: application/json"}, 415, "UnsupportedMediaType",
			"the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml"},
		{"patch, missing", "PATCH", maps + "/gone", "{}", []string{"Content-Type: application/merge-patch+json"}, 404, "NotFound", `configmaps "gone" not found`},
		{"patch, broken", "PATCH", maps + "/there", "{", []string{"Content-Type: application/merge-patch+json"}, 400, "BadRequest", "invalid JSON patch"},
		{"JSON patch that doesn't fit", "PATCH", maps + "/there", `[{"op":"remove","path":"/data/zzz"}]`, []string{"Content-Type: application/json-patch+json"}, 422, "",
			"the server rejected our request due to an error in our request"},
		{"apply without manager", "PATCH", maps + "/there", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: there}\n", []string{"Content-Type: application/apply-patch+yaml"}, 422, "Invalid",
			`PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch`},
		{"patch, unknown field", "PATCH", maps + "/there?fieldValidation=Strict", `{"dat":{"a":"b"}}`, []string{"Content-Type: application/strategic-merge-patch+json"}, 422, "Invalid",
			` "" is invalid: patch: Invalid value: "map[dat:map[a:b]]": strict decoding error: unknown field "dat"`},
		{"patch, stale", "PATCH", maps + "/there", `{"metadata":{"resourceVersion":"1"}}`, []string{"Content-Type: application/merge-patch+json"}, 409, "Conflict",
			`Operation cannot be fulfilled on configmaps "there": the object has been modified; please apply your changes to the latest version and try again`},
		{"unauthorized", "GET", maps, "", []string{"Authorization: "}, 401, "Unauthorized", "Unauthorized"},
		{"forbidden", "GET", maps, "", []string{"Authorization: Bearer nobody"}, 403, "Forbidden",
			`configmaps is forbidden: User "nobody" cannot list resource "configmaps" in API group "" in the namespace "ns"`},
		{"forbidden, one", "DELETE", maps + "/there", "", []string{"Authorization: Bearer reader"}, 403, "Forbidden",
			`configmaps "there" is forbidden: User "reader" cannot delete resource "configmaps" in API group "" in the namespace "ns"`},
		{"forbidden path", "GET", "/version", "", []string{"Authorization: Bearer nobody"}, 403, "Forbidden", `forbidden: User "nobody" cannot get path "/version"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := e.do(tc.method, tc.path, tc.body, tc.headers...)
			s := a.status(t)
			if a.StatusCode != tc.code || int(s.Code) != tc.code || s.Status != "Failure" || tc.reason != "" && s.Reason != tc.reason {
				t.Errorf("got %d %s", a.StatusCode, a.body)
			}
			if tc.message != "" && s.Message != tc.message {
				t.Errorf("got  %s\nwant %s", s.Message, tc.message)
			}
		})
	}
	if a := e.do("GET", "/nothing", ""); a.StatusCode != http.StatusNotFound {
		t.Errorf("a path of nothing: %d", a.StatusCode)
	}
}

// uid reads the uid of an object.
func (e *env) uid(path string) string {
	e.t.Helper()
	var o metav1.PartialObjectMetadata
	e.must(200, "GET", path, "").json(e.t, &o)
	return string(o.UID)
}
