// Package patch applies JSON patches, JSON merge patches and strategic merge patches to objects.
//
// What flows in are an object in the version of the request and the patch; what flows out is the patched object of the
// same type, and what strict decoding finds wrong with it. All functions are pure. Errors are those for the client.
package patch

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/mergepatch"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"
)

// maxOperations is how many operations a JSON patch may have.
const maxOperations = 10000

// Flaws are what is wrong with a patch that could be applied: unknown and duplicate fields.
type Flaws struct {
	Found   []error
	patched string // what the error shows
}

// Error is the error for clients that want no flaws.
func (f *Flaws) Error() error { return invalid(f.patched, runtime.NewStrictDecodingError(f.Found)) }

// Apply patches in, which it doesn't change, into out, which is empty and of the same type. With strict, flaws are looked
// for; they are nil when there are none.
func Apply(kind types.PatchType, patch []byte, in, out runtime.Object, strict bool) (*Flaws, error) {
	if kind == types.StrategicMergePatchType {
		return strategic(patch, in, out, strict)
	}
	before, err := json.Marshal(in)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	after, found, err := applyJSON(kind, patch, before, strict)
	if err != nil {
		return nil, err
	}
	if !strict {
		if err := kjson.UnmarshalCaseSensitivePreserveInts(after, out); err != nil {
			return nil, invalid(string(after), err)
		}
		return nil, nil
	}
	unknown, err := kjson.UnmarshalStrict(after, out)
	if err != nil {
		return nil, invalid(string(after), err)
	}
	return flawsOf(append(found, unknown...), string(after)), nil
}

func flawsOf(found []error, patched string) *Flaws {
	if len(found) == 0 {
		return nil
	}
	return &Flaws{found, patched}
}

// invalid is the error for a patched object that is none of its type.
func invalid(patched string, err error) error {
	return apierrors.NewInvalid(schema.GroupKind{}, "", field.ErrorList{field.Invalid(field.NewPath("patch"), patched, err.Error())})
}

func applyJSON(kind types.PatchType, patch, before []byte, strict bool) (after []byte, found []error, err error) {
	if kind == types.JSONPatchType {
		return applyOperations(patch, before, strict)
	}
	if strict {
		if found, err = kjson.UnmarshalStrict(patch, &map[string]any{}); err != nil {
			return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding patch: %v", err))
		}
	}
	after, err = jsonpatch.MergePatch(before, patch)
	if err != nil {
		return nil, nil, apierrors.NewBadRequest(err.Error())
	}
	return after, found, nil
}

// operation is the form of an operation, to find unknown fields with.
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	From  string `json:"from"`
	Value any    `json:"value"`
}

func applyOperations(patch, before []byte, strict bool) (after []byte, found []error, err error) {
	if strict {
		var operations []operation
		if found, err = kjson.UnmarshalStrict(patch, &operations); err != nil {
			return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding patch: %v", err))
		}
		for i := range found {
			found[i] = fmt.Errorf("json patch %w", found[i])
		}
	}
	operations, err := jsonpatch.DecodePatch(patch)
	if err != nil {
		return nil, nil, apierrors.NewBadRequest(err.Error())
	}
	if len(operations) > maxOperations {
		return nil, nil, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf(
			"The allowed maximum operations in a JSON patch is %d, got %d", maxOperations, len(operations)))
	}
	if after, err = operations.Apply(before); err != nil {
		return nil, nil, unprocessable(err)
	}
	return after, found, nil
}

// unprocessable is the error for a patch that doesn't fit the object.
func unprocessable(err error) error {
	return apierrors.NewGenericServerResponse(http.StatusUnprocessableEntity, "", schema.GroupResource{}, "", err.Error(), 0, false)
}

func strategic(patch []byte, in, out runtime.Object, strict bool) (*Flaws, error) {
	before, err := runtime.DefaultUnstructuredConverter.ToUnstructured(in)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	changes := map[string]any{}
	var found []error
	if strict {
		found, err = kjson.UnmarshalStrict(patch, &changes)
	} else {
		err = kjson.UnmarshalCaseSensitivePreserveInts(patch, &changes)
	}
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	after, err := strategicpatch.StrategicMergeMapPatch(before, changes, out)
	if err != nil {
		return nil, strategicError(err)
	}
	err = runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(after, out, strict)
	shown := fmt.Sprintf("%+v", changes)
	if unknown, ok := runtime.AsStrictDecodingError(err); ok {
		found = append(found, unknown.Errors()...)
	} else if err != nil {
		return nil, invalid(shown, err)
	}
	return flawsOf(found, shown), nil
}

func strategicError(err error) error {
	for _, malformed := range []error{
		mergepatch.ErrBadJSONDoc, mergepatch.ErrBadPatchFormatForPrimitiveList, mergepatch.ErrBadPatchFormatForRetainKeys,
		mergepatch.ErrBadPatchFormatForSetElementOrderList, mergepatch.ErrUnsupportedStrategicMergePatchFormat,
	} {
		if errors.Is(err, malformed) {
			return apierrors.NewBadRequest(err.Error())
		}
	}
	if errors.Is(err, mergepatch.ErrNoListOfLists) || errors.Is(err, mergepatch.ErrPatchContentNotMatchRetainKeys) {
		return unprocessable(err)
	}
	return err
}
