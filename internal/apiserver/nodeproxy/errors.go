package nodeproxy

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/proa-k8s/proa/internal/store"
)

// maxErrorText is how much of a kubelet's answer is quoted in an error.
const maxErrorText = 2048

// writeError answers with a Status, as every error of the API is.
func writeError(w http.ResponseWriter, err error) {
	var known apierrors.APIStatus
	if !errors.As(err, &known) {
		known = apierrors.NewInternalError(err)
	}
	status := known.Status()
	status.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
	code := int(status.Code)
	if code == 0 {
		code = http.StatusInternalServerError
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(&status) // the client may have gone
}

// responder answers with errors of the proxy on the way to a kubelet or pod.
type responder struct{}

// Error implements the interface of apimachinery's proxy.
func (responder) Error(w http.ResponseWriter, _ *http.Request, err error) {
	if isAPIStatus(err) {
		writeError(w, err)
		return
	}
	writeError(w, &apierrors.StatusError{ErrStatus: metav1.Status{
		Status:  metav1.StatusFailure,
		Code:    http.StatusServiceUnavailable,
		Reason:  metav1.StatusReasonServiceUnavailable,
		Message: "error trying to reach service: " + err.Error(),
	}})
}

func isAPIStatus(err error) bool {
	var status apierrors.APIStatus
	return errors.As(err, &status)
}

// notFound turns the store's error into that of the API.
func notFound(err error, resource, name string) error {
	if errors.Is(err, store.ErrNotFound) {
		return apierrors.NewNotFound(schema.GroupResource{Resource: resource}, name)
	}
	return err
}

// kubeletError is the error for a kubelet's answer that is none, with its text. It is nil for a good answer.
func kubeletError(resp *http.Response, resource, name string) error {
	if resp.StatusCode >= http.StatusOK && resp.StatusCode <= http.StatusPartialContent {
		return nil
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorText))
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	text := strings.TrimSpace(string(data))
	switch resp.StatusCode {
	case http.StatusInternalServerError:
		return apierrors.NewInternalError(errors.New(text))
	case http.StatusBadRequest:
		return apierrors.NewBadRequest(text)
	default:
		return apierrors.NewGenericServerResponse(resp.StatusCode, "", schema.GroupResource{Resource: resource}, name, text, 0, true)
	}
}
