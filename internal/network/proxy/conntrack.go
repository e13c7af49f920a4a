package proxy

import (
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// staleFlows selects the entries of connection tracking that lead clients of UDP services to where they are no longer served.
// A client that goes on sending from the same port would never get a new endpoint: its entry stays alive.
type staleFlows struct {
	// serving says, for each frontend whose rules have changed, which endpoints are right.
	serving map[frontend]map[netip.AddrPort]bool
	// local are the addresses of this node, where node ports are.
	local map[netip.Addr]bool
}

// newStaleFlows compares the rules of a service before and after a change. It is nil when no entry can have become stale.
func newStaleFlows(before, after rules) *staleFlows {
	s := &staleFlows{serving: map[frontend]map[netip.AddrPort]bool{}}
	for _, r := range []rules{before, after} {
		for f := range r.frontends {
			if f.proto == unix.IPPROTO_UDP && s.serving[f] == nil && lessServed(before, after, f) {
				s.serving[f] = after.endpoints(f)
			}
		}
	}
	if len(s.serving) == 0 {
		return nil
	}
	return s
}

// endpoints are all to which a frontend leads anyone.
func (r rules) endpoints(f frontend) map[netip.AddrPort]bool {
	all := map[netip.AddrPort]bool{}
	for _, m := range []map[frontend]target{r.frontends, r.internal} {
		if t, ok := m[f]; ok && t.class.refuse == accept {
			for _, e := range r.pools[t.pool].endpoints {
				all[e] = true
			}
		}
	}
	return all
}

// lessServed tells whether there can be entries for a frontend that are right no more: some that lead to an endpoint that is
// gone, or some without any translation, from the time when there was no endpoint.
func lessServed(before, after rules, f frontend) bool {
	was, is := before.endpoints(f), after.endpoints(f)
	if len(was) == 0 {
		return len(is) > 0
	}
	for e := range was {
		if !is[e] {
			return true
		}
	}
	return false
}

// add joins two selections; either may be nil.
func (s *staleFlows) add(other *staleFlows) *staleFlows {
	if s == nil || other == nil {
		if s == nil {
			return other
		}
		return s
	}
	for f, endpoints := range other.serving {
		s.serving[f] = endpoints
	}
	return s
}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (s *staleFlows) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	if flow.Forward.Protocol != unix.IPPROTO_UDP {
		return false
	}
	to, from := addrPort(flow.Forward.DstIP, flow.Forward.DstPort), addrPort(flow.Reverse.SrcIP, flow.Reverse.SrcPort)
	serving, ok := s.serving[frontend{addr: to.Addr(), proto: unix.IPPROTO_UDP, port: to.Port()}]
	if !ok && s.local[to.Addr()] {
		any := netip.IPv4Unspecified()
		if to.Addr().Is6() {
			any = netip.IPv6Unspecified()
		}
		serving, ok = s.serving[frontend{addr: any, proto: unix.IPPROTO_UDP, port: to.Port()}]
	}
	return ok && !serving[from]
}

func addrPort(ip net.IP, port uint16) netip.AddrPort {
	addr, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(addr.Unmap(), port)
}

// remove removes the entries from the kernel's table, and returns how many there were.
func (s *staleFlows) remove(v4, v6 bool) (uint, error) {
	local, err := localAddresses()
	if err != nil {
		return 0, err
	}
	s.local = local
	var removed uint
	for family, has := range map[netlink.InetFamily]bool{unix.AF_INET: v4, unix.AF_INET6: v6} {
		if !has {
			continue
		}
		n, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, s)
		removed += n
		if err != nil {
			return removed, err
		}
	}
	return removed, nil
}

func localAddresses() (map[netip.Addr]bool, error) {
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, err
	}
	local := map[netip.Addr]bool{}
	for _, a := range addrs {
		if addr, ok := netip.AddrFromSlice(a.IP); ok {
			local[addr.Unmap()] = true
		}
	}
	return local, nil
}
