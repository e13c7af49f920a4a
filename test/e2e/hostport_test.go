package e2e

import (
	"fmt"
	"testing"
)

// A host port answers at every address of the node, and goes with its pod.
func TestHostPortOfEveryAddress(t *testing.T) {
	t.Parallel()
	s := shared.in(t)
	port := 54523 + int(s.slot) // of the machine, on which are other clusters
	s.mustApply(fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: hello}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: hello
    image: proa.local/hello:1
    ports: [{containerPort: 8080, hostPort: %d}]`, port))
	s.waitFor("condition=Ready", "pod/hello")
	node := s.jsonpath(`{.items[0].status.addresses[?(@.type=="InternalIP")].address}`, "nodes")
	addresses := []string{"127.0.0.1", node}
	for _, address := range addresses {
		s.answers(fmt.Sprintf("http://%s:%d/", address, port), 200, "hello")
	}
	s.kubectl("delete", "pod", "hello")
	for _, address := range addresses {
		s.eventually("the port is free at "+address, func() error {
			if _, _, err := get(fmt.Sprintf("http://%s:%d/", address, port)); err == nil {
				return fmt.Errorf("somebody answers")
			}
			return nil
		})
	}
}
