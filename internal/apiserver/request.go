package apiserver

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/warning"

	"github.com/proa-k8s/proa/internal/api"
	"github.com/proa-k8s/proa/internal/apiserver/codec"
	"github.com/proa-k8s/proa/internal/apiserver/fieldmanager"
	"github.com/proa-k8s/proa/internal/apiserver/negotiate"
)

// maxBody is the largest body of a request, in bytes.
const maxBody = 3 << 20

// request is one request to a resource on its way through a verb.
type request struct {
	w    http.ResponseWriter
	http *http.Request
	info *apirequest.RequestInfo
	user user.Info

	ep    *endpoint
	sub   *subresource // nil for the main resource
	media negotiate.Media

	values url.Values // the parsed query, once asked for
}

func (q *request) ctx() context.Context { return q.http.Context() }

// namespace is that of the objects: empty for cluster-scoped ones, Namespaces included.
func (q *request) namespace() string {
	if !q.ep.Namespaced {
		return ""
	}
	return q.info.Namespace
}

func (q *request) query() url.Values {
	if q.values == nil {
		if q.http.URL.RawQuery == "" {
			q.values = url.Values{}
		} else {
			q.values = q.http.URL.Query()
		}
	}
	return q.values
}

// strategy is that of the main resource, or of the subresource.
func (q *request) strategy() *api.Strategy {
	if q.sub != nil && q.sub.Strategy != nil {
		return q.sub.Strategy
	}
	return &q.ep.Strategy
}

func (q *request) subName() string {
	if q.sub == nil {
		return ""
	}
	return q.sub.Name
}

func (q *request) manager() *fieldmanager.Manager {
	if q.sub != nil {
		return q.sub.manager
	}
	return q.ep.manager
}

// kind is what the request's objects are: of the subresource, or of the endpoint.
func (q *request) kind() schema.GroupVersionKind {
	if q.sub != nil && q.sub.Kind.Kind != "" && q.sub.Kind.Kind != q.ep.Kind {
		return q.sub.Kind
	}
	return q.ep.kind
}

// body reads the request's body.
func (q *request) body() ([]byte, error) {
	limited := http.MaxBytesReader(nil, q.http.Body, maxBody)
	var data []byte
	var err error
	if n := q.http.ContentLength; n > 0 && n <= maxBody {
		data = make([]byte, n)
		_, err = io.ReadFull(limited, data)
	} else {
		data, err = io.ReadAll(limited)
	}
	if _, ok := err.(*http.MaxBytesError); ok {
		return nil, apierrors.NewRequestEntityTooLargeError("limit is 3145728")
	}
	if err != nil {
		return nil, apierrors.NewBadRequest("reading the body of the request: " + err.Error())
	}
	return data, nil
}

// fieldValidation is how the client wants unknown and duplicate fields treated.
func fieldValidation(directive string) string {
	if directive == "" {
		return metav1.FieldValidationWarn
	}
	return directive
}

// decode reads an object of the wanted kind from a body. Flaws that are no errors become warnings.
func (s *Server) decode(q *request, body []byte, want schema.GroupVersionKind, directive string) (runtime.Object, schema.GroupVersionKind, error) {
	enc, err := negotiate.Body(q.http)
	if err != nil {
		return nil, want, err
	}
	obj, kind, flaws, err := s.types.Decode(body, enc, want, directive != metav1.FieldValidationIgnore)
	if err != nil {
		return nil, want, err
	}
	if len(flaws) > 0 {
		if directive == metav1.FieldValidationStrict {
			return nil, want, codec.StrictError(flaws, want, kind)
		}
		for _, flaw := range flaws {
			warnFlaw(q.ctx(), flaw)
		}
	}
	return obj, kind, nil
}

// checkVersion refuses an object of another version than the endpoint's.
func checkVersion(kind, want schema.GroupVersionKind) error {
	if kind.GroupVersion() == want.GroupVersion() {
		return nil
	}
	return apierrors.NewBadRequest("the API version in the data (" + kind.GroupVersion().String() +
		") does not match the expected API version (" + want.GroupVersion().String() + ")")
}

// matchNamespace puts an object into the request's namespace, or refuses one of another namespace.
func matchNamespace(m metav1.Object, namespace string) error {
	switch have := m.GetNamespace(); {
	case have == namespace:
	case have == "":
		m.SetNamespace(namespace)
	case namespace == "":
		m.SetNamespace("")
	default:
		return apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request")
	}
	return nil
}

// matchName refuses an object of another name than the URL's.
func matchName(obj runtime.Object, name string) error {
	m, err := meta.Accessor(obj)
	if err != nil {
		return apierrors.NewBadRequest("the name of the object (" + name + " based on URL) was undeterminable: " + err.Error())
	}
	switch have := m.GetName(); have {
	case name:
		return nil
	case "":
		return apierrors.NewBadRequest("the name of the object (" + name + " based on URL) was undeterminable: name must be provided")
	default:
		return apierrors.NewBadRequest("the name of the object (" + have + ") does not match the name on the URL (" + name + ")")
	}
}

// isDryRun says whether nothing is to be written.
func isDryRun(flags []string) bool { return slices.Contains(flags, metav1.DryRunAll) }

func warn(ctx context.Context, text string) { warning.AddWarning(ctx, "", text) }
