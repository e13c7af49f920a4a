package cluster

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strings"

	corev1 "k8s.io/api/core/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/proa-k8s/proa/internal/kubelet/eviction"
)

// ServerConfig is what a server is started with. Zero values mean the documented defaults.
type ServerConfig struct {
	Layout Layout
	Log    *slog.Logger

	BindAddress      string
	SecurePort       int
	AdvertiseAddress string
	TLSSANs          []string

	ClusterCIDR          string
	ServiceCIDR          string
	ServiceNodePortRange string
	ClusterDomain        string
	DNSPort              int

	EtcdEndpoints                         []string
	EtcdCAFile, EtcdCertFile, EtcdKeyFile string

	DisableAgent bool
	Node         NodeConfig
}

// NodeConfig is what a node is started with.
type NodeConfig struct {
	Name         string
	IP           string
	Labels       []string // key=value
	Taints       []string // key=value:effect
	MaxPods      int
	EvictionHard []string // signal<quantity or signal<percentage; nil means the kubelet's defaults
	// ImageGCHighThreshold and ImageGCLowThreshold are percentages of the disk; 0 means the kubelet's defaults.
	ImageGCHighThreshold, ImageGCLowThreshold int
	KubeletPort                               int
	AllowedUnsafeSysctls                      []string // names, or prefixes that end with *
	PodMaxPids                                int64    // 0 and below means no limit
	RuntimeEndpoint                           string
	ResolvConf                                string
}

// AgentConfig is what an agent without a server is started with.
type AgentConfig struct {
	Layout Layout
	Log    *slog.Logger
	// ServerDataDir is the data directory of the server whose cluster the node joins.
	ServerDataDir string
	Node          NodeConfig
}

// Validate checks what can be checked without touching the machine. Errors name the flag.
func (c *ServerConfig) Validate() error {
	var v validator
	v.ip("bind-address", c.BindAddress)
	v.ip("advertise-address", c.AdvertiseAddress)
	v.port("secure-port", c.SecurePort)
	v.port("dns-port", c.DNSPort)
	v.cidr("cluster-cidr", c.ClusterCIDR, 24)
	v.cidr("service-cidr", c.ServiceCIDR, 28)
	v.apart("cluster-cidr", c.ClusterCIDR, "service-cidr", c.ServiceCIDR)
	if c.ServiceNodePortRange != "" {
		if _, err := parsePortRange(c.ServiceNodePortRange); err != nil {
			v.fail("service-node-port-range", c.ServiceNodePortRange, err.Error())
		}
	}
	if c.ClusterDomain != "" {
		v.all("cluster-domain", c.ClusterDomain, validation.IsDNS1123Subdomain(c.ClusterDomain))
	}
	for _, san := range c.TLSSANs {
		if net.ParseIP(san) == nil {
			v.all("tls-san", san, validation.IsDNS1123Subdomain(strings.TrimPrefix(san, "*.")))
		}
	}
	for _, e := range c.EtcdEndpoints {
		if u, err := url.Parse(e); err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			v.fail("etcd-endpoints", e, "must be a URL: https://host:2379")
		}
	}
	if (c.EtcdCertFile == "") != (c.EtcdKeyFile == "") {
		v.fail("etcd-certfile", c.EtcdCertFile, "needs --etcd-keyfile, and the other way round")
	}
	for flag, path := range map[string]string{"etcd-cafile": c.EtcdCAFile, "etcd-certfile": c.EtcdCertFile, "etcd-keyfile": c.EtcdKeyFile} {
		if path == "" {
			continue
		}
		if _, err := os.Stat(path); err != nil {
			v.fail(flag, path, err.Error())
		}
	}
	c.Node.validate(&v)
	return errors.Join(v.errs...)
}

// Validate checks what can be checked without touching the machine. Errors name the flag.
func (c *AgentConfig) Validate() error {
	var v validator
	if c.ServerDataDir == "" {
		v.fail("server-data-dir", "", "must name the data directory of the server whose cluster the node joins")
	} else if c.ServerDataDir == c.Layout.DataDir {
		v.fail("server-data-dir", c.ServerDataDir, "must not be the agent's own: give the agent a --name or --data-dir of its own")
	}
	c.Node.validate(&v)
	return errors.Join(v.errs...)
}

func (n *NodeConfig) validate(v *validator) {
	v.ip("node-ip", n.IP)
	v.port("kubelet-port", n.KubeletPort)
	if n.Name != "" {
		v.all("node-name", n.Name, validation.IsDNS1123Subdomain(n.Name))
	}
	if n.MaxPods < 0 {
		v.fail("max-pods", fmt.Sprint(n.MaxPods), "must not be negative")
	}
	if _, err := parseThresholds(n.EvictionHard); err != nil {
		v.fail("eviction-hard", strings.Join(n.EvictionHard, ","), err.Error())
	}
	if high, low := n.ImageGCHighThreshold, n.ImageGCLowThreshold; high < 0 || high > 100 {
		v.fail("image-gc-high-threshold", fmt.Sprint(high), "must be a percentage")
	} else if low < 0 || low >= max(high, 1) {
		v.fail("image-gc-low-threshold", fmt.Sprint(low), "must be a percentage below --image-gc-high-threshold")
	}
	if e := n.RuntimeEndpoint; e != "" && !strings.HasPrefix(e, "unix:///") {
		v.fail("container-runtime-endpoint", e, "must be a unix socket: unix:///run/...")
	}
	if _, err := parseLabels(n.Labels); err != nil {
		v.errs = append(v.errs, err)
	}
	if _, err := parseTaints(n.Taints); err != nil {
		v.errs = append(v.errs, err)
	}
}

// validator collects what is wrong with flags.
type validator struct{ errs []error }

func (v *validator) fail(flag, value, why string) {
	v.errs = append(v.errs, fmt.Errorf("--%s %q: %s", flag, value, why))
}

func (v *validator) all(flag, value string, why []string) {
	for _, w := range why {
		v.fail(flag, value, w)
	}
}

func (v *validator) ip(flag, value string) {
	if value == "" {
		return
	}
	if _, err := netip.ParseAddr(value); err != nil {
		v.fail(flag, value, "must be an IP address")
	}
}

func (v *validator) port(flag string, port int) {
	if port < 0 || port > 65535 {
		v.fail(flag, fmt.Sprint(port), "must be a port: 1 to 65535")
	}
}

// cidr checks a range that must have room for at least a /longest.
func (v *validator) cidr(flag, value string, longest int) {
	if value == "" {
		return
	}
	p, err := netip.ParsePrefix(value)
	switch {
	case err != nil:
		v.fail(flag, value, "must be a range of addresses: 10.0.0.0/16")
	case p.Masked() != p:
		v.fail(flag, value, "must begin with the first address of the range: "+p.Masked().String())
	case p.Addr().Is4() && p.Bits() > longest:
		v.fail(flag, value, fmt.Sprintf("is too small: a /%d at least", longest))
	}
}

func (v *validator) apart(flagA, a, flagB, b string) {
	pa, errA := netip.ParsePrefix(a)
	pb, errB := netip.ParsePrefix(b)
	if errA == nil && errB == nil && pa.Overlaps(pb) {
		v.fail(flagA, a, "overlaps --"+flagB+" "+b)
	}
}

func parsePortRange(s string) (*utilnet.PortRange, error) {
	r, err := utilnet.ParsePortRange(s)
	if err != nil {
		return nil, err
	}
	if r.Base < 1 {
		return nil, errors.New("must begin at port 1 or above")
	}
	return r, nil
}

func parseLabels(pairs []string) (map[string]string, error) {
	labels := map[string]string{}
	for _, pair := range pairs {
		key, value, ok := strings.Cut(pair, "=")
		why := append(validation.IsQualifiedName(key), validation.IsValidLabelValue(value)...)
		if !ok {
			why = append(why, "must be key=value")
		}
		if len(why) > 0 {
			return nil, fmt.Errorf("--node-label %q: %s", pair, strings.Join(why, "; "))
		}
		labels[key] = value
	}
	return labels, nil
}

// parseThresholds reads what the kubelet's flag takes: memory.available<100Mi, imagefs.available<15%.
func parseThresholds(specs []string) (map[string]string, error) {
	if specs == nil {
		return nil, nil
	}
	thresholds := map[string]string{}
	for _, spec := range specs {
		signal, value, ok := strings.Cut(spec, "<")
		if !ok {
			return nil, fmt.Errorf("%q must be signal<quantity or signal<percentage", spec)
		}
		thresholds[signal] = value
	}
	_, err := eviction.Parse(thresholds)
	return thresholds, err
}

func parseTaints(specs []string) ([]corev1.Taint, error) {
	var taints []corev1.Taint
	for _, spec := range specs {
		pair, effect, ok := strings.Cut(spec, ":")
		key, value, _ := strings.Cut(pair, "=")
		why := append(validation.IsQualifiedName(key), validation.IsValidLabelValue(value)...)
		switch corev1.TaintEffect(effect) {
		case corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute:
		default:
			ok = false
		}
		if !ok {
			why = append(why, "must be key=value:effect, with effect NoSchedule, PreferNoSchedule or NoExecute")
		}
		if len(why) > 0 {
			return nil, fmt.Errorf("--node-taint %q: %s", spec, strings.Join(why, "; "))
		}
		taints = append(taints, corev1.Taint{Key: key, Value: value, Effect: corev1.TaintEffect(effect)})
	}
	return taints, nil
}

// complete fills in what was left to Proa: what derives from the cluster's slot, and the node's name and address.
func (c *ServerConfig) complete() error {
	slot := Slot(0)
	if c.ClusterCIDR == "" || c.ServiceCIDR == "" || c.SecurePort == 0 || c.DNSPort == 0 || c.Node.KubeletPort == 0 {
		var err error
		if slot, err = takeSlot(c.Layout); err != nil {
			return err
		}
	}
	setDefault(&c.ClusterCIDR, slot.ClusterCIDR())
	setDefault(&c.ServiceCIDR, slot.ServiceCIDR())
	setDefault(&c.SecurePort, slot.APIPort())
	setDefault(&c.DNSPort, slot.DNSPort())
	setDefault(&c.Node.KubeletPort, slot.KubeletPort())
	setDefault(&c.BindAddress, "0.0.0.0")
	setDefault(&c.ServiceNodePortRange, "30000-32767")
	setDefault(&c.ClusterDomain, "cluster.local")
	setDefault(&c.Log, slog.Default())
	if err := c.Node.complete(); err != nil {
		return err
	}
	setDefault(&c.AdvertiseAddress, c.Node.IP)
	return nil
}

func (n *NodeConfig) complete() error {
	if n.Name == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("node name: %w", err)
		}
		n.Name = strings.ToLower(host)
		if why := validation.IsDNS1123Subdomain(n.Name); len(why) > 0 {
			return fmt.Errorf("the host name %q is no name for a node (%s): give one with --node-name", n.Name, why[0])
		}
	}
	if n.IP == "" {
		ip, err := nodeAddress()
		if err != nil {
			return err
		}
		n.IP = ip.String()
	}
	setDefault(&n.MaxPods, 110)
	setDefault(&n.ResolvConf, "/etc/resolv.conf")
	return nil
}

func setDefault[T comparable](p *T, value T) {
	var zero T
	if *p == zero {
		*p = value
	}
}
