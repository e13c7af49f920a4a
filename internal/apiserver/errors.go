package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/proa-k8s/proa/internal/apiserver/negotiate"
	"github.com/proa-k8s/proa/internal/store"
)

// statusOf makes the Status that a client gets for an error.
func statusOf(err error) *metav1.Status {
	var withStatus apierrors.APIStatus
	status := metav1.Status{Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Message: err.Error()}
	switch {
	case errors.As(err, &withStatus):
		status = withStatus.Status()
		if status.Status == "" {
			status.Status = metav1.StatusFailure
		}
		if status.Code == 0 {
			status.Code = http.StatusInternalServerError
		}
	case errors.Is(err, context.DeadlineExceeded):
		status = apierrors.NewTimeoutError("request did not complete within requested timeout - context deadline exceeded", 0).ErrStatus
	case errors.Is(err, context.Canceled):
		status = apierrors.NewTimeoutError("request did not complete within requested timeout - context canceled", 0).ErrStatus
	}
	status.Kind, status.APIVersion = "Status", "v1"
	return &status
}

// writeError answers with a Status, in an encoding that the client accepts.
func (s *Server) writeError(w http.ResponseWriter, r *http.Request, err error) {
	status := statusOf(err)
	if status.Code >= http.StatusInternalServerError && r.Context().Err() == nil {
		s.log.Error("request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	media, negotiation := negotiate.Answer(r, negotiate.Plain)
	if negotiation != nil {
		media = negotiate.Media{}
	}
	media.Convert = schema.GroupVersionKind{}
	if d := status.Details; d != nil && d.RetryAfterSeconds > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(d.RetryAfterSeconds)))
	}
	body, encErr := s.types.Encode(status, media.Encoding)
	if encErr != nil {
		http.Error(w, encErr.Error(), http.StatusInternalServerError)
		return
	}
	s.send(w, r, int(status.Code), media, body)
}

// Errors for paths and methods that are not served, in upstream's words.
func errNoSuchPath() error {
	return apierrors.NewGenericServerResponse(http.StatusNotFound, "", schema.GroupResource{}, "", "", 0, false)
}

func errNoSuchMethod() error {
	return apierrors.NewGenericServerResponse(http.StatusMethodNotAllowed, "", schema.GroupResource{}, "", "", 0, false)
}

// apiError turns the store's errors into those for clients.
func apiError(err error, resource schema.GroupResource, name string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrNotFound):
		return apierrors.NewNotFound(resource, name)
	case errors.Is(err, store.ErrExists):
		return apierrors.NewAlreadyExists(resource, name)
	case errors.Is(err, store.ErrExpired):
		return apierrors.NewResourceExpired("The resourceVersion for the provided list is too old.")
	case errors.Is(err, store.ErrTooLarge):
		return negotiate.StatusErrorOf(metav1.Status{
			Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Message: "etcdserver: request is too large",
		})
	case errors.Is(err, store.ErrNotReady):
		return apierrors.NewTooManyRequests("storage is (re)initializing", 1)
	case errors.Is(err, store.ErrGuard):
		return apierrors.NewConflict(resource, name, err)
	}
	return err
}

// errFutureRevision says that a revision is not reached yet.
func errFutureRevision(rev, present int64) error {
	err := apierrors.NewTimeoutError(fmt.Sprintf("Too large resource version: %d, current: %d", rev, present), 1)
	err.ErrStatus.Details.Causes = []metav1.StatusCause{{
		Type: metav1.CauseTypeResourceVersionTooLarge, Message: "Too large resource version",
	}}
	return err
}

// optimisticLock is upstream's text of a conflict of revisions.
const optimisticLock = "the object has been modified; please apply your changes to the latest version and try again"

func errModified(resource schema.GroupResource, name string) error {
	return apierrors.NewConflict(resource, name, errors.New(optimisticLock))
}

// errPrecondition is the conflict of an update whose uid is that of another object, with the text of upstream's storage.
func errPrecondition(resource schema.GroupResource, key, name, want, got string) error {
	return apierrors.NewConflict(resource, name, fmt.Errorf(
		"StorageError: invalid object, Code: 4, Key: %s, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: "+
			"UID in precondition: %s, UID in object meta: %s", key, want, got))
}

// errKind is the kind that errors about request options name.
func errKind(options string) schema.GroupKind {
	return schema.GroupKind{Group: metav1.GroupName, Kind: options}
}
