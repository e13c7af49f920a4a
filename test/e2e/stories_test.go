package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
)

// matches fails unless the text matches a regular expression, in which a space stands for any white space.
func (s *session) matches(text, pattern string) {
	s.t.Helper()
	re := regexp.MustCompile("(?m)" + strings.ReplaceAll(pattern, " ", `\s+`))
	if !re.MatchString(text) {
		s.t.Errorf("got\n%s\nwant a line like %q", text, pattern)
	}
}

// manifest reads a story's manifest with its namespace replaced by that of the session.
func (s *session) manifest(name string) string {
	s.t.Helper()
	data, err := os.ReadFile(story(name))
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.ReplaceAll(string(data), "namespace: default", "namespace: "+s.namespace)
}

func (s *session) waitFor(condition string, resources ...string) {
	s.t.Helper()
	s.kubectl(append([]string{"wait", "--for=" + condition, inTime()}, resources...)...)
}

// get asks a URL from the node itself.
func get(url string) (int, string, error) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

func (s *session) answers(url string, code int, body string) {
	s.t.Helper()
	s.eventually(url, func() error {
		got, text, err := get(url)
		if err != nil {
			return err
		}
		if got != code || !strings.Contains(text, body) {
			return fmt.Errorf("answered %d: %s", got, text)
		}
		return nil
	})
}

// jsonpath gets one value.
func (s *session) jsonpath(path string, args ...string) string {
	s.t.Helper()
	return s.kubectl(append([]string{"get", "-o", "jsonpath=" + path}, args...)...)
}

// Two containers of a pod share one network namespace, and may share volumes.
func TestStory01TwoContainers(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	if out, err := s.apply(s.manifest("01-two-containers.yaml"), "create"); err != nil {
		t.Fatalf("create: %v\n%s", err, out)
	}
	s.waitFor("condition=Ready", "pod/twocontainers")
	s.matches(s.kubectl("get", "pods"), `^twocontainers 2/2 Running 0 \d+s`)
	got := s.kubectl("exec", "twocontainers", "-c", "shell", "--", "bash", "-c", "curl -s localhost:9876/info")
	if want := `{"host": "localhost:9876", "version": "0.5.0", "from": "127.0.0.1"}`; strings.TrimSpace(got) != want {
		t.Errorf("curl in the container got %q, want %q", got, want)
	}
}

// A sidecar pulls files into a shared volume, and feeds the web server beside it.
func TestStory01SidecarFeedsWebServer(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	s.mustApply(`
apiVersion: v1
kind: Pod
metadata: {name: fed}
spec:
  volumes: [{name: site, emptyDir: {}}]
  containers:
  - name: web
    image: registry.local/nginx:1.20.1
    volumeMounts: [{name: site, mountPath: /usr/share/nginx/html, readOnly: true}]
  - name: sync
    image: busybox:1.36
    command: [sh, -c, "echo fed by the sidecar > /site/index.html; exec sleep 3600"]
    volumeMounts: [{name: site, mountPath: /site}]
`)
	s.waitFor("condition=Ready", "pod/fed")
	s.answers("http://"+s.jsonpath("{.status.podIP}", "pod", "fed")+"/", 200, "fed by the sidecar")
}

// The life of a Deployment.
func TestStory05Deployment(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	manifest := s.manifest("05-nginx-deployment.yaml")
	s.mustApply(strings.Replace(manifest, "replicas: 2", "replicas: 1", 1))
	s.kubectl("rollout", "status", "deployment/nginx-deployment", inTime())
	s.mustApply(manifest)
	s.waitFor("jsonpath={.status.readyReplicas}=2", "deployment/nginx-deployment")
	s.matches(s.kubectl("get", "deployments"), `^nginx-deployment 2/2 2 2 \d+s`)
	pods := s.kubectl("get", "pods")
	s.matches(pods, `^nginx-deployment-[a-z0-9]{5,10}-[bcdfghjklmnpqrstvwxz2456789]{5} 1/1 Running 0`)

	// The empty directory hides the pages.
	ip := s.jsonpath("{.items[0].status.podIP}", "pods")
	s.answers("http://"+ip+"/", 403, "")

	// A deleted pod is replaced.
	victim := s.jsonpath("{.items[0].metadata.name}", "pods")
	s.kubectl("delete", "pod", victim)
	s.waitFor("jsonpath={.status.readyReplicas}=2", "deployment/nginx-deployment")
	if after := s.kubectl("get", "pods"); strings.Contains(after, victim) {
		t.Errorf("pod %s is still there:\n%s", victim, after)
	}

	// A new image rolls out, and a broken one stops the roll-out while the old pods serve.
	s.kubectl("set", "image", "deployment/nginx-deployment", "nginx=registry.local/nginx:1.21.6")
	s.kubectl("rollout", "status", "deployment/nginx-deployment", inTime())
	s.kubectl("patch", "deployment", "nginx-deployment", "-p", `{"spec":{"template":{"spec":{"containers":[{"name":"nginx","image":"registry.local/nginx:broken","imagePullPolicy":"Never"}]}}}}`)
	s.eventually("the broken image is noticed", func() error {
		if out := s.kubectl("get", "pods"); !strings.Contains(out, "ErrImageNeverPull") {
			return fmt.Errorf("pods:\n%s", out)
		}
		return nil
	})
	s.matches(s.kubectl("get", "deployment", "nginx-deployment"), `^nginx-deployment 2/2 1 2`)
	s.matches(s.kubectl("rollout", "history", "deployment/nginx-deployment"), `^3 <none>`)
	s.kubectl("rollout", "undo", "deployment/nginx-deployment")
	s.kubectl("rollout", "status", "deployment/nginx-deployment", inTime())
	if image := s.jsonpath("{.spec.template.spec.containers[0].image}", "deployment", "nginx-deployment"); image != "registry.local/nginx:1.21.6" {
		t.Errorf("after undo the image is %s", image)
	}
	s.kubectl("rollout", "undo", "deployment/nginx-deployment", "--to-revision=1")
	s.kubectl("rollout", "status", "deployment/nginx-deployment", inTime())
	if image := s.jsonpath("{.spec.template.spec.containers[0].image}", "deployment", "nginx-deployment"); image != "registry.local/nginx:1.20.1" {
		t.Errorf("after undo to revision 1 the image is %s", image)
	}

	// Several changes in a pause are one revision.
	before := s.jsonpath(`{.metadata.annotations.deployment\.kubernetes\.io/revision}`, "deployment", "nginx-deployment")
	s.kubectl("rollout", "pause", "deployment/nginx-deployment")
	s.kubectl("set", "image", "deployment/nginx-deployment", "nginx=registry.local/nginx:latest")
	s.kubectl("set", "env", "deployment/nginx-deployment", "A=B")
	if after := s.jsonpath(`{.metadata.annotations.deployment\.kubernetes\.io/revision}`, "deployment", "nginx-deployment"); after != before {
		t.Errorf("a paused deployment went from revision %s to %s", before, after)
	}
	s.kubectl("patch", "deployment", "nginx-deployment", "-p", `{"spec":{"revisionHistoryLimit":1}}`)
	s.kubectl("rollout", "resume", "deployment/nginx-deployment")
	s.kubectl("rollout", "status", "deployment/nginx-deployment", inTime())
	s.eventually("old replica sets are cleaned up", func() error {
		if out := s.kubectl("get", "rs", "-o", "name"); strings.Count(out, "\n") != 2 {
			return fmt.Errorf("replica sets:\n%s", out)
		}
		return nil
	})

	s.kubectl("scale", "deployment/nginx-deployment", "--replicas=5")
	s.waitFor("jsonpath={.status.readyReplicas}=5", "deployment/nginx-deployment")

	s.kubectl("delete", "deployment", "nginx-deployment")
	s.waitFor("delete", "pods", "-l", "app=nginx")
}

// A Service spreads requests over its pods, and keeps its address when they are replaced.
func TestStory07ClusterIP(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	s.mustApply(s.manifest("07-service-clusterip.yaml"))
	s.kubectl("rollout", "status", "deployment/nginx-dep", inTime())
	s.eventually("endpoints", func() error {
		out := s.kubectl("get", "endpoints", "nginx-svc-clusterip")
		if !regexp.MustCompile(`nginx-svc-clusterip\s+[\d.]+:80,[\d.]+:80\s`).MatchString(out) {
			return fmt.Errorf("endpoints:\n%s", out)
		}
		return nil
	})
	ip := s.jsonpath("{.spec.clusterIP}", "service", "nginx-svc-clusterip")
	s.answers("http://"+ip+"/", 200, "Welcome to nginx!")

	s.kubectl("run", "client", "--image=busybox:1.36", "--restart=Never", "--", "sleep", "3600")
	s.waitFor("condition=Ready", "pod/client")
	for _, name := range []string{"nginx-svc-clusterip", "nginx-svc-clusterip." + s.namespace + ".svc.cluster.local"} {
		out := s.kubectl("exec", "client", "--", "wget", "-q", "-O", "-", "http://"+name+"/")
		if !strings.Contains(out, "Welcome to nginx!") {
			t.Errorf("%s answered %s", name, out)
		}
	}

	s.kubectl("delete", "pods", "-l", "app=nginx")
	s.kubectl("rollout", "status", "deployment/nginx-dep", inTime())
	s.answers("http://"+ip+"/", 200, "Welcome to nginx!")

	out := s.kubectl("get", "service", "kubernetes", "-n", "default")
	s.matches(out, `^kubernetes ClusterIP 10\.\d+\.0\.1 <none> 443/TCP`)
}

// Node ports answer on the node's address; ports that can't be had are refused.
func TestStory08NodePort(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	s.mustApply(s.manifest("07-service-clusterip.yaml"))
	s.mustApply(s.manifest("08-service-nodeport.yaml"))
	s.kubectl("rollout", "status", "deployment/tomcat-deployment", inTime())
	s.kubectl("rollout", "status", "deployment/nginx-dep", inTime())
	s.matches(s.kubectl("get", "svc"), `^mysvc NodePort 10\.\d+\.\d+\.\d+ <none> 8080:30001/TCP`)
	node := s.jsonpath(`{.items[0].status.addresses[?(@.type=="InternalIP")].address}`, "nodes")
	s.answers("http://"+node+":30001/", 200, "Welcome to nginx!")
	s.answers("http://"+node+":30002/", 200, "")

	service := func(port string) string {
		return "apiVersion: v1\nkind: Service\nmetadata: {name: refused}\nspec: {type: NodePort, ports: [{port: 80, nodePort: " + port + "}], selector: {app: nginx}}"
	}
	for port, message := range map[string]string{
		"20000": `spec.ports[0].nodePort: Invalid value: 20000: provided port is not in the valid range. The range of valid ports is 30000-32767`,
		"30001": `spec.ports[0].nodePort: Invalid value: 30001: provided port is already allocated`,
	} {
		out, err := s.apply(service(port), "create")
		if err == nil || !strings.Contains(out, message) {
			t.Errorf("node port %s: got %v %s, want %s", port, err, out, message)
		}
	}
}

// Namespaces keep the same name apart, and take what is in them along.
func TestStory21Namespaces(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	all := s.kubectl("get", "namespaces")
	for _, name := range []string{"default", "kube-node-lease", "kube-public", "kube-system"} {
		s.matches(all, "^"+name+" Active")
	}
	if out := s.kubectl("get", "configmap", "cluster-info", "-n", "kube-public", "-o", "yaml"); !strings.Contains(out, "certificate-authority-data") {
		t.Errorf("cluster-info:\n%s", out)
	}
	node := s.jsonpath("{.items[0].metadata.name}", "nodes")
	if holder := s.jsonpath("{.spec.holderIdentity}", "lease", node, "-n", "kube-node-lease"); holder != node {
		t.Errorf("the lease of node %s is held by %q", node, holder)
	}

	other := s.namespace + "-other"
	s.kubectl("create", "namespace", other)
	for _, ns := range []string{s.namespace, other} {
		s.kubectl("create", "configmap", "same", "--from-literal=in="+ns, "-n", ns)
	}
	s.kubectl("run", "web", "--image=registry.local/nginx:1.20.1", "-n", other)
	s.kubectl("wait", "--for=condition=Ready", "pod/web", "-n", other, inTime())
	if in := s.jsonpath("{.data.in}", "configmap", "same", "-n", other); in != other {
		t.Errorf("configmap same of %s says %s", other, in)
	}
	s.kubectl("delete", "namespace", other, inTime())
	s.fails(`namespaces "`+other+`" not found`, "get", "namespace", other)
	s.fails(`not found`, "get", "pod", "web", "-n", other)
	if in := s.jsonpath("{.data.in}", "configmap", "same"); in != s.namespace {
		t.Errorf("configmap same says %s", in)
	}
	s.fails(`namespaces "`+other+`" not found`, "create", "configmap", "x", "-n", other)
}
