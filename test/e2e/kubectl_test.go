package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const webPod = `
apiVersion: v1
kind: Pod
metadata:
  name: web
  labels: {app: web}
spec:
  containers:
  - name: nginx
    image: registry.local/nginx:1.20.1
    ports: [{name: http, containerPort: 80}]
`

// The commands of kubectl that change and show objects.
func TestKubectlObjects(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	s.mustApply(webPod)
	s.waitFor("condition=Ready", "pod/web")

	s.matches(s.kubectl("get", "pods"), `^NAME READY STATUS RESTARTS AGE$`)
	s.matches(s.kubectl("get", "pods", "-o", "wide"), `^NAME READY STATUS RESTARTS AGE IP NODE NOMINATED NODE READINESS GATES$`)
	s.matches(s.kubectl("get", "pods", "-o", "wide"), `^web 1/1 Running 0 \d+s 10\.[\d.]+ \S+ <none> <none>$`)
	if got := s.kubectl("get", "pods", "-o", "name"); got != "pod/web\n" {
		t.Errorf("-o name: %q", got)
	}
	for _, format := range []string{"yaml", "json"} {
		if out := s.kubectl("get", "pod", "web", "-o", format); !strings.Contains(out, "registry.local/nginx:1.20.1") {
			t.Errorf("-o %s:\n%s", format, out)
		}
	}
	s.matches(s.kubectl("get", "nodes"), `^\S+ Ready <none> \d+[ms]\S* v1\.\d+\.\d+\+proa`)

	describe := s.kubectl("describe", "pod", "web")
	for _, line := range []string{`^Status: Running$`, `^QoS Class: BestEffort$`, `Normal Scheduled .* Successfully assigned `, `Normal Started .* `} {
		s.matches(describe, line)
	}
	s.eventually("events", func() error {
		if out := s.kubectl("get", "events"); !strings.Contains(out, "Successfully assigned") || !regexp.MustCompile(`^LAST SEEN\s+TYPE\s+REASON\s+OBJECT\s+MESSAGE`).MatchString(out) {
			return fmt.Errorf("events:\n%s", out)
		}
		return nil
	})

	s.kubectl("label", "pod", "web", "tier=front")
	s.kubectl("annotate", "pod", "web", "note=x")
	s.kubectl("patch", "pod", "web", "--type=json", "-p", `[{"op":"replace","path":"/metadata/labels/tier","value":"back"}]`)
	s.kubectl("patch", "pod", "web", "--type=merge", "-p", `{"metadata":{"labels":{"more":"yes"}}}`)
	if got := s.jsonpath("{.metadata.labels.tier},{.metadata.labels.more},{.metadata.annotations.note}", "pod", "web"); got != "back,yes,x" {
		t.Errorf("labels and annotations: %s", got)
	}
	if got := s.kubectl("get", "pods", "-l", "tier=back", "-o", "name"); got != "pod/web\n" {
		t.Errorf("by label: %q", got)
	}
	if got := s.kubectl("get", "pods", "--field-selector", "status.phase=Running", "-o", "name"); got != "pod/web\n" {
		t.Errorf("by field: %q", got)
	}

	t.Run("server-side apply", func(t *testing.T) {
		cm := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: owned}\ndata: {a: %q}\n"
		if out, err := s.apply(fmt.Sprintf(cm, "1"), "apply", "--server-side", "--field-manager=one"); err != nil {
			t.Fatal(out)
		}
		out, err := s.apply(fmt.Sprintf(cm, "2"), "apply", "--server-side", "--field-manager=two")
		if err == nil || !strings.Contains(out, `conflict with "one": .data.a`) {
			t.Errorf("a conflict was answered with %v %s", err, out)
		}
		if out, err := s.apply(fmt.Sprintf(cm, "2"), "apply", "--server-side", "--field-manager=two", "--force-conflicts"); err != nil {
			t.Fatal(out)
		}
		if got := s.jsonpath("{.data.a}", "configmap", "owned"); got != "2" {
			t.Errorf("data.a is %s", got)
		}
	})
	t.Run("edit", func(t *testing.T) {
		editor := *s
		editor.env = []string{"KUBE_EDITOR=sed -i s/tier:.back/tier:\\ edited/"}
		editor.kubectl("edit", "pod", "web")
		if got := s.jsonpath("{.metadata.labels.tier}", "pod", "web"); got != "edited" {
			t.Errorf("after edit the label is %s", got)
		}
	})
	t.Run("explain", func(t *testing.T) {
		if out := s.kubectl("explain", "deployment.spec.strategy.rollingUpdate.maxSurge"); !strings.Contains(out, "FIELD: maxSurge") || !strings.Contains(out, "IntOrString") {
			t.Errorf("explain:\n%s", out)
		}
	})
	t.Run("discovery", func(t *testing.T) {
		s.matches(s.kubectl("api-resources"), `^deployments deploy apps/v1 true Deployment$`)
		s.matches(s.kubectl("api-versions"), `^rbac.authorization.k8s.io/v1$`)
		s.matches(s.kubectl("version"), `^Server Version: v1\.\d+\.\d+\+proa`)
		if out := s.kubectl("cluster-info"); !strings.Contains(out, "Kubernetes control plane") || !strings.Contains(out, s.server) {
			t.Errorf("cluster-info:\n%s", out)
		}
	})
	t.Run("auth", func(t *testing.T) {
		if out := s.kubectl("auth", "can-i", "create", "pods"); out != "yes\n" {
			t.Errorf("can-i: %q", out)
		}
		out, err := s.try("auth", "can-i", "create", "pods", "--as=nobody")
		if err == nil || out != "no\n" {
			t.Errorf("can-i as nobody: %q, %v", out, err)
		}
		s.fails(`pods is forbidden: User "nobody" cannot list resource "pods" in API group "" in the namespace "`+s.namespace+`"`, "get", "pods", "--as=nobody")
	})
}

func TestKubectlWatch(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	watch := s.kubectlCmd(ctx, "-n", s.namespace, "get", "pods", "-w")
	out, err := watch.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	s.mustApply(webPod)
	lines := bufio.NewScanner(out)
	var seen []string
	for lines.Scan() {
		seen = append(seen, lines.Text())
		if regexp.MustCompile(`^web\s+1/1\s+Running`).MatchString(lines.Text()) {
			break
		}
	}
	cancel()
	_ = watch.Wait() // it was ended
	if len(seen) < 3 || !strings.HasPrefix(seen[0], "NAME") {
		t.Errorf("kubectl get -w showed\n%s", strings.Join(seen, "\n"))
	}
}

// What goes through the node: logs, exec, cp, port-forward.
func TestKubectlStreams(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	s.mustApply(webPod)
	s.mustApply(`
apiVersion: v1
kind: Pod
metadata: {name: talker}
spec:
  containers:
  - name: talk
    image: busybox:1.36
    command: [sh, -c, "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.1; done"]
`)
	s.waitFor("condition=Ready", "pod/web", "pod/talker")

	t.Run("logs", func(t *testing.T) {
		s.eventually("the log", func() error {
			if out := s.kubectl("logs", "talker"); !strings.HasPrefix(out, "line 1\nline 2\n") {
				return fmt.Errorf("log %q", out)
			}
			return nil
		})
		if out := s.kubectl("logs", "talker", "--tail=1"); strings.Count(out, "\n") != 1 {
			t.Errorf("--tail=1: %q", out)
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		follow := s.kubectlCmd(ctx, "-n", s.namespace, "logs", "-f", "talker")
		out, err := follow.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := follow.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 1; n <= 30 && lines.Scan(); n++ {
			if want := fmt.Sprintf("line %d", n); lines.Text() != want {
				t.Errorf("logs -f: got %q, want %q", lines.Text(), want)
				break
			}
		}
		cancel()
		_ = follow.Wait() // it was ended
	})
	t.Run("exec", func(t *testing.T) {
		if out := s.kubectl("exec", "web", "--", "echo", "a b"); out != "a b\n" {
			t.Errorf("exec echo: %q", out)
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		cmd := s.kubectlCmd(ctx, "-n", s.namespace, "exec", "-i", "web", "--", "cat")
		cmd.Stdin = strings.NewReader("through the pipe")
		if out, err := output(cmd); err != nil || out != "through the pipe" {
			t.Errorf("exec -i cat: %q, %v", out, err)
		}
		out, err := s.try("exec", "web", "--", "sh", "-c", "exit 7")
		if err == nil || !strings.Contains(out, "exit code 7") {
			t.Errorf("exit code: %v %s", err, out)
		}
		// script gives kubectl the terminal that -t asks for.
		// Word of its size comes after the command has begun.
		inner := s.kubectlCmd(ctx, "-n", s.namespace, "exec", "-i", "-t", "web", "--", "sh", "-c", `'tty; until stty size 2>/dev/null | grep "33 77"; do usleep 10000; done'`)
		terminal := exec.CommandContext(ctx, "script", "-q", "-e", "-c", "stty rows 33 cols 77; "+strings.Join(inner.Args, " "), "/dev/null")
		terminal.Env = inner.Env
		if out, err := output(terminal); err != nil || !strings.Contains(out, "/dev/pts/0") || !strings.Contains(out, "33 77") {
			t.Errorf("exec -it: %q, %v", out, err)
		}
		if out := s.kubectl("exec", "web", "--", "sh", "-c", "tty || true"); !strings.Contains(out, "not a tty") {
			t.Errorf("without -t there is a terminal: %s", out)
		}
	})
	t.Run("cp", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, []byte("copied"), 0o644); err != nil {
			t.Fatal(err)
		}
		s.kubectl("cp", file, "web:/tmp/copied")
		if out := s.kubectl("exec", "web", "--", "cat", "/tmp/copied"); out != "copied" {
			t.Errorf("in the container: %q", out)
		}
		s.kubectl("cp", "web:/tmp/copied", file+".back")
		if data, err := os.ReadFile(file + ".back"); err != nil || string(data) != "copied" {
			t.Errorf("back here: %q, %v", data, err)
		}
	})
	t.Run("port-forward", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		forward := s.kubectlCmd(ctx, "-n", s.namespace, "port-forward", "pod/web", ":80")
		out, err := forward.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := forward.Start(); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(out).ReadString('\n')
		if err != nil && err != io.EOF {
			t.Fatal(err)
		}
		m := regexp.MustCompile(`Forwarding from (127\.0\.0\.1:\d+) -> 80`).FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("port-forward says %q", line)
		}
		s.answers("http://"+m[1]+"/", 200, "Welcome to nginx!")
		cancel()
		_ = forward.Wait() // it was ended
	})
}

// Bad manifests are refused in Kubernetes' words.
func TestBadManifests(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	pod := func(spec string) string {
		return "apiVersion: v1\nkind: Pod\nmetadata: {name: bad}\nspec: " + spec
	}
	container := func(rest string) string { return pod("{containers: [{name: a, image: b" + rest + "}]}") }
	deployment := func(spec string) string {
		return "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: bad}\nspec: " + spec
	}
	large := func(n int) string {
		return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: large}\ndata: {x: '" + strings.Repeat("x", n) + "'}"
	}
	for _, tc := range []struct{ name, manifest, want string }{
		{"unknown field", container(", imagee: x"), `strict decoding error: unknown field "spec.containers[0].imagee"`},
		{"wrong type", deployment("{replicas: many}"), `Deployment in version "v1" cannot be handled as a Deployment: json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32`},
		{"missing selector", deployment("{template: {metadata: {labels: {a: b}}, spec: {containers: [{name: a, image: b}]}}}"), `spec.selector: Required value`},
		{"selector that doesn't match", deployment("{selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: c}}, spec: {containers: [{name: a, image: b}]}}}"), "spec.template.metadata.labels: Invalid value: {\"a\":\"c\"}: `selector` does not match template `labels`"},
		{"no containers", pod("{}"), `The Pod "bad" is invalid: spec.containers: Required value`},
		{"duplicate port names", container(", ports: [{name: x, containerPort: 1}, {name: x, containerPort: 2}]"), `spec.containers[0].ports[1].name: Duplicate value: "x"`},
		{"invalid name", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: Bad_Name}", `The ConfigMap "Bad_Name" is invalid: metadata.name: Invalid value: "Bad_Name": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character`},
		{"invalid quantity", container(", resources: {requests: {memory: lots}}"), `quantities must match the regular expression`},
		{"limit below request", container(", resources: {requests: {cpu: 2}, limits: {cpu: 1}}"), `spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1`},
		{"probe without handler", container(", livenessProbe: {periodSeconds: 5}"), `spec.containers[0].livenessProbe: Required value: must specify a handler type`},
		{"two handlers", container(", livenessProbe: {exec: {command: [x]}, httpGet: {port: 80}}"), `spec.containers[0].livenessProbe.httpGet: Forbidden: may not specify more than 1 handler type`},
		{"port of a probe", container(", livenessProbe: {httpGet: {port: 0}}"), `spec.containers[0].livenessProbe.httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive`},
		{"threshold of a probe", container(", livenessProbe: {successThreshold: 2, tcpSocket: {port: 80}}"), `spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1`},
		{"negative quantity", container(", resources: {requests: {cpu: '-1'}}"), `spec.containers[0].resources.requests[cpu]: Invalid value: "-1": must be greater than or equal to 0`},
		{"unknown resource", container(", resources: {requests: {foo: 1}}"), `spec.containers[0].resources.requests[foo]: Invalid value: "foo": must be a standard resource for containers`},
		{"port out of range", container(", ports: [{containerPort: 70000}]"), `spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive`},
		{"duplicate host port", container(", ports: [{containerPort: 80, hostPort: 80}, {containerPort: 81, hostPort: 80}]"), `spec.containers[0].ports[1].hostPort: Duplicate value: "TCP//80"`},
		{"duplicate container", pod("{containers: [{name: a, image: b}, {name: a, image: b}]}"), `spec.containers[1].name: Duplicate value: "a"`},
		{"missing volume", container(", volumeMounts: [{name: v, mountPath: /x}]"), `spec.containers[0].volumeMounts[0].name: Not found: "v"`},
		{"unknown enum", pod("{restartPolicy: Sometimes, containers: [{name: a, image: b}]}"), `spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never"`},
		{"restart policy of a deployment", deployment("{selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {restartPolicy: Never, containers: [{name: a, image: b}]}}}"), `spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"`},
		{"no surge and none unavailable", deployment("{strategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 0}}, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: a, image: b}]}}}"), "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"},
		{"unnamed ports", "apiVersion: v1\nkind: Service\nmetadata: {name: bad}\nspec: {ports: [{port: 80}, {port: 81}]}", `spec.ports[1].name: Required value`},
		{"node port out of range", "apiVersion: v1\nkind: Service\nmetadata: {name: bad}\nspec: {type: NodePort, ports: [{port: 80, nodePort: 80}]}", `spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767`},
		{"no base64", "apiVersion: v1\nkind: Secret\nmetadata: {name: bad}\ndata: {a: '!!'}", `Secret in version "v1" cannot be handled as a Secret: illegal base64 data at input byte 0`},
		{"no YAML", "apiVersion: v1\nkind: [", `error parsing STDIN: error converting YAML to JSON: yaml: line 2: did not find expected node content`},
		{"too large for its kind", large(1100 * 1000), `The ConfigMap "large" is invalid: []: Too long: may not be more than 1048576 bytes`},
		{"too large to be stored", "apiVersion: apps/v1\nkind: ControllerRevision\nmetadata: {name: large}\nrevision: 1\ndata: {x: '" + strings.Repeat("x", 1700*1000) + "'}", `etcdserver: request is too large`},
		{"too large to be read", large(3200 * 1000), `Request entity too large: limit is 3145728`},
		{"invalid label", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, labels: {a: 'b c'}}", `metadata.labels: Invalid value: "b c": a valid label must be an empty string or consist of alphanumeric characters`},
		{"stale resourceVersion", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kube-root-ca.crt, resourceVersion: '1'}\ndata: {a: b}", `Operation cannot be fulfilled on configmaps "kube-root-ca.crt": the object has been modified; please apply your changes to the latest version and try again`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			command := "create"
			if tc.name == "stale resourceVersion" {
				command = "replace"
			}
			out, err := s.apply(tc.manifest, command)
			if err == nil {
				t.Fatalf("was accepted: %s", out)
			}
			if !strings.Contains(out, tc.want) {
				t.Errorf("got\n%s\nwant\n%s", out, tc.want)
			}
		})
	}
}

// Images that were loaded are listed, can be removed, and can be loaded again.
func TestImages(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	const image = "docker.io/library/busybox:latest" // the other tests use another tag
	list := func() string {
		out, err := s.command(t.Context(), "image", "list")
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	s.matches(list(), "^"+image+" sha256:[0-9a-f]+ ")
	if _, err := s.command(t.Context(), "image", "remove", image); err != nil {
		t.Fatal(err)
	}
	if out := list(); strings.Contains(out, image) || !strings.Contains(out, "busybox:1.36") {
		t.Errorf("after its removal:\n%s", out)
	}
	s.kubectl("run", "gone", "--image=busybox:latest", "--image-pull-policy=Never", "--restart=Never", "--", "true")
	s.eventually("the image is missed", func() error {
		if out := s.kubectl("get", "pod", "gone"); !strings.Contains(out, "ErrImageNeverPull") {
			return fmt.Errorf("pod:\n%s", out)
		}
		return nil
	})
	if out, err := s.command(t.Context(), "image", "load", filepath.Join(root(), "build", "images", "busybox.tar")); err != nil || !strings.Contains(out, image) {
		t.Errorf("loading: %s %v", out, err)
	}
	s.waitFor("jsonpath={.status.phase}=Succeeded", "pod/gone")
}
