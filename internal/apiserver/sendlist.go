package apiserver

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"

	"github.com/klauspost/compress/gzip"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/proa-k8s/proa/internal/apiserver/codec"
	"github.com/proa-k8s/proa/internal/store"
)

// chunk is how many bytes of a list are gathered before they are written.
const chunk = 64 << 10

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
		if err := write(&whole); err != nil {
			return err
		}
		body := whole.Bytes()
		if q.media.Encoding == codec.YAML {
			if body, err = text(body, codec.YAML); err != nil {
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
func (s *Server) listWriter(q *request, list *store.List, lm metav1.ListMeta) (func(io.Writer) error, error) {
	gv := q.media.Convert.GroupVersion()
	switch kind := q.media.Convert.Kind; {
	case kind == "Table":
		t, err := q.newTable()
		if err != nil {
			return nil, err
		}
		return func(w io.Writer) error { return writeTable(w, t, list, lm) }, nil
	case kind != "" && q.media.Encoding == codec.Protobuf:
		return func(w io.Writer) error {
			return writeProto(w, gv.String(), "PartialObjectMetadataList", list, lm, func(o *store.Object) ([]byte, error) {
				raw, err := q.ep.form.RawProto(o)
				if err != nil {
					return nil, err
				}
				return codec.RawMetadata(raw)
			})
		}, nil
	case kind != "":
		return func(w io.Writer) error { return writeMetadata(w, gv, list, lm) }, nil
	case q.media.Encoding == codec.Protobuf:
		return func(w io.Writer) error {
			return writeProto(w, q.ep.version.String(), q.ep.Kind+"List", list, lm, q.ep.form.RawProto)
		}, nil
	default:
		return func(w io.Writer) error { return writeJSON(w, q.ep, list, lm) }, nil
	}
}

// stream writes a list as it is made.
func (s *Server) stream(q *request, list *store.List, write func(io.Writer) error) error {
	size := 0
	for _, o := range list.Objects {
		size += len(o.Value())
	}
	h := q.w.Header()
	h.Set("Content-Type", q.media.Encoding.MediaType())
	out := &chunked{to: q.w}
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

// chunked gathers small writes.
type chunked struct {
	to      io.Writer
	buf     []byte
	started bool
}

func (c *chunked) Write(p []byte) (int, error) {
	if c.buf == nil {
		c.buf = make([]byte, 0, chunk)
	}
	if len(c.buf)+len(p) > cap(c.buf) {
		if err := c.flush(); err != nil {
			return 0, err
		}
		if len(p) > cap(c.buf) {
			c.started = true
			return c.to.Write(p)
		}
	}
	c.buf = append(c.buf, p...)
	return len(p), nil
}

func (c *chunked) flush() error {
	if len(c.buf) == 0 {
		return nil
	}
	c.started = true
	_, err := c.to.Write(c.buf)
	c.buf = c.buf[:0]
	return err
}

// writeHead writes the start of a list in JSON, up to its metadata.
func writeHead(w io.Writer, kind, apiVersion string, lm metav1.ListMeta) error {
	data, err := json.Marshal(lm)
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, `{"kind":"`+kind+`","apiVersion":"`+apiVersion+`","metadata":`+string(data)+`,`)
	return err
}

// writeItems writes an array, and the end of a list. rest is an item without its first byte, which is first.
func writeItems(w io.Writer, name string, first string, list *store.List, rest func(*store.Object) ([]byte, error)) error {
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

func writeJSON(w io.Writer, ep *endpoint, list *store.List, lm metav1.ListMeta) error {
	if err := writeHead(w, ep.Kind+"List", ep.version.String(), lm); err != nil {
		return err
	}
	return writeItems(w, "items", "{", list, ep.form.JSONItem)
}

func writeTable(w io.Writer, t *table, list *store.List, lm metav1.ListMeta) error {
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

func writeMetadata(w io.Writer, gv schema.GroupVersion, list *store.List, lm metav1.ListMeta) error {
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
func writeProto(w io.Writer, apiVersion, kind string, list *store.List, lm metav1.ListMeta, raw func(*store.Object) ([]byte, error)) error {
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
	buf := codec.AppendListHead(nil, apiVersion, kind, lm, size)
	if _, err := w.Write(buf); err != nil {
		return err
	}
	for i, o := range list.Objects {
		buf = codec.AppendItem(buf[:0], messages[i], o.Rev)
		if _, err := w.Write(buf); err != nil {
			return err
		}
	}
	return nil
}
