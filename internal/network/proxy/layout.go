package proxy

import (
	"bytes"
	"fmt"
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
//	services             address . protocol . port → pool . class    cluster IPs, external IPs, load balancers' addresses
//	node-ports           protocol . port → pool . class
//	internal-services    the same for clients in the cluster, where externalTrafficPolicy is Local
//	internal-node-ports
//	classes              class → chain
//	endpoints            pool . index → address . port
//	members              pool . address . port                       of pools with session affinity
//	affinity             pool . client → address . port              filled by the kernel, elements expire
//	sources              address . protocol . port . client range    loadBalancerSourceRanges
//	hairpins             address . address                           pods that may be sent their own connections
//
// The first packet of a connection finds its pool and class by the map services (or node-ports), goes to the chain of the
// class, and there draws an index into its pool. A class is all in which services differ but for addresses (how many
// endpoints, who is masqueraded, affinity), so there are few chains, and they rarely change. Only chains of type nat are
// used: the packets of a connection that is established pass none of this.

const (
	// masqueradeMark marks packets between nat hooks, as in every Kubernetes cluster.
	masqueradeMark = 0x4000

	// dynsetDelete is NFT_DYNSET_OP_DELETE of linux/netfilter/nf_tables.h, which package unix does not have.
	dynsetDelete = 2

	chainServices = "services"
	chainReject   = "reject"
	chainMark     = "mark-masquerade"
	chainOutside  = "mark-outside"
)

var setNames = [sets]string{"services", "node-ports", "internal-services", "internal-node-ports", "endpoints", "members", "affinity", "sources", "hairpins", "classes"}

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
	addr := nftables.TypeIPAddr
	if v6 {
		l.table.Family, addr = nftables.TableFamilyIPv6, nftables.TypeIP6Addr
	}
	number, proto, port := nftables.TypeMark, nftables.TypeInetProto, nftables.TypeInetService
	types := [sets]struct{ key, value []nftables.SetDatatype }{
		setServices:          {[]nftables.SetDatatype{addr, proto, port}, []nftables.SetDatatype{number, number}},
		setNodePorts:         {[]nftables.SetDatatype{proto, port}, []nftables.SetDatatype{number, number}},
		setInternalServices:  {[]nftables.SetDatatype{addr, proto, port}, []nftables.SetDatatype{number, number}},
		setInternalNodePorts: {[]nftables.SetDatatype{proto, port}, []nftables.SetDatatype{number, number}},
		setEndpoints:         {[]nftables.SetDatatype{number, number}, []nftables.SetDatatype{addr, port}},
		setMembers:           {[]nftables.SetDatatype{number, addr, port}, nil},
		setAffinity:          {[]nftables.SetDatatype{number, addr}, []nftables.SetDatatype{addr, port}},
		setSources:           {[]nftables.SetDatatype{addr, proto, port, addr}, nil},
		setHairpins:          {[]nftables.SetDatatype{addr, addr}, nil},
		setClasses:           {[]nftables.SetDatatype{number}, []nftables.SetDatatype{nftables.TypeVerdict}},
	}
	for i, t := range types {
		s := &nftables.Set{Table: l.table, Name: setNames[i], KeyType: nftables.MustConcatSetType(t.key...), Concatenation: len(t.key) > 1}
		if t.value != nil {
			s.IsMap, s.DataType = true, nftables.MustConcatSetType(t.value...)
		}
		l.sets[i] = s
	}
	l.sets[setClasses].DataType = nftables.TypeVerdict
	l.sets[setClasses].KeyByteOrder = binaryutil.NativeEndian
	l.sets[setAffinity].Dynamic, l.sets[setAffinity].HasTimeout = true, true
	l.sets[setSources].Interval = true
	return l
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

// Registers of four bytes. Keys begin at the first; an endpoint lies behind the longest key that is used with it.
const firstRegister = unix.NFT_REG32_00

func (l *layout) words() uint32 {
	if l.v6 {
		return 4
	}
	return 1
}

func (l *layout) endpointRegister() uint32 { return firstRegister + 2 + l.words() }
func (l *layout) portRegister() uint32     { return l.endpointRegister() + l.words() }

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
	w.rule(post, w.load(source, 0), w.load(destination, w.words()), w.lookup(setHairpins, firstRegister, false), masquerade)
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
		w.rule(w.chain(setNames[s]), w.dispatch(s))
	}

	services := w.chain(chainServices)
	w.rule(services, w.dispatch(setServices))
	loopback := netip.MustParsePrefix("127.0.0.0/8")
	if w.v6 {
		loopback = netip.MustParsePrefix("::1/128")
	}
	w.rule(services, w.isLocal(destination), w.notIn(destination, loopback), w.dispatch(setNodePorts))
	for _, r := range w.layout.services {
		w.rule(services, w.in(destination, r), gotoChain(chainReject))
	}
}

// classChain adds the chain of a class.
func (w *writer) classChain(c class) {
	chain := w.chain(c.chain())
	if c.restricted {
		w.rule(chain, w.load(destination, 0), w.loadPort(w.words()), w.load(source, w.words()+2), w.lookup(setSources, firstRegister, true), verdict(expr.VerdictDrop, ""))
	}
	if c.split {
		internal := setNames[setInternalServices]
		if c.set == setNodePorts {
			internal = setNames[setInternalNodePorts]
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
	w.pick(chain, c)
}

// pick adds the rules that choose an endpoint. The pool is in the first register from the first lookup on.
func (w *writer) pick(chain *nftables.Chain, c class) {
	pool, client, backend := uint32(firstRegister), w.load(source, 1), w.endpointRegister()
	translate := []expr.Any{&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(w.family()), RegAddrMin: backend, RegProtoMin: w.portRegister()}}
	if c.affinity > 0 {
		timeout := time.Duration(c.affinity) * time.Second
		member := backend - 1 // the pool once more, before the endpoint
		copyPool := []expr.Any{&expr.Bitwise{SourceRegister: pool, DestRegister: member, Len: 4, Mask: native(^uint32(0)), Xor: native(0)}}
		remember := func(op uint32) []expr.Any {
			return []expr.Any{&expr.Dynset{SrcRegKey: pool, SrcRegData: backend, SetName: setNames[setAffinity], Operation: op, Timeout: timeout}}
		}
		w.rule(chain, w.findPool(c.set), client, w.get(setAffinity, pool, backend), copyPool, w.lookup(setMembers, member, false),
			remember(unix.NFT_DYNSET_OP_UPDATE), translate)
		// An update would keep the endpoint that is gone.
		w.rule(chain, w.findPool(c.set), draw(c.size), w.get(setEndpoints, pool, backend), client, remember(dynsetDelete), remember(unix.NFT_DYNSET_OP_UPDATE), translate)
		return
	}
	w.rule(chain, w.findPool(c.set), draw(c.size), w.get(setEndpoints, pool, backend), translate)
}

// chain is the name of a class's chain: what it does, and the map that leads to it.
func (c class) chain() string {
	var name strings.Builder
	add := func(format string, args ...any) { fmt.Fprintf(&name, format, args...) }
	switch c.refuse {
	case accept:
		add("%s-%d", setNames[c.set], c.size)
	case reject:
		add("refuse")
	case drop:
		add("drop")
	}
	switch c.masquerade {
	case masqueradeAll:
		add("-masquerade")
	case masqueradeOutside:
		add("-masquerade-outside")
	}
	if c.affinity > 0 {
		add("-affinity-%d", c.affinity)
	}
	if c.restricted {
		add("-restricted")
	}
	if c.split {
		add("-split-%s", setNames[c.set])
	}
	return name.String()
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

// loadPort loads the protocol and the destination port.
func (l *layout) loadPort(word uint32) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: firstRegister + word},
		&expr.Payload{DestRegister: firstRegister + word + 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
	}
}

// findPool looks up where the packet is sent to: the pool is in the first register then, the class in the second.
func (l *layout) findPool(s set) []expr.Any {
	var key []expr.Any
	switch s {
	case setNodePorts, setInternalNodePorts:
		key = l.loadPort(0)
	default:
		key = append(l.load(destination, 0), l.loadPort(l.words())...)
	}
	return append(key, l.get(s, firstRegister, firstRegister)...)
}

// dispatch goes to the chain of the class.
func (l *layout) dispatch(s set) []expr.Any {
	return append(l.findPool(s), &expr.Lookup{SetName: setNames[setClasses], SourceRegister: firstRegister + 1, DestRegister: 0, IsDestRegSet: true})
}

func (l *layout) get(s set, from, to uint32) []expr.Any {
	return []expr.Any{&expr.Lookup{SetName: setNames[s], SourceRegister: from, DestRegister: to, IsDestRegSet: true}}
}

func (l *layout) lookup(s set, from uint32, invert bool) []expr.Any {
	return []expr.Any{&expr.Lookup{SetName: setNames[s], SourceRegister: from, Invert: invert}}
}

// draw puts a random index below n into the second register.
func draw(n int) []expr.Any {
	return []expr.Any{&expr.Numgen{Register: firstRegister + 1, Modulus: uint32(n), Type: unix.NFT_NG_RANDOM}}
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

func jump(chain string) []expr.Any      { return verdict(expr.VerdictJump, chain) }
func gotoChain(chain string) []expr.Any { return verdict(expr.VerdictGoto, chain) }

func verdict(kind expr.VerdictKind, chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: kind, Chain: chain}}
}

func native(v uint32) []byte { return binaryutil.NativeEndian.PutUint32(v) }
