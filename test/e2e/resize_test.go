package e2e

import (
	"fmt"
	"strings"
	"testing"
)

const resizablePod = `
apiVersion: v1
kind: Pod
metadata: {name: resized}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: app
    image: busybox:1.36
    command: [sh, -c, "trap 'exit 0' TERM; sleep 3600 & wait"]
    resources: {requests: {cpu: 20m, memory: 20Mi}, limits: {cpu: 40m, memory: 40Mi}}
  - name: restarts
    image: busybox:1.36
    command: [sh, -c, "trap 'exit 0' TERM; sleep 3600 & wait"]
    resizePolicy: [{resourceName: memory, restartPolicy: RestartContainer}]
    resources: {requests: {cpu: 20m, memory: 20Mi}, limits: {cpu: 40m, memory: 40Mi}}
`

// resources is the patch that resizes a container.
func resources(container, requests, limits string) string {
	return fmt.Sprintf(`{"spec":{"containers":[{"name":%q,"resources":{"requests":{%s},"limits":{%s}}}]}}`, container, requests, limits)
}

// TestResizePod resizes a running pod with kubectl (KEP-1287), and looks at what the kernel has.
func TestResizePod(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	s.mustApply(resizablePod)
	s.waitFor("condition=Ready", "pod/resized")
	first := s.jsonpath("{.status.containerStatuses[0].containerID}", "pod", "resized")

	s.fails("Pod QOS Class may not change as a result of resizing", "patch", "pod", "resized", "--subresource", "resize", "-p",
		`{"spec":{"containers":[{"name":"app","resources":{"requests":{"cpu":"40m","memory":"40Mi"}}},{"name":"restarts","resources":{"requests":{"cpu":"40m","memory":"40Mi"}}}]}}`)
	s.fails("pod updates may not change fields other than", "patch", "pod", "resized", "-p", resources("app", `"cpu":"30m"`, `"cpu":"60m"`))

	s.kubectl("patch", "pod", "resized", "--subresource", "resize", "-p", resources("app", `"cpu":"30m","memory":"30Mi"`, `"cpu":"60m","memory":"60Mi"`))
	s.waitFor("jsonpath={.status.containerStatuses[0].resources.limits.memory}=60Mi", "pod/resized")
	s.hasMemory("resized", "app", 60)
	s.kubectl("patch", "pod", "resized", "--subresource", "resize", "-p", resources("restarts", `"memory":"25Mi"`, `"memory":"50Mi"`))
	s.waitFor("jsonpath={.status.containerStatuses[1].restartCount}=1", "pod/resized")
	s.waitFor("jsonpath={.status.containerStatuses[1].resources.limits.memory}=50Mi", "pod/resized")
	s.hasMemory("resized", "restarts", 50)

	s.kubectl("patch", "pod", "resized", "--subresource", "resize", "-p", resources("app", `"cpu":"1000"`, `"cpu":"1000"`))
	s.waitFor(`jsonpath={.status.conditions[?(@.type=="PodResizePending")].reason}=Infeasible`, "pod/resized")
	s.matches(s.jsonpath(`{.status.conditions[?(@.type=="PodResizePending")].message}`, "pod", "resized"), `^Node didn't have enough capacity: cpu, requested: 1000020, capacity: \d+$`)
	if got := s.jsonpath("{.status.containerStatuses[0].allocatedResources.cpu} {.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].containerID}", "pod", "resized"); got != "30m 0 "+first {
		t.Errorf("after all that: %s", got)
	}
	s.eventually("events tell of it", func() error {
		events := s.kubectl("get", "events", "--field-selector", "involvedObject.name=resized")
		for _, want := range []string{"Pod resize started: {", "Pod resize completed: {", "Pod resize Infeasible: {", "Container restarts resize requires restart"} {
			if !strings.Contains(events, want) {
				return fmt.Errorf("no %q in\n%s", want, events)
			}
		}
		return nil
	})
}

// hasMemory compares the bound of memory that the kernel has for a container, in MiB.
func (s *session) hasMemory(pod, container string, mebi int) {
	s.t.Helper()
	_, id, _ := strings.Cut(s.jsonpath(`{.status.containerStatuses[?(@.name=="`+container+`")].containerID}`, "pod", pod), "://")
	file := "memory.limit_in_bytes"
	if cgroupV2() {
		file = "memory.max"
	}
	cgroup := "burstable/pod" + s.jsonpath("{.metadata.uid}", "pod", pod) + "/" + id
	if got, want := s.cgroupFile(s.t, cgroup, file), fmt.Sprint(mebi<<20); got != want {
		s.t.Errorf("%s of container %s is %s, want %s", file, container, got, want)
	}
}

const pressedPods = `
apiVersion: v1
kind: Pod
metadata: {name: first}
spec:
  nodeName: %[1]s
  containers: [{name: c, image: "busybox:1.36", command: [sleep, "3600"], resources: {requests: {memory: 1Mi}}}]
---
apiVersion: v1
kind: Pod
metadata: {name: refused}
spec:
  nodeName: %[1]s
  containers: [{name: c, image: "busybox:1.36", command: [sleep, "3600"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: waits}
spec:
  containers: [{name: c, image: "busybox:1.36", command: [sleep, "3600"]}]
`

// TestNodePressure runs a node that never has memory enough.
func TestNodePressure(t *testing.T) {
	t.Parallel()
	c, err := start(t.Context(), "pressed", "--eviction-hard", "memory.available<99%")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.remove(); err != nil {
			t.Error(err)
		}
	}()
	if err := c.loadImages(); err != nil {
		t.Fatal(err)
	}
	s := &session{testCluster: c, t: t, namespace: "default"}
	s.waitFor("condition=MemoryPressure", "nodes", "--all")
	s.waitFor("create", "serviceaccount/default")
	node := s.jsonpath("{.items[0].metadata.name}", "nodes")
	if got := s.jsonpath(`{.items[0].status.conditions[?(@.type=="MemoryPressure")].reason}`, "nodes"); got != "KubeletHasInsufficientMemory" {
		t.Errorf("the reason of the node is %s", got)
	}
	s.waitFor(`jsonpath={.spec.taints[?(@.key=="node.kubernetes.io/memory-pressure")].effect}=NoSchedule`, "node/"+node)
	s.mustApply(fmt.Sprintf(pressedPods, node))
	s.waitFor("jsonpath={.status.phase}=Failed", "pod/refused", "pod/first")
	if got := s.jsonpath("{.status.phase}: {.status.message}", "pod", "refused"); got != "Failed: Pod was rejected: The node had condition: [MemoryPressure]. " {
		t.Errorf("the pod that asked for nothing: %s", got)
	}
	s.matches(s.jsonpath("{.status.phase}: {.status.message}", "pod", "first"),
		`^Failed: The node was low on resource: memory. Threshold quantity: \S+, available: \S+Ki. `)
	if got := s.jsonpath(`{.status.conditions[?(@.type=="DisruptionTarget")].reason}`, "pod", "first"); got != "TerminationByKubelet" {
		t.Errorf("the condition of the evicted pod: %s", got)
	}
	s.waitFor(`jsonpath={.status.conditions[?(@.type=="PodScheduled")].reason}=Unschedulable`, "pod/waits")
	s.eventually("an event tells of it", func() error {
		if events := s.kubectl("get", "events"); !strings.Contains(events, "Evicted") || !strings.Contains(events, "EvictionThresholdMet") {
			return fmt.Errorf("events:\n%s", events)
		}
		return nil
	})
}
