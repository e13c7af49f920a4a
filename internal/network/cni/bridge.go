package cni

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// rejectMetric makes the routes of the cluster's ranges lose against every route that leads somewhere.
const rejectMetric = 1 << 20

// setupBridge makes the bridge with the node's addresses, and the routes around it.
func setupBridge(c Config, podRanges []netip.Prefix) error {
	// The runtime's plugin would make the bridge, too, but with the first pod: services must be reachable before, and a
	// hardware address of its own keeps it from changing with the pods that come and go.
	bridge, err := ensureBridge(c.Bridge)
	if err != nil {
		return fmt.Errorf("bridge %s: %w", c.Bridge, err)
	}
	for _, p := range podRanges {
		// Nobody else can have the address, so IPv6 need not look for a second before it can be used.
		if err := netlink.AddrReplace(bridge, &netlink.Addr{IPNet: ipNet(gateway(p)), Flags: unix.IFA_F_NODAD}); err != nil {
			return fmt.Errorf("bridge %s: adding address %s: %w", c.Bridge, gateway(p), err)
		}
	}
	if err := netlink.LinkSetUp(bridge); err != nil {
		return fmt.Errorf("bridge %s: %w", c.Bridge, err)
	}
	if err := enableForwarding(c, podRanges); err != nil {
		return err
	}
	for _, p := range c.ClusterCIDRs {
		// What no node has is unreachable, at once.
		route := &netlink.Route{Dst: ipNet(p), Type: unix.RTN_UNREACHABLE, Priority: rejectMetric}
		if err := netlink.RouteReplace(route); err != nil {
			return fmt.Errorf("route that rejects %s: %w", p, err)
		}
	}
	for _, p := range c.ServiceCIDRs {
		// A process of the node finds a route before the service proxy sees its packet, also on a machine without a default
		// route. What the proxy does not take ends at the bridge.
		route := &netlink.Route{Dst: ipNet(p), LinkIndex: bridge.Attrs().Index, Priority: rejectMetric, Scope: unix.RT_SCOPE_LINK}
		if err := netlink.RouteReplace(route); err != nil {
			return fmt.Errorf("route for services %s: %w", p, err)
		}
	}
	return nil
}

// Cleanup removes the routes that Setup has made and that don't go with the bridge. What isn't there is not an error.
func Cleanup(clusterCIDRs []netip.Prefix) error {
	var errs []error
	for _, p := range clusterCIDRs {
		route := &netlink.Route{Dst: ipNet(p), Type: unix.RTN_UNREACHABLE, Priority: rejectMetric}
		if err := netlink.RouteDel(route); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("route that rejects %s: %w", p, err))
		}
	}
	return errors.Join(errs...)
}

func ensureBridge(name string) (netlink.Link, error) {
	link, err := netlink.LinkByName(name)
	if err == nil {
		if link.Type() != "bridge" {
			return nil, fmt.Errorf("there is a link of that name, but it is of type %s", link.Type())
		}
		return link, nil
	}
	if !errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil, err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr = name, hardwareAddr(name)
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, err
	}
	return netlink.LinkByName(name)
}

// hardwareAddr derives a locally administered address from the bridge's name and the machine.
func hardwareAddr(name string) net.HardwareAddr {
	id, err := os.ReadFile("/etc/machine-id")
	if err != nil {
		host, _ := os.Hostname()
		id = []byte(host)
	}
	sum := sha256.Sum256(append(id, name...))
	return append(net.HardwareAddr{0x02}, sum[:5]...)
}

// enableForwarding lets packets pass between pods and the rest, and through netfilter: what is sent from pod to pod by way of a
// service comes back from pod to pod across the bridge, and has to be translated back there.
func enableForwarding(c Config, podRanges []netip.Prefix) error {
	if err := loadBridgeNetfilter(); err != nil {
		c.Log.Warn("the kernel does not filter what passes a bridge: services will not work between pods of one node", "err", err)
	}
	settings := map[string]string{}
	for _, p := range podRanges {
		if p.Addr().Is4() {
			settings["/proc/sys/net/ipv4/ip_forward"] = "1"
			settings["/sys/class/net/"+c.Bridge+"/bridge/nf_call_iptables"] = "1"
		} else {
			settings["/proc/sys/net/ipv6/conf/all/forwarding"] = "1"
			settings["/sys/class/net/"+c.Bridge+"/bridge/nf_call_ip6tables"] = "1"
		}
	}
	for path, value := range settings {
		err := os.WriteFile(path, []byte(value), 0)
		if errors.Is(err, os.ErrNotExist) && strings.HasPrefix(path, "/sys/") {
			continue // of this, there was a warning above
		}
		if err != nil {
			return fmt.Errorf("setting %s: %w", path, err)
		}
	}
	return nil
}

// loadBridgeNetfilter loads br_netfilter unless the kernel has it. Other modules are loaded by the kernel itself when something
// needs them; this one nobody asks for, and without it the settings of a bridge are accepted and do nothing.
func loadBridgeNetfilter() error {
	if _, err := os.Stat("/proc/sys/net/bridge/bridge-nf-call-iptables"); err == nil {
		return nil
	}
	if out, err := exec.Command("modprobe", "br_netfilter").CombinedOutput(); err != nil {
		return fmt.Errorf("loading the module br_netfilter: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// routeLoopback lets a process of the node reach a pod's host port at 127.0.0.1: its packets leave by the bridge.
func routeLoopback(c Config, podRanges []netip.Prefix) error {
	if len(ofFamily(podRanges, netip.IPv4Unspecified())) == 0 {
		return nil
	}
	path := "/proc/sys/net/ipv4/conf/" + c.Bridge + "/route_localnet"
	if err := os.WriteFile(path, []byte("1"), 0); err != nil {
		return fmt.Errorf("setting %s: %w", path, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// setupRules replaces the table with the rule that masquerades: what pods send to the outside has the node's address there; and
// with the rule that keeps pods from the node's 127.0.0.0/8, which routeLoopback would let them reach. The change is one
// transaction, so there is no moment without the rules.
func setupRules(c Config) error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: c.Table}
	conn.AddTable(table) // so that there is one to delete
	conn.DelTable(table)
	table = conn.AddTable(table)
	masquerade := conn.AddChain(&nftables.Chain{Table: table, Name: "masquerade", Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource})
	for _, family := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		pods := ofFamily(c.ClusterCIDRs, family)
		if len(pods) == 0 {
			continue
		}
		for _, from := range pods {
			exprs := matchPrefix(from, source, expr.CmpOpEq)
			for _, inside := range append(pods, ofFamily(c.ServiceCIDRs, family)...) {
				exprs = append(exprs, matchPrefix(inside, destination, expr.CmpOpNeq)[2:]...)
			}
			conn.AddRule(&nftables.Rule{Table: table, Chain: masquerade, Exprs: append(append(exprs, notMulticast(family)...), &expr.Masq{})})
		}
	}
	guardLoopback(conn, table, c.Bridge)
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("nftables table %s: %w", c.Table, err)
	}
	return nil
}

// guardLoopback drops what comes from the bridge for 127.0.0.0/8, but for answers.
func guardLoopback(conn *nftables.Conn, table *nftables.Table, bridge string) {
	input := conn.AddChain(&nftables.Chain{Table: table, Name: "input", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter})
	name := append([]byte(bridge), make([]byte, unix.IFNAMSIZ-len(bridge))...)
	answers := binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED)
	exprs := append([]expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: name},
	}, matchPrefix(netip.MustParsePrefix("127.0.0.0/8"), destination, expr.CmpOpEq)...)
	conn.AddRule(&nftables.Rule{Table: table, Chain: input, Exprs: append(exprs,
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: answers, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: make([]byte, 4)},
		&expr.Verdict{Kind: expr.VerdictDrop},
	)})
}

func ofFamily(all []netip.Prefix, family netip.Addr) []netip.Prefix {
	var some []netip.Prefix
	for _, p := range all {
		if p.Addr().Is4() == family.Is4() {
			some = append(some, p)
		}
	}
	return some
}

type side int

const (
	source side = iota
	destination
)

// matchPrefix compares an address with a range: the protocol of the packet (two expressions), then the address.
func matchPrefix(p netip.Prefix, which side, op expr.CmpOp) []expr.Any {
	proto, offset, size := byte(unix.NFPROTO_IPV4), uint32(12), uint32(4)
	if p.Addr().Is6() {
		proto, offset, size = unix.NFPROTO_IPV6, 8, 16
	}
	if which == destination {
		offset += size
	}
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{proto}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: size, Mask: net.CIDRMask(p.Bits(), int(size)*8), Xor: make([]byte, size)},
		&expr.Cmp{Op: op, Register: 1, Data: p.Masked().Addr().AsSlice()},
	}
}

// notMulticast leaves packets to groups alone, which nobody answers.
func notMulticast(family netip.Addr) []expr.Any {
	group := netip.MustParsePrefix("224.0.0.0/4")
	if family.Is6() {
		group = netip.MustParsePrefix("ff00::/8")
	}
	return matchPrefix(group, destination, expr.CmpOpNeq)[2:]
}
