package proxy

import (
	"encoding/binary"
	"net/netip"
)

// set is one of the sets and maps of a table; see layout.go for what they hold.
type set uint8

const (
	setServices set = iota
	setNodePorts
	setInternalServices
	setInternalNodePorts
	setEndpoints
	setMembers
	setAffinity
	setSources
	setHairpins
	setClasses
	sets // how many there are
)

// elementKey identifies an element among all of all tables.
type elementKey struct {
	v6  bool
	set set
	key string // as the kernel has it
}

// elementValue is the rest of an element. The end of a range belongs to the key in the kernel, but no two ranges here begin
// alike.
type elementValue struct {
	value, end string
	comment    string
}

type elements map[elementKey]elementValue

// numbers gives the kernel's numbers of pools and classes.
type numbers interface {
	pool(poolName) uint32
	class(v6 bool, c class) uint32
}

// encode gives the elements that the rules of a service are made of.
func encode(r rules, n numbers) elements {
	all := make(elements, 2*len(r.frontends))
	for f, t := range r.frontends {
		in := setServices
		if f.nodePort() {
			in = setNodePorts
		}
		all[frontendKey(f, in)] = targetValue(f, t, n)
	}
	for f, t := range r.internal {
		all[frontendKey(f, t.class.set)] = targetValue(f, t, n)
	}
	for name, p := range r.pools {
		id := number(n.pool(name))
		for i, e := range p.endpoints {
			backend := address(e.Addr()) + be16(e.Port())
			all[elementKey{name.v6, setEndpoints, id + number(uint32(i))}] = elementValue{value: backend}
			if p.affinity {
				all[elementKey{name.v6, setMembers, id + backend}] = elementValue{}
			}
		}
	}
	for f, ranges := range r.sources {
		start := serviceKey(f)
		for _, source := range ranges {
			all[elementKey{f.v6(), setSources, start + address(source.Addr())}] = elementValue{end: start + address(last(source))}
		}
	}
	for addr := range r.hairpins {
		all[elementKey{addr.Is6(), setHairpins, address(addr) + address(addr)}] = elementValue{}
	}
	return all
}

func frontendKey(f frontend, in set) elementKey {
	if f.nodePort() {
		return elementKey{f.v6(), in, padded(f.proto) + be16(f.port)}
	}
	return elementKey{f.v6(), in, serviceKey(f)}
}

func serviceKey(f frontend) string { return address(f.addr) + padded(f.proto) + be16(f.port) }

func targetValue(f frontend, t target, n numbers) elementValue {
	v := elementValue{}
	if t.class.refuse == accept {
		v.value = number(n.pool(t.pool)) + number(n.class(f.v6(), t.class))
		v.comment = t.pool.service.String()
		if t.pool.port != "" {
			v.comment += ":" + t.pool.port
		}
	} else {
		v.value = number(0) + number(n.class(f.v6(), t.class))
	}
	return v
}

// The parts of keys fill whole registers of four bytes.

func address(a netip.Addr) string { return string(a.AsSlice()) }
func padded(b byte) string        { return string([]byte{b, 0, 0, 0}) }
func be16(v uint16) string        { return string([]byte{byte(v >> 8), byte(v), 0, 0}) }
func number(v uint32) string      { return string(binary.NativeEndian.AppendUint32(nil, v)) }

// last is the highest address of a range.
func last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
