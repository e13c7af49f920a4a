// Package conformance does what the conformance tests of Kubernetes demand of the API, by client-go and by plain requests. Pods
// need not run for it. It starts a cluster of its own, or uses the one that -kubeconfig names, of whatever implementation.
package conformance

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

var kubeconfig = flag.String("kubeconfig", "", "use this cluster instead of a new one")

// config and client are those of the cluster's administrator.
var (
	config *rest.Config
	client *kubernetes.Clientset
)

// patience bounds every wait.
const patience = 60 * time.Second

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) (code int) {
	path := *kubeconfig
	if path == "" {
		own, end, err := start()
		if err != nil {
			fmt.Fprintln(os.Stderr, "conformance:", err)
			return 1
		}
		defer func() {
			if err := end(); err != nil {
				fmt.Fprintln(os.Stderr, "conformance:", err)
				code = 1
			}
		}()
		path = own
	}
	var err error
	if config, err = clientcmd.BuildConfigFromFlags("", path); err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		return 1
	}
	config.QPS, config.WarningHandler = -1, rest.NoWarnings{}
	client = kubernetes.NewForConfigOrDie(config)
	return m.Run()
}

// start starts a cluster; end removes it.
func start() (kubeconfig string, end func() error, err error) {
	dir, err := os.MkdirTemp("", "proa-conformance-")
	if err != nil {
		return "", nil, err
	}
	proa := func(args ...string) ([]byte, error) {
		cmd := exec.Command(filepath.Join("..", "..", "..", "bin", "proa"), append(args, "--data-dir", dir, "--name", fmt.Sprintf("conformance-%d", os.Getpid()))...)
		cmd.Stderr = os.Stderr
		return cmd.Output()
	}
	end = func() error {
		_, err := proa("down")
		return err
	}
	out, err := proa("up", "--disable-agent", "--json")
	if err != nil {
		return "", nil, fmt.Errorf("starting a cluster: %w", err)
	}
	var up struct{ Kubeconfig string }
	if err := json.Unmarshal(out, &up); err != nil {
		return "", nil, fmt.Errorf("reading what proa up says: %w", err)
	}
	return up.Kubeconfig, end, nil
}

// namespace makes a namespace for the test, with its default service account; it goes with the test.
func namespace(t *testing.T) string {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "conformance-"}}
	ns, err := client.CoreV1().Namespaces().Create(t.Context(), ns, metav1.CreateOptions{})
	must(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := client.CoreV1().Namespaces().Delete(ctx, ns.Name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
		eventually(t, "the end of namespace "+ns.Name, func() error {
			left, err := client.CoreV1().Namespaces().Get(ctx, ns.Name, metav1.GetOptions{})
			if err == nil {
				return fmt.Errorf("%+v", left.Status)
			}
			return nil
		})
	})
	eventually(t, "the default service account", func() error {
		_, err := client.CoreV1().ServiceAccounts(ns.Name).Get(t.Context(), "default", metav1.GetOptions{})
		return err
	})
	return ns.Name
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually tries until a check has nothing to say.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("%s: %v", what, err)
			return
		}
		<-tick.C
	}
}

// expect takes the next events of a watch and compares them with "TYPE name" lines; bookmarks are left out.
func expect(t *testing.T, w watch.Interface, want ...string) {
	t.Helper()
	timeout := time.After(patience)
	for _, line := range want {
		select {
		case e, open := <-w.ResultChan():
			if !open {
				t.Fatalf("the watch ended before %q", line)
			}
			if e.Type == watch.Bookmark {
				continue
			}
			m, ok := e.Object.(metav1.Object)
			if !ok {
				t.Fatalf("got %s %+v, want %q", e.Type, e.Object, line)
			}
			if got := string(e.Type) + " " + m.GetName(); got != line {
				t.Fatalf("got %q, want %q", got, line)
			}
		case <-timeout:
			t.Fatalf("no event, want %q", line)
		}
	}
}

// errorSays checks the code and the text of an error.
func errorSays(t *testing.T, what string, err error, code int32, text string) {
	t.Helper()
	status, ok := err.(interface{ Status() metav1.Status })
	if !ok {
		t.Errorf("%s: got %v, want %d %s", what, err, code, text)
		return
	}
	if got := status.Status(); got.Code != code || !strings.Contains(got.Message, text) {
		t.Errorf("%s: got %d %q, want %d %q", what, got.Code, got.Message, code, text)
	}
}
