//lint:file-ignore SA1019 orphanDependents is deprecated, and obeyed as long as Kubernetes obeys it.

package apiserver

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/proa-k8s/proa/internal/api"
	"github.com/proa-k8s/proa/internal/api/core"
	"github.com/proa-k8s/proa/internal/store"
)

func TestContinueTokens(t *testing.T) {
	for _, key := range []string{"ns/name", "name", "a/b.c-d"} {
		got, rev, err := decodeContinue(encodeContinue(key, 42))
		if err != nil || got != key || rev != 42 {
			t.Errorf("%s at 42 became %s at %d, %v", key, got, rev, err)
		}
	}
	for _, tc := range []struct{ token, want string }{
		{"%%", "continue key is not valid: illegal base64 data"},
		{encodeContinue("../../pods/x", 1), "continue key is not valid: ../../pods/x"},
		{encodeContinue("ns/x", 0), "incorrect encoded start resourceVersion"},
		{"eyJ2IjoidjkiLCJydiI6MSwic3RhcnQiOiJ4In0", "server does not recognize this encoded version v9"},
		{"eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MX0", "encoded start key empty"},
	} {
		if _, _, err := decodeContinue(tc.token); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", tc.token, err)
		}
	}
	var status apierrors.APIStatus
	if err := expiredContinue("ns/x"); !errors.As(err, &status) || status.Status().Code != 410 || status.Status().Reason != metav1.StatusReasonExpired {
		t.Errorf("expired: %v", err)
	}
	opts := store.ListOptions{}
	err := revisionOf(&internalversion.ListOptions{Continue: status.Status().ListMeta.Continue}, &opts)
	if err != nil || !reflect.DeepEqual(opts, store.ListOptions{Continue: "ns/x"}) {
		t.Errorf("the fresh token continues with %+v, %v", opts, err)
	}
}

func FuzzDecodeContinue(f *testing.F) {
	f.Add(encodeContinue("ns/x", 7))
	f.Add("eyJ2")
	f.Fuzz(func(t *testing.T, token string) {
		key, rev, err := decodeContinue(token)
		if err != nil {
			return
		}
		if rev == 0 || strings.HasPrefix(key, "/") || strings.Contains("/"+key+"/", "/../") {
			t.Errorf("%q gives %q at %d", token, key, rev)
		}
	})
}

// A field selector names fields as the version of the request does.
func TestHubField(t *testing.T) {
	events := core.Event()
	serve := func(group string) *endpoint {
		at := slices.IndexFunc(events.Versions, func(v api.Version) bool { return v.Group == group })
		return &endpoint{Resource: events, version: &events.Versions[at]}
	}
	hub, other := serve(""), serve("events.k8s.io")
	for _, tc := range []struct {
		ep          *endpoint
		label, want string // nothing is wanted when the label is refused
	}{
		{hub, "metadata.name", "metadata.name"},
		{hub, "reportingComponent", "reportingComponent"},
		{hub, "reportingController", ""},
		{other, "metadata.namespace", "metadata.namespace"},
		{other, "reportingController", "reportingComponent"},
		{other, "regarding.name", "involvedObject.name"},
		{other, "involvedObject.name", ""},
	} {
		got, value, err := tc.ep.hubField(tc.label, "v")
		if got != tc.want || (err == nil) != (tc.want != "") || err == nil && value != "v" {
			t.Errorf("%s: got %q %q, %v, want %q", tc.label, got, value, err, tc.want)
		}
	}
}

// TestRevisionOfLists is the table of the API concepts.
func TestRevisionOfLists(t *testing.T) {
	for _, tc := range []struct {
		rev   string
		match metav1.ResourceVersionMatch
		limit int64
		want  store.Match
	}{
		{"", "", 0, store.MatchLatest},
		{"", "", 5, store.MatchLatest},
		{"0", "", 0, store.MatchNotOlder},
		{"0", "", 5, store.MatchNotOlder},
		{"7", "", 0, store.MatchNotOlder},
		{"7", "", 5, store.MatchExact},
		{"7", metav1.ResourceVersionMatchExact, 0, store.MatchExact},
		{"7", metav1.ResourceVersionMatchNotOlderThan, 5, store.MatchNotOlder},
		{"0", metav1.ResourceVersionMatchNotOlderThan, 5, store.MatchNotOlder},
	} {
		var opts store.ListOptions
		err := revisionOf(&internalversion.ListOptions{ResourceVersion: tc.rev, ResourceVersionMatch: tc.match, Limit: tc.limit}, &opts)
		if err != nil || opts.Match != tc.want {
			t.Errorf("%+v gives %v, %v", tc, opts.Match, err)
		}
	}
}

// TestStartsOfWatches is the table of the API concepts.
func TestStartsOfWatches(t *testing.T) {
	yes, no := true, false
	for _, tc := range []struct {
		rev     string
		initial *bool
		want    store.WatchOptions
	}{
		{"", nil, store.WatchOptions{Rev: -1, InitialEvents: true}},
		{"0", nil, store.WatchOptions{Rev: 0, InitialEvents: true}},
		{"7", nil, store.WatchOptions{Rev: 7}},
		{"", &no, store.WatchOptions{Rev: -1}},
		{"0", &no, store.WatchOptions{Rev: -1}},
		{"7", &no, store.WatchOptions{Rev: 7}},
		{"", &yes, store.WatchOptions{Rev: -1, InitialEvents: true}},
		{"7", &yes, store.WatchOptions{Rev: 7, InitialEvents: true}},
	} {
		o := &internalversion.ListOptions{Watch: true, ResourceVersion: tc.rev, SendInitialEvents: tc.initial}
		internalversion.SetListOptionsDefaults(o, true)
		got, err := watchOptions(o, "")
		if err != nil || !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%q %v starts %+v, %v", tc.rev, tc.initial, got, err)
		}
	}
}

func TestPropagationFinalizers(t *testing.T) {
	yes, no := true, false
	policy := func(p metav1.DeletionPropagation) *metav1.DeletionPropagation { return &p }
	for _, tc := range []struct {
		name      string
		have      []string
		options   metav1.DeleteOptions
		byDefault metav1.DeletionPropagation
		want      []string
		changed   bool
	}{
		{"nothing said", []string{"a"}, metav1.DeleteOptions{}, "", []string{"a"}, false},
		{"kind orphans", nil, metav1.DeleteOptions{}, metav1.DeletePropagationOrphan, []string{"orphan"}, true},
		{"request beats kind", nil, metav1.DeleteOptions{PropagationPolicy: policy("Background")}, metav1.DeletePropagationOrphan, nil, false},
		{"foreground", []string{"a"}, metav1.DeleteOptions{PropagationPolicy: policy("Foreground")}, "", []string{"a", "foregroundDeletion"}, true},
		{"orphan", nil, metav1.DeleteOptions{OrphanDependents: &yes}, "", []string{"orphan"}, true},
		{"not orphan", []string{"orphan"}, metav1.DeleteOptions{OrphanDependents: &no}, "", nil, true},
		{"finalizer stays", []string{"foregroundDeletion", "a"}, metav1.DeleteOptions{}, "", []string{"a", "foregroundDeletion"}, false},
		{"request beats finalizer", []string{"orphan"}, metav1.DeleteOptions{PropagationPolicy: policy("Foreground")}, "", []string{"foregroundDeletion"}, true},
	} {
		got, changed := propagationFinalizers(tc.have, &tc.options, tc.byDefault)
		if !reflect.DeepEqual(got, tc.want) || changed != tc.changed {
			t.Errorf("%s: %v, %v", tc.name, got, changed)
		}
	}
}
