package e2e

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

const helloDeployment = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: hello}
spec:
  replicas: 3
  selector: {matchLabels: {app: hello}}
  template:
    metadata: {labels: {app: hello}}
    spec:
      containers:
      - name: hello
        image: proa.local/hello:1
        env: [{name: QUIET, value: 1s}] # how long nobody must have asked before it stops to listen
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: hello}
spec:
  selector: {app: hello}
  ports: [{port: 80, targetPort: http}]
`

// A rolling update loses no request.
func TestRollingUpdateLosesNoRequest(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	s.mustApply(helloDeployment)
	s.kubectl("rollout", "status", "deployment/hello", inTime())
	url := "http://" + s.jsonpath("{.spec.clusterIP}", "service", "hello") + "/"
	s.answers(url, 200, "")

	stop := make(chan struct{})
	var requests, failed atomic.Int64
	var firstError atomic.Value
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				requests.Add(1)
				code, body, err := get(url)
				if err != nil || code != 200 {
					failed.Add(1)
					firstError.CompareAndSwap(nil, fmt.Sprintf("%d %s %v", code, body, err))
				}
			}
		})
	}
	s.kubectl("set", "image", "deployment/hello", "hello=proa.local/hello:2")
	s.kubectl("rollout", "status", "deployment/hello", inTime())
	close(stop)
	clients.Wait()
	if failed.Load() > 0 {
		t.Errorf("%d of %d requests failed, the first with: %v", failed.Load(), requests.Load(), firstError.Load())
	}
	s.eventually("the new version answers", func() error {
		_, body, err := get(url)
		if err == nil && !strings.Contains(body, "2") {
			err = fmt.Errorf("answer %q", body)
		}
		return err
	})
}

// Containers never notice that the server was killed and started again, and what was acknowledged is there.
func TestKillServer(t *testing.T) {
	t.Parallel()
	c, err := start(t.Context(), "kill")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			c.showLog()
		}
		if err := c.remove(); err != nil {
			t.Error(err)
		}
	})
	if err := c.loadImages(); err != nil {
		t.Fatal(err)
	}
	s := c.in(t)
	s.mustApply(helloDeployment)
	s.kubectl("rollout", "status", "deployment/hello", inTime())
	podIP := s.jsonpath("{.items[0].status.podIP}", "pods")
	clusterIP := s.jsonpath("{.spec.clusterIP}", "service", "hello")
	ids := s.jsonpath("{.items[*].status.containerStatuses[*].containerID}", "pods")
	uids := s.jsonpath("{.items[*].metadata.uid}", "pods")

	c.killServer(t)
	for _, ip := range []string{podIP + ":8080", clusterIP} {
		if code, _, err := get("http://" + ip + "/"); err != nil || code != 200 {
			t.Errorf("without a server %s answers %d, %v", ip, code, err)
		}
	}
	if err := c.up(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.kubectl("rollout", "status", "deployment/hello", inTime())
	if got := s.jsonpath("{.items[*].metadata.uid}", "pods"); got != uids {
		t.Errorf("pods were replaced: %s, before %s", got, uids)
	}
	if got := s.jsonpath("{.items[*].status.containerStatuses[*].containerID}", "pods"); got != ids {
		t.Errorf("containers were replaced: %s, before %s", got, ids)
	}
	if got := s.jsonpath("{.items[*].status.containerStatuses[*].restartCount}", "pods"); got != "0 0 0" {
		t.Errorf("containers were restarted: %s", got)
	}
	// The cluster works on.
	s.kubectl("scale", "deployment/hello", "--replicas=4")
	s.kubectl("rollout", "status", "deployment/hello", inTime())
	s.kubectl("delete", "pod", "-l", "app=hello", "--wait=false")
	s.eventually("new pods", func() error {
		out := s.kubectl("get", "deployment", "hello")
		if !strings.Contains(out, "4/4") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
}

// Two clusters on one machine do not notice each other, and one can go without the other.
func TestTwoClusters(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	c, err := start(t.Context(), "two")
	if err != nil {
		t.Fatal(err)
	}
	if c.server == shared.server {
		t.Errorf("both clusters serve at %s", c.server)
	}
	if err := c.loadImages(); err != nil {
		t.Fatal(err)
	}
	other := &session{testCluster: c, t: t, namespace: "default"}
	for _, each := range []*session{s, other} {
		each.mustApply(helloDeployment)
		each.kubectl("rollout", "status", "deployment/hello", inTime())
		each.answers("http://"+each.jsonpath("{.spec.clusterIP}", "service", "hello")+"/", 200, "")
	}
	if err := c.remove(); err != nil {
		t.Error(err)
	}
	s.answers("http://"+s.jsonpath("{.spec.clusterIP}", "service", "hello")+"/", 200, "")
}
