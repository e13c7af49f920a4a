package apiserver

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/google/uuid"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/warning"
)

// How long requests may take that are not long-running: those that read, and those that write.
const (
	readTimeout  = time.Minute
	writeTimeout = 34 * time.Second
)

// stackRoom is how many bytes of stack a write of a pod takes, about.
const stackRoom = 12 << 10

// maxAuditID is the longest Audit-Id that a client may set.
const maxAuditID = 64

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	started := time.Now()
	rec := &recorder{ResponseWriter: w}
	info, err := s.infos.NewRequestInfo(r)
	defer func() {
		if p := recover(); p != nil {
			s.recovered(rec, r, p)
		}
		if info != nil {
			s.metrics.done(r, info, s.serves(info), rec, time.Since(started))
		}
	}()
	h := rec.Header()
	h.Set("Cache-Control", "no-cache, private")
	h.Set("Audit-Id", auditID(r))
	if err != nil {
		s.writeError(rec, r, apierrors.NewBadRequest(fmt.Sprintf("failed to create RequestInfo: %v", err)))
		return
	}
	ctx := apirequest.WithRequestInfo(r.Context(), info)
	ctx = warning.WithWarningRecorder(ctx, &warnings{header: h})
	r = r.WithContext(ctx)
	if err := s.serve(rec, r, info); err != nil {
		s.writeError(rec, r, err)
	}
}

// serves says whether there is the resource, and the subresource, that a request names.
func (s *Server) serves(info *apirequest.RequestInfo) bool {
	e := s.served.Load().routes.find(info.APIGroup, info.APIVersion, info.Resource)
	return e != nil && (info.Subresource == "" || e.subs[info.Subresource] != nil)
}

// recovered ends a request that has panicked: with a Status if nothing was written yet, else by breaking the connection off.
func (s *Server) recovered(w *recorder, r *http.Request, p any) {
	if p == http.ErrAbortHandler {
		panic(p)
	}
	s.log.Error("request panicked", "method", r.Method, "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
	if w.code != 0 {
		panic(http.ErrAbortHandler)
	}
	s.writeError(w, r, apierrors.NewInternalError(errors.New("this request caused apiserver to panic. Look in the logs for details")))
}

// auditID is the client's own, or a new one.
func auditID(r *http.Request) string {
	if id := r.Header.Get("Audit-Id"); id != "" {
		if len(id) > maxAuditID {
			id = id[:maxAuditID]
		}
		return id
	}
	return uuid.NewString()
}

// serve takes a request from authentication to its handler.
func (s *Server) serve(w *recorder, r *http.Request, info *apirequest.RequestInfo) error {
	r, err := s.authenticate(w, r)
	if err != nil {
		return err
	}
	if r, err = s.impersonate(r); err != nil {
		return err
	}
	long := s.longRunning(info)
	if !long {
		growStack()
		release, ok := s.admitInFlight(r, info)
		if !ok {
			tooMany(w)
			return nil
		}
		defer release()
		timeout := readTimeout
		if mutating(info.Verb) {
			timeout = writeTimeout
		}
		ctx, cancel := context.WithTimeout(r.Context(), timeout)
		defer cancel()
		r = r.WithContext(ctx)
	}
	if err := s.authorize(r, info); err != nil {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		return err
	}
	if info.IsResourceRequest {
		return s.serveResource(w, r, info)
	}
	return s.servePath(w, r, info)
}

// growStack makes room on the stack for what most requests need, in one step. The goroutine is a new one for each request, and
// would double its stack, and copy all that is on it, four times on its way down.
//
//go:noinline
func growStack() {
	var room [stackRoom]byte
	runtime.KeepAlive(&room)
}

// longRunning says whether a request may last: watches, and whatever connectors serve.
func (s *Server) longRunning(info *apirequest.RequestInfo) bool {
	if !info.IsResourceRequest {
		return strings.HasPrefix(info.Path, "/debug/pprof/")
	}
	if info.Verb == "watch" || info.Verb == "proxy" {
		return true
	}
	e := s.served.Load().routes.find(info.APIGroup, info.APIVersion, info.Resource)
	return e != nil && e.subs[info.Subresource] != nil && e.subs[info.Subresource].connect != nil
}

// recorder remembers what was answered.
type recorder struct {
	http.ResponseWriter
	code int
	size int64 // of the body
}

func (r *recorder) WriteHeader(code int) {
	if r.code == 0 {
		r.code = code
	}
	r.ResponseWriter.WriteHeader(code)
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.code == 0 {
		r.code = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(p)
	r.size += int64(n)
	return n, err
}

// Flush is for handlers that look for an http.Flusher.
func (r *recorder) Flush() { _ = http.NewResponseController(r.ResponseWriter).Flush() }

// Hijack is for handlers that look for an http.Hijacker: streams (exec, port-forward) take the connection over.
func (r *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(r.ResponseWriter).Hijack()
	if err == nil && r.code == 0 {
		r.code = http.StatusSwitchingProtocols
	}
	return conn, rw, err
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
