package servicealloc

import (
	"encoding/binary"
	"math"
	"math/bits"
	"net/netip"
)

// band divides a range of n numbers: those below reserved are for clients that choose, and are given at random only when
// all others are taken (KEP-3070, KEP-3668).
type band struct{ reserved, n uint64 }

// addressBand reserves a sixteenth of the addresses, at least 16 and at most 256.
func addressBand(n uint64) band { return newBand(n, 16, 16, 256) }

// portBand reserves a thirty-second of the ports, at least 16 and at most 128.
func portBand(n uint64) band { return newBand(n, 32, 16, 128) }

func newBand(n, part, least, most uint64) band {
	if n <= least {
		return band{0, n}
	}
	return band{min(max(n/part, least), most), n}
}

// pick finds a number that is not taken, beginning at a random place of the upper band. taken may fail; the error ends
// the search.
func (b band) pick(rand func(uint64) uint64, taken func(uint64) (bool, error)) (number uint64, ok bool, err error) {
	for _, part := range [][2]uint64{{b.reserved, b.n}, {0, b.reserved}} {
		low, size := part[0], part[1]-part[0]
		if size == 0 {
			continue
		}
		start := rand(size)
		for i := range size {
			number := low + (start+i)%size
			isTaken, err := taken(number)
			if err != nil || !isTaken {
				return number, err == nil, err
			}
		}
	}
	return 0, false, nil
}

// usable returns the first address of a range that can be given to a service and how many there are: not the address of
// the network itself, nor IPv4's broadcast address.
func usable(r netip.Prefix) (first netip.Addr, n uint64) {
	r = r.Masked()
	host := r.Addr().BitLen() - r.Bits()
	n = math.MaxInt64
	if host < 63 {
		n = 1 << host
	}
	if r.Addr().Is4() {
		n-- // broadcast
	}
	if n <= 1 {
		return r.Addr(), 0
	}
	return r.Addr().Next(), n - 1
}

// plus returns the address n after ip.
func plus(ip netip.Addr, n uint64) netip.Addr {
	b := ip.As16()
	low, carry := bits.Add64(binary.BigEndian.Uint64(b[8:]), n, 0)
	high, _ := bits.Add64(binary.BigEndian.Uint64(b[:8]), 0, carry)
	binary.BigEndian.PutUint64(b[8:], low)
	binary.BigEndian.PutUint64(b[:8], high)
	if ip.Is4() {
		return netip.AddrFrom16(b).Unmap()
	}
	return netip.AddrFrom16(b)
}

// within returns whether ip can be given to a service out of the range.
func within(r netip.Prefix, ip netip.Addr) bool {
	first, n := usable(r)
	return n > 0 && ip.BitLen() == first.BitLen() && first.Compare(ip) <= 0 && ip.Compare(plus(first, n-1)) <= 0
}
