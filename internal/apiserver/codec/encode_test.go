package codec

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-k8s/proa/internal/api"
	"github.com/proa-k8s/proa/internal/api/core"
)

// The cache keeps what is encoded to be stored for as long as the object lives: it must not be longer than it need be.
func TestStoredBytesWasteNothing(t *testing.T) {
	r := core.ConfigMap()
	types := NewTypes([]*api.Resource{r})
	for _, size := range []int{0, 10, 100, 1000, 5000, 100000} {
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "b"}, Data: map[string]string{"x": strings.Repeat("x", size)}}
		data, err := types.Stored(r).Encode(cm)
		if err != nil {
			t.Fatal(err)
		}
		// The allocator rounds up by an eighth at most.
		if waste := cap(data) - len(data); waste > envelopeSize+len(data)/8+16 {
			t.Errorf("%d bytes are kept in %d", len(data), cap(data))
		}
		back, err := types.Stored(r).Decode(data)
		if err != nil {
			t.Fatal(err)
		}
		if got := len(back.(*corev1.ConfigMap).Data["x"]); got != size {
			t.Errorf("%d bytes came back as %d", size, got)
		}
	}
}
