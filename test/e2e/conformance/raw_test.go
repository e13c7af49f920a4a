package conformance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// answer is what a plain request got.
type answer struct {
	code     int
	header   http.Header
	body     []byte
	status   metav1.Status // if it is one
	warnings []string
}

// request makes a plain request as the administrator; headers are "Name: value" lines.
func request(t *testing.T, method, path, body string, headers ...string) answer {
	t.Helper()
	h, err := rest.HTTPClientFor(config)
	must(t, err)
	req, err := http.NewRequestWithContext(t.Context(), method, config.Host+path, strings.NewReader(body))
	must(t, err)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		req.Header.Set(name, value)
	}
	resp, err := h.Do(req)
	must(t, err)
	defer resp.Body.Close()
	a := answer{code: resp.StatusCode, header: resp.Header}
	a.body, err = io.ReadAll(resp.Body)
	must(t, err)
	if bytes.HasPrefix(a.body, []byte("{")) {
		if err := json.Unmarshal(a.body, &a.status); err != nil { // of an object, whose status is another
			a.status = metav1.Status{}
		}
	}
	for _, w := range resp.Header.Values("Warning") {
		text, _ := strings.CutPrefix(w, "299 - ")
		var s string
		must(t, json.Unmarshal([]byte(text), &s))
		a.warnings = append(a.warnings, s)
	}
	return a
}

// refused checks that a request is answered with a Status of the code and text.
func (a answer) refused(t *testing.T, code int, reason metav1.StatusReason, text string) {
	t.Helper()
	if a.code != code || a.status.Kind != "Status" || int(a.status.Code) != code || a.status.Reason != reason || a.status.Message != text {
		got := a.status.Message
		if a.status.Kind != "Status" {
			got = string(a.body)
		}
		t.Errorf("got  %d %s %q\nwant %d %s %q", a.code, a.status.Reason, got, code, reason, text)
	}
}

// Requests that no client library would make.
func TestBadRequests(t *testing.T) {
	ns := namespace(t)
	maps := "/api/v1/namespaces/" + ns + "/configmaps"
	large := fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"large"},"data":{"x":"%s"}}`, strings.Repeat("x", 1600*1000))
	for name, test := range map[string]struct {
		method, path, body string
		headers            []string
		code               int
		reason             metav1.StatusReason
		text               string
	}{
		"no JSON": {"POST", maps, "{nope", nil, 400, "BadRequest",
			"the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: invalid character 'n' looking for beginning of object key string ({nope)"},
		"no YAML": {"POST", maps, "a: b: c", []string{"Content-Type: application/yaml"}, 400, "BadRequest",
			"the object provided is unrecognized (must be of type ConfigMap): yaml: mapping values are not allowed in this context (613a20623a2063)"},
		"no protobuf": {"POST", maps, "garbage", []string{"Content-Type: application/vnd.kubernetes.protobuf"}, 400, "BadRequest",
			"the object provided is unrecognized (must be of type ConfigMap): provided data does not appear to be a protobuf message, expected prefix [107 56 115 0] (67617262616765)"},
		"wrong content type": {"POST", maps, "x", []string{"Content-Type: text/plain"}, 415, "UnsupportedMediaType",
			"the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf"},
		"wrong patch type": {"PATCH", maps + "/kube-root-ca.crt", "{}", []string{"Content-Type: application/json"}, 415, "UnsupportedMediaType",
			"the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml"},
		"another kind": {"POST", maps, `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"x"}}`, nil, 400, "BadRequest",
			"Secret in version \"v1\" cannot be handled as a ConfigMap: converting (v1.Secret) to (core.ConfigMap): unknown conversion"},
		"unknown kind": {"POST", maps, `{"apiVersion":"v1","kind":"Nothing","metadata":{"name":"x"}}`, nil, 400, "BadRequest",
			"Nothing in version \"v1\" cannot be handled as a ConfigMap: no kind \"Nothing\" is registered for version \"v1\" in scheme \"pkg/api/legacyscheme/scheme.go:30\""},
		"another namespace": {"POST", maps, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x","namespace":"other"}}`, nil, 400, "BadRequest",
			"the namespace of the provided object does not match the namespace sent on the request"},
		"another name": {"PUT", maps + "/kube-root-ca.crt", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"}}`, nil, 400, "BadRequest",
			"the name of the object (x) does not match the name on the URL (kube-root-ca.crt)"},
		"no name": {"POST", maps, `{"apiVersion":"v1","kind":"ConfigMap"}`, nil, 422, "Invalid",
			`ConfigMap "" is invalid: metadata.name: Required value: name or generateName is required`},
		"revision on creation": {"POST", maps, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x","resourceVersion":"5"}}`, nil, 400, "BadRequest",
			"resourceVersion should not be set on objects to be created"},
		"too large to be stored": {"POST", maps, large, nil, 422, "Invalid",
			`ConfigMap "large" is invalid: []: Too long: may not be more than 1048576 bytes`},
		"too large to be read": {"POST", maps, strings.Replace(large, `"x":"`, `"x":"`+strings.Repeat("y", 1600*1000), 1), nil, 413, "RequestEntityTooLarge",
			"Request entity too large: limit is 3145728"},
		"no such resource": {"GET", "/api/v1/nothings", "", nil, 404, "NotFound", "the server could not find the requested resource"},
		"no such group":    {"GET", "/apis/nothing.io/v1/x", "", nil, 404, "NotFound", "the server could not find the requested resource"},
		"no such object":   {"GET", maps + "/x", "", nil, 404, "NotFound", `configmaps "x" not found`},
		"no such method":   {"POST", maps + "/x", "{}", nil, 405, "MethodNotAllowed", "the server does not allow this method on the requested resource"},
		"not acceptable": {"GET", maps, "", []string{"Accept: text/plain"}, 406, "NotAcceptable",
			"only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf"},
		"unknown selector":      {"GET", maps + "?fieldSelector=data.x%3D1", "", nil, 400, "BadRequest", `"data.x" is not a known field selector: only "metadata.name", "metadata.namespace"`},
		"invalid selector":      {"GET", maps + "?labelSelector=a+b", "", nil, 400, "BadRequest", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"},
		"invalid dry run":       {"POST", maps + "?dryRun=Some", `{}`, nil, 422, "Invalid", `CreateOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: ["Some"]: supported values: "All"`},
		"invalid validation":    {"POST", maps + "?fieldValidation=Some", `{}`, nil, 422, "Invalid", `CreateOptions.meta.k8s.io "" is invalid: fieldValidation: Unsupported value: "Some": supported values: "", "Ignore", "Strict", "Warn"`},
		"invalid propagation":   {"DELETE", maps + "/kube-root-ca.crt", `{"propagationPolicy":"Some"}`, nil, 422, "Invalid", `DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Unsupported value: "Some": supported values: "Foreground", "Background", "Orphan", "nil"`},
		"failed precondition":   {"DELETE", maps + "/kube-root-ca.crt", `{"preconditions":{"uid":"other"}}`, nil, 409, "Conflict", "*"},
		"apply without manager": {"PATCH", maps + "/x", "apiVersion: v1\nkind: ConfigMap", []string{"Content-Type: application/apply-patch+yaml"}, 422, "Invalid", `PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch`},
		"a JSON patch that doesn't fit": {"PATCH", maps + "/kube-root-ca.crt", `[{"op":"remove","path":"/data/none"}]`, []string{"Content-Type: application/json-patch+json"}, 422, "Invalid",
			"the server rejected our request due to an error in our request"},
		"a JSON patch that fails a test": {"PATCH", maps + "/kube-root-ca.crt", `[{"op":"test","path":"/metadata/name","value":"x"}]`, []string{"Content-Type: application/json-patch+json"}, 422, "Invalid",
			"the server rejected our request due to an error in our request"},
		"a patch that is no JSON": {"PATCH", maps + "/kube-root-ca.crt", `{"data`, []string{"Content-Type: application/merge-patch+json"}, 400, "BadRequest", "*"},
	} {
		t.Run(name, func(t *testing.T) {
			got := request(t, test.method, test.path, test.body, test.headers...)
			if test.text == "*" {
				test.text = got.status.Message
				t.Logf("%q", got.status.Message)
			}
			got.refused(t, test.code, test.reason, test.text)
		})
	}
}
