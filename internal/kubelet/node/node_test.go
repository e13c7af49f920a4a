package node

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/proa-k8s/proa/internal/kubelet/cri"
)

// Extended resources are others' to write; what the machine has is not.
func TestResourcesOfOthers(t *testing.T) {
	list := func(pairs ...string) corev1.ResourceList {
		l := corev1.ResourceList{}
		for i := 0; i < len(pairs); i += 2 {
			l[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
		}
		return l
	}
	for name, tc := range map[string]struct{ own, written, want corev1.ResourceList }{
		"nothing written":      {list("cpu", "2"), nil, list("cpu", "2")},
		"an extended resource": {list("cpu", "2"), list("cpu", "2", "example.com/foo", "5"), list("cpu", "2", "example.com/foo", "5")},
		"the machine's own":    {list("cpu", "2"), list("cpu", "3"), list("cpu", "2")},
		"one that has gone":    {list("cpu", "2"), list("cpu", "2", "hugepages-1Gi", "0"), list("cpu", "2")},
	} {
		if got := withOthers(tc.own, tc.written); !equality.Semantic.DeepEqual(got, tc.want) {
			t.Errorf("%s: got %v, want %v", name, got, tc.want)
		}
	}
}

// An agent that is ended before it could register its node has nothing to report.
func TestRunEndsBeforeRegistration(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	client := fake.NewClientset()
	client.PrependReactor("*", "nodes", func(clienttesting.Action) (bool, runtime.Object, error) {
		cancel()
		return true, nil, errors.New("no API server")
	})
	runtimeClient, err := cri.Dial("unix:///nonexistent/socket", "")
	if err != nil {
		t.Fatal(err)
	}
	defer runtimeClient.Close()
	n := New(Config{Name: "a", Client: client, Runtime: runtimeClient.Runtime, Images: runtimeClient.Images, Log: slog.New(slog.DiscardHandler), Object: &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a"}}})
	if err := n.Run(ctx); err != nil {
		t.Error(err)
	}
	if n.Current() != nil {
		t.Error("there is a node")
	}
}
