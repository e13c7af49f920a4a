// Package node speaks for the machine: it registers the Node, keeps its status current, and renews its Lease.
//
// What flows in are facts about the machine and the state of the container runtime; what flows out is the Node object,
// written when something has changed or five minutes have passed, and the Lease, renewed every ten seconds, which is the
// only work of an idle node.
package node

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	nodeutil "k8s.io/component-helpers/node/util"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/proa-k8s/proa/internal/api/core"
)

// The times of a node's heart.
const (
	leaseDuration = 40 * time.Second
	leaseRenewal  = 10 * time.Second
	statusPeriod  = 5 * time.Minute
	runtimePeriod = 5 * time.Second // how often a runtime that was not ready is asked again, at the slowest
	healthyPeriod = 30 * time.Second
)

// Config is what a Node is made of.
type Config struct {
	Client kubernetes.Interface
	Name   string
	// Object is the node as it is to be registered: labels, taints, spec, and the parts of its status that do not change.
	Object  *corev1.Node
	Runtime runtimeapi.RuntimeServiceClient
	Images  runtimeapi.ImageServiceClient
	// NetworkReady is called each time the runtime's word on its network has changed.
	NetworkReady func(bool)
	// Event is told what the node's users are to learn of it.
	Event func(eventType, reason, message string)
	Log   *slog.Logger
}

// Node keeps one Node object.
type Node struct {
	cfg Config

	mu       sync.Mutex
	pressure map[corev1.NodeConditionType]bool
	known    *corev1.Node // as the API has it
	poke     chan struct{}
	ready    chan struct{}
	once     sync.Once
	network  *bool
	healthy  bool
}

// New makes a Node.
func New(cfg Config) *Node {
	return &Node{cfg: cfg, pressure: map[corev1.NodeConditionType]bool{}, poke: make(chan struct{}, 1), ready: make(chan struct{})}
}

// Ready is closed when the node was reported ready for the first time.
func (n *Node) Ready() <-chan struct{} { return n.ready }

// SetPressure says whether a resource of the node is short: MemoryPressure, DiskPressure, PIDPressure.
func (n *Node) SetPressure(t corev1.NodeConditionType, on bool) {
	n.mu.Lock()
	changed := n.pressure[t] != on
	n.pressure[t] = on
	n.mu.Unlock()
	if changed {
		n.Poke()
	}
}

// Pressure reports what SetPressure has set.
func (n *Node) Pressure(t corev1.NodeConditionType) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.pressure[t]
}

// Labels are those that the node has in the API, and nil before it is registered.
func (n *Node) Labels() map[string]string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.known == nil {
		return nil
	}
	return n.known.Labels
}

// Current is the node as the API has it, or nil before it is registered. It is shared: do not change it.
func (n *Node) Current() *corev1.Node {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.known
}

// Refresh reads what others have written to the node since it was last reported: labels, taints, extended resources.
func (n *Node) Refresh(ctx context.Context) error {
	fresh, err := n.cfg.Client.CoreV1().Nodes().Get(ctx, n.cfg.Name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("reading the node: %w", err)
	}
	n.setKnown(fresh)
	return nil
}

// Poke has the status looked at now.
func (n *Node) Poke() {
	select {
	case n.poke <- struct{}{}:
	default:
	}
}

// Run registers the node and keeps it current until ctx is done.
func (n *Node) Run(ctx context.Context) error {
	if err := n.register(ctx); err != nil || ctx.Err() != nil {
		return err // ended before there was a node: there is nothing to report
	}
	var wg sync.WaitGroup
	wg.Go(func() { n.renew(ctx) })
	n.report(ctx)
	wg.Wait()
	return nil
}

// register creates the Node, or takes over the one that is there.
func (n *Node) register(ctx context.Context) error {
	for delay := 20 * time.Millisecond; ; delay = min(2*delay, 5*time.Second) {
		err := n.tryRegister(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return nil
		}
		n.cfg.Log.Warn("registering the node failed", "err", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(delay):
		}
	}
}

func (n *Node) tryRegister(ctx context.Context) error {
	nodes := n.cfg.Client.CoreV1().Nodes()
	first := n.cfg.Object.DeepCopy()
	first.Status.Conditions = n.conditions(ctx, nil)
	made, err := nodes.Create(ctx, first, metav1.CreateOptions{})
	if err == nil {
		n.setKnown(made)
		n.announce(nil, first.Status.Conditions)
		return nil
	}
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	old, err := nodes.Get(ctx, n.cfg.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	fresh := old.DeepCopy()
	if fresh.Labels == nil {
		fresh.Labels = map[string]string{}
	}
	maps.Copy(fresh.Labels, n.cfg.Object.Labels)
	if fresh.Spec.ProviderID == "" {
		fresh.Spec.ProviderID = n.cfg.Object.Spec.ProviderID
	}
	if !equality.Semantic.DeepEqual(old, fresh) {
		if fresh, err = nodes.Update(ctx, fresh, metav1.UpdateOptions{}); err != nil {
			return err
		}
	}
	n.setKnown(fresh)
	n.announce(nil, first.Status.Conditions)
	if was, is := old.Status.NodeInfo.BootID, n.cfg.Object.Status.NodeInfo.BootID; was != "" && was != is {
		n.cfg.Event(corev1.EventTypeWarning, "Rebooted", fmt.Sprintf("Node %s has been rebooted, boot id: %s", n.cfg.Name, is))
	}
	return nil
}

func (n *Node) setKnown(node *corev1.Node) {
	n.mu.Lock()
	n.known = node
	n.mu.Unlock()
	if _, c := nodeutil.GetNodeCondition(&node.Status, corev1.NodeReady); c != nil && c.Status == corev1.ConditionTrue {
		n.once.Do(func() { close(n.ready) })
	}
}

// report writes the status when it has changed, or has not been written for a while.
func (n *Node) report(ctx context.Context) {
	wait := time.Duration(0)
	retry := 20 * time.Millisecond
	var written time.Time // never by this process
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.poke:
		case <-time.After(wait):
		}
		ok, err := n.sync(ctx, time.Since(written) >= statusPeriod, !written.IsZero())
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			n.cfg.Log.Warn("writing the status of the node failed", "err", err)
			wait, retry = retry, min(2*retry, runtimePeriod)
			continue
		case ok:
			written = time.Now()
		}
		if n.healthy {
			wait, retry = healthyPeriod, 20*time.Millisecond
		} else {
			wait, retry = retry, min(2*retry, runtimePeriod)
		}
	}
}

// sync makes the status and writes it if it has changed or is due; with reread after reading what others have written.
// written says that the API has it as of now.
func (n *Node) sync(ctx context.Context, due, reread bool) (written bool, err error) {
	n.mu.Lock()
	known := n.known
	n.mu.Unlock()
	if due && reread {
		// Others write the node too: taints, labels, pod ranges. Begin from what is there.
		fresh, err := n.cfg.Client.CoreV1().Nodes().Get(ctx, n.cfg.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return false, n.register(ctx) // someone has deleted it; the machine is still here
		}
		if err != nil {
			return false, err
		}
		known = fresh
	}
	want := known.DeepCopy()
	fixed := n.cfg.Object.Status
	want.Status.Capacity = withOthers(fixed.Capacity, known.Status.Capacity)
	want.Status.Allocatable = withOthers(fixed.Allocatable, known.Status.Allocatable)
	want.Status.Addresses, want.Status.DaemonEndpoints = fixed.Addresses, fixed.DaemonEndpoints
	want.Status.NodeInfo = fixed.NodeInfo
	want.Status.Conditions = n.conditions(ctx, known.Status.Conditions)
	n.runtimeFacts(ctx, &want.Status)
	if due {
		want.Status.Images = n.images(ctx)
	} else if sameStatus(&known.Status, &want.Status) {
		n.setKnown(known)
		return false, nil
	}
	if !due && want.Status.Images == nil {
		want.Status.Images = n.images(ctx)
	}
	now := metav1.NewTime(time.Now().Truncate(time.Second))
	for i := range want.Status.Conditions {
		if own(want.Status.Conditions[i].Type) {
			want.Status.Conditions[i].LastHeartbeatTime = now
		}
	}
	made, _, err := nodeutil.PatchNodeStatus(n.cfg.Client.CoreV1(), types.NodeName(n.cfg.Name), known, want)
	if apierrors.IsNotFound(err) {
		return false, n.register(ctx)
	}
	if err != nil {
		return false, err
	}
	n.setKnown(made)
	n.announce(known.Status.Conditions, want.Status.Conditions)
	return true, nil
}

// withOthers adds to the machine's own resources the extended ones that others have written.
func withOthers(own, written corev1.ResourceList) corev1.ResourceList {
	all := maps.Clone(own)
	for name, q := range written {
		if _, is := own[name]; !is && core.IsExtendedResource(name) {
			all[name] = q
		}
	}
	return all
}

// sameStatus compares all but heartbeat times.
func sameStatus(a, b *corev1.NodeStatus) bool {
	a, b = a.DeepCopy(), b.DeepCopy()
	for _, s := range []*corev1.NodeStatus{a, b} {
		for i := range s.Conditions {
			s.Conditions[i].LastHeartbeatTime = metav1.Time{}
		}
	}
	return equality.Semantic.DeepEqual(a, b)
}

// renew keeps the Lease that says that the node is alive.
func (n *Node) renew(ctx context.Context) {
	leases := n.cfg.Client.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	var lease *coordinationv1.Lease
	retry := 50 * time.Millisecond
	for {
		err := func() error {
			ctx, cancel := context.WithTimeout(ctx, leaseRenewal)
			defer cancel()
			now := metav1.NowMicro()
			if lease == nil {
				found, err := leases.Get(ctx, n.cfg.Name, metav1.GetOptions{})
				if apierrors.IsNotFound(err) {
					found, err = leases.Create(ctx, n.newLease(now), metav1.CreateOptions{})
				}
				if err != nil {
					return err
				}
				lease = found
			}
			fresh := lease.DeepCopy()
			fresh.Spec = n.newLease(now).Spec
			updated, err := leases.Update(ctx, fresh, metav1.UpdateOptions{})
			if err != nil {
				lease = nil // read it again
				return err
			}
			lease = updated
			return nil
		}()
		wait := leaseRenewal
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			n.cfg.Log.Warn("renewing the lease of the node failed", "err", err)
			wait, retry = retry, min(2*retry, leaseRenewal/2)
		} else {
			retry = 50 * time.Millisecond
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

func (n *Node) newLease(now metav1.MicroTime) *coordinationv1.Lease {
	seconds := int32(leaseDuration / time.Second)
	lease := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: n.cfg.Name, Namespace: corev1.NamespaceNodeLease},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity: &n.cfg.Name, LeaseDurationSeconds: &seconds, RenewTime: &now,
		},
	}
	if node := n.Current(); node != nil {
		lease.OwnerReferences = []metav1.OwnerReference{{
			APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID,
		}}
	}
	return lease
}

// conditions gives what the node is like now. Conditions of others are kept.
func (n *Node) conditions(ctx context.Context, old []corev1.NodeCondition) []corev1.NodeCondition {
	now := metav1.NewTime(time.Now().Truncate(time.Second))
	n.mu.Lock()
	memory, disk, pids := n.pressure[corev1.NodeMemoryPressure], n.pressure[corev1.NodeDiskPressure], n.pressure[corev1.NodePIDPressure]
	n.mu.Unlock()
	list := []corev1.NodeCondition{
		pressure(corev1.NodeMemoryPressure, memory, "KubeletHasInsufficientMemory", "kubelet has insufficient memory available",
			"KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
		pressure(corev1.NodeDiskPressure, disk, "KubeletHasDiskPressure", "kubelet has disk pressure",
			"KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
		pressure(corev1.NodePIDPressure, pids, "KubeletHasInsufficientPID", "kubelet has insufficient PID available",
			"KubeletHasSufficientPID", "kubelet has sufficient PID available"),
		n.readyCondition(ctx),
	}
	for i := range list {
		c := &list[i]
		c.LastTransitionTime, c.LastHeartbeatTime = now, now
		for j := range old {
			if old[j].Type == c.Type {
				c.LastHeartbeatTime = old[j].LastHeartbeatTime
				if old[j].Status == c.Status {
					c.LastTransitionTime = old[j].LastTransitionTime
				}
			}
		}
	}
	for _, c := range old {
		if !own(c.Type) {
			list = append(list, c)
		}
	}
	return list
}

func own(t corev1.NodeConditionType) bool {
	switch t {
	case corev1.NodeReady, corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure:
		return true
	}
	return false
}

func pressure(t corev1.NodeConditionType, on bool, reasonOn, messageOn, reasonOff, messageOff string) corev1.NodeCondition {
	if on {
		return corev1.NodeCondition{Type: t, Status: corev1.ConditionTrue, Reason: reasonOn, Message: messageOn}
	}
	return corev1.NodeCondition{Type: t, Status: corev1.ConditionFalse, Reason: reasonOff, Message: messageOff}
}

// readyCondition asks the runtime.
func (n *Node) readyCondition(ctx context.Context) corev1.NodeCondition {
	ctx, cancel := context.WithTimeout(ctx, runtimePeriod)
	defer cancel()
	not := func(message string) corev1.NodeCondition {
		n.healthy = false
		return corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionFalse, Reason: "KubeletNotReady", Message: message}
	}
	answer, err := n.cfg.Runtime.Status(ctx, &runtimeapi.StatusRequest{})
	if err != nil {
		return not(fmt.Sprintf("container runtime status check failed: %v", err))
	}
	message := ""
	network := false
	for _, c := range answer.GetStatus().GetConditions() {
		network = network || c.Type == runtimeapi.NetworkReady && c.Status
		if c.Status {
			continue
		}
		switch c.Type {
		case runtimeapi.RuntimeReady:
			message = fmt.Sprintf("container runtime not ready: RuntimeReady=false reason:%s message:%s", c.Reason, c.Message)
		case runtimeapi.NetworkReady:
			if message == "" {
				message = fmt.Sprintf("container runtime network not ready: NetworkReady=false reason:%s message:%s", c.Reason, c.Message)
			}
		}
	}
	if n.network == nil || *n.network != network {
		n.network = &network
		n.cfg.NetworkReady(network)
	}
	if message != "" {
		return not(message)
	}
	n.healthy = true
	return corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady", Message: "kubelet is posting ready status"}
}
