package api

import (
	"context"
	"reflect"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/endpoints/deprecation"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// Object is satisfied by the pointer to a Go type of the API: it lets functions take the type itself as parameter and
// infer the pointer (New[corev1.Service]()).
type Object[T any] interface {
	*T
	runtime.Object
}

// New returns a function that makes empty objects of type T.
func New[T any, P Object[T]]() func() runtime.Object {
	return func() runtime.Object { return P(new(T)) }
}

// Define completes the description of a resource whose hub is the Go type T with the list type L in version hub: it sets
// Hub, New, NewList, Group (unless set), and puts the hub before the other Versions, so that it is the preferred one.
//
//	api.Define[corev1.ConfigMap, corev1.ConfigMapList](corev1.SchemeGroupVersion, api.Resource{
//		Plural: "configmaps", Singular: "configmap", Kind: "ConfigMap", Prefix: "configmaps", Namespaced: true,
//		Strategy: api.Typed[*corev1.ConfigMap]{Validate: validateConfigMap}.Strategy(),
//		Row:      api.Row(configMapRow),
//	})
func Define[T, L any, P Object[T], PL Object[L]](hub schema.GroupVersion, r Resource) *Resource {
	if r.Group == "" {
		r.Group = hub.Group
	}
	r.Hub = hub
	r.New, r.NewList = New[T, P](), New[L, PL]()
	v := Version{GroupVersion: hub, New: r.New, NewList: r.NewList}
	v.Deprecated, v.Removed = deprecationOf(hub, r.New())
	r.Versions = append([]Version{v}, r.Versions...)
	return &r
}

// The release of Kubernetes whose API this is: what is deprecated later is not yet warned of.
const releaseMajor, releaseMinor = 1, 37

// deprecationOf gives the warning that k8s.io/api's types carry the facts of, "" if there is nothing to warn of, and the
// release in which the version goes.
func deprecationOf(gv schema.GroupVersion, obj runtime.Object) (warning, removed string) {
	if !deprecation.IsDeprecated(obj, releaseMajor, releaseMinor) {
		return "", ""
	}
	obj.GetObjectKind().SetGroupVersionKind(gv.WithKind(reflect.TypeOf(obj).Elem().Name()))
	return deprecation.WarningMessage(obj), deprecation.RemovedRelease(obj)
}

// DefineVirtual is Define for a resource that is never stored and has no list: the reviews of authentication and
// authorization. It can only be created.
func DefineVirtual[T any, P Object[T]](hub schema.GroupVersion, r Resource) *Resource {
	r.Group, r.Hub = hub.Group, hub
	r.New = New[T, P]()
	r.Verbs = []string{"create"}
	r.Versions = append([]Version{{GroupVersion: hub, New: r.New}}, r.Versions...)
	return &r
}

// NewVersion describes a version beside the hub: V and L are its Go types, H is the hub's.
func NewVersion[V, L, H any, PV Object[V], PL Object[L], PH Object[H]](
	gv schema.GroupVersion, toHub func(in PV, out PH) error, fromHub func(in PH, out PV) error,
) Version {
	warning, removed := deprecationOf(gv, PV(new(V)))
	return Version{
		GroupVersion: gv,
		New:          New[V, PV](),
		NewList:      New[L, PL](),
		Deprecated:   warning,
		Removed:      removed,
		ToHub:        func(in, out runtime.Object) error { return toHub(in.(PV), out.(PH)) },
		FromHub:      func(in, out runtime.Object) error { return fromHub(in.(PH), out.(PV)) },
	}
}

// OrphanByDefault makes deletions in these versions keep the dependents when the request does not say, as it was before
// there was garbage collection.
func OrphanByDefault(versions ...Version) []Version {
	for i := range versions {
		versions[i].DefaultPropagation = metav1.DeletePropagationOrphan
	}
	return versions
}

// Typed is a Strategy whose functions take the hub's own type T (a pointer: *corev1.Service). The fields mean what those
// of Strategy mean; nil functions stay nil.
type Typed[T runtime.Object] struct {
	Default        func(obj T)
	PrepareCreate  func(ctx context.Context, obj T)
	PrepareUpdate  func(ctx context.Context, obj, old T)
	Validate       func(ctx context.Context, obj T) field.ErrorList
	ValidateUpdate func(ctx context.Context, obj, old T) field.ErrorList
	// Warn gets the zero T (a nil pointer) as old on creation.
	Warn     func(ctx context.Context, obj, old T) []string
	Graceful func(ctx context.Context, obj T, options *metav1.DeleteOptions) (graceSeconds int64)
	Held     func(obj T) bool

	AllowCreateOnUpdate     bool
	DenyUnconditionalUpdate bool
	ResetFields             map[string]*fieldpath.Set
	ValidateName            func(name string, prefix bool) []string
	DefaultPropagation      metav1.DeletionPropagation
}

// Strategy returns t as the Strategy of a Resource or Subresource.
func (t Typed[T]) Strategy() Strategy {
	s := Strategy{
		AllowCreateOnUpdate:     t.AllowCreateOnUpdate,
		DenyUnconditionalUpdate: t.DenyUnconditionalUpdate,
		ResetFields:             t.ResetFields,
		ValidateName:            t.ValidateName,
		DefaultPropagation:      t.DefaultPropagation,
	}
	if f := t.Default; f != nil {
		s.Default = func(obj runtime.Object) { f(obj.(T)) }
	}
	if f := t.PrepareCreate; f != nil {
		s.PrepareCreate = func(ctx context.Context, obj runtime.Object) { f(ctx, obj.(T)) }
	}
	if f := t.PrepareUpdate; f != nil {
		s.PrepareUpdate = func(ctx context.Context, obj, old runtime.Object) { f(ctx, obj.(T), old.(T)) }
	}
	if f := t.Validate; f != nil {
		s.Validate = func(ctx context.Context, obj runtime.Object) field.ErrorList { return f(ctx, obj.(T)) }
	}
	if f := t.ValidateUpdate; f != nil {
		s.ValidateUpdate = func(ctx context.Context, obj, old runtime.Object) field.ErrorList {
			return f(ctx, obj.(T), old.(T))
		}
	}
	if f := t.Warn; f != nil {
		s.Warn = func(ctx context.Context, obj, old runtime.Object) []string {
			before, _ := old.(T)
			return f(ctx, obj.(T), before)
		}
	}
	if f := t.Graceful; f != nil {
		s.Graceful = func(ctx context.Context, obj runtime.Object, options *metav1.DeleteOptions) int64 {
			return f(ctx, obj.(T), options)
		}
	}
	if f := t.Held; f != nil {
		s.Held = func(obj runtime.Object) bool { return f(obj.(T)) }
	}
	return s
}

// Row returns f as a Resource's Row.
func Row[T runtime.Object](f func(obj T) []any) func(runtime.Object) []any {
	return func(obj runtime.Object) []any { return f(obj.(T)) }
}

// Fields returns f as a Resource's Fields.
func Fields[T runtime.Object](f func(obj T) fields.Set) func(runtime.Object) fields.Set {
	return func(obj runtime.Object) fields.Set { return f(obj.(T)) }
}

// Status describes the status subresource of a resource of the given kind.
func Status(kind schema.GroupVersionKind, strategy Strategy) Subresource {
	return Subresource{Name: "status", Kind: kind, Verbs: []string{"get", "patch", "update"}, Strategy: &strategy}
}

// ScaleOf describes the scale subresource of a resource whose desired number is spec.replicas.
func ScaleOf[T runtime.Object](get func(obj T) (spec, status int32, selector string), set func(obj T, replicas int32)) Subresource {
	return Subresource{
		Name:  "scale",
		Kind:  schema.GroupVersionKind{Group: "autoscaling", Version: "v1", Kind: "Scale"},
		Verbs: []string{"get", "patch", "update"},
		Scale: &Scale{
			Get:          func(obj runtime.Object) (int32, int32, string) { return get(obj.(T)) },
			Set:          func(obj runtime.Object, replicas int32) { set(obj.(T), replicas) },
			ReplicasPath: fieldpath.MakePathOrDie("spec", "replicas"),
		},
	}
}

// Reset makes ResetFields: in each of the versions ("apps/v1"), the fields at the paths are dropped.
func Reset(versions []string, paths ...fieldpath.Path) map[string]*fieldpath.Set {
	reset := make(map[string]*fieldpath.Set, len(versions))
	for _, version := range versions {
		reset[version] = fieldpath.NewSet(paths...)
	}
	return reset
}
