package nodeipam

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
)

// maxSubnets bounds how many subnets a range is divided into: a wider range is used only in part.
const maxSubnets = 1 << 16

// errFull is returned when every subnet of a range is taken.
var errFull = errors.New("CIDR allocation failed; there are no remaining CIDRs left to allocate in the accepted range")

// cidrSet shares out the subnets of one range. It is not safe for concurrent use.
type cidrSet struct {
	base  netip.Prefix
	size  int // length of the subnets' prefixes
	count int
	used  []uint64 // one bit per subnet
	users map[int]int
	next  int
}

// newCIDRSet divides base into subnets with prefixes of the given length.
func newCIDRSet(base netip.Prefix, size int) (*cidrSet, error) {
	base = base.Masked()
	spread := size - base.Bits()
	if spread < 0 || size > base.Addr().BitLen() {
		return nil, fmt.Errorf("node CIDR mask size %d does not fit the cluster CIDR %v", size, base)
	}
	count := maxSubnets
	if spread < 16 {
		count = 1 << spread
	}
	return &cidrSet{base: base, size: size, count: count, used: make([]uint64, (count+63)/64), users: make(map[int]int)}, nil
}

// subnet gives the i-th subnet.
func (s *cidrSet) subnet(i int) netip.Prefix {
	if s.base.Addr().Is4() {
		a := s.base.Addr().As4()
		n := binary.BigEndian.Uint32(a[:]) | uint32(i)<<(32-s.size)
		binary.BigEndian.PutUint32(a[:], n)
		return netip.PrefixFrom(netip.AddrFrom4(a), s.size)
	}
	a := s.base.Addr().As16()
	// i has at most 16 bits, which end at bit size of the address.
	for bit := range 16 {
		if i>>bit&1 == 1 {
			at := s.size - 1 - bit
			a[at/8] |= 1 << (7 - at%8)
		}
	}
	return netip.PrefixFrom(netip.AddrFrom16(a), s.size)
}

// overlap gives the first and last subnet that p touches; ok is false if there is none.
func (s *cidrSet) overlap(p netip.Prefix) (first, last int, ok bool) {
	p = p.Masked()
	if !s.base.Overlaps(p) {
		return 0, 0, false
	}
	if p.Bits() <= s.base.Bits() {
		return 0, s.count - 1, true
	}
	a := p.Addr().AsSlice()
	for at := s.base.Bits(); at < s.size; at++ {
		first = first<<1 | int(a[at/8]>>(7-at%8)&1)
		if first >= s.count { // Beyond what is used of a wide range.
			return 0, 0, false
		}
	}
	last = first
	if p.Bits() < s.size {
		last = first + 1<<(s.size-p.Bits()) - 1
	}
	return first, min(last, s.count-1), true
}

// allocate takes the next free subnet after the one that was taken last, so that a released one rests for long.
func (s *cidrSet) allocate() (netip.Prefix, error) {
	for n := 0; n < s.count; {
		i := (s.next + n) % s.count
		if word := s.used[i/64] >> (i % 64); word&1 == 1 {
			n += min(max(bits.TrailingZeros64(^word), 1), s.count-i, 64-i%64)
			continue
		}
		s.take(i, i)
		s.next = (i + 1) % s.count
		return s.subnet(i), nil
	}
	return netip.Prefix{}, errFull
}

// occupy marks what p touches as taken.
func (s *cidrSet) occupy(p netip.Prefix) {
	if first, last, ok := s.overlap(p); ok {
		s.take(first, last)
	}
}

// release undoes one occupy or allocate.
func (s *cidrSet) release(p netip.Prefix) {
	first, last, ok := s.overlap(p)
	if !ok {
		return
	}
	for i := first; i <= last; i++ {
		if s.users[i]--; s.users[i] <= 0 {
			delete(s.users, i)
			s.used[i/64] &^= 1 << (i % 64)
		}
	}
}

func (s *cidrSet) take(first, last int) {
	for i := first; i <= last; i++ {
		s.users[i]++
		s.used[i/64] |= 1 << (i % 64)
	}
}
