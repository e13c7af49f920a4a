package proxy

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// A table of one family holds, beside its base chains:
//
//	services             address . protocol . port → chain of its class     cluster IPs, external IPs, load balancers' addresses
//	node-ports           protocol . port → chain of its class
//	internal-services    the same for clients in the cluster, where externalTrafficPolicy is Local
//	internal-node-ports
//	host-ports           protocol . port → chain of its class               ports of the node that are a pod's
//	endpoints            address . protocol . port . index → address . port; and such a map for each of the other four
//	sources              address . protocol . port . client range           loadBalancerSourceRanges
//	hairpins             address . address                                  pods that may be sent their own connections
//
// The first packet of a connection finds its class in the map services (or node-ports), and the chain of the class draws an
// index that, with the address and port, is the key of an endpoint. A class is all in which services differ but for addresses
// (how many endpoints, who is masqueraded), so there are few chains, and they rarely change. Services with session affinity are
// each a class of their own: each of their endpoints has a chain, and a set of the clients that have it, whose elements the
// kernel adds and lets expire. The chains that look at services are of type nat: the packets of an established connection pass
// none of this.
//
// What a map gives is never the key of another lookup: nft(8) before version 1.0.8 can't list such rules, and aborts.

const (
	// maxClients is how many clients of one endpoint are remembered.
	maxClients = 1 << 16

	// masqueradeMark marks packets between nat hooks, as in every Kubernetes cluster.
	masqueradeMark = 0x4000

	chainServices = "to-services"
	chainReject   = "refuse"
	chainMark     = "mark-masquerade"
	chainOutside  = "mark-outside"
)

// part is what keys and values are put together from.
type part uint8

const (
	partAddress part = iota
	partProtocol
	partPort
	partNumber
	partVerdict
)

// setNames describe the sets and maps; a set has no value.
var setNames = [sets]struct {
	name       string
	key, value []part
}{
	setServices:                  {"services", []part{partAddress, partProtocol, partPort}, []part{partVerdict}},
	setNodePorts:                 {"node-ports", []part{partProtocol, partPort}, []part{partVerdict}},
	setInternalServices:          {"internal-services", []part{partAddress, partProtocol, partPort}, []part{partVerdict}},
	setInternalNodePorts:         {"internal-node-ports", []part{partProtocol, partPort}, []part{partVerdict}},
	setHostPorts:                 {"host-ports", []part{partProtocol, partPort}, []part{partVerdict}},
	setEndpoints:                 {"endpoints", []part{partAddress, partProtocol, partPort, partNumber}, []part{partAddress, partPort}},
	setNodePortEndpoints:         {"node-port-endpoints", []part{partProtocol, partPort, partNumber}, []part{partAddress, partPort}},
	setInternalEndpoints:         {"internal-endpoints", []part{partAddress, partProtocol, partPort, partNumber}, []part{partAddress, partPort}},
	setInternalNodePortEndpoints: {"internal-node-port-endpoints", []part{partProtocol, partPort, partNumber}, []part{partAddress, partPort}},
	setHostPortEndpoints:         {"host-port-endpoints", []part{partProtocol, partPort, partNumber}, []part{partAddress, partPort}},
	setSources:                   {"sources", []part{partAddress, partProtocol, partPort, partAddress}, nil},
	setHairpins:                  {"hairpins", []part{partAddress, partAddress}, nil},
}

// layout knows the constant parts of the table of one family.
type layout struct {
	table    *nftables.Table
	v6       bool
	pods     []netip.Prefix // of the family
	services []netip.Prefix
	sets     [sets]*nftables.Set
}

func newLayout(name string, v6 bool, pods, services []netip.Prefix) *layout {
	l := &layout{v6: v6, pods: ofFamily(pods, v6), services: ofFamily(services, v6)}
	l.table = &nftables.Table{Name: name, Family: nftables.TableFamilyIPv4}
	if v6 {
		l.table.Family = nftables.TableFamilyIPv6
	}
	types := [...]nftables.SetDatatype{
		partAddress: l.addressType(), partProtocol: nftables.TypeInetProto, partPort: nftables.TypeInetService,
		partNumber: nftables.TypeMark, partVerdict: nftables.TypeVerdict,
	}
	concat := func(parts []part) nftables.SetDatatype {
		var some []nftables.SetDatatype
		for _, p := range parts {
			some = append(some, types[p])
		}
		return nftables.MustConcatSetType(some...)
	}
	for i, t := range setNames {
		s := &nftables.Set{Table: l.table, Name: t.name, KeyType: concat(t.key), Concatenation: true}
		if t.value != nil {
			s.IsMap, s.DataType = true, concat(t.value)
		}
		l.sets[i] = s
	}
	l.sets[setSources].Interval = true
	return l
}

func (l *layout) addressType() nftables.SetDatatype {
	if l.v6 {
		return nftables.TypeIP6Addr
	}
	return nftables.TypeIPAddr
}

func ofFamily(all []netip.Prefix, v6 bool) []netip.Prefix {
	var some []netip.Prefix
	for _, p := range all {
		if p.Addr().Is6() == v6 {
			some = append(some, p.Masked())
		}
	}
	return some
}

// firstRegister is the first of sixteen registers of four bytes. Keys begin there.
const firstRegister = unix.NFT_REG32_00

// words is how many registers an address fills.
func (l *layout) words() uint32 {
	if l.v6 {
		return 4
	}
	return 1
}

// writer adds what a table consists of to a transaction.
type writer struct {
	*layout
	conn *nftables.Conn
	err  error
}

func (w *writer) chain(name string) *nftables.Chain {
	return w.conn.AddChain(&nftables.Chain{Table: w.table, Name: name})
}

func (w *writer) rule(chain *nftables.Chain, exprs ...[]expr.Any) {
	r := &nftables.Rule{Table: w.table, Chain: chain}
	for _, e := range exprs {
		r.Exprs = append(r.Exprs, e...)
	}
	w.conn.AddRule(r)
}

// create adds the table without its changing parts, in place of one that is there.
func (w *writer) create() {
	w.conn.AddTable(w.table) // so that there is one to delete
	w.conn.DelTable(w.table)
	w.conn.AddTable(w.table)
	for _, s := range w.sets {
		s.ID = 0 // a new number in every transaction
		if err := w.conn.AddSet(s, nil); err != nil {
			w.err = fmt.Errorf("set %s: %w", s.Name, err)
			return
		}
	}
	w.commonChains()
	for _, hook := range []struct {
		name string
		num  *nftables.ChainHook
	}{{"prerouting", nftables.ChainHookPrerouting}, {"output", nftables.ChainHookOutput}} {
		chain := w.conn.AddChain(&nftables.Chain{Table: w.table, Name: hook.name, Type: nftables.ChainTypeNAT, Hooknum: hook.num, Priority: nftables.ChainPriorityNATDest})
		w.rule(chain, jump(chainServices))
	}
	post := w.conn.AddChain(&nftables.Chain{Table: w.table, Name: "postrouting", Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource})
	masquerade := []expr.Any{&expr.Masq{FullyRandom: true}}
	if !w.v6 { // what a process has sent to a host port at 127.0.0.1
		w.rule(post, w.in(source, netip.MustParsePrefix("127.0.0.0/8")), meta(expr.MetaKeyOIFNAME), notEquals(linkName("lo")), masquerade)
	}
	w.rule(post, w.load(source, 0), w.load(destination, w.words()), w.contains(setHairpins, false), masquerade)
	w.rule(post, meta(expr.MetaKeyMARK), bitwise(masqueradeMark, 0), equals(native(masqueradeMark)), meta(expr.MetaKeyMARK), bitwise(masqueradeMark^0xffffffff, 0), setMark(), masquerade)

	// What connection tracking takes for no part of a connection is not translated back: the client would see a packet from an
	// endpoint that it does not know, and break its connection.
	forward := w.conn.AddChain(&nftables.Chain{Table: w.table, Name: "forward", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter})
	for _, pods := range w.pods {
		invalid := []expr.Any{
			&expr.Ct{Key: expr.CtKeySTATE, Register: firstRegister},
			&expr.Bitwise{SourceRegister: firstRegister, DestRegister: firstRegister, Len: 4, Mask: native(expr.CtStateBitINVALID), Xor: native(0)},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: firstRegister, Data: native(0)},
		}
		w.rule(forward, meta(expr.MetaKeyL4PROTO), equals([]byte{unix.IPPROTO_TCP}), invalid, w.in(source, pods), verdict(expr.VerdictDrop, ""))
	}
}

func (w *writer) commonChains() {
	mark := w.chain(chainMark)
	w.rule(mark, meta(expr.MetaKeyMARK), bitwise(masqueradeMark^0xffffffff, masqueradeMark), setMark())

	outside := w.chain(chainOutside)
	w.rule(outside, w.isLocal(source), gotoChain(chainMark))
	for _, pods := range w.pods {
		w.rule(outside, w.in(source, pods), verdict(expr.VerdictReturn, ""))
	}
	if len(w.pods) > 0 {
		w.rule(outside, gotoChain(chainMark))
	}

	refuse := w.chain(chainReject)
	code := uint8(3) // port unreachable
	if w.v6 {
		code = 4
	}
	w.rule(refuse, meta(expr.MetaKeyL4PROTO), equals([]byte{unix.IPPROTO_TCP}), []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}})
	w.rule(refuse, []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: code}})

	for _, s := range []set{setInternalServices, setInternalNodePorts} {
		w.rule(w.chain(internalChain(s)), w.dispatch(s))
	}

	services := w.chain(chainServices)
	w.rule(services, w.dispatch(setServices))
	loopback := netip.MustParsePrefix("127.0.0.0/8")
	if w.v6 {
		loopback = netip.MustParsePrefix("::1/128")
	}
	if w.v6 { // nothing leaves the machine from ::1
		w.rule(services, w.isLocal(destination), w.notIn(destination, loopback), w.dispatch(setHostPorts))
	} else {
		w.rule(services, w.isLocal(destination), w.dispatch(setHostPorts))
	}
	w.rule(services, w.isLocal(destination), w.notIn(destination, loopback), w.dispatch(setNodePorts))
	for _, r := range w.layout.services {
		w.rule(services, w.in(destination, r), gotoChain(chainReject))
	}
}

// internalChain is the chain for what comes from inside the cluster.
func internalChain(s set) string { return "to-" + setNames[s].name }

// classChain adds the chain of a class.
func (w *writer) classChain(c class) {
	chain := w.chain(c.chain())
	if c.remember {
		w.endpointChain(chain, c)
		return
	}
	if c.restricted {
		w.rule(chain, w.key(setServices), w.load(source, w.words()+2), w.contains(setSources, true), verdict(expr.VerdictDrop, ""))
	}
	if c.split {
		internal := internalChain(setInternalServices)
		if c.set == setNodePorts {
			internal = internalChain(setInternalNodePorts)
		}
		for _, pods := range w.pods {
			w.rule(chain, w.in(source, pods), gotoChain(internal))
		}
		w.rule(chain, w.isLocal(source), gotoChain(internal))
	}
	switch c.refuse {
	case drop:
		w.rule(chain, verdict(expr.VerdictDrop, ""))
		return
	case reject:
		w.rule(chain, gotoChain(chainReject))
		return
	}
	switch c.masquerade {
	case masqueradeAll:
		w.rule(chain, jump(chainMark))
	case masqueradeOutside:
		w.rule(chain, jump(chainOutside))
	}
	if c.affinity > 0 {
		w.stickyChain(chain, c)
		return
	}
	w.rule(chain, w.key(c.set), w.draw(c.set, c.size), w.get(c.set.endpoints(), firstRegister), w.translate())
}

// endpointChain leads to one endpoint and remembers the client. It makes the set of clients, too.
func (w *writer) endpointChain(chain *nftables.Chain, c class) {
	clients := w.clients(c)
	if err := w.conn.AddSet(clients, nil); err != nil {
		w.err = fmt.Errorf("set %s: %w", clients.Name, err)
		return
	}
	remember := []expr.Any{&expr.Dynset{SrcRegKey: firstRegister, SetName: clients.Name, SetID: clients.ID, Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: time.Duration(c.affinity) * time.Second}}
	w.rule(chain, w.load(source, 0), remember)
	port := len(c.sticky.endpoints) - 2
	w.rule(chain, []expr.Any{
		&expr.Immediate{Register: firstRegister, Data: []byte(c.sticky.endpoints[:port])},
		&expr.Immediate{Register: firstRegister + w.words(), Data: []byte(c.sticky.endpoints[port:])},
	}, w.translate())
}

// clients is the set of the clients of one endpoint.
func (l *layout) clients(c class) *nftables.Set {
	return &nftables.Set{Table: l.table, Name: "clients-" + c.sticky.name(), KeyType: l.addressType(), Dynamic: true, HasTimeout: true, Size: maxClients}
}

// stickyChain sends a client to the endpoint that it has, or else to any.
func (w *writer) stickyChain(chain *nftables.Chain, c class) {
	any := &nftables.Set{Table: w.table, Anonymous: true, Constant: true, IsMap: true, KeyType: nftables.TypeMark, DataType: nftables.TypeVerdict}
	var choices []nftables.SetElement
	for one := range c.remembering() {
		w.rule(chain, w.load(source, 0), []expr.Any{&expr.Lookup{SourceRegister: firstRegister, SetName: w.clients(one).Name}}, gotoChain(one.chain()))
		choices = append(choices, nftables.SetElement{Key: native(uint32(len(choices))), VerdictData: &expr.Verdict{Kind: expr.VerdictGoto, Chain: one.chain()}})
	}
	if err := w.conn.AddSet(any, choices); err != nil {
		w.err = fmt.Errorf("endpoints of %s: %w", c.sticky.service, err)
		return
	}
	w.rule(chain, []expr.Any{
		&expr.Numgen{Register: firstRegister, Modulus: uint32(c.size), Type: unix.NFT_NG_RANDOM},
		&expr.Lookup{SourceRegister: firstRegister, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: any.Name, SetID: any.ID},
	})
}

// chain is the name of a class's chain: what it does, and the map that leads to it.
func (c class) chain() string {
	var name strings.Builder
	add := func(format string, args ...any) { fmt.Fprintf(&name, format, args...) }
	switch {
	case c.remember:
		add("endpoint-%s", c.sticky.name())
		return name.String()
	case c.refuse == reject:
		add("refused")
	case c.refuse == drop:
		add("dropped")
	default:
		add("%s-%d", setNames[c.set].name, c.size)
	}
	switch c.masquerade {
	case masqueradeAll:
		add("-masquerade")
	case masqueradeOutside:
		add("-masquerade-outside")
	}
	if c.affinity > 0 {
		h := fnv.New32a()
		h.Write([]byte(c.sticky.endpoints))
		add("-affinity-%d/%s/%s/%s/%08x", c.affinity, c.sticky.service.Namespace, c.sticky.service.Name, c.sticky.port, h.Sum32())
	}
	if c.restricted {
		add("-restricted")
	}
	if c.split {
		add("-split-%s", setNames[c.set].name)
	}
	return name.String()
}

// name is part of the names of what belongs to a single endpoint.
func (s sticky) name() string {
	n := len(s.endpoints) - 2
	addr, _ := netip.AddrFromSlice([]byte(s.endpoints[:n]))
	port := int(s.endpoints[n])<<8 | int(s.endpoints[n+1])
	return fmt.Sprintf("%s/%s/%s/%s/%d", s.service.Namespace, s.service.Name, s.port, strings.ReplaceAll(addr.String(), ":", "-"), port)
}

func (l *layout) family() byte {
	if l.v6 {
		return unix.NFPROTO_IPV6
	}
	return unix.NFPROTO_IPV4
}

// The following are parts of rules. Words are counted from the first register.

type side int

const (
	source side = iota
	destination
)

func (l *layout) load(s side, word uint32) []expr.Any {
	offset, size := [2]uint32{12, 16}[s], uint32(4)
	if l.v6 {
		offset, size = [2]uint32{8, 24}[s], 16
	}
	return []expr.Any{&expr.Payload{DestRegister: firstRegister + word, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size}}
}

// loadProtocol and loadPort load the protocol and the destination port.
func (l *layout) loadProtocol(word uint32) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: firstRegister + word}}
}

func (l *layout) loadPort(word uint32) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: firstRegister + word, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}}
}

// key loads what begins the keys of a set: where the packet is sent to.
func (l *layout) key(s set) []expr.Any {
	if s.byPort() {
		return append(l.loadProtocol(0), l.loadPort(1)...)
	}
	return append(l.load(destination, 0), append(l.loadProtocol(l.words()), l.loadPort(l.words()+1)...)...)
}

// dispatch goes to the chain of the class.
func (l *layout) dispatch(s set) []expr.Any {
	return append(l.key(s), l.get(s, unix.NFT_REG_VERDICT)...)
}

// get puts what a map has for the key into a register.
func (l *layout) get(s set, to uint32) []expr.Any {
	return []expr.Any{&expr.Lookup{SetName: setNames[s].name, SourceRegister: firstRegister, DestRegister: to, IsDestRegSet: true}}
}

// contains asks whether a set has the key.
func (l *layout) contains(s set, invert bool) []expr.Any {
	return []expr.Any{&expr.Lookup{SetName: setNames[s].name, SourceRegister: firstRegister, Invert: invert}}
}

// draw completes the key of an endpoint of a frontend of s with a random index below n.
func (l *layout) draw(s set, n int) []expr.Any {
	word := l.words() + 2
	if s.byPort() {
		word = 2
	}
	return []expr.Any{&expr.Numgen{Register: firstRegister + word, Modulus: uint32(n), Type: unix.NFT_NG_RANDOM}}
}

// translate sends the packet to the endpoint that is at the first register.
func (l *layout) translate() []expr.Any {
	return []expr.Any{&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(l.family()), RegAddrMin: firstRegister, RegProtoMin: firstRegister + l.words()}}
}

func (l *layout) in(s side, p netip.Prefix) []expr.Any    { return l.prefix(s, p, expr.CmpOpEq) }
func (l *layout) notIn(s side, p netip.Prefix) []expr.Any { return l.prefix(s, p, expr.CmpOpNeq) }

func (l *layout) prefix(s side, p netip.Prefix, op expr.CmpOp) []expr.Any {
	size := p.Addr().BitLen() / 8
	return append(l.load(s, 0),
		&expr.Bitwise{SourceRegister: firstRegister, DestRegister: firstRegister, Len: uint32(size), Mask: net.CIDRMask(p.Bits(), size*8), Xor: bytes.Repeat([]byte{0}, size)},
		&expr.Cmp{Op: op, Register: firstRegister, Data: p.Masked().Addr().AsSlice()})
}

// isLocal asks whether an address of the packet is one of this node.
func (l *layout) isLocal(s side) []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: firstRegister, ResultADDRTYPE: true, FlagSADDR: s == source, FlagDADDR: s == destination},
		&expr.Cmp{Op: expr.CmpOpEq, Register: firstRegister, Data: native(unix.RTN_LOCAL)},
	}
}

func meta(key expr.MetaKey) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: firstRegister}}
}

// setMark writes the register to the packet's mark.
func setMark() []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: firstRegister}}
}

// bitwise makes (register & mask) ^ xor of the register.
func bitwise(mask, xor uint32) []expr.Any {
	return []expr.Any{&expr.Bitwise{SourceRegister: firstRegister, DestRegister: firstRegister, Len: 4, Mask: native(mask), Xor: native(xor)}}
}

func equals(data []byte) []expr.Any {
	return []expr.Any{&expr.Cmp{Op: expr.CmpOpEq, Register: firstRegister, Data: data}}
}

func notEquals(data []byte) []expr.Any {
	return []expr.Any{&expr.Cmp{Op: expr.CmpOpNeq, Register: firstRegister, Data: data}}
}

// linkName is the name of a link as the kernel compares it.
func linkName(name string) []byte {
	return append([]byte(name), make([]byte, unix.IFNAMSIZ-len(name))...)
}

func jump(chain string) []expr.Any      { return verdict(expr.VerdictJump, chain) }
func gotoChain(chain string) []expr.Any { return verdict(expr.VerdictGoto, chain) }

func verdict(kind expr.VerdictKind, chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: kind, Chain: chain}}
}

func native(v uint32) []byte { return binaryutil.NativeEndian.PutUint32(v) }
