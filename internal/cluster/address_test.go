package cluster

import (
	"net/netip"
	"testing"
)

func TestBestAddress(t *testing.T) {
	a := func(link, kind, addr string) linkAddress { return linkAddress{link, kind, netip.MustParseAddr(addr)} }
	lo, lo6 := a("lo", "device", "127.0.0.1"), a("lo", "device", "::1")
	eth, eth6, local6 := a("eth0", "device", "192.0.2.1"), a("eth0", "device", "2001:db8::1"), a("eth0", "device", "fe80::1")
	docker, own := a("docker0", "bridge", "172.17.0.1"), a("proa-x0", "bridge", "10.243.0.1")
	for name, test := range map[string]struct {
		all  []linkAddress
		want string
	}{
		"nothing":                    {nil, ""},
		"loopback alone":             {[]linkAddress{lo, lo6, local6}, ""},
		"a cluster's bridge alone":   {[]linkAddress{lo, own}, ""},
		"the first of several":       {[]linkAddress{lo, eth, a("eth1", "device", "192.0.2.9")}, "192.0.2.1"},
		"a link before a bridge":     {[]linkAddress{docker, eth}, "192.0.2.1"},
		"a bridge before nothing":    {[]linkAddress{lo, own, docker}, "172.17.0.1"},
		"IPv4 before IPv6":           {[]linkAddress{eth6, eth}, "192.0.2.1"},
		"IPv4 of a bridge, likewise": {[]linkAddress{eth6, docker}, "172.17.0.1"},
		"IPv6 alone":                 {[]linkAddress{local6, eth6}, "2001:db8::1"},
	} {
		got, ok := bestAddress(test.all)
		if ok != (test.want != "") || ok && got.String() != test.want {
			t.Errorf("%s: got %v, %v, want %q", name, got, ok, test.want)
		}
	}
}
