package containerd_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/proa-k8s/proa/internal/containerd/containerdtest"
)

// network is a configuration as the network part of the node agent writes it.
const network = `{
  "cniVersion": "1.0.0",
  "name": "pods",
  "plugins": [
    {"type": "bridge", "bridge": "pods0", "isDefaultGateway": true, "hairpinMode": true, "ipMasq": false,
     "ipam": {"type": "host-local", "dataDir": %q, "ranges": [[{"subnet": "10.77.0.0/24"}]]}}
  ]
}
`

// withNetwork starts a node in a network namespace of its own and configures the pod network while it runs.
func withNetwork(t testing.TB) *node {
	n := startNode(t, true)
	conf := filepath.Join(n.dir, "run", "cni", "10-pods.conflist")
	if err := os.WriteFile(conf+".new", fmt.Appendf(nil, network, filepath.Join(n.dir, "ipam")), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(conf+".new", conf); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the network to be ready", func() bool {
		status, err := n.runtime.Status(t.Context(), &criapi.StatusRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range status.Status.Conditions {
			if c.Type == criapi.NetworkReady {
				return c.Status
			}
		}
		return false
	})
	return n
}

// TestNetwork runs two pods with networks of their own, one of which reads from the other, and frees their addresses.
func TestNetwork(t *testing.T) {
	n := withNetwork(t)
	containerdtest.Load(t, n.endpoint, "busybox")
	server, serverConfig := n.sandbox("server")
	status, err := n.runtime.PodSandboxStatus(t.Context(), &criapi.PodSandboxStatusRequest{PodSandboxId: server})
	if err != nil {
		t.Fatal(err)
	}
	ip := status.Status.Network.Ip
	if !strings.HasPrefix(ip, "10.77.0.") {
		t.Fatalf("the pod's address is %q", ip)
	}
	n.run(server, serverConfig, "web", "busybox:1.36", "sh", "-c", "echo hello > /tmp/index.html; exec httpd -f -p 80 -h /tmp")
	client, clientConfig := n.sandbox("client")
	shell := n.run(client, clientConfig, "shell", "busybox:1.36", "sleep", "1000")
	waitFor(t, "an answer from the other pod", func() bool {
		out, err := n.runtime.ExecSync(t.Context(), &criapi.ExecSyncRequest{
			ContainerId: shell, Cmd: []string{"wget", "-q", "-O", "-", "http://" + ip + "/"}, Timeout: 5})
		return err == nil && string(out.Stdout) == "hello\n"
	})
	for _, sandbox := range []string{server, client} {
		if _, err := n.runtime.StopPodSandbox(t.Context(), &criapi.StopPodSandboxRequest{PodSandboxId: sandbox}); err != nil {
			t.Fatal(err)
		}
	}
	leases, err := filepath.Glob(filepath.Join(n.dir, "ipam", "pods", "10.*"))
	if err != nil || len(leases) != 0 {
		t.Errorf("addresses still taken: %v, %v", leases, err)
	}
}

// BenchmarkPod measures a pod of one container from nothing to running, and to removed.
func BenchmarkPod(b *testing.B) {
	n := withNetwork(b)
	containerdtest.Load(b, n.endpoint, "busybox")
	var sandboxTime, containerTime, removeTime time.Duration
	i := 0
	for b.Loop() {
		i++
		began := time.Now()
		sandbox, config := n.sandbox(fmt.Sprint("p", i))
		ran := time.Now()
		n.run(sandbox, config, "c", "busybox:1.36", "sleep", "1000")
		started := time.Now()
		if _, err := n.runtime.StopPodSandbox(b.Context(), &criapi.StopPodSandboxRequest{PodSandboxId: sandbox}); err != nil {
			b.Fatal(err)
		}
		if _, err := n.runtime.RemovePodSandbox(b.Context(), &criapi.RemovePodSandboxRequest{PodSandboxId: sandbox}); err != nil {
			b.Fatal(err)
		}
		sandboxTime, containerTime, removeTime = sandboxTime+ran.Sub(began), containerTime+started.Sub(ran), removeTime+time.Since(started)
	}
	for name, total := range map[string]time.Duration{"sandbox": sandboxTime, "container": containerTime, "remove": removeTime} {
		b.ReportMetric(float64(total.Microseconds())/1000/float64(b.N), "ms/"+name)
	}
}
