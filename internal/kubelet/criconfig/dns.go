package criconfig

import (
	"fmt"
	"os"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// What resolv.conf may hold.
const (
	maxNameservers = 3
	maxSearches    = 32
	maxSearchChars = 2048
)

// DNS gives what a pod finds in its resolv.conf.
func (n *Node) DNS(pod *corev1.Pod) (*runtimeapi.DNSConfig, error) {
	var config *runtimeapi.DNSConfig
	policy := pod.Spec.DNSPolicy
	if policy == corev1.DNSClusterFirst && pod.Spec.HostNetwork {
		policy = corev1.DNSDefault
	}
	if policy == corev1.DNSClusterFirstWithHostNet || policy == "" {
		policy = corev1.DNSClusterFirst
	}
	if policy == corev1.DNSClusterFirst && len(n.ClusterDNS) == 0 {
		policy = corev1.DNSDefault // the caller warns
	}
	switch policy {
	case corev1.DNSNone:
		config = &runtimeapi.DNSConfig{}
	default:
		text, err := os.ReadFile(n.ResolvConf)
		if err != nil && !os.IsNotExist(err) {
			return nil, fmt.Errorf("reading the node's resolv.conf: %w", err)
		}
		config = ParseResolvConf(string(text))
		if policy == corev1.DNSClusterFirst {
			searches := []string{
				pod.Namespace + ".svc." + n.ClusterDomain, "svc." + n.ClusterDomain, n.ClusterDomain,
			}
			config.Servers = slices.Clone(n.ClusterDNS)
			config.Searches = appendUnique(searches, config.Searches)
			config.Options = []string{"ndots:5"}
		}
	}
	if custom := pod.Spec.DNSConfig; custom != nil {
		config.Servers = appendUnique(config.Servers, custom.Nameservers)
		config.Searches = appendUnique(config.Searches, custom.Searches)
		config.Options = mergeOptions(config.Options, custom.Options)
	}
	return limitDNS(config), nil
}

// ParseResolvConf reads nameservers, search domains and options; the last search and options lines win.
func ParseResolvConf(text string) *runtimeapi.DNSConfig {
	config := &runtimeapi.DNSConfig{}
	for line := range strings.Lines(text) {
		if i := strings.IndexAny(line, "#;"); i == 0 {
			continue
		}
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "nameserver":
			config.Servers = append(config.Servers, fields[1])
		case "search":
			config.Searches = nil
			for _, s := range fields[1:] {
				if s != "." {
					s = strings.TrimSuffix(s, ".")
				}
				config.Searches = append(config.Searches, s)
			}
		case "options":
			config.Options = appendUnique(config.Options, fields[1:])
		}
	}
	return config
}

func appendUnique(list, more []string) []string {
	for _, s := range more {
		if !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list
}

// mergeOptions lets the options of the pod win over those of the same name.
func mergeOptions(options []string, custom []corev1.PodDNSConfigOption) []string {
	for _, o := range custom {
		text := o.Name
		if o.Value != nil && *o.Value != "" {
			text += ":" + *o.Value
		}
		i := slices.IndexFunc(options, func(s string) bool {
			name, _, _ := strings.Cut(s, ":")
			return name == o.Name
		})
		if i >= 0 {
			options[i] = text
		} else {
			options = append(options, text)
		}
	}
	return options
}

func limitDNS(config *runtimeapi.DNSConfig) *runtimeapi.DNSConfig {
	config.Servers = config.Servers[:min(len(config.Servers), maxNameservers)]
	config.Searches = config.Searches[:min(len(config.Searches), maxSearches)]
	for len(strings.Join(config.Searches, " ")) > maxSearchChars {
		config.Searches = config.Searches[:len(config.Searches)-1]
	}
	return config
}
