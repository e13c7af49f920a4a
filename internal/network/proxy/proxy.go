// Package proxy is the service proxy of a node: it translates the addresses of services to those of their endpoints, and the
// ports of the node that pods have (hostPort) to those of the pods.
//
// What flows in are services, endpoint slices, the node's own labels and its pods; what flows out is an nftables table of each address
// family, listeners for the health checks of load balancers, and the removal of connection tracking entries that lead
// nowhere any more.
//
// Decisions are pure: rulesFor says what one service needs, encode turns that into elements of nftables maps, and the
// ledger compares with what the kernel has. A change of a service changes elements of maps only, in one transaction, so the
// work is proportional to the change and not to the number of services; see layout.go for what is in a table.
package proxy

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"k8s.io/client-go/kubernetes"
)

// Config says what the proxy works with.
type Config struct {
	NodeName string
	NodeIPs  []netip.Addr
	// Client reads services, endpoint slices and the node; NodeClient, which has the node's identity, reads its pods.
	Client, NodeClient kubernetes.Interface

	// Table is the name of the nftables tables, one for each family (ip, ip6) of ServiceCIDRs.
	Table string
	// ClusterCIDRs and ServiceCIDRs are the ranges of all pods and of all services. What is sent to a service address that
	// nobody has is rejected; what does not come from a pod has the node's address when it is sent to an endpoint.
	ClusterCIDRs, ServiceCIDRs []netip.Prefix
	// Bridge is the link that pods are attached to.
	Bridge string

	Log *slog.Logger
}

// retryDelay is how long the proxy waits after the kernel has refused its rules.
const retryDelay = 5 * time.Second

// Run keeps the node's rules up to date until ctx ends. The rules stay when it returns: the next start takes them over
// without a gap.
func Run(ctx context.Context, c Config) error {
	p := &proxy{Config: c, objects: newObjects(), ledger: newLedger(), kernel: newKernel(c), health: newHealthChecks(c.Log)}
	p.node = node{name: c.NodeName, ips: c.NodeIPs}
	p.node.v4, p.node.v6 = p.kernel.families()
	defer p.health.close()
	defer p.kernel.close()

	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { p.objects.watch(ctx, c.Client, c.NodeClient, c.NodeName) })
	defer watching.Wait()
	defer cancel()

	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.objects.changed:
		case <-p.retry:
		}
		p.sync(ctx)
	}
}

// proxy is what Run works with. It is used by one goroutine, but for objects.
type proxy struct {
	Config
	objects *objects
	ledger  *ledger
	kernel  *kernel
	health  *healthChecks
	node    node

	written bool             // the kernel has what the ledger says
	retry   <-chan time.Time // when the kernel is tried again
}

// sync brings everything that has changed to the kernel, in one transaction.
func (p *proxy) sync(ctx context.Context) {
	inputs, zone, ok := p.objects.take()
	if !ok {
		return
	}
	p.node.zone = zone
	p.ledger.begin()
	var stale *staleFlows
	for _, in := range inputs {
		before := p.ledger.services[in.name]
		after := in.rules(p.node)
		p.ledger.replace(in.name, after)
		stale = stale.add(newStaleFlows(before, after))
		p.health.set(ctx, in.name, after.health)
	}
	p.write(p.ledger.commit())
	if stale != nil && p.written {
		n, err := stale.remove(p.node.v4, p.node.v6)
		if err != nil {
			p.Log.Warn("can't remove stale UDP entries from connection tracking", "error", err)
		}
		p.Log.Debug("removed stale UDP entries from connection tracking", "entries", n)
	}
}

// write changes the kernel's tables. When they are not what they should be, because this is the first time or because
// somebody else has touched them, it replaces them.
func (p *proxy) write(c changes) {
	p.retry = nil
	if p.written {
		err := p.kernel.apply(c)
		if err == nil {
			return
		}
		p.written = false
		p.Log.Warn("the nftables tables are not as they were left, replacing them", "error", err)
	}
	if err := p.kernel.replace(p.ledger.everything()); err != nil {
		p.Log.Error("can't write the rules for services, trying again", "in", retryDelay, "error", err)
		p.retry = time.After(retryDelay)
		return
	}
	p.written = true
}
