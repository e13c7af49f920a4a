package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/client-go/rest"

	"github.com/proa-k8s/proa/internal/client"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open makes an HTTP client that calls the handler.
func open(t *testing.T, h http.HandlerFunc) *http.Client {
	t.Helper()
	c, err := rest.HTTPClientFor(client.NewConfig(h, &user.DefaultInfo{Name: "tester"}))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func get(t *testing.T, c *http.Client, ctx context.Context) (*http.Response, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, client.Host+"/path?a=b", nil)
	if err != nil {
		t.Fatal(err)
	}
	return c.Do(req)
}

func TestAnswer(t *testing.T) {
	c := open(t, func(w http.ResponseWriter, r *http.Request) {
		u, _ := request.UserFrom(r.Context())
		w.Header().Set("X-User", u.GetName())
		w.WriteHeader(http.StatusTeapot)
		w.Header().Set("X-Late", "dropped")
		fmt.Fprint(w, r.RequestURI)
	})
	resp, err := get(t, c, t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || string(body) != "/path?a=b" {
		t.Errorf("body is %q, %v", body, err)
	}
	if resp.StatusCode != http.StatusTeapot || resp.Header.Get("X-User") != "tester" || resp.Header.Get("X-Late") != "" || resp.ContentLength != 9 {
		t.Errorf("the head is %v %v, length %d", resp.Status, resp.Header, resp.ContentLength)
	}
}

// What the handler flushes is read before it returns; it ends when the body is closed.
func TestStream(t *testing.T) {
	ended := make(chan error, 1)
	next := make(chan string)
	c := open(t, func(w http.ResponseWriter, r *http.Request) {
		for {
			select {
			case s := <-next:
				fmt.Fprint(w, s)
				w.(http.Flusher).Flush()
			case <-r.Context().Done():
				_, err := fmt.Fprint(w, "late")
				ended <- err
				return
			}
		}
	})
	go func() { next <- "one" }()
	resp, err := get(t, c, t.Context())
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 3)
	for _, want := range []string{"one", "two", "six"} {
		if want != "one" {
			next <- want
		}
		if _, err := io.ReadFull(resp.Body, buf); err != nil || string(buf) != want {
			t.Fatalf("read %q, %v; want %q", buf, err, want)
		}
	}
	resp.Body.Close()
	if err := <-ended; err == nil {
		t.Error("writing after the body is closed succeeded")
	}
}

// A handler that writes more than the reader takes is held up, and all arrives.
func TestBackpressure(t *testing.T) {
	const size = 10 << 20
	c := open(t, func(w http.ResponseWriter, _ *http.Request) {
		chunk := []byte(strings.Repeat("x", 100_000))
		for n := 0; n < size; n += len(chunk) {
			w.Write(chunk[:min(len(chunk), size-n)])
		}
	})
	resp, err := get(t, c, t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if n, err := io.Copy(io.Discard, resp.Body); n != size || err != nil {
		t.Errorf("read %d bytes, %v", n, err)
	}
}

func TestFailures(t *testing.T) {
	cancelled, cancel := context.WithCancel(t.Context())
	for name, test := range map[string]struct {
		ctx     context.Context
		handler http.HandlerFunc
		want    string
	}{
		"panic": {t.Context(), func(http.ResponseWriter, *http.Request) { panic("ouch") }, "panic: ouch"},
		"abort": {t.Context(), func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "unexpected EOF"},
		"cancelled before the head": {cancelled, func(_ http.ResponseWriter, r *http.Request) {
			cancel()
			<-r.Context().Done()
		}, "context canceled"},
	} {
		t.Run(name, func(t *testing.T) {
			resp, err := get(t, open(t, test.handler), test.ctx)
			if err == nil {
				resp.Body.Close()
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error is %v, want %q", err, test.want)
			}
		})
	}
}

// A handler that goes on with its answer while the request is cancelled disturbs nobody: the race detector sees to that.
func TestCancelWhileWriting(t *testing.T) {
	for range 50 {
		ctx, cancel := context.WithCancel(t.Context())
		started, ended := make(chan struct{}), make(chan struct{})
		c := open(t, func(w http.ResponseWriter, _ *http.Request) {
			defer close(ended)
			close(started)
			for i := range 100 {
				w.Header().Set("X-Number", strings.Repeat("x", i))
			}
			w.WriteHeader(http.StatusOK)
			fmt.Fprint(w, "done")
		})
		go func() { <-started; cancel() }()
		if resp, err := get(t, c, ctx); err == nil {
			resp.Body.Close()
		}
		<-ended
	}
}

// A request that is cancelled while its answer is read ends the reading, also if the handler takes its time.
func TestCancelWhileReading(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	release := make(chan struct{})
	c := open(t, func(w http.ResponseWriter, _ *http.Request) {
		w.(http.Flusher).Flush()
		<-release
	})
	resp, err := get(t, c, ctx)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := io.ReadAll(resp.Body); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	resp.Body.Close()
	close(release)
}
