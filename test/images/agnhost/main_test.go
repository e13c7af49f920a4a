package main

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
)

func answer(h http.Handler, method, target string) string {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, target, nil))
	return w.Body.String()
}

func TestNetexec(t *testing.T) {
	h := netexecRoutes("me")
	for path, want := range map[string]string{"/hostname": "me", "/hostName": "me", "/echo?msg=a+b": "a b", "/healthz": "", "/clientip": "192.0.2.1:1234"} {
		if got := answer(h, "GET", path); got != want {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
	from := &net.UDPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 5}
	for request, want := range map[string]string{"hostName": "me", "echo a b": "a b", "clientip": "10.0.0.1:5", "other": ""} {
		if got := answerUDP(request, "me", from); got != want {
			t.Errorf("%s: got %q, want %q", request, got, want)
		}
	}
}

func TestDial(t *testing.T) {
	server := httptest.NewServer(netexecRoutes("me"))
	defer server.Close()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- serveUDP(conn, "me") }()
	host, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	_, udp, _ := net.SplitHostPort(conn.LocalAddr().String())
	for query, want := range map[string]int{
		"port=" + port + "&request=hostname&tries=3":             3,
		"port=" + port + "&request=nothing":                      0,
		"protocol=udp&port=" + udp + "&request=hostname":         1,
		"protocol=udp&port=" + udp + "&request=echo%20x&tries=2": 2,
	} {
		var result struct{ Responses, Errors []string }
		if err := json.Unmarshal([]byte(answer(netexecRoutes("dialer"), "GET", "/dial?host="+host+"&"+query)), &result); err != nil {
			t.Fatal(err)
		}
		if len(result.Responses) != want || want == 0 && len(result.Errors) != 1 {
			t.Errorf("%s: %+v", query, result)
		}
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestPorter(t *testing.T) {
	if got := answer(door("<a href=\"/x\">", false), "GET", "/"); got != `<a href="/x">` {
		t.Errorf("got %q", got)
	}
	var got map[string]string
	if err := json.Unmarshal([]byte(answer(door("foo", true), "PATCH", "/some/path?q=1")), &got); err != nil {
		t.Fatal(err)
	}
	if got["Method"] != "PATCH" || got["Body"] != "foo" || got["Path"] != "/some/path" || got["Query"] != "q=1" {
		t.Errorf("got %v", got)
	}
}

// What a primary is told, its replicas know.
func TestGuestbook(t *testing.T) {
	replica := httptest.NewServer((&book{entries: map[string]string{}}).routes(""))
	defer replica.Close()
	_, port, _ := net.SplitHostPort(replica.Listener.Addr().String())
	primary := (&book{entries: map[string]string{}}).routes(port)
	register := httptest.NewRequest("GET", "/register", nil)
	register.RemoteAddr = "127.0.0.1:1"
	primary.ServeHTTP(httptest.NewRecorder(), register)
	answer(primary, "GET", "/set?"+url.Values{"key": {"a"}, "value": {"b c"}}.Encode())
	for _, at := range []http.Handler{primary, replica.Config.Handler} {
		if got := answer(at, "GET", "/get?key=a"); got != "b c" {
			t.Errorf("got %q", got)
		}
	}
}
