package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/proa-k8s/proa/internal/cluster"
)

// cgroupV2 says whether the machine has cgroup v2 and nothing else.
func cgroupV2() bool {
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	return err == nil
}

// cgroupFile is a file of a controller in a cgroup of the cluster's pods.
func (c *testCluster) cgroupFile(t *testing.T, cgroup, file string) string {
	t.Helper()
	layout, err := cluster.NewLayout(c.name, c.dir)
	if err != nil {
		t.Fatal(err)
	}
	controller, _, _ := strings.Cut(file, ".")
	mount := "/sys/fs/cgroup"
	if !cgroupV2() {
		mount = filepath.Join(mount, controller)
	}
	data, err := os.ReadFile(filepath.Join(mount, layout.CgroupRoot(), "kubepods", cgroup, file))
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(data))
}

const limitedPods = `
apiVersion: v1
kind: Pod
metadata: {name: guaranteed}
spec:
  containers:
  - {name: c, image: proa.local/hello:1, resources: {limits: {cpu: 500m, memory: 64Mi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: burstable}
spec:
  containers:
  - {name: c, image: proa.local/hello:1, resources: {requests: {cpu: 250m, memory: 16Mi}, limits: {memory: 32Mi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: besteffort}
spec:
  containers:
  - {name: c, image: proa.local/hello:1}
`

// What pods and containers may use is in their cgroups.
func TestLimits(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	s.mustApply(limitedPods)
	s.waitFor("condition=Ready", "pod", "--all")
	type values map[string]string // by file
	for _, test := range []struct {
		pod, class        string
		podV1, podV2      values
		containerV1, inV2 values
	}{
		{
			"guaranteed", "",
			values{"cpu.shares": "512", "cpu.cfs_quota_us": "50000", "memory.limit_in_bytes": "67108864"},
			values{"cpu.weight": "59", "cpu.max": "50000 100000", "memory.max": "67108864"},
			values{"cpu.shares": "512", "cpu.cfs_quota_us": "50000", "memory.limit_in_bytes": "67108864"},
			values{"cpu.weight": "59", "cpu.max": "50000 100000", "memory.max": "67108864", "memory.oom.group": "1", "memory.swap.max": "0"},
		},
		{
			"burstable", "burstable",
			values{"cpu.shares": "256", "cpu.cfs_quota_us": "-1", "memory.limit_in_bytes": "33554432"},
			values{"cpu.weight": "35", "cpu.max": "max 100000", "memory.max": "33554432"},
			values{"cpu.shares": "256", "cpu.cfs_quota_us": "-1", "memory.limit_in_bytes": "33554432"},
			values{"cpu.weight": "35", "cpu.max": "max 100000", "memory.max": "33554432", "memory.oom.group": "1", "memory.swap.max": "0"},
		},
		{
			"besteffort", "besteffort",
			values{"cpu.shares": "2", "cpu.cfs_quota_us": "-1"},
			values{"cpu.weight": "1", "cpu.max": "max 100000", "memory.max": "max"},
			values{"cpu.shares": "2", "cpu.cfs_quota_us": "-1"},
			values{"cpu.weight": "1", "cpu.max": "max 100000", "memory.max": "max", "memory.oom.group": "1", "memory.swap.max": "0"},
		},
	} {
		pod := filepath.Join(test.class, "pod"+s.jsonpath("{.metadata.uid}", "pod", test.pod))
		_, id, _ := strings.Cut(s.jsonpath("{.status.containerStatuses[0].containerID}", "pod", test.pod), "://")
		inPod, inContainer := test.podV1, test.containerV1
		if cgroupV2() {
			inPod, inContainer = test.podV2, test.inV2
		}
		for cgroup, want := range map[string]values{pod: inPod, filepath.Join(pod, id): inContainer} {
			for file, value := range want {
				if got := s.cgroupFile(t, cgroup, file); got != value {
					t.Errorf("%s: %s is %q, want %q", cgroup, file, got, value)
				}
			}
		}
	}
}

const hungryPods = `
apiVersion: v1
kind: Pod
metadata: {name: alone}
spec:
  restartPolicy: Never
  containers:
  - name: c
    image: busybox:1.36
    command: [dd, if=/dev/zero, of=/dev/null, bs=100M, count=1]
    resources: {limits: {memory: 32Mi}}
---
apiVersion: v1
kind: Pod
metadata: {name: child}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: busybox:1.36
    command: [sh, -c, "dd if=/dev/zero of=/dev/null bs=100M count=1; sleep 3600"]
    resources: {limits: {memory: 32Mi}}
`

// A container that wants more memory than it may have is killed, with cgroup v2 as a whole.
func TestOutOfMemory(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	s.mustApply(hungryPods)
	ended := func(pod string) {
		s.waitFor("jsonpath={.status.phase}=Failed", "pod/"+pod)
		if got := s.jsonpath("{.status.containerStatuses[0].state.terminated.reason} {.status.containerStatuses[0].state.terminated.exitCode}", "pod", pod); got != "OOMKilled 137" {
			t.Errorf("pod %s ended with %s", pod, got)
		}
	}
	ended("alone")
	if cgroupV2() {
		ended("child")
	} else if got := s.jsonpath("{.status.phase}", "pod", "child"); got == "Failed" {
		t.Errorf("pod child is %s", got)
	}
}

// summary reads the statistics of the cluster's only node.
func (s *session) summary() stats.Summary {
	s.t.Helper()
	var summary stats.Summary
	node := s.jsonpath("{.items[0].metadata.name}", "nodes")
	if err := json.Unmarshal([]byte(s.kubectl("get", "--raw", "/api/v1/nodes/"+node+"/proxy/stats/summary")), &summary); err != nil {
		s.t.Fatal(err)
	}
	return summary
}

// The node tells what it and its pods use.
func TestStatistics(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	s.kubectl("run", "measured", "--image=proa.local/hello:1")
	s.waitFor("condition=Ready", "pod/measured")
	s.eventually("statistics of the pod", func() error {
		summary := s.summary()
		if n := summary.Node; *n.CPU.UsageCoreNanoSeconds == 0 || *n.Memory.WorkingSetBytes == 0 || *n.Memory.AvailableBytes == 0 {
			t.Errorf("the node uses %+v, %+v", n.CPU, n.Memory)
		}
		if psi := summary.Node.Memory.PSI != nil; psi != pathExists("/proc/pressure/memory") {
			t.Errorf("pressure of the node is known: %v", psi)
		}
		for _, pod := range summary.Pods {
			if pod.PodRef.Namespace != s.namespace {
				continue
			}
			c := pod.Containers[0]
			if *c.CPU.UsageCoreNanoSeconds == 0 || *c.Memory.WorkingSetBytes == 0 || *pod.Memory.WorkingSetBytes == 0 || *pod.ProcessStats.ProcessCount == 0 {
				return fmt.Errorf("it uses %+v, %+v", c.CPU, c.Memory)
			}
			if pod.StartTime.IsZero() || len(pod.Network.Interfaces) != 1 || pod.Network.Name != "eth0" {
				t.Errorf("started %v, network %+v", pod.StartTime, pod.Network)
			}
			if psi := c.Memory.PSI != nil; psi != cgroupV2() {
				t.Errorf("pressure of the container is known: %v", psi)
			}
			return nil
		}
		return fmt.Errorf("it is not among %d", len(summary.Pods))
	})
}

func pathExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// A node whose memory ends says so, and gets rid of pods.
func TestMemoryPressure(t *testing.T) {
	if !exhaust {
		t.Skip("uses up the machine's memory: run 'make test-vm'")
	}
	c, err := start(t.Context(), "pressure", "--eviction-hard", "memory.available<400Mi")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.remove(); err != nil {
			t.Error(err)
		}
	})
	if err := c.loadImages(); err != nil {
		t.Fatal(err)
	}
	s := c.in(t)
	s.kubectl("run", "victim", "--image=proa.local/hello:1", "--restart=Never")
	s.waitFor("condition=Ready", "pod/victim")
	node := s.jsonpath("{.items[0].metadata.name}", "nodes")
	if got := s.jsonpath(`{.status.conditions[?(@.type=="MemoryPressure")].status}`, "node", node); got != "False" {
		t.Fatalf("before anything is taken, MemoryPressure is %s", got)
	}
	defer fillMemory(t, 300<<20)()
	s.waitFor("condition=MemoryPressure", "node/"+node)
	s.waitFor("jsonpath={.status.reason}=Evicted", "pod/victim")
	if got := s.jsonpath("{.status.message}", "pod", "victim"); !strings.HasPrefix(got, "The node was low on resource: memory. Threshold quantity: 400Mi, available: ") {
		t.Errorf("the pod's message is %q", got)
	}
	s.eventually("taint", func() error {
		if got := s.jsonpath("{.spec.taints[*].key}", "node", node); !strings.Contains(got, "node.kubernetes.io/memory-pressure") {
			return fmt.Errorf("taints are %q", got)
		}
		return nil
	})
}

// fillMemory takes memory until no more than left bytes are available, and returns what gives it back.
func fillMemory(t *testing.T, left int64) (free func()) {
	t.Helper()
	const chunk = 4 << 20
	var taken [][]byte
	free = func() {
		for _, b := range taken {
			if err := unix.Munmap(b); err != nil {
				t.Error(err)
			}
		}
	}
	for availableMemory(t) > left+chunk {
		b, err := unix.Mmap(-1, 0, chunk, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
		if err != nil {
			free()
			t.Fatal(err)
		}
		taken = append(taken, b)
	}
	return free
}

func availableMemory(t *testing.T) int64 {
	t.Helper()
	file, err := os.Open("/proc/meminfo")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 1 && fields[0] == "MemAvailable:" {
			kb, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kb << 10
		}
	}
	t.Fatal("/proc/meminfo tells nothing about available memory")
	return 0
}
