package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/client-go/rest"
)

// Host is the authority of URLs that never leave the process.
const Host = "http://in-process"

// NewConfig gives the configuration of clients that call handler in this process as the given user. The handler's
// authentication must accept a user that is in the request's context already (request.UserFrom): only code of this process
// can put one there. Requests are not limited in rate, and bodies are protobuf where the kind allows it.
func NewConfig(handler http.Handler, identity user.Info) *rest.Config {
	return &rest.Config{
		Host:      Host,
		Transport: &transport{handler: handler, identity: identity},
		ContentConfig: rest.ContentConfig{
			ContentType:        runtime.ContentTypeProtobuf,
			AcceptContentTypes: runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON,
		},
		UserAgent: "proa/" + identity.GetName(),
		QPS:       -1,
		// Warnings are for people: that Endpoints are deprecated is no news to who keeps them.
		WarningHandlerWithContext: rest.NoWarnings{},
	}
}

// transport is an http.RoundTripper that runs the server's handler.
type transport struct {
	handler  http.Handler
	identity user.Info
}

// RoundTrip starts the handler and returns as soon as the answer's head is known: when the handler flushes, has
// written more than a buffer, or is done. The handler ends when the request's context or the body is closed.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	in := req.WithContext(request.WithUser(ctx, t.identity))
	in.Proto, in.ProtoMajor, in.ProtoMinor = "HTTP/2.0", 2, 0
	in.RequestURI = req.URL.RequestURI()
	in.Host = req.URL.Host
	in.RemoteAddr = "127.0.0.1:0"
	if in.Body == nil {
		in.Body = http.NoBody
	}
	a := newAnswer(func() { cancel(errBodyClosed) })
	stop := context.AfterFunc(req.Context(), func() { a.abort(context.Cause(req.Context())) })
	go func() {
		defer stop()
		defer in.Body.Close()
		defer cancel(nil)
		a.finish(serve(t.handler, a, in))
	}()
	select {
	case <-a.ready:
	case <-req.Context().Done():
		return nil, req.Context().Err()
	}
	return a.response(req)
}

var errBodyClosed = errors.New("the client closed the answer")

// serve runs the handler and turns a panic into an error, as net/http's server does by closing the connection.
func serve(h http.Handler, w http.ResponseWriter, r *http.Request) (err error) {
	defer func() {
		switch p := recover(); p {
		case nil:
		case http.ErrAbortHandler:
			err = io.ErrUnexpectedEOF
		default:
			err = fmt.Errorf("serving %s %s: panic: %v", r.Method, r.URL.Path, p)
		}
	}()
	h.ServeHTTP(w, r)
	return nil
}

// bufferSize is how many bytes of a streamed answer may wait for the reader before the handler is held up.
const bufferSize = 64 << 10

// answer is at once the handler's ResponseWriter and the client's response body.
type answer struct {
	header http.Header
	cancel func()
	ready  chan struct{} // closed when status and head are final

	mu      sync.Mutex
	change  sync.Cond // the buffer was filled or emptied, or an end was reached
	head    http.Header
	status  int
	sent    bool // ready is closed
	buf     []byte
	off     int
	done    bool // the handler has returned, or the request is cancelled
	closed  bool // the reader has closed the body
	failure error
}

func newAnswer(cancel func()) *answer {
	a := &answer{header: make(http.Header), cancel: cancel, ready: make(chan struct{})}
	a.change.L = &a.mu
	return a
}

// Header is the head of the answer, which may be changed until WriteHeader.
func (a *answer) Header() http.Header { return a.header }

// WriteHeader fixes status and head; informational statuses are dropped.
func (a *answer) WriteHeader(status int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.writeHeader(status)
}

func (a *answer) writeHeader(status int) {
	if a.status != 0 || status < 200 {
		return
	}
	a.status, a.head = status, a.header.Clone()
}

// send lets RoundTrip return. The lock is held.
func (a *answer) send() {
	a.writeHeader(http.StatusOK)
	if !a.sent {
		a.sent = true
		close(a.ready)
	}
}

// Write appends to the buffer and waits while it is full and being read.
func (a *answer) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.writeHeader(http.StatusOK)
	for len(a.buf)-a.off >= bufferSize && !a.closed && !a.done {
		a.send()
		a.change.Wait()
	}
	if a.closed || a.done {
		return 0, errBodyClosed
	}
	if a.off > 0 && a.off == len(a.buf) {
		a.buf, a.off = a.buf[:0], 0
	}
	a.buf = append(a.buf, p...)
	if a.sent {
		a.change.Broadcast()
	}
	return len(p), nil
}

// Flush hands out what was written so far.
func (a *answer) Flush() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.send()
	a.change.Broadcast()
}

// finish ends the answer, when the handler has returned or the request is cancelled, whichever is first.
func (a *answer) finish(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.done {
		return
	}
	a.done, a.failure = true, err
	a.send()
	a.change.Broadcast()
}

// abort ends the answer while the handler still runs, which may be writing the header: that is not looked at any more.
func (a *answer) abort(err error) {
	a.mu.Lock()
	if a.status == 0 {
		a.status, a.head = http.StatusInternalServerError, make(http.Header)
	}
	a.mu.Unlock()
	a.finish(err)
}

// response makes the client's view of the answer.
func (a *answer) response(req *http.Request) (*http.Response, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failure != nil && len(a.buf) == 0 {
		return nil, a.failure
	}
	length := int64(-1)
	if a.done && a.failure == nil {
		length = int64(len(a.buf))
	}
	return &http.Response{
		Status: strconv.Itoa(a.status) + " " + http.StatusText(a.status), StatusCode: a.status,
		Proto: "HTTP/2.0", ProtoMajor: 2,
		Header: a.head, Body: (*answerBody)(a), ContentLength: length, Request: req,
	}, nil
}

// answerBody is the reading end of an answer.
type answerBody answer

// Read waits for bytes, the end, or the request's cancellation (upon which the handler returns).
func (b *answerBody) Read(p []byte) (int, error) {
	a := (*answer)(b)
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.off == len(a.buf) && !a.done && !a.closed {
		a.change.Wait()
	}
	switch {
	case a.closed:
		return 0, http.ErrBodyReadAfterClose
	case a.off < len(a.buf):
		n := copy(p, a.buf[a.off:])
		a.off += n
		a.change.Broadcast()
		return n, nil
	case a.failure != nil:
		return 0, a.failure
	default:
		return 0, io.EOF
	}
}

// Close cancels the handler's context if it still runs.
func (b *answerBody) Close() error {
	a := (*answer)(b)
	a.mu.Lock()
	a.closed = true
	a.buf, a.off = nil, 0
	a.change.Broadcast()
	a.mu.Unlock()
	a.cancel()
	return nil
}
