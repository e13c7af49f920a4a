package apiserver

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"sync"

	"github.com/klauspost/compress/gzip"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/proa-k8s/proa/internal/apiserver/codec"
	"github.com/proa-k8s/proa/internal/store"
)

// chunk is how many bytes of a list are gathered before they are written.
const chunk = 128 << 10

// sendList answers with a list, item by item, without ever holding all of it.
func (s *Server) sendList(q *request, list *store.List, rev string) error {
	lm := metav1.ListMeta{ResourceVersion: rev}
	if list.More && len(list.Objects) > 0 {
		lm.Continue = encodeContinue(list.Objects[len(list.Objects)-1].Key, list.Rev)
		if list.Remaining >= 0 {
			lm.RemainingItemCount = &list.Remaining
		}
	}
	write, err := s.listWriter(q, list, lm)
	if err != nil {
		return err
	}
	if q.media.Encoding == codec.YAML || q.media.Encoding == codec.JSON && q.media.Pretty {
		// These forms need the whole: they are for people, not for programs.
		var whole bytes.Buffer
		out := &chunked{to: &whole, from: &listChunks}
		if err := write(out); err != nil {
			return err
		}
		if err := out.flush(); err != nil {
			return err
		}
		body := whole.Bytes()
		if q.media.Encoding == codec.YAML {
			if body, err = yaml.JSONToYAML(body); err != nil {
				return err
			}
		}
		s.send(q.w, q.http, http.StatusOK, q.media, body)
		return nil
	}
	return s.stream(q, list, write)
}

// listWriter chooses what writes the list. The function that it returns fails before the first byte, or when the client
// is gone or an object can't be encoded.
func (s *Server) listWriter(q *request, list *store.List, lm metav1.ListMeta) (func(*chunked) error, error) {
	gv := q.media.Convert.GroupVersion()
	switch kind := q.media.Convert.Kind; {
	case kind == "Table":
		t, err := q.newTable()
		if err != nil {
			return nil, err
		}
		return func(w *chunked) error { return writeTable(w, t, list, lm) }, nil
	case kind != "" && q.media.Encoding == codec.Protobuf:
		return func(w *chunked) error {
			return writeProto(w, gv.String(), "PartialObjectMetadataList", list, lm, func(o *store.Object) ([]byte, error) {
				raw, err := q.ep.form.RawProto(o)
				if err != nil {
					return nil, err
				}
				return codec.RawMetadata(raw)
			})
		}, nil
	case kind != "":
		return func(w *chunked) error { return writeMetadata(w, gv, list, lm) }, nil
	case q.media.Encoding == codec.Protobuf:
		return func(w *chunked) error {
			return writeProto(w, q.ep.version.String(), q.ep.Kind+"List", list, lm, q.ep.form.RawProto)
		}, nil
	default:
		return func(w *chunked) error { return writeJSON(w, q.ep, list, lm) }, nil
	}
}

// stream writes a list as it is made.
func (s *Server) stream(q *request, list *store.List, write func(*chunked) error) error {
	size := 0
	for _, o := range list.Objects {
		size += len(o.Value())
	}
	h := q.w.Header()
	h.Set("Content-Type", q.media.Encoding.MediaType())
	out := &chunked{to: q.w, from: &listChunks}
	var gz *gzip.Writer
	if size >= gzipFrom && compressible(q.http) {
		h.Set("Content-Encoding", "gzip")
		h.Add("Vary", "Accept-Encoding")
		gz = gzipWriters.Get().(*gzip.Writer)
		defer gzipWriters.Put(gz)
		gz.Reset(q.w)
		defer gz.Close()
		out.to = gz
	}
	err := write(out)
	if err == nil {
		err = out.flush()
	}
	if err == nil {
		return nil
	}
	if !out.started {
		if gz != nil {
			gz.Reset(io.Discard) // or closing it would begin the answer
		}
		h.Del("Content-Encoding")
		return err // nothing was written: the client gets a Status
	}
	if q.ctx().Err() == nil {
		s.log.Error("a list broke off", "path", q.http.URL.Path, "error", err)
	}
	panic(http.ErrAbortHandler) // the client must not take it for complete
}

// chunked gathers small writes. It has memory of its own only while there is something to write.
type chunked struct {
	to      io.Writer
	from    *chunks
	buf     *[]byte // of chunks; nil when empty
	started bool
}

// chunks are buffers that grow up to the size of a chunk: those of watches remain small.
type chunks struct{ pool sync.Pool }

var listChunks, watchChunks chunks

// room makes room for n bytes: they may be appended to *buf.
func (c *chunked) room(n int) error {
	if c.buf != nil && len(*c.buf)+n > chunk {
		if err := c.flush(); err != nil {
			return err
		}
	}
	if c.buf == nil {
		var ok bool
		if c.buf, ok = c.from.pool.Get().(*[]byte); !ok {
			c.buf = new([]byte)
		}
	}
	return nil
}

func (c *chunked) Write(p []byte) (int, error) {
	if err := c.room(len(p)); err != nil {
		return 0, err
	}
	*c.buf = append(*c.buf, p...)
	return len(p), nil
}

// WriteString is for io.WriteString.
func (c *chunked) WriteString(s string) (int, error) {
	if err := c.room(len(s)); err != nil {
		return 0, err
	}
	*c.buf = append(*c.buf, s...)
	return len(s), nil
}

func (c *chunked) flush() error {
	if c.buf == nil {
		return nil
	}
	buf := c.buf
	c.buf, c.started = nil, true
	_, err := c.to.Write(*buf)
	if cap(*buf) <= 2*chunk { // not one that a single huge object has grown
		*buf = (*buf)[:0]
		c.from.pool.Put(buf)
	}
	return err
}

// writeHead writes the start of a list in JSON, up to its metadata.
func writeHead(w *chunked, kind, apiVersion string, lm metav1.ListMeta) error {
	data, err := json.Marshal(lm)
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, `{"kind":"`+kind+`","apiVersion":"`+apiVersion+`","metadata":`+string(data)+`,`)
	return err
}

// writeItems writes an array, and the end of a list. rest is an item without its first byte, which is first.
func writeItems(w *chunked, name string, first string, list *store.List, rest func(*store.Object) ([]byte, error)) error {
	if _, err := io.WriteString(w, `"`+name+`":[`); err != nil {
		return err
	}
	for i, o := range list.Objects {
		item, err := rest(o)
		if err != nil {
			return err
		}
		separator := first
		if i > 0 {
			separator = "," + first
		}
		if _, err := io.WriteString(w, separator); err != nil {
			return err
		}
		if _, err := w.Write(item); err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, "]}\n")
	return err
}

func writeJSON(w *chunked, ep *endpoint, list *store.List, lm metav1.ListMeta) error {
	if err := writeHead(w, ep.Kind+"List", ep.version.String(), lm); err != nil {
		return err
	}
	return writeItems(w, "items", "{", list, ep.form.JSONItem)
}

func writeTable(w *chunked, t *table, list *store.List, lm metav1.ListMeta) error {
	if err := writeHead(w, "Table", t.gv.String(), lm); err != nil {
		return err
	}
	columns, err := json.Marshal(t.columns())
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, `"columnDefinitions":`+string(columns)+`,`); err != nil {
		return err
	}
	return writeItems(w, "rows", "", list, func(o *store.Object) ([]byte, error) {
		hub, err := o.Decoded()
		if err != nil {
			return nil, err
		}
		return t.rowJSON(hub)
	})
}

func writeMetadata(w *chunked, gv schema.GroupVersion, list *store.List, lm metav1.ListMeta) error {
	if err := writeHead(w, "PartialObjectMetadataList", gv.String(), lm); err != nil {
		return err
	}
	return writeItems(w, "items", "", list, func(o *store.Object) ([]byte, error) {
		hub, err := o.Decoded()
		if err != nil {
			return nil, err
		}
		p, err := partial(hub, gv)
		if err != nil {
			return nil, err
		}
		return json.Marshal(p)
	})
}

// writeProto writes a list in protobuf, whose start must tell its size.
func writeProto(w *chunked, apiVersion, kind string, list *store.List, lm metav1.ListMeta, raw func(*store.Object) ([]byte, error)) error {
	messages := make([][]byte, len(list.Objects))
	size := 0
	for i, o := range list.Objects {
		message, err := raw(o)
		if err != nil {
			return err
		}
		messages[i] = message
		size += codec.ItemSize(message, o.Rev)
	}
	if _, err := w.Write(codec.AppendListHead(nil, apiVersion, kind, lm, size)); err != nil {
		return err
	}
	for i, o := range list.Objects {
		if err := w.room(codec.ItemSize(messages[i], o.Rev)); err != nil {
			return err
		}
		*w.buf = codec.AppendItem(*w.buf, messages[i], o.Rev)
	}
	return nil
}
