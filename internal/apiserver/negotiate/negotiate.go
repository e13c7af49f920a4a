// Package negotiate decides in which form an answer is given and a body is read.
//
// What flows in are the Accept and Content-Type headers; what flows out are encodings and the form that the client asked
// for (Table, PartialObjectMetadata, aggregated discovery). All functions are pure.
package negotiate

import (
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/munnerz/goautoneg"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1beta1 "k8s.io/apimachinery/pkg/apis/meta/v1beta1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/proa-k8s/proa/internal/apiserver/codec"
)

// Media is the form of an answer.
type Media struct {
	Encoding codec.Encoding
	// Convert is the kind that the client wants instead of the object's own; empty for the object's own.
	Convert schema.GroupVersionKind
	Pretty  bool
	// Profile is a parameter of discovery: "local" or "nopeer".
	Profile string
}

// Offer says whether an endpoint can answer in an encoding with a conversion (empty for none).
type Offer func(enc codec.Encoding, convert schema.GroupVersionKind) bool

// Plain is the offer of endpoints that convert to nothing.
func Plain(_ codec.Encoding, convert schema.GroupVersionKind) bool { return convert.Empty() }

// Metadata is the offer of endpoints whose answers can be cut down to their metadata, but are no table.
func Metadata(enc codec.Encoding, convert schema.GroupVersionKind) bool {
	if convert.Empty() {
		return true
	}
	gv := convert.GroupVersion()
	return (gv == metav1.SchemeGroupVersion || gv == metav1beta1.SchemeGroupVersion) &&
		(convert.Kind == "PartialObjectMetadata" || convert.Kind == "PartialObjectMetadataList")
}

// Tabular is the offer of endpoints that can be printed as a table, too.
func Tabular(enc codec.Encoding, convert schema.GroupVersionKind) bool {
	gv := convert.GroupVersion()
	if convert.Kind == "Table" {
		return enc != codec.Protobuf && (gv == metav1.SchemeGroupVersion || gv == metav1beta1.SchemeGroupVersion)
	}
	return Metadata(enc, convert)
}

// offered is a choice of encodings, with what upstream appends to their names when it lists them.
type offered struct {
	encodings []codec.Encoding
	suffix    string
}

var (
	whole    = offered{[]codec.Encoding{codec.JSON, codec.YAML, codec.Protobuf}, ""}
	streamed = offered{[]codec.Encoding{codec.JSON, codec.Protobuf}, ";stream=watch"}
)

func (o offered) names() string { return strings.Join(o.list(), ", ") }

func (o offered) list() []string {
	names := make([]string, len(o.encodings))
	for i, enc := range o.encodings {
		names[i] = enc.MediaType() + o.suffix
	}
	return names
}

// Answer chooses the form of an answer. The error is 406 in upstream's words.
func Answer(r *http.Request, offer Offer) (Media, error) {
	return answer(r, offer, whole)
}

// Stream chooses the form of a watch.
func Stream(r *http.Request, offer Offer) (Media, error) {
	return answer(r, offer, streamed)
}

func answer(r *http.Request, offer Offer, o offered) (Media, error) {
	accept := r.Header.Get("Accept")
	switch accept {
	case "", "*/*", "application/json", "application/json, */*":
		return Media{Pretty: pretty(r)}, nil
	}
	for _, clause := range goautoneg.ParseAccept(accept) {
		for _, enc := range o.encodings {
			typ, sub, _ := strings.Cut(enc.MediaType(), "/")
			if clause.Type != "*" && clause.Type != typ || clause.SubType != "*" && clause.SubType != sub {
				continue
			}
			if m, ok := media(clause.Params, enc, offer); ok {
				m.Pretty = m.Pretty || pretty(r)
				return m, nil
			}
		}
	}
	return Media{}, notAcceptable("only the following media types are accepted: " + o.names())
}

func media(params map[string]string, enc codec.Encoding, offer Offer) (Media, bool) {
	m := Media{Encoding: enc}
	for key, value := range params {
		switch key {
		case "as":
			m.Convert.Kind = value
		case "g":
			m.Convert.Group = value
		case "v":
			m.Convert.Version = value
		case "pretty":
			m.Pretty = value == "1"
		case "profile":
			m.Profile = value
		case "stream":
			if value != "" && (value != "watch" || enc == codec.YAML) {
				return m, false
			}
		case "sv":
			if value != "" && value != "v1" {
				return m, false
			}
		}
	}
	return m, offer(enc, m.Convert)
}

// pretty says whether JSON is indented: when asked for, and for tools that show it to people.
func pretty(r *http.Request) bool {
	if strings.Contains(r.URL.RawQuery, "pretty") {
		if value := r.URL.Query().Get("pretty"); value != "" {
			yes, _ := strconv.ParseBool(value)
			return yes
		}
	}
	agent := r.UserAgent()
	return strings.HasPrefix(agent, "curl") || strings.HasPrefix(agent, "Wget") || strings.HasPrefix(agent, "Mozilla/5.0")
}

// Body tells the encoding of a request's body. The error is 415 in upstream's words.
func Body(r *http.Request) (codec.Encoding, error) {
	header := r.Header.Get("Content-Type")
	switch header {
	case "", "application/json":
		return codec.JSON, nil
	case "application/vnd.kubernetes.protobuf":
		return codec.Protobuf, nil
	}
	if typ, _, err := mime.ParseMediaType(header); err == nil {
		for _, enc := range whole.encodings {
			if typ == enc.MediaType() {
				return enc, nil
			}
		}
	}
	return 0, Unsupported(whole.list())
}

// StatusError is an error with a status of its own.
type StatusError struct{ status metav1.Status }

// Error is the message.
func (e StatusError) Error() string { return e.status.Message }

// Status is what the client gets.
func (e StatusError) Status() metav1.Status { return e.status }

func notAcceptable(message string) error {
	return StatusError{metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusNotAcceptable, Reason: metav1.StatusReasonNotAcceptable, Message: message,
	}}
}

// NotAcceptable is the error for a conversion that the answer has no form for.
func NotAcceptable(format string, args ...any) error {
	return notAcceptable(fmt.Sprintf(format, args...))
}

// Unsupported is the error for a body of a media type that is none of those accepted.
func Unsupported(accepted []string) error {
	return StatusError{metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusUnsupportedMediaType, Reason: metav1.StatusReasonUnsupportedMediaType,
		Message: "the body of the request was in an unknown format - accepted media types include: " + strings.Join(accepted, ", "),
	}}
}

// StatusErrorOf is an error with the given status.
func StatusErrorOf(status metav1.Status) error { return StatusError{status} }
