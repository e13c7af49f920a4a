package containerd_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/proa-k8s/proa/internal/containerd"
	"github.com/proa-k8s/proa/internal/containerd/containerdtest"
)

// rootVariable makes the test binary run containerd on the directories below it until it is killed.
const rootVariable = "TEST_CONTAINERD_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(rootVariable); dir != "" {
		serveForTest(dir)
	}
	os.Exit(m.Run())
}

// serveForTest prints the endpoint, or an error, once it is known, and runs until standard input ends.
func serveForTest(dir string) {
	cfg := configBelow(dir)
	cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	in, err := containerd.Start(context.Background(), cfg)
	if err != nil {
		os.Stdout.WriteString("error: " + err.Error() + "\n")
		os.Exit(1)
	}
	os.Stdout.WriteString(in.Endpoint() + "\n")
	_, _ = io.Copy(io.Discard, os.Stdin)
	in.Stop()
	os.Exit(0)
}

func configBelow(dir string) containerd.Config {
	return containerd.Config{Root: filepath.Join(dir, "root"), State: filepath.Join(dir, "run")}
}

// node is a containerd in a process of its own, so that it can be killed and started again.
type node struct {
	t        testing.TB
	dir      string
	cmd      *exec.Cmd
	stdin    io.Closer
	log      *lockedBuffer
	runtime  criapi.RuntimeServiceClient
	endpoint string
	// isolated has the process run in a network namespace of its own, so that bridges of pods are made there.
	isolated bool
}

type lockedBuffer struct {
	sync.Mutex
	strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.Lock()
	defer b.Unlock()
	return b.Builder.Write(p)
}

// newNode starts containerd below a new directory with a short path; after the test everything of it is gone, or the
// test fails.
func newNode(t testing.TB) *node { return startNode(t, false) }

func startNode(t testing.TB, isolated bool) *node {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("containers need root")
	}
	dir, err := os.MkdirTemp("/tmp", "ctd")
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, dir: dir, log: new(lockedBuffer), isolated: isolated}
	t.Cleanup(func() {
		n.kill()
		containerdtest.Clean(t, configBelow(dir), dir, n.cgroup())
		if t.Failed() {
			t.Log(n.log.String())
		}
	})
	n.start()
	return n
}

// cgroup is the parent of the cgroups of this node's pods.
func (n *node) cgroup() string { return "/" + filepath.Base(n.dir) }

func (n *node) start() {
	n.t.Helper()
	n.cmd = exec.Command(os.Args[0])
	n.cmd.Env = append(os.Environ(), rootVariable+"="+n.dir)
	n.cmd.Stderr = n.log
	if n.isolated {
		n.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	}
	stdin, err := n.cmd.StdinPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	n.stdin = stdin
	stdout, err := n.cmd.StdoutPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	if err := n.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || strings.HasPrefix(line, "error") {
		n.t.Fatalf("containerd did not start: %s %v\n%s", line, err, n.log.String())
	}
	n.endpoint = strings.TrimSpace(line)
	conn, err := grpc.NewClient(n.endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { conn.Close() })
	n.runtime = criapi.NewRuntimeServiceClient(conn)
}

// kill ends the process as kill -9 does.
func (n *node) kill() {
	_ = n.cmd.Process.Kill()
	_ = n.cmd.Wait()
}

// sandbox starts a pod sandbox: in a network of its own on an isolated node, in the host's otherwise.
func (n *node) sandbox(name string) (id string, config *criapi.PodSandboxConfig) {
	n.t.Helper()
	config = n.sandboxConfig(name)
	if !n.isolated {
		config.Linux.SecurityContext = &criapi.LinuxSandboxSecurityContext{NamespaceOptions: &criapi.NamespaceOption{
			Network: criapi.NamespaceMode_NODE,
			Pid:     criapi.NamespaceMode_CONTAINER,
		}}
	}
	response, err := n.runtime.RunPodSandbox(n.t.Context(), &criapi.RunPodSandboxRequest{Config: config})
	if err != nil {
		n.t.Fatal(err)
	}
	return response.PodSandboxId, config
}

func (n *node) sandboxConfig(name string) *criapi.PodSandboxConfig {
	return &criapi.PodSandboxConfig{
		Metadata:     &criapi.PodSandboxMetadata{Name: name, Namespace: "default", Uid: name},
		LogDirectory: filepath.Join(n.dir, "logs"),
		Linux: &criapi.LinuxPodSandboxConfig{
			CgroupParent: n.cgroup(),
		},
	}
}

// run creates and starts a container.
func (n *node) run(sandbox string, config *criapi.PodSandboxConfig, name, image string, command ...string) string {
	n.t.Helper()
	created, err := n.runtime.CreateContainer(n.t.Context(), &criapi.CreateContainerRequest{
		PodSandboxId:  sandbox,
		SandboxConfig: config,
		Config: &criapi.ContainerConfig{
			Metadata: &criapi.ContainerMetadata{Name: name},
			Image:    &criapi.ImageSpec{Image: image},
			Command:  command,
			LogPath:  name + ".log",
			Linux:    &criapi.LinuxContainerConfig{Resources: &criapi.LinuxContainerResources{OomScoreAdj: -998}},
		},
	})
	if err != nil {
		n.t.Fatal(err)
	}
	if _, err := n.runtime.StartContainer(n.t.Context(), &criapi.StartContainerRequest{ContainerId: created.ContainerId}); err != nil {
		n.t.Fatal(err)
	}
	return created.ContainerId
}

func (n *node) status(container string) *criapi.ContainerStatus {
	n.t.Helper()
	response, err := n.runtime.ContainerStatus(n.t.Context(), &criapi.ContainerStatusRequest{ContainerId: container})
	if err != nil {
		n.t.Fatal(err)
	}
	return response.Status
}

// waitFor waits for a condition that another process brings about.
func waitFor(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// TestContainersSurviveKill runs a container, kills containerd with SIGKILL, starts it again and finds the container
// running as if nothing had been; events go on, exec works, and its exit is noticed.
func TestContainersSurviveKill(t *testing.T) {
	n := newNode(t)
	containerdtest.Load(t, n.endpoint, "busybox")
	sandbox, config := n.sandbox("p")
	container := n.run(sandbox, config, "c", "busybox:1.36", "sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.05; done")
	before := n.status(container)
	if before.State != criapi.ContainerState_CONTAINER_RUNNING {
		t.Fatalf("container is %v", before)
	}

	n.kill()
	n.start()

	after := n.status(container)
	if after.State != criapi.ContainerState_CONTAINER_RUNNING || after.StartedAt != before.StartedAt {
		t.Fatalf("before the kill %v, after the restart %v", before, after)
	}
	stream, err := n.runtime.GetContainerEvents(t.Context(), &criapi.GetEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	out, err := n.runtime.ExecSync(t.Context(), &criapi.ExecSyncRequest{
		ContainerId: container, Cmd: []string{"echo", "still here"}, Timeout: 10})
	if err != nil || string(out.GetStdout()) != "still here\n" {
		t.Fatalf("exec after the restart: %v, %v", out, err)
	}
	if _, err := n.runtime.StopContainer(t.Context(), &criapi.StopContainerRequest{ContainerId: container, Timeout: 10}); err != nil {
		t.Fatal(err)
	}
	if got := n.status(container); got.ExitCode != 7 {
		t.Errorf("exit code %d after SIGTERM, want 7", got.ExitCode)
	}
	for {
		event, err := stream.Recv()
		if err != nil {
			t.Fatalf("waiting for the event of the container's end: %v", err)
		}
		if event.ContainerId == container && event.ContainerEventType == criapi.ContainerEventType_CONTAINER_STOPPED_EVENT {
			break
		}
	}
	if log := n.log.String(); strings.Contains(log, "level=ERROR") || strings.Contains(log, "epoll") {
		t.Errorf("errors in the log:\n%s", log)
	}
}

// TestPurge leaves no process, mount or socket of a node that was killed with containers running.
func TestPurge(t *testing.T) {
	n := newNode(t)
	containerdtest.Load(t, n.endpoint, "busybox")
	sandbox, config := n.sandbox("p")
	// A grandchild in a session of its own is what escapes most easily.
	container := n.run(sandbox, config, "c", "busybox:1.36", "sh", "-c", "setsid sleep 1000 & sleep 1000")
	waitFor(t, "the processes of the container", func() bool {
		out, err := n.runtime.ExecSync(t.Context(), &criapi.ExecSyncRequest{ContainerId: container, Cmd: []string{"pidof", "sleep"}})
		return err == nil && len(strings.Fields(string(out.Stdout))) == 2
	})

	if err := containerd.Purge(t.Context(), configBelow(n.dir)); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Fatalf("purging what runs: %v, want EWOULDBLOCK", err)
	}
	n.kill()
	if err := containerd.Purge(t.Context(), configBelow(n.dir)); err != nil {
		t.Fatal(err)
	}
	left, err := containerd.Shims(filepath.Join(n.dir, "root", "bin"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), n.dir) {
		t.Errorf("mounts were left behind:\n%s", mounts)
	}
	if _, err := os.Stat(filepath.Join(n.dir, "run")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the state directory is still there: %v", err)
	}
	if err := containerd.Purge(t.Context(), configBelow(n.dir)); err != nil {
		t.Errorf("purging once more: %v", err)
	}
}

// TestSecondInstance is refused, in this process and in another.
func TestSecondInstance(t *testing.T) {
	n := newNode(t)
	if _, err := containerd.Start(t.Context(), configBelow(n.dir)); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("a second containerd on the same root: %v, want EWOULDBLOCK", err)
	}
}

// TestStop ends in order: the socket answers no more, and another process can take over.
func TestStop(t *testing.T) {
	n := newNode(t)
	n.stdin.Close()
	if err := n.cmd.Wait(); err != nil {
		t.Fatalf("containerd did not end well: %v\n%s", err, n.log.String())
	}
	n.start()
	if _, err := n.runtime.Version(t.Context(), &criapi.VersionRequest{}); err != nil {
		t.Error(err)
	}
	if log := n.log.String(); log != "" {
		t.Errorf("an idle start and stop should say nothing:\n%s", log)
	}
}
