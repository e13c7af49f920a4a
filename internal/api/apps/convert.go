package apps

import (
	"encoding/json"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// convertShape converts between two versions of a kind that have the same fields, under the same names, in Go types of
// their own. It goes through JSON, which is slow next to copying field by field; only clients of versions that
// ended years ago pay for it.
func convertShape[In, Out runtime.Object](in In, out Out) error {
	data, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("convert %T: %w", in, err)
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("convert %T to %T: %w", in, out, err)
	}
	out.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	return nil
}
