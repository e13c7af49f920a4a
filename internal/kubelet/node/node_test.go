package node

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/proa-k8s/proa/internal/kubelet/cri"
)

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
