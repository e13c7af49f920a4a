package nodeipam

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func ranges(t *testing.T, base string, size int) *cidrSet {
	t.Helper()
	s, err := newCIDRSet(netip.MustParsePrefix(base), size)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAllocate(t *testing.T) {
	for _, test := range []struct {
		base  string
		size  int
		first []string
		count int
	}{
		{"10.42.0.0/16", 24, []string{"10.42.0.0/24", "10.42.1.0/24", "10.42.2.0/24"}, 256},
		{"10.42.3.7/22", 24, []string{"10.42.0.0/24", "10.42.1.0/24", "10.42.2.0/24", "10.42.3.0/24"}, 4},
		{"10.0.0.0/8", 24, []string{"10.0.0.0/24"}, 1 << 16},
		{"10.1.2.0/24", 24, []string{"10.1.2.0/24"}, 1},
		{"fd00:42::/56", 64, []string{"fd00:42::/64", "fd00:42:0:1::/64"}, 256},
		{"fd00::/32", 64, []string{"fd00::/64", "fd00:0:0:1::/64"}, 1 << 16},
	} {
		s := ranges(t, test.base, test.size)
		seen := map[netip.Prefix]bool{}
		for i := range test.count {
			p, err := s.allocate()
			if err != nil {
				t.Fatalf("%s: the %d. subnet: %v", test.base, i, err)
			}
			if i < len(test.first) && p.String() != test.first[i] {
				t.Errorf("%s: the %d. subnet is %v, want %s", test.base, i, p, test.first[i])
			}
			if seen[p] || !netip.MustParsePrefix(test.base).Overlaps(p) {
				t.Fatalf("%s: %v twice, or outside", test.base, p)
			}
			seen[p] = true
			if first, last, ok := s.overlap(p); !ok || first != i || last != i {
				t.Fatalf("%s: %v is number %d to %d, want %d", test.base, p, first, last, i)
			}
		}
		if _, err := s.allocate(); !errors.Is(err, errFull) {
			t.Errorf("%s: when full: %v", test.base, err)
		}
		s.release(netip.MustParsePrefix(test.first[0]))
		if p, err := s.allocate(); err != nil || p.String() != test.first[0] {
			t.Errorf("%s: after a release: %v, %v", test.base, p, err)
		}
	}
}

func TestOccupy(t *testing.T) {
	s := ranges(t, "10.42.0.0/22", 24)
	wide := netip.MustParsePrefix("10.42.0.0/23")
	s.occupy(wide)
	s.occupy(netip.MustParsePrefix("10.42.1.128/25"))
	s.occupy(netip.MustParsePrefix("192.168.0.0/16"))
	s.occupy(netip.MustParsePrefix("fd00::/8"))
	if p, _ := s.allocate(); p.String() != "10.42.2.0/24" {
		t.Errorf("allocated %v", p)
	}
	s.release(wide)
	if p, _ := s.allocate(); p.String() != "10.42.3.0/24" {
		t.Errorf("allocated %v", p)
	}
	if p, _ := s.allocate(); p.String() != "10.42.0.0/24" {
		t.Errorf("allocated %v, since 10.42.1.0/24 is used in part still", p)
	}
	if _, err := s.allocate(); err == nil {
		t.Error("allocated more than there is")
	}
}

func TestBadSizes(t *testing.T) {
	for _, test := range []struct {
		base string
		size int
	}{{"10.42.0.0/24", 16}, {"10.42.0.0/24", 33}, {"fd00::/64", 24}} {
		if _, err := newCIDRSet(netip.MustParsePrefix(test.base), test.size); err == nil {
			t.Errorf("%s is divided into /%d", test.base, test.size)
		}
	}
}

// What a node has when the controller starts is not given to another; what it had is free when it is gone.
func TestAllocatorObserves(t *testing.T) {
	a, err := newAllocator(Config{ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.42.0.0/22")}, ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.42.0.0/25")}})
	if err != nil {
		t.Fatal(err)
	}
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", UID: "n"}, Spec: corev1.NodeSpec{PodCIDRs: []string{"10.42.1.0/24"}}}
	a.observe(nil, n)
	first, _ := a.reserve("x")
	again, _ := a.reserve("x")
	second, _ := a.reserve("y")
	if got := fmt.Sprint(first, again, second); got != "[10.42.2.0/24] [10.42.2.0/24] [10.42.3.0/24]" {
		t.Errorf("allocated %s", got)
	}
	if _, err := a.reserve("z"); !errors.Is(err, errFull) {
		t.Errorf("when full: %v", err)
	}
	a.observe(n, nil)
	x := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "x", UID: "x"}}
	withPart := x.DeepCopy()
	withPart.Spec.PodCIDRs = []string{first[0].String()}
	a.observe(nil, x)
	a.observe(x, withPart) // Its reservation has become a part.
	if p, err := a.reserve("z"); err != nil || p[0].String() != "10.42.1.0/24" {
		t.Errorf("allocated %v, %v", p, err)
	}
	if _, err := a.reserve("w"); !errors.Is(err, errFull) {
		t.Errorf("when full again: %v", err)
	}
	a.observe(withPart, nil)
	if p, err := a.reserve("w"); err != nil || p[0] != first[0] {
		t.Errorf("allocated %v, %v", p, err)
	}
}

// Nodes for which there is no part wait until one is released, and are told once.
func TestNodesWaitForAPart(t *testing.T) {
	a, err := newAllocator(Config{ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.42.0.0/24")}})
	if err != nil {
		t.Fatal(err)
	}
	named := func(name string) *corev1.Node {
		return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}}
	}
	has := named("has")
	if _, _, err := a.allocate(has); err != nil {
		t.Fatal(err)
	}
	has.Spec.PodCIDRs = []string{"10.42.0.0/24"}
	a.observe(named("has"), has)
	for i, want := range []bool{true, false} {
		if _, news, err := a.allocate(named("first")); !errors.Is(err, errFull) || news != want {
			t.Errorf("try %d: %v, %v", i, news, err)
		}
	}
	if _, news, _ := a.allocate(named("gone")); !news {
		t.Error("another node is not told")
	}
	if a.observe(named("gone"), nil) {
		t.Error("a node that had nothing has released something")
	}
	if !a.observe(has, nil) {
		t.Error("a node that had a part has released nothing")
	}
	if name, ok := a.next(); !ok || name != "first" {
		t.Errorf("the next node is %q", name)
	}
	if name, ok := a.next(); ok {
		t.Errorf("%q waits too", name)
	}
	if _, _, err := a.allocate(named("first")); err != nil {
		t.Error(err)
	}
}
