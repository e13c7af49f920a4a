package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// controllerManifest is a replication controller of two pods that serve at 6379, and a service for them.
const controllerManifest = `
apiVersion: v1
kind: ReplicationController
metadata: {name: agnhost-primary, labels: {app: agnhost, role: primary}}
spec:
  replicas: 2
  selector: {app: agnhost, role: primary}
  template:
    metadata: {labels: {app: agnhost, role: primary}}
    spec:
      containers:
      - name: agnhost-primary
        image: registry.local/agnhost:2
        args: [netexec, --http-port=6379]
        ports: [{name: agnhost-server, containerPort: 6379}]
        readinessProbe: {httpGet: {path: /healthz, port: 6379}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: agnhost-primary, labels: {app: agnhost, role: primary}}
spec:
  ports: [{port: 6379, targetPort: agnhost-server}]
  selector: {app: agnhost, role: primary}
`

// [sig-cli] Kubectl client: Update Demo should create and stop a replication controller; should scale a replication controller;
// describe; expose; label; patch.
func TestKubectlController(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	if out, err := s.apply(controllerManifest, "create"); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	const selector = "role=primary"
	pod := s.readyPods(selector, 2)[0].Name

	// describe
	contains := func(out string, lines ...string) {
		t.Helper()
		for _, line := range lines {
			s.matches(out, line)
		}
	}
	contains(s.kubectl("describe", "rc", "agnhost-primary"), `^Name: agnhost-primary$`, `^Namespace: `+s.namespace+`$`, `^Selector: app=agnhost,role=primary$`,
		`^Labels: app=agnhost`, `^Annotations: <none>$`, `^Replicas: 2 current / 2 desired$`, `^Pods Status: 2 Running / 0 Waiting / 0 Succeeded / 0 Failed$`,
		`Image: `+testImage, `Port: 6379/TCP`, `^Events:`, `Normal SuccessfulCreate \S+ replication-controller Created pod: agnhost-primary-`)
	contains(s.kubectl("describe", "pod", pod), `^Name: `+pod+`$`, `^Namespace: `+s.namespace+`$`, `^Node: `, `^Labels: app=agnhost`, `^Status: Running$`, `^IP: 10\.`,
		`^Controlled By: ReplicationController/agnhost-primary$`, `Image: `+testImage, `State: Running$`, `QoS Class: BestEffort$`)
	service := s.kubectl("describe", "service", "agnhost-primary")
	contains(service, `^Name: agnhost-primary$`, `^Labels: app=agnhost`, `^Annotations: <none>$`, `^Selector: app=agnhost,role=primary$`, `^Type: ClusterIP$`,
		`^IP: 10\.`, `^Port: <unset> 6379/TCP$`, `^TargetPort: agnhost-server/TCP$`, `^Endpoints: 10\.[\d.]+:6379,10\.[\d.]+:6379$`, `^Session Affinity: None$`)
	node, _ := s.node()
	contains(s.kubectl("describe", "node", node.Name), `^Name: `+node.Name+`$`, `^Labels: `, `^Annotations: `, `^CreationTimestamp: `, `^Conditions:`, `MemoryPressure False .* KubeletHasSufficientMemory`,
		`Ready True .* KubeletReady`, `^Addresses:`, `^Capacity:`, `^Allocatable:`, `Kubelet Version: v1\.`, `Non-terminated Pods:`, `^PodCIDR: 10\.`, `Allocated resources:`)
	contains(s.kubectl("describe", "namespace", s.namespace), `^Name: `+s.namespace+`$`, `^Labels: kubernetes\.io/metadata\.name=`+s.namespace+`$`, `^Annotations: <none>$`, `^Status: Active$`, `No resource quota\.`, `No LimitRange resource\.`)

	// expose
	s.kubectl("expose", "rc", "agnhost-primary", "--name=rm2", "--port=1234", "--target-port=6379")
	s.kubectl("expose", "service", "rm2", "--name=rm3", "--port=2345", "--target-port=6379")
	for name, port := range map[string]string{"rm2": "1234", "rm3": "2345"} {
		if got := s.jsonpath("{.spec.ports[0].port}>{.spec.ports[0].targetPort}", "service", name); got != port+">6379" {
			t.Errorf("%s serves %s", name, got)
		}
		s.answers("http://"+s.jsonpath("{.spec.clusterIP}", "service", name)+":"+port+"/hostname", 200, "agnhost-primary-")
	}

	// label
	s.kubectl("label", "pods", pod, "testing-label=testing-label-value")
	s.matches(s.kubectl("get", "pod", pod, "-L", "testing-label"), `^`+pod+` 1/1 Running 0 \S+ testing-label-value$`)
	s.kubectl("label", "pods", pod, "testing-label-")
	if out := s.kubectl("get", "pod", "-l", "testing-label", "-o", "name"); out != "" {
		t.Errorf("the label that was removed is on %s", out)
	}

	// patch
	for _, p := range s.podsOf(selector) {
		s.kubectl("patch", "pod", p.Name, "-p", `{"metadata":{"annotations":{"x":"y"}}}`)
	}
	for _, p := range s.podsOf(selector) {
		if p.Annotations["x"] != "y" {
			t.Errorf("annotations of %s: %v", p.Name, p.Annotations)
		}
	}

	// scale, and stop
	s.kubectl("scale", "rc", "agnhost-primary", "--replicas=1", "--timeout=5m")
	s.readyPods(selector, 1)
	s.kubectl("scale", "rc", "agnhost-primary", "--current-replicas=1", "--replicas=2", "--timeout=5m")
	s.readyPods(selector, 2)
	if out, err := s.apply(controllerManifest, "delete", "--grace-period=0", "--force"); err != nil {
		t.Errorf("%v %s", err, out)
	}
	s.readyPods(selector, 0)
	if out := s.kubectl("get", "rc,svc", "-l", selector, "-o", "name"); strings.Contains(out, "agnhost-primary") {
		t.Errorf("left: %s", out)
	}
}

// [sig-cli] Kubectl client: run pod should create a pod from an image when restart is Never; replace should update a
// single-container pod's image; server-side dry-run; diff finds a difference for Deployments.
func TestKubectlChange(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	image := func() string { return s.jsonpath("{.spec.containers[*].image}", "pod", "e2e-test-pod") }
	s.kubectl("run", "e2e-test-pod", "--restart=Never", "--image="+testImage, "--labels=run=e2e-test-pod")
	if policy := s.jsonpath("{.spec.restartPolicy}", "pod", "e2e-test-pod"); image() != testImage || policy != "Never" {
		t.Errorf("kubectl run made %s, restart %s", image(), policy)
	}
	s.waitFor("condition=Ready", "pod/e2e-test-pod")
	s.kubectl("patch", "pod", "e2e-test-pod", "-p", `{"spec":{"containers":[{"name":"e2e-test-pod","image":"busybox:1.36"}]}}`, "--dry-run=server")
	if image() != testImage {
		t.Errorf("a dry run changed the image to %s", image())
	}
	manifest := s.kubectl("get", "pod", "e2e-test-pod", "-o", "json")
	if out, err := s.apply(strings.ReplaceAll(manifest, testImage, "proa.local/hello:1"), "replace"); err != nil {
		t.Errorf("%v %s", err, out)
	}
	if image() != "proa.local/hello:1" {
		t.Errorf("replaced by %s", image())
	}
	before := s.jsonpath("{.metadata.uid}", "pod", "e2e-test-pod")
	if out, err := s.apply(strings.ReplaceAll(manifest, testImage, "proa.local/hello:2"), "replace", "--force", "--grace-period=0"); err != nil {
		t.Errorf("%v %s", err, out)
	}
	if after := s.jsonpath("{.metadata.uid}", "pod", "e2e-test-pod"); image() != "proa.local/hello:2" || after == before {
		t.Errorf("replaced by force: %s, uid %s after %s", image(), after, before)
	}

	deployment := "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: httpd}\n" +
		`spec: {replicas: 0, selector: {matchLabels: {app: httpd}}, template: {metadata: {labels: {app: httpd}}, spec: {containers: [{name: httpd, image: "proa.local/hello:1"}]}}}`
	s.mustApply(deployment)
	out, err := s.apply(strings.ReplaceAll(deployment, "hello:1", "hello:2"), "diff")
	if err == nil || !regexp.MustCompile(`(?m)^-\s+- image: proa.local/hello:1$`).MatchString(out) || !regexp.MustCompile(`(?m)^\+\s+- image: proa.local/hello:2$`).MatchString(out) {
		t.Errorf("diff: %v\n%s", err, out)
	}
	if out, err := s.apply(deployment, "diff"); err != nil || out != "" {
		t.Errorf("without a difference: %v\n%s", err, out)
	}
}

// [sig-cli] Kubectl logs logs should be able to retrieve and filter logs.
func TestKubectlLogs(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	s.run(testPod("logs-generator", nil, "logs-generator", "--log-lines-total=40", "--run-duration=4s"))
	s.eventually("40 lines", func() error {
		if out := s.kubectl("logs", "logs-generator"); strings.Count(out, "\n") != 40 {
			return fmt.Errorf("%d lines", strings.Count(out, "\n"))
		}
		return nil
	})
	if out := s.kubectl("logs", "logs-generator", "--tail=1"); strings.Count(out, "\n") != 1 || !strings.Contains(out, "/pods/39 ") {
		t.Errorf("--tail=1: %q", out)
	}
	if out := s.kubectl("logs", "logs-generator", "--limit-bytes=1"); len(out) != 1 {
		t.Errorf("--limit-bytes=1: %q", out)
	}
	out := s.kubectl("logs", "logs-generator", "--tail=1", "--timestamps")
	stamp, rest, _ := strings.Cut(out, " ")
	if _, err := time.Parse(time.RFC3339Nano, stamp); err != nil || !strings.Contains(rest, "/pods/39 ") {
		t.Errorf("--timestamps: %q, %v", out, err)
	}
	recent, older := strings.Count(s.kubectl("logs", "logs-generator", "--since=1s"), "\n"), strings.Count(s.kubectl("logs", "logs-generator", "--since=24h"), "\n")
	if recent >= 20 || older != 40 {
		t.Errorf("--since=1s has %d lines, --since=24h %d", recent, older)
	}
}

// [sig-cli] Kubectl client: api-versions should check if v1 is in available api versions; cluster-info should check if Kubernetes
// control plane services is included in cluster-info; version should check is all data is printed.
func TestKubectlInfo(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	s.matches(s.kubectl("api-versions"), `^v1$`)
	if out := s.kubectl("cluster-info", "-n", "kube-system"); !strings.Contains(out, "Kubernetes control plane") || !strings.Contains(out, "CoreDNS") || !strings.Contains(out, "is running at") {
		t.Errorf("cluster-info: %s", out)
	}
	var version struct{ ClientVersion, ServerVersion map[string]any }
	out, err := output(s.kubectlCmd(t.Context(), "version", "-o", "json")) // what it says of versions far apart goes elsewhere
	must(t, err)
	must(t, json.Unmarshal([]byte(out), &version))
	for side, has := range map[string]map[string]any{"client": version.ClientVersion, "server": version.ServerVersion} {
		for _, field := range []string{"major", "minor", "gitVersion", "gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler", "platform"} {
			if text, _ := has[field].(string); text == "" {
				t.Errorf("the version of the %s has no %s: %v", side, field, has)
			}
		}
	}
}

// [sig-cli] Kubectl client Proxy server should support proxy with --port 0; should support --unix-socket=/path.
func TestKubectlProxy(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	socket := filepath.Join(t.TempDir(), "proxy")
	for _, tc := range []struct{ flag, says string }{
		{"--port=0", `Starting to serve on (127\.0\.0\.1:\d+)`},
		{"--unix-socket=" + socket, `Starting to serve on (\S+)`},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		cmd := s.kubectlCmd(ctx, "proxy", tc.flag)
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		line, err := bufio.NewReader(out).ReadString('\n')
		m := regexp.MustCompile(tc.says).FindStringSubmatch(line)
		if err != nil || m == nil {
			t.Fatalf("kubectl proxy %s says %q, %v", tc.flag, line, err)
		}
		network := "tcp"
		if strings.HasPrefix(tc.flag, "--unix") {
			network = "unix"
		}
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, m[1])
		}}}
		resp, err := client.Get("http://localhost/api/")
		must(t, err)
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || !strings.Contains(string(body), `"versions"`) || !strings.Contains(string(body), `"v1"`) {
			t.Errorf("kubectl proxy %s: %s %v", tc.flag, body, err)
		}
		cancel()
		_ = cmd.Wait() // it was ended
	}
}

// guestbookPart is a deployment and a service of the guestbook.
func guestbookPart(name string, replicas int, port int, args string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: %[1]s}
spec:
  ports: [{port: %[3]d}]
  selector: {app: %[1]s}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  replicas: %[2]d
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s, guestbook: part}}
    spec:
      containers:
      - name: agnhost
        image: registry.local/agnhost:2
        args: [guestbook, %[4]s]
        ports: [{containerPort: %[3]d}]
        readinessProbe: {tcpSocket: {port: %[3]d}, periodSeconds: 1}
---
`, name, replicas, port, args)
}

// [sig-cli] Kubectl client Guestbook application should create and stop a working application.
func TestGuestbook(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	manifest := guestbookPart("agnhost-replica", 2, 6379, "--replicaof=agnhost-primary, --http-port=6379") +
		guestbookPart("frontend", 1, 80, "--backend-port=6379, --http-port=80") +
		guestbookPart("agnhost-primary", 1, 6379, "--http-port=6379")
	if out, err := s.apply(manifest, "create"); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	s.readyPods("guestbook=part", 4)
	for _, p := range s.podsOf("app=agnhost-replica") {
		s.eventually("the registration of "+p.Name, func() error {
			if out := s.kubectl("logs", p.Name); !strings.Contains(out, "registered with agnhost-primary") {
				return fmt.Errorf("log %q", out)
			}
			return nil
		})
	}
	front := "http://" + s.jsonpath("{.spec.clusterIP}", "service", "frontend") + "/guestbook?"
	s.answers(front+url.Values{"cmd": {"get"}, "key": {"messages"}}.Encode(), 200, `{"data": ""}`)
	s.answers(front+url.Values{"cmd": {"set"}, "key": {"messages"}, "value": {"TestEntry"}}.Encode(), 200, `{"data": ""}`)
	for range 4 { // whichever replica answers
		if _, body, err := get(front + "cmd=get&key=messages"); err != nil || body != `{"data": "TestEntry"}` {
			t.Errorf("the entry: %s %v", body, err)
		}
	}
	if out, err := s.apply(manifest, "delete", "--grace-period=0", "--force"); err != nil {
		t.Errorf("%v %s", err, out)
	}
	s.eventually("no pods", func() error {
		if left := s.podsOf("guestbook=part"); len(left) > 0 {
			return fmt.Errorf("%d pods: %v", len(left), podNames(left))
		}
		return nil
	})
}

func podNames(pods []corev1.Pod) (names []string) {
	for _, p := range pods {
		names = append(names, p.Name)
	}
	return names
}
