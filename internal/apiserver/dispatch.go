package apiserver

import (
	"net/http"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/proa-k8s/proa/internal/apiserver/codec"
	"github.com/proa-k8s/proa/internal/apiserver/negotiate"
)

// serveResource finds the endpoint of a request and runs its verb.
func (s *Server) serveResource(w http.ResponseWriter, r *http.Request, info *apirequest.RequestInfo) error {
	ep := s.served.Load().routes.find(info.APIGroup, info.APIVersion, info.Resource)
	if ep == nil {
		return errNoSuchPath()
	}
	namespace := info.Namespace
	if !ep.Namespaced {
		namespace = ""
	}
	r = r.WithContext(apirequest.WithNamespace(r.Context(), namespace))
	q := &request{w: w, http: r, info: info, ep: ep}
	q.user, _ = apirequest.UserFrom(r.Context())
	if info.Subresource != "" {
		if q.sub = ep.subs[info.Subresource]; q.sub == nil {
			return errNoSuchPath()
		}
	}
	if err := q.checkPath(); err != nil {
		return err
	}
	if ep.version.Deprecated != "" {
		warn(r.Context(), ep.version.Deprecated)
		s.metrics.outdated(info, ep.version.Removed)
	}
	if q.sub != nil && q.sub.connect != nil {
		return s.connect(q)
	}
	if info.Verb == "watch" {
		if !ep.serves("watch") {
			return errNoSuchMethod()
		}
		return s.watch(q)
	}
	media, err := negotiate.Answer(r, q.offer())
	if err != nil {
		return err
	}
	q.media = media
	return s.verb(q)
}

// checkPath refuses paths that don't fit the resource's scope.
func (q *request) checkPath() error {
	info := q.info
	own := info.Resource == "namespaces" && info.APIGroup == "" // whose name stands where others have their namespace
	if !q.ep.Namespaced && info.Namespace != "" && !own {
		return errNoSuchPath()
	}
	if len(info.Parts) > 3 && (q.sub == nil || q.sub.connect == nil) {
		return errNoSuchPath()
	}
	if !q.ep.Namespaced || info.Namespace != "" {
		return nil
	}
	if len(info.Parts) > 1 {
		return errNoSuchPath()
	}
	if info.Verb != "list" && info.Verb != "watch" && q.ep.cache != nil {
		return errNoSuchMethod() // all namespaces together can be read only
	}
	return nil
}

// offer says what the request's answer can be converted to.
func (q *request) offer() negotiate.Offer {
	switch {
	case q.ep.cache == nil, q.sub != nil && q.sub.Strategy == nil:
		return negotiate.Metadata
	default:
		return negotiate.Tabular
	}
}

// verb runs the verb of a request.
func (s *Server) verb(q *request) error {
	served := verbsOf(q.ep.Resource)
	if q.sub != nil {
		served = q.sub.Verbs
	}
	if !slices.Contains(served, q.info.Verb) {
		return errNoSuchMethod()
	}
	named := len(q.info.Parts) > 1
	switch q.info.Verb {
	case "get":
		return s.get(q)
	case "list":
		return s.serveList(q)
	case "create":
		return s.post(q, named)
	case "update":
		if named {
			return s.update(q)
		}
	case "patch":
		if named {
			return s.patch(q)
		}
	case "delete":
		return s.delete(q)
	case "deletecollection":
		return s.deleteCollection(q)
	}
	return errNoSuchMethod()
}

// post runs what serves POST: a handler, or the creation of an object.
func (s *Server) post(q *request, named bool) error {
	switch {
	case q.sub != nil && q.sub.create != nil:
		return s.createBy(q, q.sub.create)
	case q.sub != nil || named:
		return errNoSuchMethod()
	case q.ep.create != nil:
		return s.createBy(q, q.ep.create)
	case q.ep.cache == nil:
		return errNoSuchMethod()
	default:
		return s.create(q)
	}
}

// connect hands a request over to a connector, admitted.
func (s *Server) connect(q *request) error {
	if q.query().Has("dryRun") {
		return apierrors.NewBadRequest("dryRun is not supported")
	}
	options, err := q.connectOptions()
	if err != nil {
		return err
	}
	o := operation{name: q.info.Name, op: admission.Connect}
	if err := s.gate.both(q.ctx(), q, o, options, nil); err != nil {
		return err
	}
	s.metrics.longRunning(q, 1)
	defer s.metrics.longRunning(q, -1)
	q.sub.connect.ServeHTTP(q.w, q.http)
	return nil
}

// connectOptions reads the options of a connection from the query, where their kind is known (PodExecOptions).
func (q *request) connectOptions() (runtime.Object, error) {
	kind := q.sub.Kind
	if kind.Kind == "" || kind.Kind == q.ep.Kind || !scheme.Scheme.Recognizes(kind) {
		return nil, nil
	}
	options, err := scheme.Scheme.New(kind)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	if _, ok := options.(metav1.Object); ok {
		return nil, nil // an object, not options
	}
	if err := codec.DecodeQuery(q.query(), options); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return options, nil
}
