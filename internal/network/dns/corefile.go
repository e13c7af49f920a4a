package dns

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/coredns/caddy/caddyfile"
)

// defaultCorefile is what the ConfigMap begins with. Names of the cluster are not cached: they are in memory anyway, and a
// change of a service is seen at once.
func defaultCorefile(domain, resolvConf string) string {
	return fmt.Sprintf(`.:53 {
    errors
    kubernetes %s in-addr.arpa ip6.arpa {
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 30
    }
    forward . %s {
        max_concurrent 1000
    }
    cache 30 {
        disable success %s
        disable denial %s
    }
    loadbalance
}
`, domain, resolvConf, domain, domain)
}

// block is one server block of a Corefile as package caddyfile gives it: each line of the body is a list of the directive, its
// arguments and, last, its own block.
type block struct {
	Keys []string `json:"keys"`
	Body [][]any  `json:"body"`
}

// adapt makes a Corefile that was written for CoreDNS in a pod one for this process: the standard port becomes the one that
// was chosen for this cluster, it listens at the node's address only, and the plugin kubernetes gets the way to the API. A forward to
// the machine's servers goes when the machine has none.
func adapt(text string, c Config, forward bool) (string, error) {
	data, err := caddyfile.ToJSON([]byte(text))
	if err != nil {
		return "", err
	}
	var blocks []block
	if err := json.Unmarshal(data, &blocks); err != nil {
		return "", err
	}
	if len(blocks) == 0 {
		return "", fmt.Errorf("the Corefile is empty")
	}
	for i := range blocks {
		b := &blocks[i]
		for j, key := range b.Keys {
			b.Keys[j] = withPort(key, c.Port)
		}
		if !b.has("bind") {
			b.Body = append([][]any{{"bind", c.Address.String()}}, b.Body...)
		}
		b.Body = slices.DeleteFunc(b.Body, func(line []any) bool {
			return !forward && line[0] == "forward" && slices.Contains(line, any(c.ResolvConf))
		})
		for j, line := range b.Body {
			if line[0] == "kubernetes" {
				b.Body[j] = withAPI(line, c)
			}
		}
	}
	if data, err = json.Marshal(blocks); err != nil {
		return "", err
	}
	adapted, err := caddyfile.FromJSON(data)
	return string(adapted), err
}

func (b *block) has(directive string) bool {
	return slices.ContainsFunc(b.Body, func(line []any) bool { return line[0] == directive })
}

// withPort replaces the standard port of a key, or adds the port to a key that has none.
func withPort(key string, port int) string {
	zone, scheme := key, ""
	if s, rest, ok := strings.Cut(key, "://"); ok {
		if s != "dns" {
			return key // DNS over TLS and the like have ports of their own
		}
		zone, scheme = rest, s+"://"
	}
	if host, p, err := net.SplitHostPort(zone); err == nil {
		if p != "53" {
			return key
		}
		zone = host
	}
	return scheme + zone + ":" + strconv.Itoa(port)
}

// withAPI adds the API's address and credentials to the plugin kubernetes, unless it says itself where the API is.
func withAPI(line []any, c Config) []any {
	settings := [][]any{{"endpoint", c.API}, {"tls", c.CertFile, c.KeyFile, c.CAFile}}
	last, ok := line[len(line)-1].([]any)
	if !ok {
		return append(line, settings)
	}
	for _, sub := range last {
		if s, ok := sub.([]any); ok && len(s) > 0 && (s[0] == "endpoint" || s[0] == "kubeconfig") {
			return line
		}
	}
	all := last
	for _, s := range settings {
		all = append(all, s)
	}
	return append(slices.Clone(line[:len(line)-1]), all)
}

// hasNameserver tells whether a resolver configuration names a server (resolv.conf(5)).
func hasNameserver(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 1 && fields[0] == "nameserver" {
			return true
		}
	}
	return false
}

// logWriter takes CoreDNS's log lines, "[LEVEL] message", into the one log. What CoreDNS finds worth to inform about is for who
// looks closely.
type logWriter struct{ log *slog.Logger }

// Write implements io.Writer.
func (w logWriter) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	level := slog.LevelDebug
	switch {
	case strings.Contains(text, "[ERROR]"), strings.Contains(text, "[FATAL]"):
		level = slog.LevelError
	case strings.Contains(text, "[WARNING]"):
		level = slog.LevelWarn
	}
	if _, message, ok := strings.Cut(text, "] "); ok {
		text = message
	}
	w.log.Log(context.Background(), level, text)
	return len(line), nil
}
