package dns

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
)

var testConfig = Config{
	API: "https://127.0.0.1:6443", CertFile: "c.crt", KeyFile: "c.key", CAFile: "ca.crt",
	Address: netip.MustParseAddr("127.0.0.1"), Port: 10053, ResolvConf: "/etc/resolv.conf", Domain: "cluster.local",
}

// lines is a Corefile without what does not count.
// CoreDNS runs plugins in an order of its own, so their order in the Corefile does not count.
func lines(text string) string {
	var all []string
	for line := range strings.Lines(text) {
		if line = strings.Join(strings.Fields(line), " "); line != "" {
			all = append(all, line)
		}
	}
	return strings.Join(all, "\n")
}

func TestAdapt(t *testing.T) {
	for _, tc := range []struct {
		name, corefile string
		forward        bool
		want           string
		wantErr        bool
	}{
		{"the default", defaultCorefile("cluster.local", "/etc/resolv.conf"), true, `.:10053 {
bind 127.0.0.1
cache 30 {
disable success cluster.local
disable denial cluster.local
}
errors
forward . /etc/resolv.conf {
max_concurrent 1000
}
kubernetes cluster.local in-addr.arpa ip6.arpa {
pods insecure
fallthrough in-addr.arpa ip6.arpa
ttl 30
endpoint https://127.0.0.1:6443
tls c.crt c.key ca.crt
}
loadbalance
}`, false},
		{"no server to forward to", ".:53 {\n forward . /etc/resolv.conf\n kubernetes cluster.local\n}", false, `.:10053 {
bind 127.0.0.1
kubernetes cluster.local {
endpoint https://127.0.0.1:6443
tls c.crt c.key ca.crt
}
}`, false},
		{"a forward elsewhere", ".:53 {\n forward . 192.0.2.1\n}", false, ".:10053 {\nbind 127.0.0.1\nforward . 192.0.2.1\n}", false},
		{"several blocks", "example.org {\n bind 127.0.0.2\n}\n. {\n kubernetes {\n  endpoint https://x\n }\n}", true, `example.org:10053 {
bind 127.0.0.2
}
.:10053 {
bind 127.0.0.1
kubernetes {
endpoint https://x
}
}`, false},
		{"empty", "", true, "", true},
		{"broken", ". {\n", true, "", true},
	} {
		got, err := adapt(tc.corefile, testConfig, tc.forward)
		if (err != nil) != tc.wantErr || lines(got) != tc.want {
			t.Errorf("%s: got %v\n%s\nwant\n%s", tc.name, err, lines(got), tc.want)
		}
	}
}

func TestWithPort(t *testing.T) {
	for key, want := range map[string]string{
		".:53": ".:10053", ".": ".:10053", "dns://.:53": "dns://.:10053", ".:5353": ".:5353", "tls://.": "tls://.", "a.example:53": "a.example:10053",
	} {
		if got := withPort(key, 10053); got != want {
			t.Errorf("%s: got %s, want %s", key, got, want)
		}
	}
}

func TestHasNameserver(t *testing.T) {
	for text, want := range map[string]bool{"": false, "search x\n# nameserver 1.1.1.1\n": false, "nameserver 127.0.0.53\n": true, "nameserver\n": false} {
		path := filepath.Join(t.TempDir(), "resolv.conf")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := hasNameserver(path); got != want {
			t.Errorf("%q: %t", text, got)
		}
	}
	if hasNameserver(filepath.Join(t.TempDir(), "none")) {
		t.Error("a missing file has a server")
	}
}

// A Corefile that CoreDNS refuses leaves the running one alone.
func TestConfigureKeepsWhatRuns(t *testing.T) {
	caddy.Quiet, dnsserver.Quiet = true, true
	c := testConfig
	c.Port, c.Log = 0, slog.Default()
	s := &server{config: c}
	defer s.stop()
	if err := s.configure(". {\n errors\n}"); err != nil {
		t.Fatal(err)
	}
	first := s.instance
	for _, bad := range []string{". {\n nonsense\n}", "", ". {\n forward\n}"} {
		if err := s.configure(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
		if s.instance != first || len(first.Servers()) != 1 {
			t.Errorf("after %q the server is another", bad)
		}
	}
}
