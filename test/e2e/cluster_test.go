// Package e2e runs the users' stories on real clusters, with real containers, and drives them as users do: with kubectl.
//
// The stock kubectl is used when there is one on the PATH, else the one that is part of proa.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/proa-k8s/proa/internal/cluster"
)

// Flags of the tests: slow machines want patience, and only a machine of the tests' own may be exhausted.
var (
	patience = 90 * time.Second // bounds every wait
	exhaust  bool
)

// inTime is the flag of kubectl that makes it wait as long as the tests do.
func inTime() string { return "--timeout=" + patience.String() }

// testCluster is a cluster of Proa's that runs for the tests.
type testCluster struct {
	name, dir, proa string
	server          string // URL of the API
	kubeconfig      string
	phases          map[string]float64
	slot            cluster.Slot
	config          *rest.Config
	client          *kubernetes.Clientset
}

// shared is the cluster that all tests use that need none of their own. Each works in a namespace of its own.
var shared *testCluster

func TestMain(m *testing.M) {
	flag.DurationVar(&patience, "patience", patience, "how long to wait for anything")
	flag.BoolVar(&exhaust, "exhaust", false, "run the tests that use up the machine's memory")
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) (code int) {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "e2e: must run as root")
		return 1
	}
	c, err := start(context.Background(), "e2e")
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	defer func() {
		if code != 0 {
			c.showLog()
		}
		if err := c.remove(); err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
			code = 1
		}
	}()
	if err := c.loadImages(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	shared = c
	return m.Run()
}

// root is the top of the repository.
func root() string {
	dir, err := filepath.Abs("../..")
	if err != nil {
		panic(err)
	}
	return dir
}

// start starts a cluster with empty data.
func start(ctx context.Context, name string, flags ...string) (*testCluster, error) {
	dir, err := os.MkdirTemp("", "proa-"+name+"-")
	if err != nil {
		return nil, err
	}
	c := &testCluster{name: fmt.Sprintf("%s-%d", name, os.Getpid()), dir: dir, proa: filepath.Join(root(), "bin", "proa")}
	if err := c.up(ctx, flags...); err != nil {
		return nil, errors.Join(err, c.remove())
	}
	return c, nil
}

func (c *testCluster) up(ctx context.Context, flags ...string) error {
	// No name is asked of servers outside.
	resolvConf := filepath.Join(c.dir, "resolv.conf")
	if err := os.WriteFile(resolvConf, nil, 0o644); err != nil {
		return err
	}
	// What is left on the disk of the machine is no business of the tests.
	out, err := c.command(ctx, append([]string{"up", "--json", inTime(), "--resolv-conf", resolvConf,
		"--eviction-hard", "memory.available<50Mi", "--image-gc-high-threshold", "100"}, flags...)...)
	if err != nil {
		c.showLog()
		return err
	}
	var result struct {
		Kubeconfig, Server string
		Phases             []struct {
			Name         string
			Milliseconds float64
		}
	}
	if err := json.Unmarshal([]byte(out), &result); err != nil {
		return err
	}
	c.kubeconfig, c.server, c.phases = result.Kubeconfig, result.Server, map[string]float64{}
	for _, p := range result.Phases {
		c.phases[p.Name] = p.Milliseconds
	}
	slot, err := os.ReadFile(filepath.Join(c.dir, "slot"))
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(slot)))
	if err != nil {
		return err
	}
	c.slot = cluster.Slot(n)
	return c.connect()
}

// command runs a command of proa for this cluster.
func (c *testCluster) command(ctx context.Context, args ...string) (string, error) {
	return output(exec.CommandContext(ctx, c.proa, append(args, "--name", c.name, "--data-dir", c.dir)...))
}

func output(cmd *exec.Cmd) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// images are what the tests run. All must be there: a node would look for a missing one at a registry.
var images = []string{"agnhost", "busybox", "centos", "hello", "nginx", "simpleservice", "tomcat"}

func (c *testCluster) loadImages() error {
	command := []string{"image", "load"}
	for _, name := range images {
		archive := filepath.Join(root(), "build", "images", name+".tar")
		if _, err := os.Stat(archive); err != nil {
			return fmt.Errorf("image %s was not built, run 'make e2e': %w", name, err)
		}
		command = append(command, archive)
	}
	_, err := c.command(context.Background(), command...)
	return err
}

// remove ends the cluster, and fails when a trace of it is left.
func (c *testCluster) remove() error {
	if _, err := c.command(context.Background(), "down"); err != nil {
		return err
	}
	return c.traces()
}

// traces looks for what proa down must have removed.
func (c *testCluster) traces() error {
	var found []string
	for path, what := range map[string]string{"/proc/self/mountinfo": "mount"} {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(data)) {
			if strings.Contains(line, c.dir+"/") || strings.Contains(line, "/run/proa/"+c.name+"/") {
				found = append(found, what+" "+strings.TrimSpace(line))
			}
		}
	}
	for _, dir := range []string{c.dir, "/run/proa/" + c.name} {
		if _, err := os.Stat(dir); err == nil {
			found = append(found, dir)
		}
	}
	for _, pattern := range []string{"/sys/fs/cgroup/*/proa-" + c.name, "/sys/fs/cgroup/proa-" + c.name} {
		dirs, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		found = append(found, dirs...)
	}
	exes, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	for _, path := range exes {
		data, err := os.ReadFile(path)
		if err == nil && bytes.Contains(data, []byte(c.dir+"/")) {
			found = append(found, "process "+string(bytes.ReplaceAll(data, []byte{0}, []byte{' '})))
		}
	}
	global, err := c.globals()
	if err != nil {
		return err
	}
	found = append(found, global...)
	if len(found) > 0 {
		return fmt.Errorf("proa down left:\n%s", strings.Join(found, "\n"))
	}
	return nil
}

// globals looks for links and nftables tables of the cluster.
func (c *testCluster) globals() ([]string, error) {
	layout, err := cluster.NewLayout(c.name, c.dir)
	if err != nil {
		return nil, err
	}
	var found []string
	links, err := netlink.LinkList()
	if err != nil {
		return nil, err
	}
	for _, link := range links {
		if link.Attrs().Name == layout.Bridge() {
			found = append(found, "link "+link.Attrs().Name)
		}
	}
	conn, err := nftables.New()
	if err != nil {
		return nil, err
	}
	tables, err := conn.ListTables()
	if err != nil {
		return nil, err
	}
	for _, table := range tables {
		if table.Name == layout.NftTable() || table.Name == layout.NodeTable() {
			found = append(found, "table "+table.Name)
		}
	}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Type: unix.RTN_UNREACHABLE}, netlink.RT_FILTER_TYPE)
	if err != nil {
		return nil, err
	}
	for _, route := range routes {
		if route.Dst != nil && route.Dst.String() == c.podRange() {
			found = append(found, "route "+route.String())
		}
	}
	return found, nil
}

// podRange is the range of the cluster's pods, which its slot decides.
func (c *testCluster) podRange() string { return c.slot.ClusterCIDR() }

func (c *testCluster) showLog() {
	data, err := os.ReadFile(filepath.Join(c.dir, "log", "proa.log"))
	if err != nil {
		return
	}
	lines := bytes.Split(data, []byte("\n"))
	from := max(0, len(lines)-60)
	for i, line := range lines { // a crash begins with its reason, and ends with thousands of lines
		if bytes.HasPrefix(line, []byte("panic:")) || bytes.HasPrefix(line, []byte("fatal error:")) || bytes.HasPrefix(line, []byte("SIG")) || bytes.HasPrefix(line, []byte("runtime:")) {
			from = i
			break
		}
	}
	lines = lines[from:min(len(lines), from+60)]
	fmt.Fprintf(os.Stderr, "--- of the log of %s\n%s\n---\n", c.name, bytes.Join(lines, []byte("\n")))
}

// kubectlCmd makes a command of kubectl for this cluster.
func (c *testCluster) kubectlCmd(ctx context.Context, args ...string) *exec.Cmd {
	if path, err := exec.LookPath("kubectl"); err == nil {
		cmd := exec.CommandContext(ctx, path, args...)
		cmd.Env = append(os.Environ(), "KUBECONFIG="+c.kubeconfig)
		return cmd
	}
	cmd := exec.CommandContext(ctx, c.proa, append([]string{"kubectl", "--name", c.name, "--data-dir", c.dir}, args...)...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.kubeconfig)
	return cmd
}

// session is a namespace of a test, and kubectl in it.
type session struct {
	*testCluster
	t         *testing.T
	namespace string
	env       []string // of kubectl, beside this process's own
}

// in makes a namespace for the test, which goes with the test.
func (c *testCluster) in(t *testing.T) *session {
	t.Helper()
	name := strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name()))
	s := &session{testCluster: c, t: t, namespace: name}
	namespaces, accounts := c.client.CoreV1().Namespaces(), c.client.CoreV1().ServiceAccounts(name)
	_, err := namespaces.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			s.show()
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := namespaces.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
			t.Errorf("deleting namespace %s: %v", name, err)
		}
		eventually(t, "the end of namespace "+name, func() error {
			left, err := namespaces.Get(ctx, name, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				return nil
			}
			return fmt.Errorf("%+v, %w", left.Status, err)
		})
	})
	eventually(t, "the service account of pods", func() error {
		_, err := accounts.Get(t.Context(), "default", metav1.GetOptions{})
		return err
	})
	return s
}

// show prints what helps to see why a test failed.
func (s *session) show() {
	for _, args := range [][]string{{"get", "all", "-o", "wide"}, {"get", "events"}, {"describe", "pods"}} {
		out, err := s.try(args...)
		s.t.Logf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// try runs kubectl in the session's namespace, and returns what it prints to both outputs.
func (s *session) try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience+10*time.Second) // kubectl says more about what it waited for
	defer cancel()
	cmd := s.kubectlCmd(ctx, append([]string{"-n", s.namespace}, args...)...)
	cmd.Env = append(cmd.Env, s.env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// kubectl runs kubectl, which must succeed, and returns its output.
func (s *session) kubectl(args ...string) string {
	s.t.Helper()
	out, err := s.try(args...)
	if err != nil {
		s.t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// fails runs kubectl, which must fail with a message.
func (s *session) fails(message string, args ...string) {
	s.t.Helper()
	out, err := s.try(args...)
	if err == nil {
		s.t.Errorf("kubectl %s succeeded: %s", strings.Join(args, " "), out)
		return
	}
	if !strings.Contains(out, message) {
		s.t.Errorf("kubectl %s: got\n%s\nwant a message with\n%s", strings.Join(args, " "), out, message)
	}
}

// apply applies a manifest that is given as text.
func (s *session) apply(manifest string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := s.kubectlCmd(ctx, append(append([]string{"-n", s.namespace}, args...), "-f", "-")...)
	cmd.Stdin = strings.NewReader(manifest)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// mustApply applies a manifest that is given as text.
func (s *session) mustApply(manifest string) {
	s.t.Helper()
	if out, err := s.apply(manifest, "apply"); err != nil {
		s.t.Fatalf("kubectl apply: %v\n%s", err, out)
	}
}

// eventually tries until a check has nothing to say. It is for what kubectl can't wait for.
func (s *session) eventually(what string, check func() error) {
	s.t.Helper()
	eventually(s.t, what, check)
}

func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		<-tick.C
	}
}

// story is the path of a story's manifest.
func story(name string) string { return filepath.Join("testdata", "stories", name) }

// killServer ends the cluster's process without warning, and waits until it is gone.
func (c *testCluster) killServer(t *testing.T) {
	t.Helper()
	out, err := c.command(t.Context(), "status", "--json")
	if err != nil {
		t.Fatal(err)
	}
	var status struct{ PID int }
	if err := json.Unmarshal([]byte(out), &status); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(status.PID, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		t.Fatal(err)
	}
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(patience.Milliseconds()))
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			t.Fatalf("waiting for the end of process %d: %d, %v", status.PID, n, err)
		}
		return
	}
}
