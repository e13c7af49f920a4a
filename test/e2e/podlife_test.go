package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

// hasEvent waits for an event of a pod whose message has a part.
func (s *session) hasEvent(pod, reason, part string, times int) {
	s.t.Helper()
	s.eventually(fmt.Sprintf("%d events %s of pod %s with %q", times, reason, pod, part), func() error {
		list, err := s.client.CoreV1().Events(s.namespace).List(s.t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.name=" + pod})
		if err != nil {
			return err
		}
		var seen []string
		count := 0
		for _, e := range list.Items {
			seen = append(seen, e.Reason+": "+e.Message)
			if e.Reason == reason && strings.Contains(e.Message, part) {
				count += int(max(e.Count, 1))
			}
		}
		if count < times {
			return fmt.Errorf("%d, among %q", count, seen)
		}
		return nil
	})
}

const fillingPods = `
apiVersion: v1
kind: Pod
metadata: {name: layer}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {name: c, image: "docker.io/library/busybox:1.36", command: [sh, -c, "dd if=/dev/zero of=/file bs=1M count=12; sleep 3600"], resources: {limits: {ephemeral-storage: 10Mi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: both}
spec:
  terminationGracePeriodSeconds: 0
  volumes: [{name: v, emptyDir: {}}]
  containers:
  - {name: c, image: "docker.io/library/busybox:1.36", command: [sh, -c, "dd if=/dev/zero of=/v/file bs=1M count=12; sleep 3600"], resources: {limits: {ephemeral-storage: 10Mi}}, volumeMounts: [{name: v, mountPath: /v}]}
---
apiVersion: v1
kind: Pod
metadata: {name: volume}
spec:
  terminationGracePeriodSeconds: 0
  volumes: [{name: v, emptyDir: {sizeLimit: 10Mi}}]
  containers:
  - {name: c, image: "docker.io/library/busybox:1.36", command: [sh, -c, "dd if=/dev/zero of=/v/file bs=1M count=12; sleep 3600"], volumeMounts: [{name: v, mountPath: /v}]}
---
apiVersion: v1
kind: Pod
metadata: {name: modest}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {name: c, image: "docker.io/library/busybox:1.36", command: [sh, -c, "dd if=/dev/zero of=/file bs=1M count=8; sleep 3600"], resources: {limits: {ephemeral-storage: 10Mi}}}
`

// A pod that takes more of the disk than it may is evicted soon.
func TestStorageLimits(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	s.mustApply(fillingPods)
	for pod, message := range map[string]string{
		"layer":  `Container c exceeded its local ephemeral storage limit "10Mi". `,
		"both":   "Pod ephemeral local storage usage exceeds the total limit of containers 10Mi. ",
		"volume": `Usage of EmptyDir volume "v" exceeds the limit "10Mi". `,
	} {
		p := s.pod(pod, "Evicted", func(p *corev1.Pod) bool { return p.Status.Reason == "Evicted" })
		if p.Status.Phase != corev1.PodFailed || p.Status.Message != message || podCondition(p, corev1.DisruptionTarget).Reason != corev1.PodReasonTerminationByKubelet {
			t.Errorf("%s: %+v", pod, p.Status)
		}
		s.hasEvent(pod, "Evicted", message, 1)
	}
	if got := s.jsonpath("{.status.phase}", "pod", "modest"); got != "Running" {
		t.Errorf("the pod that keeps to its limit is %s", got)
	}
}

// probedPod is a pod that is probed every second: once started succeeds it is up, and one failure of liveness ends it.
func probedPod(name string, started, liveness corev1.ProbeHandler, args ...string) *corev1.Pod {
	p := testPod(name, nil, args...)
	p.Spec.TerminationGracePeriodSeconds = ptr.To[int64](1)
	c := &p.Spec.Containers[0]
	c.StartupProbe = &corev1.Probe{ProbeHandler: started, PeriodSeconds: 1, FailureThreshold: 60}
	c.ReadinessProbe = &corev1.Probe{ProbeHandler: started, PeriodSeconds: 1}
	c.LivenessProbe = &corev1.Probe{ProbeHandler: liveness, PeriodSeconds: 1, FailureThreshold: 1}
	return p
}

// Probes of each kind see a container that is well, and have one restarted that is not.
func TestProbes(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	httpGet := func(path string) corev1.ProbeHandler {
		return corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromInt32(8080)}}
	}
	tcp := func(port int32) corev1.ProbeHandler {
		return corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(port)}}
	}
	grpc := func(service string) corev1.ProbeHandler {
		return corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: 5000, Service: &service}}
	}
	exec := func(command ...string) corev1.ProbeHandler {
		return corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: command}}
	}
	well := []*corev1.Pod{
		probedPod("well-http", httpGet("/healthz"), httpGet("/healthz"), "netexec"), probedPod("well-tcp", tcp(8080), tcp(8080), "netexec"),
		probedPod("well-grpc", grpc(""), grpc(""), "grpc-health-checking"),
	}
	ill := map[string]struct {
		pod  *corev1.Pod
		want string
	}{
		"ill-http": {probedPod("ill-http", tcp(8080), httpGet("/none"), "netexec"), "Liveness probe failed: HTTP probe failed with statuscode: 404"},
		"ill-tcp":  {probedPod("ill-tcp", tcp(8080), tcp(7), "netexec"), ":7: connect: connection refused"},
		"ill-grpc": {probedPod("ill-grpc", grpc(""), grpc("ill"), "grpc-health-checking"), `Liveness probe failed: service unhealthy (responded with "NOT_SERVING")`},
		"ill-exec": {probedPod("ill-exec", tcp(8080), exec("/agnhost", "none"), "netexec"), `Liveness probe failed: agnhost: unknown command "none"`},
	}
	for _, p := range ill {
		_, err := s.client.CoreV1().Pods(s.namespace).Create(t.Context(), p.pod, metav1.CreateOptions{})
		must(t, err)
	}
	s.run(well...)
	for name, p := range ill {
		s.hasEvent(name, "Unhealthy", p.want, 1)
		s.hasEvent(name, "Killing", "Container agnhost failed liveness probe, will be restarted", 1)
		s.pod(name, "restarted", func(p *corev1.Pod) bool {
			return len(p.Status.ContainerStatuses) > 0 && p.Status.ContainerStatuses[0].RestartCount > 0
		})
	}
	for _, p := range well {
		if got := s.jsonpath("{.status.containerStatuses[0].restartCount}", "pod", p.Name); got != "0" {
			t.Errorf("%s was restarted %s times", p.Name, got)
		}
	}
}

// Hooks by HTTP are called after the start and before the end of a container.
func TestHTTPHooks(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	listener := testPod("listener", nil, "guestbook", "--http-port=8080")
	listener.Spec.Containers[0].ReadinessProbe = &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(8080)}}}
	ip := s.run(listener)[0].Status.PodIP
	call := func(what string) *corev1.LifecycleHandler {
		return &corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{Host: ip, Port: intstr.FromInt32(8080), Path: "/set?key=" + what + "&value=called"}}
	}
	hooked := testPod("hooked", nil, "netexec")
	hooked.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: call("start"), PreStop: call("stop")}
	hooked.Spec.TerminationGracePeriodSeconds = ptr.To[int64](5)
	broken := testPod("broken", nil, "pause")
	broken.Spec.TerminationGracePeriodSeconds = ptr.To[int64](1)
	broken.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{Host: ip, Port: intstr.FromInt32(8080), Path: "/none"}}}
	_, err := s.client.CoreV1().Pods(s.namespace).Create(t.Context(), broken, metav1.CreateOptions{})
	must(t, err)
	s.run(hooked)
	s.answers("http://"+ip+":8080/get?key=start", 200, "called")
	if _, body, err := get("http://" + ip + ":8080/get?key=stop"); err != nil || body != "" {
		t.Errorf("before the end: %q, %v", body, err)
	}
	s.end("hooked")
	s.answers("http://"+ip+":8080/get?key=stop", 200, "called")
	s.hasEvent("broken", "FailedPostStartHook", "PostStartHook failed", 1)
}

// What fails again and again is said once in the log, and by an event each time; and a pod whose RuntimeClass was deleted can
// still go.
func TestRepeatedFailures(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	classes := s.client.NodeV1().RuntimeClasses()
	class := &nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: s.namespace}, Handler: "nobodys"}
	_, err := classes.Create(t.Context(), class, metav1.CreateOptions{})
	must(t, err)
	t.Cleanup(func() { _ = s.client.NodeV1().RuntimeClasses().Delete(t.Context(), class.Name, metav1.DeleteOptions{}) })
	handler, profile := testPod("handler", nil, "pause"), testPod("profile", nil, "pause")
	handler.Spec.RuntimeClassName = &class.Name
	profile.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{SeccompProfile: &corev1.SeccompProfile{
		Type: corev1.SeccompProfileTypeLocalhost, LocalhostProfile: ptr.To("none.json"),
	}}
	for _, p := range []*corev1.Pod{handler, profile} {
		_, err := s.client.CoreV1().Pods(s.namespace).Create(t.Context(), p, metav1.CreateOptions{})
		must(t, err)
	}
	s.hasEvent("handler", "FailedCreatePodSandBox", `no runtime for "nobodys" is configured`, 3)
	s.hasEvent("profile", "Failed", `cannot load seccomp profile`, 3)
	must(t, classes.Delete(t.Context(), class.Name, metav1.DeleteOptions{}))
	s.hasEvent("handler", "FailedCreatePodSandBox", fmt.Sprintf("runtimeclasses.node.k8s.io %q not found", class.Name), 1)
	s.end("handler")

	data, err := os.ReadFile(filepath.Join(s.dir, "log", "proa.log"))
	must(t, err)
	var said []string
	for line := range strings.Lines(string(data)) {
		if strings.Contains(line, "nobodys") || strings.Contains(line, "none.json") {
			said = append(said, line)
		}
	}
	if len(said) != 2 || slices.ContainsFunc(said, func(line string) bool { return !strings.Contains(line, "level=WARN") }) {
		t.Errorf("the log says, of two pods:\n%s", strings.Join(said, ""))
	}
	again := testPod("again", nil, "pause")
	again.Spec.RuntimeClassName = &class.Name
	if _, err := s.client.CoreV1().Pods(s.namespace).Create(t.Context(), again, metav1.CreateOptions{}); err == nil || !strings.Contains(err.Error(), "pod rejected: RuntimeClass") {
		t.Errorf("a pod of a RuntimeClass that is not there: %v", err)
	}
}

// A taint with the effect NoExecute ends pods: at once, when they have tolerated it long enough, or never.
func TestTaintEviction(t *testing.T) {
	t.Parallel()
	c, err := start(t.Context(), "tainted")
	must(t, err)
	t.Cleanup(func() {
		if err := c.remove(); err != nil {
			t.Error(err)
		}
	})
	must(t, c.loadImages())
	s := c.in(t)
	tolerant := func(name string, seconds *int64) *corev1.Pod {
		p := testPod(name, nil, "netexec")
		p.Spec.TerminationGracePeriodSeconds = ptr.To[int64](1)
		p.Spec.Tolerations = []corev1.Toleration{{Key: "example.com/ill", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: seconds}}
		return p
	}
	never, soon := tolerant("never", nil), tolerant("soon", ptr.To[int64](3))
	never.Spec.Tolerations = nil
	s.run(never, soon, tolerant("late", ptr.To[int64](3600)), tolerant("always", nil))
	node, _ := s.node()
	began := time.Now().Truncate(time.Second)
	s.kubectl("taint", "node", node.Name, "example.com/ill=very:NoExecute")
	s.waitFor("delete", "pod/never")
	s.hasEvent("never", "TaintManagerEviction", "Marking for deletion Pod "+s.namespace+"/never", 1)
	soon = s.pod("soon", "about to go", func(p *corev1.Pod) bool { return p.DeletionTimestamp != nil })
	if left := soon.DeletionTimestamp.Add(-time.Second); left.Before(began.Add(3 * time.Second)) { // it ends with its grace period
		t.Errorf("pod soon was deleted at %v, the node tainted at %v", left, began)
	}
	if got := podCondition(soon, corev1.DisruptionTarget); got.Reason != "DeletionByTaintManager" {
		t.Errorf("pod soon has the condition %+v", got)
	}
	s.kubectl("taint", "node", node.Name, "example.com/ill-")
	s.hasEvent("late", "TaintManagerEviction", "Cancelling deletion of Pod "+s.namespace+"/late", 1)
	for _, name := range []string{"late", "always"} {
		if got := s.jsonpath("{.metadata.deletionTimestamp}{.status.phase}", "pod", name); got != "Running" {
			t.Errorf("pod %s: %s", name, got)
		}
	}
}
