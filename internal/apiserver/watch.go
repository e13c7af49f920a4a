package apiserver

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/proa-k8s/proa/internal/apiserver/codec"
	"github.com/proa-k8s/proa/internal/apiserver/negotiate"
	"github.com/proa-k8s/proa/internal/store"
)

// minWatch is how long a watch lasts at least when the client doesn't say.
const minWatch = 30 * time.Minute

// watch serves GET of a list with ?watch=true, and the deprecated paths under /watch/.
func (s *Server) watch(q *request) error {
	media, err := negotiate.Stream(q.http, q.offer())
	if err != nil {
		return err
	}
	q.media = media
	o, err := s.listOptions(q)
	if err != nil {
		return err
	}
	opts, err := watchOptions(o, q.namespace())
	if err != nil {
		return err
	}
	e := &eventWriter{
		q: q, s: s, bookmarks: o.AllowWatchBookmarks,
		sent:  s.metrics.sent.WithLabelValues(q.info.APIGroup, q.info.APIVersion, q.info.Resource),
		sizes: s.metrics.sentSizes.WithLabelValues(q.info.APIGroup, q.info.APIVersion, q.info.Resource),
	}
	if media.Convert.Kind == "Table" {
		if e.table, err = q.newTable(); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(q.ctx(), s.watchTime(o.TimeoutSeconds))
	defer cancel()
	stop := context.AfterFunc(s.running, cancel)
	defer stop()
	w, watchErr := q.ep.cache.Watch(ctx, opts)
	if watchErr != nil && !errors.Is(watchErr, store.ErrExpired) {
		return s.readError(q, watchErr, opts.Rev, "")
	}
	s.metrics.longRunning(q, 1)
	defer s.metrics.longRunning(q, -1)
	q.w.Header().Set("Content-Type", watchType(media.Encoding))
	q.w.WriteHeader(http.StatusOK)
	e.out = &chunked{to: q.w, from: &watchChunks}
	if watchErr != nil {
		present, err := s.config.Store.Rev(ctx)
		if err != nil {
			return nil // the client takes an empty watch for one that has ended, and tries again
		}
		e.failed(apierrors.NewResourceExpired("too old resource version: " + strconv.FormatInt(opts.Rev, 10) +
			" (" + strconv.FormatInt(present, 10) + ")"))
		return nil
	}
	defer w.Stop()
	e.run(ctx, w)
	return nil
}

func watchType(enc codec.Encoding) string {
	if enc == codec.JSON {
		return enc.MediaType()
	}
	return enc.MediaType() + ";stream=watch"
}

// watchTime is how long a watch lasts: what the client says, or else a random time, so that not all start anew at once.
func (s *Server) watchTime(seconds *int64) time.Duration {
	if seconds != nil && *seconds > 0 {
		return time.Duration(*seconds) * time.Second
	}
	least := s.config.MinWatch
	if least == 0 {
		least = minWatch
	}
	return least + rand.N(least)
}

// watchOptions decides on where a watch starts, by the table in the API concepts ("semantics for watch").
func watchOptions(o *internalversion.ListOptions, namespace string) (store.WatchOptions, error) {
	opts := store.WatchOptions{
		Namespace: namespace, Labels: o.LabelSelector, Fields: o.FieldSelector, Bookmarks: o.AllowWatchBookmarks, Rev: -1,
	}
	opts.InitialEvents = o.SendInitialEvents != nil && *o.SendInitialEvents
	if o.ResourceVersion == "" {
		return opts, nil
	}
	rev, err := parseRevision(o.ResourceVersion)
	if err != nil {
		return opts, err
	}
	if rev > 0 || opts.InitialEvents {
		opts.Rev = rev
	}
	return opts, nil
}

// eventWriter writes the events of one watch.
type eventWriter struct {
	s         *Server
	q         *request
	table     *table // nil unless the client wants tables
	bookmarks bool
	out       *chunked
	buf       []byte
	sent      prometheus.Counter
	sizes     prometheus.Observer
}

// run writes events until the watch ends, flushing whenever there is nothing more to write.
func (e *eventWriter) run(ctx context.Context, w *store.Watch) {
	flusher := http.NewResponseController(e.q.w)
	if flusher.Flush() != nil {
		return
	}
	for {
		events, err := w.Next(ctx)
		if err != nil {
			if errors.Is(err, store.ErrExpired) {
				e.failed(apierrors.NewResourceExpired("The resourceVersion for the provided watch is too old."))
			}
			return
		}
		for i := range events {
			if err := e.write(&events[i]); err != nil {
				if ctx.Err() == nil {
					e.failed(err)
				}
				return
			}
		}
		if e.out.flush() != nil || flusher.Flush() != nil {
			return
		}
	}
}

// write writes one event.
func (e *eventWriter) write(ev *store.Event) error {
	switch ev.Type {
	case store.Added:
		return e.object(watch.Added, ev.Object)
	case store.Modified:
		return e.object(watch.Modified, ev.Object)
	case store.Deleted:
		return e.object(watch.Deleted, ev.Object)
	case store.Bookmark:
		return e.bookmark(ev.Rev, nil)
	case store.InitialEnd:
		return e.bookmark(ev.Rev, map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	}
	return nil
}

func (e *eventWriter) object(typ watch.EventType, o *store.Object) error {
	form, enc := e.q.ep.form, e.q.media.Encoding
	switch {
	case !e.q.media.Convert.Empty():
		hub, err := o.Decoded()
		if err != nil {
			return err
		}
		return e.converted(typ, hub)
	case enc == codec.Protobuf:
		object, err := form.Proto(e.buf[:0], o)
		if err != nil {
			return err
		}
		e.buf = object
		return e.frame(typ, object)
	default:
		object, err := form.JSON(o)
		if err != nil {
			return err
		}
		return e.line(typ, object)
	}
}

// converted writes an object as a table or as its metadata.
func (e *eventWriter) converted(typ watch.EventType, hub runtime.Object) error {
	var obj runtime.Object
	var err error
	switch {
	case e.table != nil:
		obj, err = e.table.of(hub)
		e.table.headers = false // later tables need not repeat the columns
	case e.q.media.Convert.Kind == "PartialObjectMetadata":
		obj, err = partial(hub, e.q.media.Convert.GroupVersion())
	default:
		err = negotiate.NotAcceptable("you requested %s, but watched objects are no lists", e.q.media.Convert.Kind)
	}
	if err != nil {
		return err
	}
	return e.whole(typ, obj)
}

// bookmark tells how far the watch has come.
func (e *eventWriter) bookmark(rev int64, annotations map[string]string) error {
	if !e.bookmarks {
		return nil
	}
	text := strconv.FormatInt(rev, 10)
	obj, err := e.q.ep.form.Empty(text, annotations)
	if err != nil {
		return err
	}
	switch {
	case e.table != nil:
		p, err := partial(obj, e.q.media.Convert.GroupVersion())
		if err != nil {
			return err
		}
		mark := e.table.head(text)
		if len(annotations) > 0 {
			mark.Rows = append(mark.Rows, metav1.TableRow{Cells: []any{}, Object: runtime.RawExtension{Object: p}})
		}
		e.table.headers = false
		return e.whole(watch.Bookmark, mark)
	case e.q.media.Convert.Kind != "":
		p, err := partial(obj, e.q.media.Convert.GroupVersion())
		if err != nil {
			return err
		}
		return e.whole(watch.Bookmark, p)
	}
	return e.whole(watch.Bookmark, obj)
}

// failed ends the watch with an error.
func (e *eventWriter) failed(err error) {
	if e.whole(watch.Error, statusOf(err)) == nil && e.out.flush() == nil {
		_ = http.NewResponseController(e.q.w).Flush() // the client is gone if this fails
	}
}

// whole writes an object of any kind.
func (e *eventWriter) whole(typ watch.EventType, obj runtime.Object) error {
	if e.q.media.Encoding == codec.Protobuf {
		data, err := e.s.types.Encode(obj, codec.Protobuf)
		if err != nil {
			return err
		}
		return e.frame(typ, data)
	}
	data, err := json.Marshal(obj)
	if err != nil {
		return err
	}
	return e.line(typ, data)
}

func (e *eventWriter) count(size int) {
	e.sent.Inc()
	e.sizes.Observe(float64(size))
}

func (e *eventWriter) line(typ watch.EventType, object []byte) error {
	e.count(len(object))
	if _, err := io.WriteString(e.out, `{"type":"`+string(typ)+`","object":`); err != nil {
		return err
	}
	if _, err := e.out.Write(object); err != nil {
		return err
	}
	_, err := io.WriteString(e.out, "}\n")
	return err
}

func (e *eventWriter) frame(typ watch.EventType, object []byte) error {
	e.count(len(object))
	head := codec.AppendEventHead(nil, string(typ), len(object))
	if _, err := e.out.Write(head); err != nil {
		return err
	}
	_, err := e.out.Write(object)
	return err
}
