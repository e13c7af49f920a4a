package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"
)

func TestSite(t *testing.T) {
	s := site{version: "1.20.1", files: fstest.MapFS{
		"index.html":   {Data: []byte("start")},
		"a/index.html": {Data: []byte("a")},
		"b/c.txt":      {Data: []byte("c")},
	}}
	tests := []struct {
		method, path string
		code         int
		body         string
	}{
		{"GET", "/", 200, "start"},
		{"GET", "/index.html", 200, "start"},
		{"GET", "/a/", 200, "a"},
		{"GET", "/b/c.txt", 200, "c"},
		{"HEAD", "/", 200, ""},
		{"GET", "/b/", 403, "403 Forbidden"},
		{"GET", "/none", 404, "404 Not Found"},
		{"GET", "/../../etc/passwd", 404, "404 Not Found"},
		{"POST", "/", 405, "405 Not Allowed"},
	}
	for _, test := range tests {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest(test.method, test.path, nil))
		if w.Code != test.code || !strings.Contains(w.Body.String(), test.body) {
			t.Errorf("%s %s: got %d %q", test.method, test.path, w.Code, w.Body.String())
		}
		if got := w.Header().Get("Server"); got != "nginx/1.20.1" {
			t.Errorf("Server: %s", got)
		}
	}
	empty := httptest.NewRecorder()
	site{files: fstest.MapFS{}}.ServeHTTP(empty, httptest.NewRequest(http.MethodGet, "/", nil))
	if empty.Code != 403 {
		t.Errorf("an empty directory: %d", empty.Code)
	}
}
