// Package containerdtest runs containerd in the process of a test, with real containers, and removes every trace of it
// when the test ends.
package containerdtest

import (
	"context"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/proa-k8s/proa/internal/containerd"
	"github.com/proa-k8s/proa/internal/containerd/images"
	"github.com/proa-k8s/proa/test/images/catalog"
)

// Node is a running containerd. There can be one at a time in a process.
type Node struct {
	*containerd.Instance
	Runtime criapi.RuntimeServiceClient
	Images  criapi.ImageServiceClient
	// Config is what containerd runs with.
	Config containerd.Config
	// Dir is a directory with a short path that is removed after the test.
	Dir string
	// Cgroup is the parent for the cgroups of this node's pods; it is removed after the test, too.
	Cgroup string
}

// Start runs containerd until the test ends. The test is skipped without the rights for containers.
func Start(t testing.TB) *Node {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("containers need root")
	}
	dir, err := os.MkdirTemp("/tmp", "ctd")
	if err != nil {
		t.Fatal(err)
	}
	n := &Node{
		Config: containerd.Config{Root: filepath.Join(dir, "root"), State: filepath.Join(dir, "run")},
		Dir:    dir,
		Cgroup: "/" + filepath.Base(dir),
	}
	t.Cleanup(func() {
		if n.Instance != nil {
			n.Stop()
		}
		Clean(t, n.Config, n.Dir, n.Cgroup)
	})
	if n.Instance, err = containerd.Start(t.Context(), n.Config); err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient(n.Endpoint(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	n.Runtime, n.Images = criapi.NewRuntimeServiceClient(conn), criapi.NewImageServiceClient(conn)
	return n
}

// Load puts an image of the catalogue (test/images/catalog) into a node's containerd.
func Load(t testing.TB, address, name string) []images.Image {
	t.Helper()
	pipe, w := io.Pipe()
	go func() { w.CloseWithError(catalog.Write(name, w)) }()
	loaded, err := images.Load(t.Context(), address, pipe, nil)
	if err != nil {
		t.Fatal(err)
	}
	return loaded
}

// Clean removes what a containerd that no longer runs has left: containers, mounts, its directory and cgroups.
func Clean(t testing.TB, cfg containerd.Config, dir, cgroup string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := containerd.Purge(ctx, cfg); err != nil {
		t.Error(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Error(err)
	}
	for _, pattern := range []string{"/sys/fs/cgroup" + cgroup, "/sys/fs/cgroup/*" + cgroup} {
		roots, _ := filepath.Glob(pattern)
		for _, root := range roots {
			var below []string
			_ = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
				if err == nil && entry.IsDir() {
					below = append(below, path)
				}
				return nil
			})
			for _, path := range slices.Backward(below) {
				if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
					t.Error(err)
				}
			}
		}
	}
}
