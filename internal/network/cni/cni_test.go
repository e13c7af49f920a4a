package cni

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// inNetwork moves the test into a network namespace of its own. The thread is never used again, and the namespace ends with it.
func inNetwork(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for a network namespace")
	}
	runtime.LockOSThread()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		t.Fatal(err)
	}
	// /sys shows the network namespace in which it was mounted.
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		t.Fatal(err)
	}
}

func testConfig(t *testing.T) Config {
	return Config{
		Bridge: "test0", Table: "test.node", ConfDir: filepath.Join(t.TempDir(), "net.d"), StateDir: t.TempDir(), Log: slog.Default(),
		ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd10::/56")},
		ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd11::/112")},
	}
}

func TestSetup(t *testing.T) {
	inNetwork(t)
	c := testConfig(t)
	ranges := []netip.Prefix{netip.MustParsePrefix("10.244.3.0/24"), netip.MustParsePrefix("fd10:0:0:3::/64")}
	for round := range 2 { // the second time changes nothing
		if err := Setup(c, ranges); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
	bridge, err := netlink.LinkByName(c.Bridge)
	if err != nil {
		t.Fatal(err)
	}
	for family, want := range map[int]string{netlink.FAMILY_V4: "10.244.3.1/24", netlink.FAMILY_V6: "fd10:0:0:3::1/64"} {
		addrs, err := netlink.AddrList(bridge, family)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(addrs, func(a netlink.Addr) bool { return a.IPNet.String() == want }) {
			t.Errorf("the bridge has %v, want %s", addrs, want)
		}
	}
	for _, file := range []string{"/proc/sys/net/ipv4/ip_forward", "/sys/class/net/test0/bridge/nf_call_iptables", "/sys/class/net/test0/bridge/nf_call_ip6tables", "/proc/sys/net/ipv4/conf/test0/route_localnet"} {
		if data, err := os.ReadFile(file); err != nil || string(data) != "1\n" {
			t.Errorf("%s is %q, %v", file, data, err)
		}
	}
	// Addresses of pods on no node are unreachable; those of the node's own pods and of services are not.
	for addr, want := range map[string]error{"10.244.7.7": unix.EHOSTUNREACH, "fd10:0:0:7::7": unix.EHOSTUNREACH, "10.244.3.9": nil, "10.96.0.1": nil, "fd11::1": nil} {
		_, err := netlink.RouteGet(netip.MustParseAddr(addr).AsSlice())
		if !errors.Is(err, want) {
			t.Errorf("route to %s: %v, want %v", addr, err, want)
		}
	}
	checkRules(t, c.Table, 3)

	for range 2 {
		if err := Cleanup(c.ClusterCIDRs); err != nil {
			t.Fatal(err)
		}
	}
	left, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Type: unix.RTN_UNREACHABLE, Priority: rejectMetric}, netlink.RT_FILTER_TYPE|netlink.RT_FILTER_PRIORITY)
	if err != nil || len(left) > 0 {
		t.Errorf("after the clean-up there is %v, %v", left, err)
	}
}

func checkRules(t *testing.T, table string, want int) {
	t.Helper()
	conn, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	chains, err := conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		t.Fatal(err)
	}
	var rules int
	for _, chain := range chains {
		if chain.Table.Name != table {
			continue
		}
		all, err := conn.GetRules(chain.Table, chain)
		if err != nil {
			t.Fatal(err)
		}
		rules += len(all)
	}
	if rules != want {
		t.Errorf("table %s has %d rules, want %d", table, rules, want)
	}
}

func TestSetupRefusesAForeignLink(t *testing.T) {
	inNetwork(t)
	c := testConfig(t)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = c.Bridge
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "peer"}); err != nil {
		t.Fatal(err)
	}
	if err := Setup(c, []netip.Prefix{netip.MustParsePrefix("10.244.3.0/24")}); err == nil {
		t.Error("a link of another type was taken for the bridge")
	}
}

func TestConfiguration(t *testing.T) {
	c := testConfig(t)
	data, err := configuration(c, []netip.Prefix{netip.MustParsePrefix("10.244.3.0/24"), netip.MustParsePrefix("fd10:0:0:3::/64")})
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		CNIVersion, Name string
		Plugins          []struct {
			Type, Bridge string
			IsGateway    bool
			IPAM         struct {
				Type, DataDir string
				Ranges        [][]struct{ Subnet string }
			}
			Capabilities map[string]bool
		}
	}
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	if got.CNIVersion != "1.0.0" || len(got.Plugins) != 2 {
		t.Fatalf("got %s", data)
	}
	b := got.Plugins[0]
	if b.Type != "bridge" || b.Bridge != "test0" || !b.IsGateway || b.IPAM.DataDir != c.StateDir || len(b.IPAM.Ranges) != 2 || b.IPAM.Ranges[1][0].Subnet != "fd10:0:0:3::/64" {
		t.Errorf("bridge plugin: %s", data)
	}
}

func TestPodRanges(t *testing.T) {
	for _, tc := range []struct {
		spec    corev1.NodeSpec
		want    string
		wantErr bool
	}{
		{corev1.NodeSpec{}, "", false},
		{corev1.NodeSpec{PodCIDR: "10.0.1.0/24"}, "10.0.1.0/24", false},
		{corev1.NodeSpec{PodCIDR: "10.0.1.0/24", PodCIDRs: []string{"10.0.1.0/24", "fd00::/64"}}, "10.0.1.0/24 fd00::/64", false},
		{corev1.NodeSpec{PodCIDR: "10.0.1.0"}, "", true},
	} {
		ranges, err := podRanges(&corev1.Node{Spec: tc.spec})
		var got string
		for i, r := range ranges {
			if i > 0 {
				got += " "
			}
			got += r.String()
		}
		if got != tc.want || (err != nil) != tc.wantErr {
			t.Errorf("%v: got %q, %v", tc.spec, got, err)
		}
	}
}

func TestWriteFileLeavesTheSameAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "file")
	if err := writeFile(path, []byte("a")); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := writeFile(path, []byte("a")); err != nil {
		t.Fatal(err)
	}
	if after, err := os.Stat(path); err != nil || !os.SameFile(before, after) {
		t.Errorf("the same contents made a new file: %v", err)
	}
	if err := writeFile(path, []byte("b")); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "b" {
		t.Errorf("got %q, %v", data, err)
	}
}
