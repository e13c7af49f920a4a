package main

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// TestHello answers with its name and version, and says that it is not ready, but alive, once it is stopping.
func TestHello(t *testing.T) {
	h := &hello{host: "pod-1", version: "2"}
	routes := h.routes()
	get := func(path string) (int, string) {
		w := httptest.NewRecorder()
		routes.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w.Code, w.Body.String()
	}
	check := func(path string, code int, body string) {
		t.Helper()
		if gotCode, gotBody := get(path); gotCode != code || gotBody != body {
			t.Errorf("%s: got %d %q, want %d %q", path, gotCode, gotBody, code, body)
		}
	}
	check("/", 200, "Hello from pod-1, version 2\n")
	check("/healthz", 200, "ok\n")
	h.stopping.Store(true)
	check("/", 200, "Hello from pod-1, version 2\n")
	check("/livez", 200, "ok\n")
	check("/readyz", 503, "stopping\n")
	check("/healthz", 503, "stopping\n")
	if code, _ := get("/nonsense"); code != 404 {
		t.Error(code)
	}
}

// TestWaitQuiet waits as long as requests come, but not for ever.
func TestWaitQuiet(t *testing.T) {
	const quiet = 20 * time.Millisecond
	h := &hello{}
	began := time.Now()
	h.waitQuiet(quiet, time.Minute)
	if took := time.Since(began); took < quiet || took > time.Second {
		t.Errorf("nobody asks: waited %v", took)
	}
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				h.asked.Add(1)
			}
		}
	}()
	began = time.Now()
	h.waitQuiet(quiet, 200*time.Millisecond)
	if took := time.Since(began); took < 200*time.Millisecond {
		t.Errorf("somebody asks all the time: waited %v only", took)
	}
	close(stop)
	<-done
}
