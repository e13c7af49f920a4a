package server

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/proa-k8s/proa/internal/containerd/containerdtest"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apitypes "k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/client-go/util/exec"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	"k8s.io/kubelet/pkg/types"
)

// machine is a node with a pod of one container, and a server.
type machine struct {
	*testing.T
	runtime criapi.RuntimeServiceClient
	pod     *corev1.Pod
	sandbox string
	config  *criapi.PodSandboxConfig
	base    string
	client  *http.Client
	rest    *rest.Config
	logDir  string
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	node := containerdtest.Start(t)
	containerdtest.Load(t, node.Address(), "busybox")
	m := &machine{T: t, runtime: node.Runtime, logDir: filepath.Join(node.Dir, "pods")}
	m.pod = &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p", UID: apitypes.UID("uid-1")},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}, {Name: "waiting"}, {Name: "writer"}}},
		Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{
			{Name: "waiting", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff"}}}}},
	}
	m.config = &criapi.PodSandboxConfig{
		Metadata:     &criapi.PodSandboxMetadata{Name: "p", Namespace: "default", Uid: "uid-1"},
		Labels:       m.labels(""),
		LogDirectory: filepath.Join(m.logDir, "default_p_uid-1"),
		Linux: &criapi.LinuxPodSandboxConfig{CgroupParent: node.Cgroup, SecurityContext: &criapi.LinuxSandboxSecurityContext{
			NamespaceOptions: &criapi.NamespaceOption{Network: criapi.NamespaceMode_NODE}}},
	}
	sandbox, err := m.runtime.RunPodSandbox(t.Context(), &criapi.RunPodSandboxRequest{Config: m.config})
	if err != nil {
		t.Fatal(err)
	}
	m.sandbox = sandbox.PodSandboxId

	a := newAuthority(t)
	r := &reviews{allow: map[string][]string{"apiserver": {"*"}}}
	m.base = serve(t, a, func(c *Config) {
		c.Client = r.client()
		c.Runtime, c.Images = node.Runtime, node.Images
		c.Pods = func() []*corev1.Pod { return []*corev1.Pod{m.pod} }
		c.Pod = func(ns, name string) *corev1.Pod {
			if ns == m.pod.Namespace && name == m.pod.Name {
				return m.pod
			}
			return nil
		}
		c.PodLogDir, c.SystemLogDir, c.RootDir = m.logDir, node.Dir, node.Dir
	})
	cert := a.issue("apiserver")
	m.client = a.httpClient(cert)
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	m.rest = &rest.Config{Host: m.base, TLSClientConfig: rest.TLSClientConfig{
		CAData:   a.pem,
		CertData: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}),
		KeyData:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
	}}
	return m
}

func (m *machine) labels(container string) map[string]string {
	return map[string]string{
		types.KubernetesPodUIDLabel:        string(m.pod.UID),
		types.KubernetesPodNameLabel:       m.pod.Name,
		types.KubernetesPodNamespaceLabel:  m.pod.Namespace,
		types.KubernetesContainerNameLabel: container,
	}
}

// start runs a container of the pod.
func (m *machine) start(name string, attempt uint32, stdin bool, command ...string) string {
	m.Helper()
	dir := filepath.Join(m.config.LogDirectory, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		m.Fatal(err)
	}
	created, err := m.runtime.CreateContainer(m.Context(), &criapi.CreateContainerRequest{
		PodSandboxId: m.sandbox, SandboxConfig: m.config,
		Config: &criapi.ContainerConfig{
			Metadata: &criapi.ContainerMetadata{Name: name, Attempt: attempt},
			Image:    &criapi.ImageSpec{Image: "busybox:1.36"},
			Command:  command,
			Labels:   m.labels(name),
			Stdin:    stdin,
			LogPath:  fmt.Sprintf("%s/%d.log", name, attempt),
			Linux:    &criapi.LinuxContainerConfig{},
		},
	})
	if err != nil {
		m.Fatal(err)
	}
	if _, err := m.runtime.StartContainer(m.Context(), &criapi.StartContainerRequest{ContainerId: created.ContainerId}); err != nil {
		m.Fatal(err)
	}
	return created.ContainerId
}

// until waits for a condition that other processes bring about.
func (m *machine) until(what string, condition func() bool) {
	m.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			m.Fatalf("waited in vain for %s", what)
		}
	}
}

// remoteCommand runs exec or attach over the given protocol.
func (m *machine) remoteCommand(protocol, path string, query url.Values, o remotecommand.StreamOptions) error {
	target, err := url.Parse(m.base + path)
	if err != nil {
		return err
	}
	target.RawQuery = query.Encode()
	var executor remotecommand.Executor
	if protocol == "spdy" {
		executor, err = remotecommand.NewSPDYExecutor(m.rest, http.MethodPost, target)
	} else {
		executor, err = remotecommand.NewWebSocketExecutor(m.rest, http.MethodGet, target.String())
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(m.Context(), 30*time.Second)
	defer cancel()
	return executor.StreamWithContext(ctx, o)
}

// TestMachine talks to real containers through the server as kubectl does.
func TestMachine(t *testing.T) {
	m := newMachine(t)
	main := m.start("c", 0, true, "sh", "-c", "echo started; echo oops >&2; while read line; do echo got $line; done; sleep 1000")
	logs := m.base + "/containerLogs/default/p/"

	t.Run("logs", func(t *testing.T) {
		m.until("the log", func() bool {
			_, body := get(t, m.client, logs+"c", "")
			return strings.Contains(body, "started\n") && strings.Contains(body, "oops\n")
		})
		tests := []struct {
			path, body string
			code       int
		}{
			{"c?stream=Stdout", "started\n", 200},
			{"c?stream=Stderr", "oops\n", 200},
			{"c?tailLines=0", "", 200},
			{"c?limitBytes=3&stream=Stdout", "sta", 200},
			{"c?sinceTime=2100-01-01T00:00:00Z", "", 200},
			{"c?previous=true", `previous terminated container "c" in pod "p" not found`, 400},
			{"waiting", `container "waiting" in pod "p" is waiting to start: image can't be pulled`, 400},
			{"nonsense", `container "nonsense" not found in pod "p"`, 404},
		}
		for _, test := range tests {
			if code, body := get(t, m.client, logs+test.path, ""); code != test.code || strings.TrimSuffix(body, "\n") != strings.TrimSuffix(test.body, "\n") {
				t.Errorf("%s: got %d %q, want %d %q", test.path, code, body, test.code, test.body)
			}
		}
	})

	t.Run("follow and previous", func(t *testing.T) {
		first := m.start("writer", 0, false, "sh", "-c", "echo one; sleep 0.3; echo two")
		response, err := m.client.Get(logs + "writer?follow=true&timestamps=true")
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		lines := bufio.NewScanner(response.Body)
		for _, want := range []string{"one", "two"} {
			if !lines.Scan() {
				t.Fatal("the log ended before", want)
			}
			stamp, text, _ := strings.Cut(lines.Text(), " ")
			if _, err := time.Parse(time.RFC3339Nano, stamp); err != nil || text != want {
				t.Errorf("got %q, want %s", lines.Text(), want)
			}
		}
		if lines.Scan() {
			t.Errorf("then came %q", lines.Text())
		}
		m.start("writer", 1, false, "sh", "-c", "echo three; sleep 1000")
		m.pod.Status.ContainerStatuses = append(m.pod.Status.ContainerStatuses, corev1.ContainerStatus{
			Name: "writer", LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ContainerID: "containerd://" + first}}})
		m.until("the log of the second container", func() bool {
			_, body := get(t, m.client, logs+"writer", "")
			return body == "three\n"
		})
		if code, body := get(t, m.client, logs+"writer?previous=true", ""); code != 200 || body != "one\ntwo\n" {
			t.Errorf("previous: %d %q", code, body)
		}
	})

	for _, protocol := range []string{"spdy", "websocket"} {
		t.Run("exec by "+protocol, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			query := url.Values{"command": {"sh", "-c", "cat; echo err >&2; exit 3"}, "input": {"1"}, "output": {"1"}, "error": {"1"}}
			err := m.remoteCommand(protocol, "/exec/default/p/c", query,
				remotecommand.StreamOptions{Stdin: strings.NewReader("hello\n"), Stdout: &stdout, Stderr: &stderr})
			var exit exec.CodeExitError
			if code, ok := err.(exec.CodeExitError); ok {
				exit = code
			}
			if exit.Code != 3 || stdout.String() != "hello\n" || stderr.String() != "err\n" {
				t.Errorf("got %v, %q, %q", err, stdout.String(), stderr.String())
			}
			stdout.Reset()
			query = url.Values{"command": {"sh", "-c", "test -t 0 && echo terminal"}, "input": {"1"}, "output": {"1"}, "tty": {"1"}}
			// The end of the input would end the terminal.
			in, w := io.Pipe()
			defer w.Close()
			err = m.remoteCommand(protocol, "/exec/default/p/c", query, remotecommand.StreamOptions{Stdin: in, Stdout: &stdout, Tty: true})
			if err != nil || stdout.String() != "terminal\r\n" {
				t.Errorf("with a terminal: %v, %q", err, stdout.String())
			}
		})
		t.Run("attach by "+protocol, func(t *testing.T) {
			in, w := io.Pipe()
			defer w.Close()
			out, stdout := io.Pipe()
			done := make(chan error, 1)
			go func() {
				done <- m.remoteCommand(protocol, "/attach/default/p/c", url.Values{"input": {"1"}, "output": {"1"}},
					remotecommand.StreamOptions{Stdin: in, Stdout: stdout})
				stdout.Close()
			}()
			if _, err := fmt.Fprintln(w, protocol); err != nil {
				t.Fatal(err)
			}
			if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "got "+protocol+"\n" {
				t.Errorf("got %q, %v", line, err)
			}
			go io.Copy(io.Discard, out)
		})
	}

	t.Run("exec in what does not run", func(t *testing.T) {
		err := m.remoteCommand("spdy", "/exec/default/p/waiting", url.Values{"command": {"ls"}, "output": {"1"}},
			remotecommand.StreamOptions{Stdout: io.Discard})
		if err == nil || !strings.Contains(err.Error(), `container not found ("waiting")`) {
			t.Errorf("got %v", err)
		}
	})

	t.Run("port-forward", func(t *testing.T) {
		// The pod is in the network of the machine: forward to this test.
		web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "forwarded") })}
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go web.Serve(listener)
		defer web.Close()
		tr, upgrader, err := spdy.RoundTripperFor(m.rest)
		if err != nil {
			t.Fatal(err)
		}
		target, err := url.Parse(m.base + "/portForward/default/p")
		if err != nil {
			t.Fatal(err)
		}
		over := map[string]func() (*portforward.PortForwarder, chan struct{}, chan struct{}, error){}
		for _, protocol := range []string{"spdy", "websocket"} {
			over[protocol] = func() (*portforward.PortForwarder, chan struct{}, chan struct{}, error) {
				dialer := spdy.NewDialer(upgrader, &http.Client{Transport: tr}, http.MethodPost, target)
				if protocol == "websocket" {
					if dialer, err = portforward.NewSPDYOverWebsocketDialer(target, m.rest); err != nil {
						return nil, nil, nil, err
					}
				}
				stop, ready := make(chan struct{}), make(chan struct{})
				f, err := portforward.NewOnAddresses(dialer, []string{"127.0.0.1"},
					[]string{fmt.Sprintf("0:%d", listener.Addr().(*net.TCPAddr).Port)}, stop, ready, io.Discard, io.Discard)
				return f, stop, ready, err
			}
		}
		for protocol, open := range over {
			f, stop, ready, err := open()
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { done <- f.ForwardPorts() }()
			select {
			case <-ready:
			case err := <-done:
				t.Fatalf("%s: %v", protocol, err)
			}
			ports, err := f.GetPorts()
			if err != nil {
				t.Fatal(err)
			}
			c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			if code, body := get(t, c, fmt.Sprintf("http://127.0.0.1:%d/", ports[0].Local), ""); code != 200 || body != "forwarded" {
				t.Errorf("%s: got %d %q", protocol, code, body)
			}
			close(stop)
			<-done
		}
	})

	t.Run("run", func(t *testing.T) {
		response, err := m.client.Post(m.base+"/run/default/p/c?cmd="+url.QueryEscape("echo a b"), "", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if body, _ := io.ReadAll(response.Body); string(body) != "a b\n" || response.StatusCode != 200 {
			t.Errorf("got %d %q", response.StatusCode, body)
		}
	})

	t.Run("pods", func(t *testing.T) {
		var list corev1.PodList
		for _, path := range []string{"/pods", "/runningpods/"} {
			_, body := get(t, m.client, m.base+path, "")
			if err := json.Unmarshal([]byte(body), &list); err != nil || len(list.Items) != 1 || list.Items[0].Name != "p" || list.Items[0].UID != "uid-1" {
				t.Errorf("%s: %v, %s", path, err, body)
			}
		}
		if len(list.Items[0].Spec.Containers) != 2 {
			t.Errorf("running: %v", list.Items[0].Spec.Containers)
		}
	})

	t.Run("summary", func(t *testing.T) {
		read := func() (s stats.Summary) {
			t.Helper()
			code, body := get(t, m.client, m.base+"/stats/summary", "")
			if err := json.Unmarshal([]byte(body), &s); err != nil || code != 200 {
				t.Fatalf("%d %v %s", code, err, body)
			}
			return s
		}
		s := read()
		n := s.Node
		if n.NodeName != "n1" || *n.CPU.UsageCoreNanoSeconds == 0 || *n.Memory.WorkingSetBytes == 0 || *n.Fs.CapacityBytes == 0 ||
			*n.Runtime.ImageFs.CapacityBytes == 0 || n.StartTime.IsZero() {
			t.Errorf("node: %+v", n)
		}
		if len(s.Pods) != 1 || s.Pods[0].StartTime.IsZero() || s.Pods[0].PodRef != (stats.PodReference{Name: "p", Namespace: "default", UID: "uid-1"}) || len(s.Pods[0].Containers) != 2 {
			t.Fatalf("pods: %+v", s.Pods)
		}
		for _, c := range s.Pods[0].Containers {
			if *c.CPU.UsageCoreNanoSeconds == 0 || *c.Memory.WorkingSetBytes == 0 || *c.Logs.UsedBytes == 0 {
				t.Errorf("container: %+v", c)
			}
		}
	})

	t.Run("metrics", func(t *testing.T) {
		for path, want := range map[string][]string{
			"/metrics": {"go_goroutines"},
			"/metrics/resource": {`pod_memory_working_set_bytes{namespace="default",pod="p"} `, "node_cpu_usage_seconds_total ",
				`container_cpu_usage_seconds_total{container="c",namespace="default",pod="p"} `, "resource_scrape_error 0",
				`container_start_time_seconds{container="writer",namespace="default",pod="p"} `},
			"/metrics/cadvisor": {`container_memory_working_set_bytes{container="c",id="/kubepods/poduid-1/` + main + `",image=`, "machine_cpu_cores ",
				`cpu="total"`},
		} {
			code, body := get(t, m.client, m.base+path, "")
			for _, text := range want {
				if code != 200 || !strings.Contains(body, text) {
					t.Errorf("%s: %d, %q is missing in\n%s", path, code, text, body)
				}
			}
		}
	})

	t.Run("stop", func(t *testing.T) {
		// The clean-up of the server must cut what is open: a log that is followed, a command that runs.
		response, err := m.client.Get(logs + "c?follow=true")
		if err != nil {
			t.Fatal(err)
		}
		m.T.Cleanup(func() { response.Body.Close() })
		go m.remoteCommand("spdy", "/exec/default/p/c", url.Values{"command": {"sleep", "1000"}, "output": {"1"}},
			remotecommand.StreamOptions{Stdout: io.Discard})
		m.until("the command", func() bool {
			out, err := m.runtime.ExecSync(t.Context(), &criapi.ExecSyncRequest{ContainerId: main, Cmd: []string{"pidof", "sleep"}})
			return err == nil && len(out.Stdout) > 0
		})
	})
}
