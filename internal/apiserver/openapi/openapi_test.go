package openapi

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"

	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	openapi_v3 "github.com/google/gnostic-models/openapiv3"
	"google.golang.org/protobuf/proto"

	"github.com/proa-k8s/proa/internal/api/catalogue"
)

func compressed(t *testing.T, text string) *fstest.MapFile {
	t.Helper()
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	if _, err := z.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return &fstest.MapFile{Data: buf.Bytes()}
}

func testHandler(t *testing.T) *Handler {
	t.Helper()
	h, err := newHandler(fstest.MapFS{
		IndexFile:                 {Data: []byte(`[{"path":"v2","hash":"AA"},{"path":"v3/apis/apps/v1","hash":"BB"}]`)},
		"v2.json.gz":              compressed(t, "v2 json"),
		"v2.pb.gz":                compressed(t, "v2 proto"),
		"v3_apis_apps_v1.json.gz": compressed(t, "v3 json"),
		"v3_apis_apps_v1.pb.gz":   compressed(t, "v3 proto"),
	})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestHandler(t *testing.T) {
	h := testHandler(t)
	for _, tc := range []struct {
		name, method, url string
		header            map[string]string
		code              int
		body, contentType string
	}{
		{"v2", "GET", "/openapi/v2", nil, 200, "v2 json", "application/json"},
		{"v2 as protobuf by the old name", "GET", "/openapi/v2", map[string]string{"Accept": "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"}, 200, "v2 proto", v2Proto},
		{"v2 by preference", "GET", "/openapi/v2", map[string]string{"Accept": v2Proto + ", application/json"}, 200, "v2 proto", v2Proto},
		{"v2 as anything", "GET", "/openapi/v2", map[string]string{"Accept": "*/*"}, 200, "v2 json", "application/json"},
		{"compressed", "GET", "/openapi/v2", map[string]string{"Accept-Encoding": "br, gzip"}, 200, "v2 json", "application/json"},
		{"gzip refused", "GET", "/openapi/v2", map[string]string{"Accept-Encoding": "gzip;q=0"}, 200, "v2 json", "application/json"},
		{"v2 as text", "GET", "/openapi/v2", map[string]string{"Accept": "text/plain"}, 406, "Not Acceptable\n", ""},
		{"list", "GET", "/openapi/v3", nil, 200, `{"paths":{"apis/apps/v1":{"serverRelativeURL":"/openapi/v3/apis/apps/v1?hash=BB"}}}`, "application/json"},
		{"v3", "GET", "/openapi/v3/apis/apps/v1", nil, 200, "v3 json", "application/json"},
		{"v3 by its hash", "GET", "/openapi/v3/apis/apps/v1?hash=BB", map[string]string{"Accept": v3Old}, 200, "v3 proto", v3Proto},
		{"v3 by an old hash", "GET", "/openapi/v3/apis/apps/v1?hash=CC", nil, 301, "", ""},
		{"known already", "GET", "/openapi/v2", map[string]string{"If-None-Match": `"AA"`}, 304, "", ""},
		{"known already, compressed", "GET", "/openapi/v2", map[string]string{"If-None-Match": `"AA"`, "Accept-Encoding": "gzip"}, 304, "", ""},
		{"nothing there", "GET", "/openapi/v3/apis/none/v1", nil, 404, "404 page not found\n", ""},
		{"another method", "POST", "/openapi/v2", nil, 405, "Method Not Allowed\n", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := httptest.NewRequest(tc.method, tc.url, nil)
			for k, v := range tc.header {
				r.Header.Set(k, v)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != tc.code {
				t.Fatalf("status %d, want %d", w.Code, tc.code)
			}
			if tc.code == 301 {
				if got := w.Header().Get("Location"); got != "/openapi/v3/apis/apps/v1?hash=BB" {
					t.Errorf("sent to %s", got)
				}
				return
			}
			body := io.Reader(w.Body)
			if w.Header().Get("Content-Encoding") == "gzip" && tc.code == 200 {
				var err error
				if body, err = gzip.NewReader(w.Body); err != nil {
					t.Fatal(err)
				}
			}
			data, err := io.ReadAll(body)
			if err != nil {
				t.Fatal(err)
			}
			if string(data) != tc.body {
				t.Errorf("body %q, want %q", data, tc.body)
			}
			if tc.contentType != "" && w.Header().Get("Content-Type") != tc.contentType {
				t.Errorf("content type %q, want %q", w.Header().Get("Content-Type"), tc.contentType)
			}
		})
	}
}

func TestNewSaysHowToBuild(t *testing.T) {
	if _, err := newHandler(fstest.MapFS{}); err == nil || !strings.Contains(err.Error(), "build with make") {
		t.Errorf("got %v", err)
	}
}

// get reads a document as protobuf from the embedded ones.
func get(t *testing.T, h *Handler, path, accept string, into proto.Message) {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.Header.Set("Accept", accept)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		t.Fatalf("%s: status %d: %s", path, w.Code, w.Body)
	}
	if err := proto.Unmarshal(w.Body.Bytes(), into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// Every version of every kind in the catalogue has a path to patch it, by which kubectl finds out what the server can do, and
// a schema by which kubectl explains it.
func TestEmbeddedDocumentsCoverTheCatalogue(t *testing.T) {
	h, err := New()
	if err != nil {
		t.Fatal(err)
	}
	var v2 openapi_v2.Document
	get(t, h, "/openapi/v2", v2Proto, &v2)
	inV2 := map[string]bool{}
	for _, p := range v2.GetPaths().GetPath() {
		inV2[p.GetName()] = true
	}
	v3 := map[string]*openapi_v3.Document{}
	for _, r := range catalogue.Builtin() {
		for _, v := range r.Versions {
			root := "/apis/" + v.Group + "/" + v.Version
			if v.Group == "" {
				root = "/api/" + v.Version
			}
			if v3[root] == nil {
				v3[root] = &openapi_v3.Document{}
				get(t, h, "/openapi/v3"+root, v3Proto, v3[root])
			}
			path := root + "/" + r.Plural
			if r.Namespaced {
				path = root + "/namespaces/{namespace}/" + r.Plural
			}
			if !inV2[path] {
				t.Errorf("v2 has no path %s", path)
			}
			if !hasPath(v3[root], path) {
				t.Errorf("v3 has no path %s", path)
			}
			if !hasSchemaOf(v3[root], r.Kind) {
				t.Errorf("v3 of %s has no schema of %s", root, r.Kind)
			}
		}
	}
}

func hasPath(d *openapi_v3.Document, path string) bool {
	for _, p := range d.GetPaths().GetPath() {
		if p.GetName() == path {
			return true
		}
	}
	return false
}

func hasSchemaOf(d *openapi_v3.Document, kind string) bool {
	for _, s := range d.GetComponents().GetSchemas().GetAdditionalProperties() {
		if !strings.HasSuffix(s.GetName(), "."+kind) {
			continue
		}
		for _, e := range s.GetValue().GetSchema().GetSpecificationExtension() {
			if e.GetName() == "x-kubernetes-group-version-kind" && strings.Contains(e.GetValue().GetYaml(), "kind: "+kind) {
				return true
			}
		}
	}
	return false
}
