package kubelet_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/proa-k8s/proa/internal/api/catalogue"
	"github.com/proa-k8s/proa/internal/apiserver"
	"github.com/proa-k8s/proa/internal/containerd"
	"github.com/proa-k8s/proa/internal/containerd/images"
	"github.com/proa-k8s/proa/internal/kubelet"
	"github.com/proa-k8s/proa/internal/store"
	"github.com/proa-k8s/proa/internal/store/etcd"
	"github.com/proa-k8s/proa/test/images/catalog"
)

// isolatedVariable is set in the process that runs the tests: one in a network namespace of its own, so that bridges and
// addresses of pods exist nowhere else.
const isolatedVariable = "TEST_KUBELET_ISOLATED"

func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		fmt.Println("skipped: containers need root")
		return
	}
	if os.Getenv(isolatedVariable) == "" {
		cmd := exec.Command(os.Args[0], os.Args[1:]...)
		cmd.Env = append(os.Environ(), isolatedVariable+"=1")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
		err := cmd.Run()
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			os.Exit(exit.ExitCode())
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	code, err := runIsolated(m)
	if err != nil {
		fmt.Println(err)
		code = 1
	}
	os.Exit(code)
}

// machine is what the tests share: one node with its runtime, and one API server.
var machine *env

type env struct {
	dir     string
	runtime *containerd.Instance
	config  containerd.Config
	client  kubernetes.Interface
	logger  *slog.Logger
	closers []func()

	agent  *kubelet.Kubelet
	cancel context.CancelFunc
	ended  chan error
}

func runIsolated(m *testing.M) (code int, err error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return 1, err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return 1, err
	}
	dir, err := os.MkdirTemp("/tmp", "kub")
	if err != nil {
		return 1, err
	}
	e := &env{dir: dir}
	level := slog.LevelError
	if os.Getenv("TEST_KUBELET_LOG") != "" {
		level = slog.LevelDebug
	}
	e.logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	machine = e
	defer func() { err = errors.Join(err, e.close()) }()
	if err := e.open(); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

func (e *env) open() error {
	ctx := context.Background()
	e.config = containerd.Config{Root: filepath.Join(e.dir, "root"), State: filepath.Join(e.dir, "run"), Log: e.logger}
	conf := filepath.Join(e.config.State, "cni")
	if err := os.MkdirAll(conf, 0o755); err != nil {
		return err
	}
	list := fmt.Sprintf(`{"cniVersion":"1.0.0","name":"test","plugins":[
		{"type":"bridge","bridge":"testpods0","isDefaultGateway":true,"hairpinMode":true,
		 "ipam":{"type":"host-local","dataDir":%q,"ranges":[[{"subnet":"10.99.0.0/24"}]]}},
		{"type":"portmap","capabilities":{"portMappings":true}}]}`, filepath.Join(e.dir, "ipam"))
	if err := os.WriteFile(filepath.Join(conf, "10-test.conflist"), []byte(list), 0o644); err != nil {
		return err
	}
	var err error
	if e.runtime, err = containerd.Start(ctx, e.config); err != nil {
		return err
	}
	var archive bytes.Buffer
	if err := catalog.Write("busybox", &archive); err != nil {
		return err
	}
	if _, err := images.Load(ctx, e.runtime.Address(), &archive, nil); err != nil {
		return err
	}
	return e.serve(ctx)
}

// serve runs an API server that trusts everyone: what it allows is tested elsewhere.
func (e *env) serve(ctx context.Context) error {
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	db, err := etcd.Start(ctx, etcd.Config{Dir: filepath.Join(e.dir, "etcd"), Logger: quiet, UnsafeNoFsync: true})
	if err != nil {
		return err
	}
	e.closers = append(e.closers, func() { db.Close() })
	st, err := store.Open(ctx, db.Client(), store.Options{Logger: quiet, Rev: db.Rev, CompactEvery: -1})
	if err != nil {
		return err
	}
	e.closers = append(e.closers, func() { st.Close() })
	everyone := authenticator.RequestFunc(func(*http.Request) (*authenticator.Response, bool, error) {
		return &authenticator.Response{User: &user.DefaultInfo{Name: "admin", Groups: []string{user.SystemPrivilegedGroup}}}, true, nil
	})
	allowed := authorizer.AuthorizerFunc(func(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
		return authorizer.DecisionAllow, "", nil
	})
	server, err := apiserver.New(apiserver.Config{
		Store: st, Resources: catalogue.Builtin(), Authenticator: everyone, Authorizer: allowed,
		Logger: quiet, Registerer: prometheus.NewRegistry(), Version: version.Info{Major: "1", Minor: "37", GitVersion: "v1.37.2"},
		Creaters: map[string]apiserver.CreateFunc{"serviceaccounts/token": issueToken},
	})
	if err != nil {
		return err
	}
	web := httptest.NewUnstartedServer(server)
	web.EnableHTTP2 = true
	web.StartTLS()
	e.closers = append(e.closers, func() { server.Close(); web.CloseClientConnections(); web.Close() })
	for _, r := range catalogue.Builtin() {
		if r.Prefix != "" {
			if err := st.Cache(r.Prefix).WaitReady(ctx); err != nil {
				return err
			}
		}
	}
	e.client, err = kubernetes.NewForConfig(&rest.Config{
		Host: web.URL, QPS: -1, TLSClientConfig: rest.TLSClientConfig{Insecure: true},
		ContentConfig: rest.ContentConfig{
			ContentType: "application/vnd.kubernetes.protobuf", AcceptContentTypes: "application/vnd.kubernetes.protobuf,application/json",
		},
	})
	if err != nil {
		return err
	}
	for _, name := range []string{"default", "kube-system", "kube-node-lease"} {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if _, err := e.client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	return nil
}

// issueToken answers token requests with a token that says what was asked for.
func issueToken(_ context.Context, namespace, name string, o runtime.Object, _ *metav1.CreateOptions) (runtime.Object, error) {
	r := o.(*authenticationv1.TokenRequest).DeepCopy()
	pod := ""
	if r.Spec.BoundObjectRef != nil {
		pod = r.Spec.BoundObjectRef.Name
	}
	r.Status.Token = fmt.Sprintf("token of %s/%s for %s", namespace, name, pod)
	r.Status.ExpirationTimestamp = metav1.NewTime(time.Now().Add(time.Hour))
	return r, nil
}

// startAgent runs a kubelet.
func (e *env) startAgent() error {
	var err error
	e.agent, err = kubelet.New(kubelet.Config{
		NodeName: "node-1", Version: "v1.37.2", NodeIPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, Client: e.client,
		RuntimeEndpoint: e.runtime.Endpoint(), RootDir: filepath.Join(e.dir, "kubelet"), LogDir: filepath.Join(e.dir, "logs"),
		StaticPodDir: filepath.Join(e.dir, "static"), CgroupRoot: "/" + filepath.Base(e.dir),
		ClusterDNS: []string{"10.96.0.10"}, Log: e.logger,
		// The machine that tests run on may be short of anything.
		EvictionHard: map[string]string{"memory.available": "1Mi"},
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	e.cancel, e.ended = cancel, make(chan error, 1)
	go func() { e.ended <- e.agent.Run(ctx) }()
	return nil
}

func (e *env) stopAgent() error {
	if e.agent == nil {
		return nil
	}
	e.cancel()
	e.agent = nil
	select {
	case err := <-e.ended:
		return err
	case <-time.After(20 * time.Second):
		return errors.New("the kubelet did not stop")
	}
}

func (e *env) close() error {
	err := e.stopAgent()
	for i := len(e.closers) - 1; i >= 0; i-- {
		e.closers[i]()
	}
	if e.runtime != nil {
		e.runtime.Stop()
		err = errors.Join(err, containerd.Purge(context.Background(), e.config))
	}
	return errors.Join(err, e.removeTraces())
}

// removeTraces removes the tests' directory and cgroups, and complains about what should not be there any more.
func (e *env) removeTraces() error {
	var errs []error
	left := map[string]bool{} // each once, not for each hierarchy
	hierarchies, err := filepath.Glob("/sys/fs/cgroup/*/" + filepath.Base(e.dir))
	errs = append(errs, err)
	for _, h := range append(hierarchies, filepath.Join("/sys/fs/cgroup", filepath.Base(e.dir))) {
		err := filepath.WalkDir(h, func(_ string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() && strings.HasPrefix(d.Name(), "pod") {
				left[d.Name()] = true
			}
			return nil
		})
		errs = append(errs, err)
		if len(left) > 0 {
			continue
		}
		for _, sub := range []string{"kubepods/burstable", "kubepods/besteffort", "kubepods", ""} {
			if err := os.Remove(filepath.Join(h, sub)); err != nil && !os.IsNotExist(err) {
				errs = append(errs, err)
			}
		}
	}
	for name := range left {
		errs = append(errs, fmt.Errorf("the cgroup of %s was left behind", name))
	}
	if pods, err := os.ReadDir(filepath.Join(e.dir, "kubelet", "pods")); err == nil && len(pods) > 0 {
		errs = append(errs, fmt.Errorf("%d directories of pods were left behind", len(pods)))
	}
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(e.dir))
	errs = append(errs, err)
	for i := len(mounts) - 1; i >= 0; i-- {
		errs = append(errs, fmt.Errorf("the mount %s was left behind", mounts[i].Mountpoint), unix.Unmount(mounts[i].Mountpoint, unix.MNT_DETACH))
	}
	return errors.Join(append(errs, os.RemoveAll(e.dir))...)
}
