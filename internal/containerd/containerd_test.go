package containerd

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// testConfig returns a configuration below a short temporary directory, all of which is purged after the test.
func testConfig(t *testing.T) Config {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("containers need root")
	}
	dir, err := os.MkdirTemp("/tmp", "ctd")
	if err != nil {
		t.Fatal(err)
	}
	level := slog.LevelWarn
	if os.Getenv("TEST_CONTAINERD_DEBUG") != "" {
		level = slog.LevelDebug
	}
	cfg := Config{
		Root:  filepath.Join(dir, "root"),
		State: filepath.Join(dir, "run"),
		Log:   slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: level})),
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return cfg
}

// testWriter sends log records to the log of the test.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	defer func() { _ = recover() }() // a record after the end of the test
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

func dial(t *testing.T, endpoint string) criapi.RuntimeServiceClient {
	t.Helper()
	conn, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return criapi.NewRuntimeServiceClient(conn)
}

func TestStart(t *testing.T) {
	cfg := testConfig(t)
	began := time.Now()
	in, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Stop()
	fmt.Println("first start", time.Since(began))
	rt := dial(t, in.Endpoint())
	version, err := rt.Version(context.Background(), &criapi.VersionRequest{})
	fmt.Println(version, err)
	st, err := rt.Status(context.Background(), &criapi.StatusRequest{})
	fmt.Println(st, err)
	began = time.Now()
	sb, err := rt.RunPodSandbox(t.Context(), &criapi.RunPodSandboxRequest{Config: &criapi.PodSandboxConfig{
		Metadata: &criapi.PodSandboxMetadata{Name: "p", Namespace: "n", Uid: "u"},
		Linux: &criapi.LinuxPodSandboxConfig{CgroupParent: "/ctdtest", SecurityContext: &criapi.LinuxSandboxSecurityContext{
			NamespaceOptions: &criapi.NamespaceOption{Network: criapi.NamespaceMode_NODE}}}}})
	fmt.Println(sb, err, time.Since(began))
	if os.Getenv("HOLD") != "" {
		time.Sleep(60 * time.Second)
	}
	began = time.Now()
	_, err = rt.StopPodSandbox(t.Context(), &criapi.StopPodSandboxRequest{PodSandboxId: sb.GetPodSandboxId()})
	fmt.Println(err, time.Since(began))
	_, err = rt.RemovePodSandbox(t.Context(), &criapi.RemovePodSandboxRequest{PodSandboxId: sb.GetPodSandboxId()})
	fmt.Println(err, time.Since(began))
}
