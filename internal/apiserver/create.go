package apiserver

import (
	"context"
	"errors"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/validate/content"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/admission"

	"github.com/proa-k8s/proa/internal/api"
	"github.com/proa-k8s/proa/internal/apiserver/codec"
	"github.com/proa-k8s/proa/internal/apiserver/fieldmanager"
	"github.com/proa-k8s/proa/internal/store"
)

// How names are generated: upstream's length of what is appended, longest stem, and number of attempts.
const (
	suffixLength   = 5
	maxStem        = 63 - suffixLength
	nameAttempts   = 8
	guardAttempts  = 20
	maxNameRetries = nameAttempts - 1
)

// create serves POST on a resource.
func (s *Server) create(q *request) error {
	var options metav1.CreateOptions
	body, err := s.readCreate(q, &options)
	if err != nil {
		return err
	}
	obj, kind, err := s.decode(q, body, q.ep.kind, fieldValidation(options.FieldValidation))
	if err != nil {
		return err
	}
	if err := checkVersion(kind, q.ep.kind); err != nil {
		return err
	}
	hub, err := codec.ToHub(q.ep.Resource, q.ep.version, obj)
	if err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	m, err := meta.Accessor(hub)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	wipe(m)
	if err := matchNamespace(m, q.namespace()); err != nil {
		return err
	}
	n := creation{
		obj: hub, manager: fieldmanager.Name(options.FieldManager, q.http.UserAgent()),
		operation: operation{name: m.GetName(), op: admission.Create, options: &options, dryRun: isDryRun(options.DryRun)},
	}
	dedupOwners(q.ctx(), m, false)
	made, err := s.createObject(q, n)
	if err != nil {
		return err
	}
	return made.send(s, q, http.StatusCreated)
}

// readCreate reads the options and the body of a POST.
func (s *Server) readCreate(q *request, options *metav1.CreateOptions) ([]byte, error) {
	body, err := q.body()
	if err != nil {
		return nil, err
	}
	if values := q.query(); len(values) > 0 {
		if err := metav1.Convert_url_Values_To_v1_CreateOptions(&values, options, nil); err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		if errs := metav1validation.ValidateCreateOptions(options); len(errs) > 0 {
			return nil, apierrors.NewInvalid(errKind("CreateOptions"), "", errs)
		}
	}
	options.SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind("CreateOptions"))
	return body, nil
}

// wipe clears what only the server sets.
func wipe(m metav1.Object) {
	m.SetCreationTimestamp(metav1.Time{})
	m.SetUID("")
	m.SetDeletionTimestamp(nil)
	m.SetDeletionGracePeriodSeconds(nil)
	m.SetSelfLink("")
}

// creation is an object that is to be created.
type creation struct {
	operation
	obj     runtime.Object // of the hub type, defaulted
	manager string         // whose fields these are; empty: they are recorded in obj already (apply)
	applied bool
}

// outcome is what a write led to: a stored object, or what would have been stored (dry run).
type outcome struct {
	stored *store.Object
	obj    runtime.Object
}

// send answers with the outcome.
func (o outcome) send(s *Server, q *request, code int) error {
	if o.stored != nil {
		return s.sendStored(q, code, o.stored)
	}
	return s.sendHub(q, code, o.obj)
}

// createObject takes an object through admission, strategy and validation into the store. A name that was generated is
// generated anew when there is an object of that name.
func (s *Server) createObject(q *request, n creation) (outcome, error) {
	ctx := q.ctx()
	live := q.ep.New()
	live.GetObjectKind().SetGroupVersionKind(q.ep.Hub.WithKind(q.ep.Kind))
	if !n.applied {
		obj, err := q.ep.manager.Create(live, n.obj, n.manager)
		if err != nil {
			return outcome{}, err
		}
		n.obj = obj
	}
	m, err := meta.Accessor(n.obj)
	if err != nil {
		return outcome{}, apierrors.NewInternalError(err)
	}
	generated := m.GetName() == "" && m.GetGenerateName() != ""
	for attempt := 0; ; attempt++ {
		obj := n.obj
		if generated && attempt < maxNameRetries {
			obj = n.obj.DeepCopyObject()
		}
		made, err := s.createOnce(ctx, q, n.operation, obj)
		if err == nil || !apierrors.IsAlreadyExists(err) {
			return made, err
		}
		if !generated {
			return made, s.explainExisting(ctx, q, n.name, err)
		}
		if attempt == maxNameRetries {
			m, _ := meta.Accessor(obj)
			return made, apierrors.NewGenerateNameConflict(q.ep.gr, m.GetName(), 1)
		}
	}
}

// explainExisting adds to the error of an object that exists already that it is on its way out.
func (s *Server) explainExisting(ctx context.Context, q *request, name string, err error) error {
	old, getErr := q.ep.cache.Get(ctx, q.namespace(), name, 0)
	if getErr != nil {
		return err
	}
	obj, getErr := old.Decoded()
	if getErr != nil {
		return err
	}
	var status *apierrors.StatusError
	if m, metaErr := meta.Accessor(obj); metaErr == nil && m.GetDeletionTimestamp() != nil && errors.As(err, &status) {
		status.ErrStatus.Message = "object is being deleted: " + status.ErrStatus.Message
	}
	return err
}

// createOnce makes one attempt. It owns obj.
func (s *Server) createOnce(ctx context.Context, q *request, o operation, obj runtime.Object) (outcome, error) {
	m, err := meta.Accessor(obj)
	if err != nil {
		return outcome{}, apierrors.NewInternalError(err)
	}
	mutated, err := s.gate.mutate(ctx, q, o, obj, nil)
	if err != nil {
		return outcome{}, err
	}
	if mutated {
		dedupOwners(ctx, m, true)
		if q.ep.Default != nil {
			q.ep.Default(obj)
		}
	}
	m.SetCreationTimestamp(metav1.Now().Rfc3339Copy())
	m.SetUID(types.UID(uuid.NewUUID()))
	if m.GetName() == "" && m.GetGenerateName() != "" {
		m.SetName(generateName(m.GetGenerateName()))
	}
	if err := matchNamespace(m, q.namespace()); err != nil {
		return outcome{}, err
	}
	if err := s.prepareCreate(ctx, q, obj, m); err != nil {
		return outcome{}, err
	}
	o.name = m.GetName()
	return s.storeNew(ctx, q, o, obj, m)
}

// validateFinalizers: without a domain there are the standard finalizers only.
func validateFinalizers(m metav1.Object) field.ErrorList {
	var errs field.ErrorList
	for i, name := range m.GetFinalizers() {
		errs = append(errs, api.ValidateStandardFinalizer(name, field.NewPath("metadata", "finalizers").Index(i))...)
	}
	return errs
}

// prepareCreate applies the strategy and validates.
func (s *Server) prepareCreate(ctx context.Context, q *request, obj runtime.Object, m metav1.Object) error {
	r := q.ep.Resource
	if r.PrepareCreate != nil {
		r.PrepareCreate(ctx, obj)
	}
	validName := r.ValidateName
	if validName == nil {
		validName = apivalidation.NameIsDNSSubdomain
	}
	errs := apivalidation.ValidateObjectMetaAccessor(m, r.Namespaced, validName, field.NewPath("metadata"))
	errs = append(errs, validateFinalizers(m)...)
	if r.Validate != nil {
		errs = append(errs, r.Validate(ctx, obj)...)
	}
	if len(errs) == 0 {
		for _, msg := range content.IsPathSegmentName(m.GetName()) {
			errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), m.GetName(), msg))
		}
	}
	if len(errs) > 0 {
		return apierrors.NewInvalid(q.ep.kind.GroupKind(), m.GetName(), errs)
	}
	if r.Warn != nil {
		for _, text := range r.Warn(ctx, obj, nil) {
			warn(ctx, text)
		}
	}
	if rev := m.GetResourceVersion(); rev != "" && rev != "0" {
		return apierrors.NewBadRequest("resourceVersion should not be set on objects to be created")
	}
	m.SetResourceVersion("")
	return nil
}

// storeNew writes a valid object, together with what its companion says.
func (s *Server) storeNew(ctx context.Context, q *request, o operation, obj runtime.Object, m metav1.Object) (outcome, error) {
	for attempt := 0; ; attempt++ {
		whole, ops := obj, []store.Op(nil)
		if q.ep.companion != nil {
			whole = obj.DeepCopyObject()
			var err error
			if ops, err = q.ep.companion(ctx, whole, nil); err != nil {
				return outcome{}, err
			}
		}
		if err := s.gate.validate(ctx, q, o, whole, nil); err != nil {
			return outcome{}, err
		}
		if o.dryRun {
			return s.dryCreate(ctx, q, whole, m)
		}
		stored, err := q.ep.cache.Create(ctx, m.GetNamespace(), m.GetName(), whole, ops)
		switch {
		case errors.Is(err, store.ErrGuard) && attempt < guardAttempts:
		case errors.Is(err, store.ErrTooLarge) && m.GetManagedFields() != nil:
			m.SetManagedFields(nil) // it may fit without them
		default:
			return outcome{stored: stored}, apiError(err, q.ep.gr, m.GetName())
		}
	}
}

func (s *Server) dryCreate(ctx context.Context, q *request, obj runtime.Object, m metav1.Object) (outcome, error) {
	_, err := q.ep.cache.Get(ctx, m.GetNamespace(), m.GetName(), -1)
	switch {
	case err == nil:
		return outcome{}, apierrors.NewAlreadyExists(q.ep.gr, m.GetName())
	case errors.Is(err, store.ErrNotFound):
		return outcome{obj: obj}, nil
	default:
		return outcome{}, apiError(err, q.ep.gr, m.GetName())
	}
}

// generateName appends random characters to a stem, which is cut where the name would be too long for a label.
func generateName(stem string) string {
	if len(stem) > maxStem {
		stem = stem[:maxStem]
	}
	return stem + rand.String(suffixLength)
}

// createBy serves POST on a virtual resource, or on a subresource that takes an object of its own.
func (s *Server) createBy(q *request, create CreateFunc) error {
	var options metav1.CreateOptions
	body, err := s.readCreate(q, &options)
	if err != nil {
		return err
	}
	want := q.kind()
	obj, kind, err := s.decode(q, body, want, fieldValidation(options.FieldValidation))
	if err != nil {
		return err
	}
	// Subresources take the versions of their own group (an Eviction of policy/v1beta1 and of v1).
	if kind.Group != want.Group || q.sub == nil {
		if err := checkVersion(kind, want); err != nil {
			return err
		}
	}
	name := q.info.Name
	if m, err := meta.Accessor(obj); err == nil {
		wipe(m)
		if err := matchNamespace(m, q.namespace()); err != nil {
			return err
		}
		if name == "" {
			name = m.GetName()
		}
	}
	o := operation{name: name, op: admission.Create, options: &options, dryRun: isDryRun(options.DryRun)}
	if q.sub == nil {
		if obj, err = s.prepareVirtual(q, obj); err != nil {
			return err
		}
	}
	if err := s.gate.both(q.ctx(), q, o, obj, nil); err != nil {
		return err
	}
	result, err := create(q.ctx(), q.namespace(), name, obj, &options)
	if err != nil {
		return apiError(err, q.ep.gr, name)
	}
	return s.sendCreated(q, result)
}

// prepareVirtual takes an object of a virtual resource through what the catalogue says of it.
func (s *Server) prepareVirtual(q *request, obj runtime.Object) (runtime.Object, error) {
	hub, err := codec.ToHub(q.ep.Resource, q.ep.version, obj)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	if q.ep.PrepareCreate != nil {
		q.ep.PrepareCreate(q.ctx(), hub)
	}
	if q.ep.Validate != nil {
		if errs := q.ep.Validate(q.ctx(), hub); len(errs) > 0 {
			return nil, apierrors.NewInvalid(q.ep.kind.GroupKind(), "", errs)
		}
	}
	return hub, nil
}

// sendCreated answers with what a CreateFunc gave: an object of the endpoint or any other, or a Status.
func (s *Server) sendCreated(q *request, result runtime.Object) error {
	if status, ok := result.(*metav1.Status); ok {
		if status.Code == 0 {
			status.Code = http.StatusCreated
		}
		status.Kind, status.APIVersion = "Status", "v1"
		return s.sendObject(q, http.StatusCreated, status)
	}
	if q.sub == nil {
		result.GetObjectKind().SetGroupVersionKind(q.ep.Hub.WithKind(q.ep.Kind))
		return s.sendHub(q, http.StatusCreated, result)
	}
	if kinds, _, err := s.types.ObjectKinds(result); err == nil && result.GetObjectKind().GroupVersionKind().Empty() {
		result.GetObjectKind().SetGroupVersionKind(kinds[0])
	}
	return s.sendObject(q, http.StatusCreated, result)
}
