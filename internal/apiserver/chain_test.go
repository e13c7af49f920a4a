package apiserver

import (
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
)

// Streams take the connection over from net/http, through what notes the status code.
func TestRecorderCanBeHijacked(t *testing.T) {
	var code int
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		r := &recorder{ResponseWriter: w}
		conn, _, err := http.Hijacker(r).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		code = r.code
		if _, err := conn.Write([]byte("mine")); err != nil {
			t.Error(err)
		}
		conn.Close()
	}))
	defer srv.Close()
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 10)
	if n, err := conn.Read(buf); err != nil || string(buf[:n]) != "mine" {
		t.Errorf("read %q, %v", buf[:n], err)
	}
	if code != http.StatusSwitchingProtocols {
		t.Errorf("noted status %d", code)
	}
}
