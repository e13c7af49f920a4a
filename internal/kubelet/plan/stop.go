package plan

import (
	"fmt"
	"time"

	"github.com/proa-k8s/proa/internal/kubelet/cri"
)

// decideStop ends the pod: first its main containers, then its sidecars in the reverse of their order, each with what
// is left of the grace period, then the sandbox.
func decideStop(in *Input, a *Actions) {
	sidecar := map[string]bool{}
	for i := range in.Pod.Spec.InitContainers {
		if c := &in.Pod.Spec.InitContainers[i]; Restartable(c) {
			sidecar[c.Name] = true
		}
	}
	alive := false
	for i := range in.Observed.Containers {
		c := &in.Observed.Containers[i]
		if !ending(c) || sidecar[c.Name] {
			continue
		}
		alive = true
		stopContainer(in, a, c, in.Stop.Grace)
	}
	for i := len(in.Pod.Spec.InitContainers) - 1; i >= 0 && !alive; i-- {
		name := in.Pod.Spec.InitContainers[i].Name
		if !sidecar[name] {
			continue
		}
		for j := range in.Observed.Containers {
			if c := &in.Observed.Containers[j]; c.Name == name && ending(c) {
				alive = true
				stopContainer(in, a, c, remaining(in))
			}
		}
	}
	if alive || len(in.Busy) > 0 || in.SandboxBusy {
		return
	}
	for i := range in.Observed.Sandboxes {
		if s := &in.Observed.Sandboxes[i]; s.State != cri.Exited {
			a.StopSandboxes = append(a.StopSandboxes, s.ID)
		}
	}
	if len(a.StopSandboxes) > 0 {
		if at, held := in.Hold[""]; held && in.Now.Before(at) {
			a.StopSandboxes = nil
			a.wakeAt(at)
		}
		return
	}
	a.Done = true
}

// ending reports whether a container must be waited for at the end of its pod.
func ending(c *cri.Container) bool { return c.State == cri.Running || c.State == cri.Unknown }

func stopContainer(in *Input, a *Actions, c *cri.Container, grace time.Duration) {
	if at, held := in.Hold[c.Name]; held && in.Now.Before(at) {
		a.wakeAt(at)
		return
	}
	killOnce(in, a, c, grace, fmt.Sprintf("Stopping container %s", c.Name))
}

// remaining is what is left of the grace period for the sidecars, at least MinimumGrace unless the whole was less.
func remaining(in *Input) time.Duration {
	left := in.Stop.Grace - in.Now.Sub(in.Stop.Since)
	return max(left, min(MinimumGrace, in.Stop.Grace))
}
