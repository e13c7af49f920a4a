// Package kubelet is the node agent: it makes the containers of this node be what the pods that are bound to it declare,
// and reports what it observes.
//
// What flows in are pods (from the API server and from the directory of static pods), the objects they refer to, and
// the events of a container runtime that speaks CRI v1. What flows out are calls to that runtime, the status of the
// pods, the Node object with its Lease, and events. One goroutine per pod turns desired and observed state into actions
// by the pure function of package plan; everything that takes long runs beside it and reports back.
package kubelet

import (
	"context"

	corev1 "k8s.io/api/core/v1"
)

// Kubelet is the agent of one node.
type Kubelet struct {
	cfg Config
}

// New checks the configuration. It touches nothing; Run does.
func New(cfg Config) (*Kubelet, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	return &Kubelet{cfg: cfg}, nil
}

// Run registers the node and runs its pods until ctx is done, and returns when all that it started has ended. The
// containers live on; the next Run adopts them.
func (k *Kubelet) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Pods returns the pods of this node with their current status, in no order. They are shared: do not change them.
func (k *Kubelet) Pods() []*corev1.Pod { return nil }

// Pod returns the pod of that name with its current status, or nil. It is shared: do not change it.
func (k *Kubelet) Pod(namespace, name string) *corev1.Pod { return nil }

// Ready is closed once the node was reported Ready for the first time.
func (k *Kubelet) Ready() <-chan struct{} { return nil }
