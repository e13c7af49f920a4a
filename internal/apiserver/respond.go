package apiserver

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/proa-k8s/proa/internal/apiserver/codec"
	"github.com/proa-k8s/proa/internal/apiserver/negotiate"
	"github.com/proa-k8s/proa/internal/store"
)

// gzipFrom is the size of an answer from which on it is compressed for clients that accept it.
const gzipFrom = 128 << 10

var gzipWriters = sync.Pool{New: func() any {
	w, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	if err != nil {
		panic(err) // the level is a valid one
	}
	return w
}}

// compressible says whether an answer may be compressed. It isn't on the loopback, where bytes cost less than the work to
// compress them.
func compressible(r *http.Request) bool {
	if !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		return false
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	return err != nil || !net.ParseIP(host).IsLoopback()
}

// send answers with a whole body.
func (s *Server) send(w http.ResponseWriter, r *http.Request, code int, media negotiate.Media, body []byte) {
	s.sendAs(w, r, code, media, media.Encoding.MediaType(), body)
}

func (s *Server) sendAs(w http.ResponseWriter, r *http.Request, code int, media negotiate.Media, contentType string, body []byte) {
	if media.Pretty && media.Encoding == codec.JSON {
		var indented bytes.Buffer
		if err := json.Indent(&indented, body, "", "  "); err == nil {
			body = indented.Bytes()
		}
	}
	h := w.Header()
	h.Set("Content-Type", contentType)
	if len(body) >= gzipFrom && compressible(r) {
		h.Set("Content-Encoding", "gzip")
		h.Add("Vary", "Accept-Encoding")
		w.WriteHeader(code)
		gz := gzipWriters.Get().(*gzip.Writer)
		defer gzipWriters.Put(gz)
		gz.Reset(w)
		_, _ = gz.Write(body) // the client is gone if this fails
		_ = gz.Close()
		return
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(code)
	_, _ = w.Write(body)
}

// sendStored answers with a stored object, in the form that the client asked for.
func (s *Server) sendStored(q *request, code int, o *store.Object) error {
	var body []byte
	var err error
	switch {
	case !q.media.Convert.Empty():
		var hub runtime.Object
		if hub, err = o.Decoded(); err != nil {
			return err
		}
		return s.sendHub(q, code, hub)
	case q.media.Encoding == codec.Protobuf:
		body, err = q.ep.form.Proto(nil, o)
	default:
		if body, err = q.ep.form.Line(o); err == nil && q.media.Encoding == codec.YAML {
			body, err = yaml.JSONToYAML(body)
		}
	}
	if err != nil {
		return err
	}
	s.send(q.w, q.http, code, q.media, body)
	return nil
}

// sendHub answers with an object of the endpoint's hub type, which may be shared.
func (s *Server) sendHub(q *request, code int, hub runtime.Object) error {
	obj, err := s.convert(q, hub)
	if err != nil {
		return err
	}
	return s.sendObject(q, code, obj)
}

// sendObject answers with an object of any kind, as it is.
func (s *Server) sendObject(q *request, code int, obj runtime.Object) error {
	body, err := s.types.Encode(obj, q.media.Encoding)
	if err != nil {
		return err
	}
	s.send(q.w, q.http, code, q.media, body)
	return nil
}

// convert makes of a hub object what the client asked for: a table, the metadata, or the endpoint's version.
func (s *Server) convert(q *request, hub runtime.Object) (runtime.Object, error) {
	switch q.media.Convert.Kind {
	case "":
		return codec.FromHub(q.ep.Resource, q.ep.version, hub)
	case "Table":
		t, err := q.newTable()
		if err != nil {
			return nil, err
		}
		return t.of(hub)
	case "PartialObjectMetadata":
		return partial(hub, q.media.Convert.GroupVersion())
	default:
		return nil, negotiate.NotAcceptable("you requested PartialObjectMetadataList, but the requested object is not a list (%s)", goType(q.ep))
	}
}

// goType is how upstream's errors name the Go type of an endpoint's objects.
func goType(ep *endpoint) string {
	group, _, _ := strings.Cut(ep.Hub.Group, ".")
	if group == "" {
		group = "core"
	}
	return fmt.Sprintf("*%s.%s", group, ep.Kind)
}

// partial cuts an object down to its metadata.
func partial(obj runtime.Object, gv schema.GroupVersion) (*metav1.PartialObjectMetadata, error) {
	m, err := meta.Accessor(obj)
	if err != nil {
		return nil, err
	}
	p := meta.AsPartialObjectMetadata(m)
	p.SetGroupVersionKind(gv.WithKind("PartialObjectMetadata"))
	return p, nil
}
