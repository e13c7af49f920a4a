package kubelet

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/proa-k8s/proa/internal/kubelet/eviction"
)

// Config is what a Kubelet is made of. Names, addresses and directories belong to one cluster's node; several nodes can
// live on one machine when these differ.
type Config struct {
	// NodeName is the name of the Node object, and of the user system:node:<NodeName> that Client is authenticated as.
	NodeName string
	// Version is what the Node reports as kubeletVersion: that of Kubernetes whose behaviour is implemented.
	Version string
	// NodeIPs are the node's addresses, the primary one first; at most one of each family.
	NodeIPs []netip.Addr
	// Client reaches the API server over TLS with the node's identity.
	Client kubernetes.Interface

	// RuntimeEndpoint is the CRI runtime service (unix:///run/.../containerd.sock); ImageEndpoint is the image service
	// and the same when empty.
	RuntimeEndpoint string
	ImageEndpoint   string
	// SandboxSeccompProfile is the path of a seccomp profile for sandboxes; empty means the runtime's default profile.
	SandboxSeccompProfile string

	// RootDir holds pods/<uid>/ with their volumes (/var/lib/kubelet), LogDir the logs of containers (/var/log/pods),
	// StaticPodDir manifests of static pods (none when empty).
	RootDir      string
	LogDir       string
	StaticPodDir string

	// CgroupRoot is the cgroup that kubepods is made in ("/proa-<name>"); "/" is the root.
	CgroupRoot string
	// CgroupDriver is "cgroupfs", which is also the default. Nothing else is supported.
	CgroupDriver string

	// ClusterDNS and ClusterDomain are what pods find in /etc/resolv.conf. ResolvConf is the node's own file, by
	// default /etc/resolv.conf.
	ClusterDNS    []string
	ClusterDomain string
	ResolvConf    string

	// MaxPods is how many pods the node takes; 0 means 110.
	MaxPods int
	// Port of the kubelet's HTTPS server, as reported in the Node's daemonEndpoints.
	Port int32
	// ProviderID, Labels and Taints go into the Node when it is registered. Taints are set at the first registration
	// only.
	ProviderID string
	Labels     map[string]string
	Taints     []corev1.Taint

	// SystemReserved and KubeReserved are subtracted from the capacity to give what is allocatable.
	SystemReserved corev1.ResourceList
	KubeReserved   corev1.ResourceList

	// EvictionHard are the thresholds at which pods are evicted at once: memory.available, nodefs.available,
	// nodefs.inodesFree, imagefs.available, imagefs.inodesFree, pid.available; as quantities or percentages. Nil means the documented
	// defaults (100Mi, 10%, 5%, 15%, 5%).
	EvictionHard map[string]string

	// ContainerLogMaxSize and ContainerLogMaxFiles bound the logs of a container; 0 means 10Mi and 5.
	ContainerLogMaxSize  int64
	ContainerLogMaxFiles int

	// PodPidsLimit bounds the processes of a pod; 0 and below means no limit.
	PodPidsLimit int64
	// AllowedUnsafeSysctls are sysctls, or prefixes that end with *, that pods may set beside the safe ones.
	AllowedUnsafeSysctls []string

	// ImageGCHighThreshold and ImageGCLowThreshold are the percentages of disk usage at which images are removed and
	// down to which; 0 means 85 and 80.
	ImageGCHighThreshold int
	ImageGCLowThreshold  int

	Log *slog.Logger
}

// defaultEvictionHard are the documented defaults on Linux.
func defaultEvictionHard() map[string]string {
	return map[string]string{
		"memory.available":   "100Mi",
		"nodefs.available":   "10%",
		"nodefs.inodesFree":  "5%",
		"imagefs.available":  "15%",
		"imagefs.inodesFree": "5%",
	}
}

// complete checks the configuration and fills in what was left out.
func (c *Config) complete() error {
	var errs []error
	need := func(name, value string) {
		if value == "" {
			errs = append(errs, fmt.Errorf("%s: must be set", name))
		}
	}
	need("NodeName", c.NodeName)
	need("Version", c.Version)
	need("RuntimeEndpoint", c.RuntimeEndpoint)
	need("RootDir", c.RootDir)
	need("LogDir", c.LogDir)
	if c.Client == nil {
		errs = append(errs, errors.New("client: must be set"))
	}
	if len(c.NodeIPs) == 0 || len(c.NodeIPs) > 2 {
		errs = append(errs, fmt.Errorf("NodeIPs: must be one or two addresses, not %d", len(c.NodeIPs)))
	}
	if c.CgroupDriver == "" {
		c.CgroupDriver = "cgroupfs"
	}
	if c.CgroupDriver != "cgroupfs" {
		errs = append(errs, fmt.Errorf("CgroupDriver: %q is not supported: supported values: cgroupfs", c.CgroupDriver))
	}
	for _, dir := range []*string{&c.RootDir, &c.LogDir, &c.StaticPodDir} {
		if *dir != "" && !filepath.IsAbs(*dir) {
			errs = append(errs, fmt.Errorf("directory %q: must be absolute", *dir))
		}
	}
	if c.ImageEndpoint == "" {
		c.ImageEndpoint = c.RuntimeEndpoint
	}
	if c.CgroupRoot == "" {
		c.CgroupRoot = "/"
	}
	if c.ClusterDomain == "" {
		c.ClusterDomain = "cluster.local"
	}
	if c.ResolvConf == "" {
		c.ResolvConf = "/etc/resolv.conf"
	}
	if c.MaxPods == 0 {
		c.MaxPods = 110
	}
	if c.Port == 0 {
		c.Port = 10250
	}
	if c.EvictionHard == nil {
		c.EvictionHard = defaultEvictionHard()
	}
	if _, err := eviction.Parse(c.EvictionHard); err != nil {
		errs = append(errs, fmt.Errorf("EvictionHard: %w", err))
	}
	if c.ContainerLogMaxSize == 0 {
		c.ContainerLogMaxSize = 10 << 20
	}
	if c.ContainerLogMaxFiles == 0 {
		c.ContainerLogMaxFiles = 5
	}
	if c.ImageGCHighThreshold == 0 {
		c.ImageGCHighThreshold = 85
	}
	if c.ImageGCLowThreshold == 0 {
		c.ImageGCLowThreshold = 80
	}
	if c.ImageGCLowThreshold >= c.ImageGCHighThreshold || c.ImageGCHighThreshold > 100 {
		errs = append(errs, fmt.Errorf("ImageGCLowThreshold: %d must be below ImageGCHighThreshold %d", c.ImageGCLowThreshold, c.ImageGCHighThreshold))
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	return errors.Join(errs...)
}

// housekeepingInterval is how often the runtime is asked for everything, in case an event was lost, and how often dead
// containers and orphans are looked at.
const housekeepingInterval = 60 * time.Second
