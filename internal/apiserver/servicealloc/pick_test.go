package servicealloc

import (
	"math"
	"net/netip"
	"testing"
)

func TestBands(t *testing.T) {
	for _, tc := range []struct {
		name     string
		got      band
		reserved uint64
	}{
		{"a tiny range has no band", addressBand(14), 0},
		{"at least 16", addressBand(254), 16},
		{"a sixteenth", addressBand(1022), 63},
		{"at most 256", addressBand(65534), 256},
		{"of the default node ports", portBand(2768), 86},
		{"few ports", portBand(10), 0},
	} {
		if tc.got.reserved != tc.reserved {
			t.Errorf("%s: %d are reserved, want %d", tc.name, tc.got.reserved, tc.reserved)
		}
	}
}

func TestPick(t *testing.T) {
	b := band{4, 16}
	taken := map[uint64]bool{}
	isTaken := func(i uint64) (bool, error) { return taken[i], nil }
	for i := range 16 {
		n, ok, err := b.pick(func(n uint64) uint64 { return n - 1 }, isTaken)
		if !ok || err != nil || taken[n] {
			t.Fatalf("pick %d: %d, %v, %v", i, n, ok, err)
		}
		if (n < 4) != (i >= 12) {
			t.Errorf("pick %d is %d: the lower band comes last", i, n)
		}
		taken[n] = true
	}
	if _, ok, _ := b.pick(func(uint64) uint64 { return 0 }, isTaken); ok {
		t.Error("picked from nothing")
	}
}

func TestUsable(t *testing.T) {
	for _, tc := range []struct {
		cidr, first, last string
		n                 uint64
	}{
		{"10.96.0.0/16", "10.96.0.1", "10.96.255.254", 65534},
		{"10.0.0.128/28", "10.0.0.129", "10.0.0.142", 14},
		{"10.0.0.0/31", "", "", 0},
		{"10.0.0.0/32", "", "", 0},
		{"fd00::/112", "fd00::1", "fd00::ffff", 65535},
		{"fd00::/120", "fd00::1", "fd00::ff", 255},
		{"fd00::/48", "fd00::1", "", math.MaxInt64 - 1},
	} {
		r := netip.MustParsePrefix(tc.cidr)
		first, n := usable(r)
		if n != tc.n || n > 0 && first.String() != tc.first {
			t.Errorf("%s: %d addresses from %s", tc.cidr, n, first)
		}
		if tc.last == "" {
			continue
		}
		last := netip.MustParseAddr(tc.last)
		if plus(first, n-1) != last || !within(r, first) || !within(r, last) || within(r, last.Next()) || within(r, first.Prev()) {
			t.Errorf("%s: the last address is %s", tc.cidr, plus(first, n-1))
		}
	}
	if got := plus(netip.MustParseAddr("fd00::ffff:ffff:ffff:ffff"), 2); got.String() != "fd00:0:0:1::1" {
		t.Errorf("carry: %s", got)
	}
}
