package plan

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/proa-k8s/proa/internal/kubelet/cri"
)

// HashAnnotation records on a container the Hash of what it was made from.
const HashAnnotation = "io.kubernetes.container.hash"

// ContainerType says which list of the pod a container is from.
type ContainerType int

// The types of containers.
const (
	Main ContainerType = iota
	Init
	Sidecar // an init container that is restarted always
	Ephemeral
)

// Hash identifies what cannot change in a running container: when it differs the container is replaced.
func Hash(c *corev1.Container) string {
	h := fnv.New32a()
	// Only the name and the image of a container can be changed by anyone in a running pod; resources are resized in place.
	data, _ := json.Marshal(struct{ Name, Image string }{c.Name, c.Image})
	h.Write(data)
	return fmt.Sprintf("%x", h.Sum32())
}

// Restartable reports whether an init container is a sidecar.
func Restartable(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// Initialized reports whether a main container was started in the pod's newest sandbox, which means that its init
// containers have done their work.
func Initialized(pod *corev1.Pod, observed *cri.Pod) bool {
	if len(observed.Sandboxes) == 0 {
		return false
	}
	sandbox := observed.Sandboxes[0].ID
	for i := range observed.Containers {
		c := &observed.Containers[i]
		if c.SandboxID == sandbox && (c.State == cri.Running || !c.StartedAt.IsZero()) && isMain(pod, c.Name) {
			return true
		}
	}
	return false
}

func isMain(pod *corev1.Pod, name string) bool {
	return slices.ContainsFunc(pod.Spec.Containers, func(c corev1.Container) bool { return c.Name == name })
}

// shouldRestart reports whether a container that ended with that code is started again (KEP-5307 for the policy and
// the rules of a single container).
func ShouldRestart(pod *corev1.Pod, c *corev1.Container, code int32) bool {
	for i := range c.RestartPolicyRules {
		rule := &c.RestartPolicyRules[i]
		if rule.ExitCodes == nil {
			continue
		}
		in := slices.Contains(rule.ExitCodes.Values, code)
		if rule.ExitCodes.Operator == corev1.ContainerRestartRuleOnExitCodesOpNotIn {
			in = !in
		}
		if in {
			return true
		}
	}
	policy := pod.Spec.RestartPolicy
	if c.RestartPolicy != nil {
		policy = corev1.RestartPolicy(*c.RestartPolicy)
	}
	switch policy {
	case corev1.RestartPolicyNever:
		return false
	case corev1.RestartPolicyOnFailure:
		return code != 0
	}
	return true
}

// The bounds of the back-off between restarts.
const (
	InitialBackoff = 10 * time.Second
	MaximumBackoff = 5 * time.Minute
)

// Backoff is the state of restarts of one container. The zero value is that of one which was never restarted.
type Backoff struct {
	Delay   time.Duration
	Updated time.Time
}

// expired reports whether the container had run for so long that it starts afresh.
func (b Backoff) expired(finished time.Time) bool {
	return b.Updated.IsZero() || finished.Sub(b.Updated) > 2*MaximumBackoff
}

// Until is the time before which a container that ended at finished is not restarted.
func (b Backoff) Until(finished time.Time) time.Time {
	if b.expired(finished) {
		return time.Time{}
	}
	return finished.Add(b.Delay)
}

// Next is the state after a restart at now of a container that ended at finished.
func (b Backoff) Next(now, finished time.Time) Backoff {
	if b.expired(finished) {
		return Backoff{Delay: InitialBackoff, Updated: now}
	}
	return Backoff{Delay: min(2*b.Delay, MaximumBackoff), Updated: now}
}
