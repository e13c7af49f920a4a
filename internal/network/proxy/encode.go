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
	setHostPorts
	setEndpoints // of services; those of the other four follow
	setNodePortEndpoints
	setInternalEndpoints
	setInternalNodePortEndpoints
	setHostPortEndpoints
	setSources
	setHairpins
	sets // how many there are
)

// endpoints is the map with the endpoints of the frontends of s.
func (s set) endpoints() set { return s - setServices + setEndpoints }

// ofEndpoints tells whether s is a map with endpoints.
func (s set) ofEndpoints() bool { return s >= setEndpoints && s <= setHostPortEndpoints }

// byPort tells whether the keys of a set begin with the protocol instead of an address.
func (s set) byPort() bool { return setNames[s].key[0] != partAddress }

// elementKey identifies an element among all of all tables.
type elementKey struct {
	v6  bool
	set set
	key string // as the kernel has it
}

// elementValue is the rest of an element: what a map gives for the key, or the chain that a verdict map leads to. The end of a
// range belongs to the key in the kernel, but no two ranges here begin alike.
type elementValue struct {
	value, chain string
	end          string
	comment      string
}

type elements map[elementKey]elementValue

// encode gives the elements that the rules of a service are made of.
func encode(r rules) elements {
	all := make(elements, 4*len(r.frontends))
	for f, t := range r.frontends {
		in := setServices
		switch {
		case t.class.set == setHostPorts:
			in = setHostPorts
		case f.nodePort():
			in = setNodePorts
		}
		all.addFrontend(r, f, t, in)
	}
	for f, t := range r.internal {
		all.addFrontend(r, f, t, t.class.set)
	}
	for f, ranges := range r.sources {
		for _, source := range ranges {
			all[elementKey{f.v6(), setSources, f.key() + address(source.Addr())}] = elementValue{end: f.key() + address(last(source))}
		}
	}
	for addr := range r.hairpins {
		all[elementKey{addr.Is6(), setHairpins, address(addr) + address(addr)}] = elementValue{}
	}
	return all
}

// addFrontend adds a frontend to a map, and its endpoints to the map for these.
func (all elements) addFrontend(r rules, f frontend, t target, in set) {
	v := elementValue{chain: t.class.chain(), comment: t.pool.comment()}
	all[elementKey{f.v6(), in, f.key()}] = v
	if t.class.refuse != accept || t.class.affinity > 0 {
		return // no endpoints, or the chain has them
	}
	for i, e := range r.pools[t.pool].endpoints {
		all[elementKey{f.v6(), in.endpoints(), f.key() + number(uint32(i))}] = elementValue{value: address(e.Addr()) + be16(e.Port())}
	}
}

// comment is the name of a service's port, to be seen in listings of the kernel's tables.
func (p poolName) comment() string {
	if p.port == "" {
		return p.service.String()
	}
	return p.service.String() + ":" + p.port
}

// key is the frontend as the kernel has it.
func (f frontend) key() string {
	if f.nodePort() {
		return padded(f.proto) + be16(f.port)
	}
	return address(f.addr) + padded(f.proto) + be16(f.port)
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
