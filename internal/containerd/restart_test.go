package containerd_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/proa-k8s/proa/internal/containerd"
	"github.com/proa-k8s/proa/internal/containerd/containerdtest"
)

// TestRestartInProcess starts containerd several times in one process, on the same and on other directories.
func TestRestartInProcess(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("containers need root")
	}
	for range 2 {
		dir, err := os.MkdirTemp("/tmp", "ctd")
		if err != nil {
			t.Fatal(err)
		}
		cfg := configBelow(dir)
		t.Cleanup(func() { containerdtest.Clean(t, cfg, dir, "/none") })
		// A start that fails leaves nothing that hinders the next.
		broken := cfg
		broken.BinDir = filepath.Join(dir, "nothing")
		if _, err := containerd.Start(t.Context(), broken); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("without helper executables: %v", err)
		}
		canceled, cancel := context.WithCancel(t.Context())
		cancel()
		if in, err := containerd.Start(canceled, cfg); err == nil {
			in.Stop()
			t.Error("started although it was not to")
		}
		for range 3 {
			began := time.Now()
			in, err := containerd.Start(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			t.Log("started in", time.Since(began))
			if _, err := containerd.Start(t.Context(), cfg); err == nil {
				t.Error("a second one started")
			}
			conn, err := grpc.NewClient(in.Endpoint(), grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Fatal(err)
			}
			list, err := criapi.NewImageServiceClient(conn).ListImages(t.Context(), &criapi.ListImagesRequest{})
			if err != nil || len(list.Images) != 1 {
				t.Errorf("images: %v, %v", list, err)
			}
			conn.Close()
			in.Stop()
			in.Stop()
			if _, err := os.Stat(cfg.Root); err != nil {
				t.Error(err)
			}
		}
	}
}
