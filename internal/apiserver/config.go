// Package apiserver is the Kubernetes API over HTTP: routing, negotiation, the verbs and their semantics.
//
// What flows in are HTTP requests and the catalogue of what is served; what flows out are answers, and transactions on
// the store. Authentication, authorization and admission are given to it as k8s.io/apiserver's interfaces.
package apiserver

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/proa-k8s/proa/internal/api"
	"github.com/proa-k8s/proa/internal/store"
)

// CreateFunc serves POST on a virtual resource ("authorization.k8s.io/subjectaccessreviews") or on a subresource that
// takes an object of its own ("pods/binding", "serviceaccounts/token"). The object is of the hub type, defaulted and
// validated if the catalogue describes how.
type CreateFunc func(ctx context.Context, namespace, name string, obj runtime.Object, options *metav1.CreateOptions) (runtime.Object, error)

// Companion computes what must be written together with an object in one transaction, and may complete the object
// (a Service's cluster IP and node ports). obj is nil on deletion, old on creation. It is called again when the guard of one
// of its operations did not hold.
type Companion func(ctx context.Context, obj, old runtime.Object) ([]store.Op, error)

// Config is what a Server is made of.
type Config struct {
	Store     *store.Store
	Resources []*api.Resource

	Authenticator authenticator.Request
	Authorizer    authorizer.Authorizer
	// Admission is the chain; it may implement admission.MutationInterface and ValidationInterface.
	Admission admission.Interface

	// Creaters and Connectors by "<group>/<resource>", "<resource>/<subresource>" (core group) or
	// "<group>/<resource>/<subresource>". A connector gets the request authenticated, authorized and admitted
	// (CONNECT), with k8s.io/apiserver's RequestInfo and user in its context.
	Creaters   map[string]CreateFunc
	Connectors map[string]http.Handler
	Companions map[schema.GroupResource]Companion

	// Extra are handlers for paths that are not resources ("/openapi/v2", "/version", "/metrics"), authorized as
	// non-resource requests. A path that ends with a slash takes all below it.
	Extra map[string]http.Handler

	Version version.Info

	Logger     *slog.Logger          // nil: slog.Default()
	Registerer prometheus.Registerer // of the request metrics; nil: none

	// Checks are named checks of /readyz beside the server's own; those with Live set count for /livez and /healthz, too.
	Checks []Check

	// MaxInFlight and MaxMutatingInFlight are how many requests that read and that write may run at once, long-running
	// ones (watches, connectors) apart. More are answered with 429. 0: 400 and 200; below 0: no limit.
	MaxInFlight, MaxMutatingInFlight int

	// MinWatch is how long a watch lasts at least when the client sets no timeout; it ends at random between that and
	// twice as long. 0: 30 minutes.
	MinWatch time.Duration
}

// Check is a part of a health check.
type Check struct {
	Name string // "etcd"
	Live bool
	Func func(ctx context.Context) error
}
