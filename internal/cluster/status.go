package cluster

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// statusTimeout bounds each question to a server that may hang.
const statusTimeout = 5 * time.Second

// Status says how a cluster is.
type Status struct {
	Name       string       `json:"name"`
	PID        int          `json:"pid"` // 0: not running
	Server     string       `json:"server,omitempty"`
	Kubeconfig string       `json:"kubeconfig,omitempty"`
	APIError   string       `json:"apiError,omitempty"`
	Nodes      []NodeStatus `json:"nodes,omitempty"`
}

// NodeStatus says how a node is; Problem is empty when it is ready.
type NodeStatus struct {
	Name    string `json:"name"`
	Problem string `json:"problem,omitempty"`
}

// Healthy says that the cluster runs, its API answers, and all its nodes are ready.
func (s *Status) Healthy() bool {
	if s.PID == 0 || s.APIError != "" {
		return false
	}
	for _, n := range s.Nodes {
		if n.Problem != "" {
			return false
		}
	}
	return true
}

// GetStatus asks a cluster how it is. That it does not run is an answer, not an error.
func GetStatus(ctx context.Context, l Layout) (*Status, error) {
	s := &Status{Name: l.Name, PID: Running(l)}
	if s.PID == 0 {
		return s, nil
	}
	s.Kubeconfig = l.AdminKubeconfig()
	config, err := adminConfig(l)
	if err != nil {
		return nil, err
	}
	s.Server = config.Host
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	if _, err := client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx); err != nil {
		s.APIError = "not ready: " + err.Error()
		return s, nil
	}
	nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		s.APIError = "listing nodes: " + err.Error()
		return s, nil
	}
	for i := range nodes.Items {
		s.Nodes = append(s.Nodes, NodeStatus{Name: nodes.Items[i].Name, Problem: nodeProblem(&nodes.Items[i])})
	}
	return s, nil
}

// nodeProblem says why a node isn't ready; empty when it is.
func nodeProblem(n *corev1.Node) string {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			if c.Status == corev1.ConditionTrue {
				return ""
			}
			return fmt.Sprintf("not ready: %s: %s", c.Reason, c.Message)
		}
	}
	return "not ready: it has not reported yet"
}

// ServerURL is where the cluster's API is, as its administrator reaches it.
func ServerURL(l Layout) (string, error) {
	config, err := adminConfig(l)
	if err != nil {
		return "", err
	}
	return config.Host, nil
}

func adminConfig(l Layout) (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", l.AdminKubeconfig())
	if err != nil {
		return nil, fmt.Errorf("reading the administrator's kubeconfig: %w", err)
	}
	return config, nil
}
