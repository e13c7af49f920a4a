package allocation

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"

	"github.com/proa-k8s/proa/internal/kubelet/cgroups"
)

// Annotation records on a container the resources that it was made with, so that nothing need be written for pods which
// are never resized.
const Annotation = "io.kubernetes.container.resources"

// fileName is where the State of a pod is kept, in the directory of the pod.
const fileName = "allocation.json"

// State is how far the resizing of a pod is. Only pods that were ever resized have one: of the others, what they declare,
// what is allocated, and what their containers run with are the same.
type State struct {
	// Allocated is what the pod is given.
	Allocated Resources `json:"allocated"`
	// Actuated are the resources of containers that were resized after they had been made, by ID.
	Actuated map[string]corev1.ResourceRequirements `json:"actuated,omitempty"`
	// Cgroup are the bounds that the cgroup of the pod has, and Pod the resources of the pod as a whole that they stand for.
	Cgroup cgroups.Limits               `json:"cgroup"`
	Pod    *corev1.ResourceRequirements `json:"pod,omitempty"`
}

// Recorded gives the text of Annotation.
func Recorded(r *corev1.ResourceRequirements) string {
	data, err := json.Marshal(corev1.ResourceRequirements{Limits: r.Limits, Requests: r.Requests})
	if err != nil {
		return ""
	}
	return string(data)
}

// Read is the inverse of Recorded. A container without the record has asked for nothing.
func Read(annotations map[string]string) corev1.ResourceRequirements {
	var r corev1.ResourceRequirements
	if err := json.Unmarshal([]byte(annotations[Annotation]), &r); err != nil {
		return corev1.ResourceRequirements{}
	}
	return r
}

// Load reads the state of the pod whose directory is dir; nil when it has none.
func Load(dir string) (*State, error) {
	path := filepath.Join(dir, fileName)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading what is allocated to a pod: %w", err)
	}
	s := &State{}
	if err := json.Unmarshal(data, s); err != nil {
		return nil, fmt.Errorf("reading what is allocated to a pod from %s: %w", path, err)
	}
	if s.Actuated == nil {
		s.Actuated = map[string]corev1.ResourceRequirements{}
	}
	return s, nil
}

// Save writes the state, whole or not at all.
func (s *State) Save(dir string) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("keeping what is allocated to a pod: %w", err)
	}
	path := filepath.Join(dir, fileName)
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		return fmt.Errorf("keeping what is allocated to a pod: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("keeping what is allocated to a pod: %w", err)
	}
	return nil
}
