package main

import (
	"net/http/httptest"
	"testing"
)

func TestInfo(t *testing.T) {
	r := httptest.NewRequest("GET", "http://localhost:9876/info", nil)
	r.RemoteAddr = "127.0.0.1:5"
	w := httptest.NewRecorder()
	routes("0.5.0").ServeHTTP(w, r)
	if got, want := w.Body.String(), `{"host": "localhost:9876", "version": "0.5.0", "from": "127.0.0.1"}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
