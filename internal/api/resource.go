// Package api is the vocabulary of the catalogue: how a kind of object is described to the rest of Proa.
//
// One package per API group beneath it describes that group's kinds, one file per kind; package catalogue puts them
// together. What flows in is nothing but k8s.io/api types; what flows out is a list of Resource values, from which the
// API server derives routes, storage, defaults, validation, discovery, tables and field selectors. Nothing here does
// I/O or keeps state: all functions of a Resource are pure and safe for concurrent use.
package api

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// Resource describes one resource: a kind of object, under which names and versions it is served, and what happens to
// an object of it on its way into the store.
type Resource struct {
	Group      string // "" is the core group
	Plural     string // as in the URL: "pods"
	Singular   string // "pod"
	Kind       string // "Pod"
	ShortNames []string
	Categories []string // "all"
	Namespaced bool

	// Verbs that are served; nil means all eight: create, delete, deletecollection, get, list, patch, update, watch.
	Verbs []string

	// Prefix is the place in the store below /registry/, without slashes at its ends: "pods", "services/specs". It is
	// upstream's, so that the data of an existing cluster can be taken over. Empty for a virtual resource (the reviews
	// of authentication and authorization), which is never stored.
	Prefix string

	// TTL is how many seconds an object lives in the store after its last write; 0 is forever. Only events use it.
	TTL int64

	// Versions in which the resource is served, the preferred version first. One of them is the hub: its Go type is
	// the one that all functions below take, and the one that is stored. A version may be of another group (Event
	// is served as v1 and as events.k8s.io/v1).
	Versions []Version

	// Hub names the version whose type is handled and stored.
	Hub schema.GroupVersion

	// New and NewList make empty objects of the hub type.
	New     func() runtime.Object
	NewList func() runtime.Object

	Strategy

	// ReturnDeleted makes the last state of the object the answer to a deletion at once, instead of a Status (pods,
	// podtemplates, services, serviceaccounts, resourcequotas, persistentvolumes and -claims).
	ReturnDeleted bool

	// Subresources in the order of discovery.
	Subresources []Subresource

	// Columns of a table and Row, which fills the cells of one object, in the same order. Row gets the hub type.
	Columns []metav1.TableColumnDefinition
	Row     func(obj runtime.Object) []any

	// SelectableFields are the field selectors that are supported beside metadata.name and metadata.namespace, and
	// Fields gives their values. Both nil when there are none. Fields is called for every event: keep it cheap.
	SelectableFields []string
	Fields           func(obj runtime.Object) fields.Set
}

// GroupResource is the resource's name for errors and authorization.
func (r *Resource) GroupResource() schema.GroupResource {
	return schema.GroupResource{Group: r.Group, Resource: r.Plural}
}

// Version is one version in which a resource is served.
type Version struct {
	schema.GroupVersion

	// New and NewList make empty objects of the version's Go type.
	New     func() runtime.Object
	NewList func() runtime.Object

	// ToHub and FromHub convert between the version's type and the hub type; nil for the hub itself. They fill out,
	// which is empty, and may share memory with in.
	ToHub   func(in, out runtime.Object) error
	FromHub func(in, out runtime.Object) error

	// Default sets the defaults that are this version's own, before ToHub (an apps/v1beta1 Deployment takes its
	// selector from its template). Nil when there are none; the hub's defaults are Strategy.Default.
	Default func(obj runtime.Object)

	// Deprecated is the warning that every request in this version is answered with; empty when there is none:
	// "apps/v1beta1 Deployment is deprecated in v1.9+, unavailable in v1.16+; use apps/v1 Deployment".
	Deprecated string
	// Removed is the release that a deprecated version goes in ("1.16"), empty when that is open.
	Removed string

	// FieldNames are the version's own names of the selectable fields, and what the Resource calls them. Nil when they are
	// the same.
	FieldNames map[string]string

	// DefaultPropagation takes the place of the strategy's for deletions in this version; empty when it doesn't.
	DefaultPropagation metav1.DeletionPropagation
}

// Strategy is what happens to an object on its way into the store, in the order of the fields. All objects are of the
// hub type and may be changed by Default and Prepare functions only. The generic part is done by the API server and
// not here: metadata (uid, generateName, timestamps, deletion, generation is NOT), validation of metadata, and
// resourceVersion. Nil functions do nothing.
type Strategy struct {
	// Default fills in documented defaults. It is idempotent and is also applied to what is read from the store.
	Default func(obj runtime.Object)

	// PrepareCreate drops what a client may not set (status) and sets generation.
	PrepareCreate func(ctx context.Context, obj runtime.Object)

	// PrepareUpdate keeps what an update of this endpoint may not change, by copying it from old (an update of the
	// main resource keeps the status, an update of the status keeps all else), and raises the generation when the
	// declared state has changed.
	PrepareUpdate func(ctx context.Context, obj, old runtime.Object)

	// Validate is for creation, ValidateUpdate for updates (it calls what it needs of Validate itself).
	Validate       func(ctx context.Context, obj runtime.Object) field.ErrorList
	ValidateUpdate func(ctx context.Context, obj, old runtime.Object) field.ErrorList

	// Warn gives warnings for what is valid but unwise; old is nil on creation.
	Warn func(ctx context.Context, obj, old runtime.Object) []string

	// AllowCreateOnUpdate makes PUT of a missing object create it (Lease, Endpoints, RBAC kinds...).
	AllowCreateOnUpdate bool

	// DenyUnconditionalUpdate refuses an update that names no resourceVersion.
	DenyUnconditionalUpdate bool

	// ResetFields are the fields that this endpoint drops (status for the main resource), so that they are not
	// recorded as managed. Keyed by API version: "apps/v1". Nil when nothing is dropped.
	ResetFields map[string]*fieldpath.Set

	// ValidateName checks metadata.name; nil means a DNS subdomain. The signature is that of apimachinery's
	// validation.ValidateNameFunc.
	ValidateName func(name string, prefix bool) []string

	// Graceful decides on a deletion with grace (Pod): it returns the seconds the object lives on, 0 to delete at once.
	// It may change obj (mark it). Nil: always at once.
	Graceful func(ctx context.Context, obj runtime.Object, options *metav1.DeleteOptions) (graceSeconds int64)

	// Held says that an object whose deletion was asked for lives on, marked by its deletionTimestamp, as if it had
	// finalizers in its metadata: a Namespace with spec.finalizers. It goes with the update (of any endpoint) after which
	// it is neither held nor has finalizers. Graceful, which is called first, marks the object (phase Terminating).
	Held func(obj runtime.Object) bool

	// DefaultPropagation is what happens to dependents when the request does not say; empty means background.
	DefaultPropagation metav1.DeletionPropagation
}

// Subresource describes one subresource for discovery and, where it is a part of the stored object, its strategy.
type Subresource struct {
	Name string // "status"
	Kind schema.GroupVersionKind
	// Accepts are the kind in other versions that requests may be of.
	Accepts []schema.GroupVersionKind
	Verbs   []string

	// Strategy is set where the subresource is a view of the stored object that get, update and patch work on with
	// the object's own type: status, ephemeralcontainers, resize, finalize, approval. The object's Default applies.
	Strategy *Strategy

	// Scale is set for the scale subresource.
	Scale *Scale

	// Otherwise a handler of that name ("pods/exec") is registered with the API server.
}

// Scale reads and writes the number of replicas of an object of the hub type.
type Scale struct {
	// Get returns the desired and the observed number and the serialized label selector.
	Get func(obj runtime.Object) (spec, status int32, selector string)
	// Set sets the desired number.
	Set func(obj runtime.Object, replicas int32)
	// ReplicasPath is where the desired number is in the object, for managed fields: spec.replicas.
	ReplicasPath fieldpath.Path
}
