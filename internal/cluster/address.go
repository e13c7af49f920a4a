package cluster

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	utilnet "k8s.io/apimachinery/pkg/util/net"
)

// nodeAddress is the address that packets to the outside have. A machine without a way to the outside has the address of one
// of its links.
func nodeAddress() (netip.Addr, error) {
	if ip, err := utilnet.ChooseHostInterface(); err == nil {
		if addr, ok := netip.AddrFromSlice(ip); ok {
			return addr.Unmap(), nil
		}
	}
	links, err := netlink.LinkList()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("looking for the node's address: %w", err)
	}
	var found []linkAddress
	for _, link := range links {
		addrs, err := netlink.AddrList(link, netlink.FAMILY_ALL)
		if err != nil {
			return netip.Addr{}, fmt.Errorf("looking for the node's address: link %s: %w", link.Attrs().Name, err)
		}
		for _, a := range addrs {
			if ip, ok := netip.AddrFromSlice(a.IP); ok {
				found = append(found, linkAddress{link.Attrs().Name, link.Type(), ip.Unmap()})
			}
		}
	}
	if best, ok := bestAddress(found); ok {
		return best, nil
	}
	return netip.Addr{}, errors.New("the machine has no address beside those of loopback, at which others could reach the node: connect it to a network, or add a link that has one (ip link add dummy0 up type dummy; ip address add 192.0.2.1/32 dev dummy0)")
}

// linkAddress is an address of a link of some kind.
type linkAddress struct {
	link, kind string
	addr       netip.Addr
}

// bestAddress chooses the first address that is neither of this machine or link alone nor of a cluster's own bridge, of IPv4 and of
// links that are no bridge, if there are such.
func bestAddress(all []linkAddress) (netip.Addr, bool) {
	rank := func(a linkAddress) int {
		n := 0
		if a.kind == "bridge" {
			n++
		}
		if a.addr.Is6() {
			n += 2
		}
		return n
	}
	var best *linkAddress
	for i, a := range all {
		if !a.addr.IsGlobalUnicast() || a.kind == "bridge" && strings.HasPrefix(a.link, DefaultName) {
			continue
		}
		if best == nil || rank(a) < rank(*best) {
			best = &all[i]
		}
	}
	if best == nil {
		return netip.Addr{}, false
	}
	return best.addr, true
}
