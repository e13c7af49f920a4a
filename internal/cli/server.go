package cli

import (
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/proa-k8s/proa/internal/cluster"
)

// logging are the flags of what runs for long.
type logging struct {
	level, format string
}

func (l *logging) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&l.level, "log-level", "info", "what to log: debug, info, warn or error")
	flags.StringVar(&l.format, "log-format", "text", "how to log: text or json")
}

func (l *logging) logger() (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(l.level)); err != nil {
		return nil, exitError{2, fmt.Errorf("--log-level %q: must be debug, info, warn or error", l.level)}
	}
	options := &slog.HandlerOptions{Level: level}
	switch l.format {
	case "text":
		return slog.New(slog.NewTextHandler(os.Stderr, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(os.Stderr, options)), nil
	}
	return nil, exitError{2, fmt.Errorf("--log-format %q: must be text or json", l.format)}
}

// serverFlags are shared by server and up, which starts a server in the background.
type serverFlags struct {
	place
	logging
	server cluster.ServerConfig
}

func (s *serverFlags) addFlags(flags *pflag.FlagSet) {
	s.place.addFlags(flags)
	s.logging.addFlags(flags)
	c := &s.server
	flags.StringVar(&c.BindAddress, "bind-address", "0.0.0.0", "address that the API listens on")
	flags.IntVar(&c.SecurePort, "secure-port", 0, "port of the API (default 6443; the next free hundred for a cluster of another name)")
	flags.StringVar(&c.AdvertiseAddress, "advertise-address", "", "address at which others reach the API (default the node's)")
	flags.StringSliceVar(&c.TLSSANs, "tls-san", nil, "further names and addresses in the certificate of the API")
	flags.StringVar(&c.ClusterCIDR, "cluster-cidr", "", "range of pod addresses (default 10.244.0.0/16; another for a cluster of another name)")
	flags.StringVar(&c.ServiceCIDR, "service-cidr", "", "range of service addresses (default 10.96.0.0/16; another for a cluster of another name)")
	flags.StringVar(&c.ServiceNodePortRange, "service-node-port-range", "30000-32767", "range of node ports")
	flags.StringVar(&c.ClusterDomain, "cluster-domain", "cluster.local", "domain of the cluster's DNS")
	flags.IntVar(&c.DNSPort, "dns-port", 0, "port that the cluster's DNS listens on at the node (default 10053; another for a cluster of another name)")
	flags.StringSliceVar(&c.EtcdEndpoints, "etcd-endpoints", nil, "use this etcd instead of the embedded one (https://host:2379)")
	flags.StringVar(&c.EtcdCAFile, "etcd-cafile", "", "certificate authority of the etcd at --etcd-endpoints")
	flags.StringVar(&c.EtcdCertFile, "etcd-certfile", "", "client certificate for the etcd at --etcd-endpoints")
	flags.StringVar(&c.EtcdKeyFile, "etcd-keyfile", "", "key of --etcd-certfile")
	flags.BoolVar(&c.DisableAgent, "disable-agent", false, "run the control plane only: this machine is no node")
	addNodeFlags(flags, &c.Node)
}

func addNodeFlags(flags *pflag.FlagSet, n *cluster.NodeConfig) {
	flags.StringVar(&n.Name, "node-name", "", "name of the node (default the host name)")
	flags.StringVar(&n.IP, "node-ip", "", "address of the node (default that of the route to the outside)")
	flags.StringSliceVar(&n.Labels, "node-label", nil, "labels that the node is registered with (key=value)")
	flags.StringSliceVar(&n.Taints, "node-taint", nil, "taints that the node is registered with (key=value:effect)")
	flags.IntVar(&n.MaxPods, "max-pods", 110, "how many pods the node takes")
	flags.StringSliceVar(&n.EvictionHard, "eviction-hard", nil, "what must be left, or pods are evicted (default memory.available<100Mi,nodefs.available<10%,nodefs.inodesFree<5%,imagefs.available<15%,imagefs.inodesFree<5%; what is not named is not watched)")
	flags.IntVar(&n.ImageGCHighThreshold, "image-gc-high-threshold", 85, "percentage of the disk's use from which on images that nobody uses are removed; never when 100")
	flags.IntVar(&n.ImageGCLowThreshold, "image-gc-low-threshold", 80, "percentage of the disk's use down to which they are")
	flags.StringSliceVar(&n.AllowedUnsafeSysctls, "allowed-unsafe-sysctls", nil, "sysctls that pods may set beside the safe ones (a name, or a prefix with * at its end)")
	flags.Int64Var(&n.PodMaxPids, "pod-max-pids", -1, "how many processes a pod may have (-1: any number)")
	flags.IntVar(&n.KubeletPort, "kubelet-port", 0, "port of the node's API for logs and exec (default 10250; another for a cluster of another name)")
	flags.StringVar(&n.RuntimeEndpoint, "container-runtime-endpoint", "", "use this CRI runtime instead of the embedded containerd (unix:///run/...)")
	flags.StringVar(&n.ResolvConf, "resolv-conf", "/etc/resolv.conf", "the resolver configuration that pods with DNS policy Default, and the cluster's DNS for names outside, start from")
}

func newServer() *cobra.Command {
	var f serverFlags
	cmd := &cobra.Command{
		Use:   "server",
		Short: "Run the control plane, and a node unless --disable-agent, in the foreground",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needRoot("proa server"); err != nil {
				return err
			}
			var err error
			if f.server.Layout, err = f.layout(); err != nil {
				return err
			}
			if f.server.Log, err = f.logger(); err != nil {
				return err
			}
			if err := f.server.Validate(); err != nil {
				return exitError{2, err}
			}
			return cluster.RunServer(cmd.Context(), f.server)
		},
	}
	f.addFlags(cmd.Flags())
	return cmd
}

func newAgent() *cobra.Command {
	var p place
	var log logging
	var c cluster.AgentConfig
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Run a node of a cluster whose server is on this machine, in the foreground",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needRoot("proa agent"); err != nil {
				return err
			}
			var err error
			if c.Layout, err = p.layout(); err != nil {
				return err
			}
			if c.Log, err = log.logger(); err != nil {
				return err
			}
			if err := c.Validate(); err != nil {
				return exitError{2, err}
			}
			return cluster.RunAgent(cmd.Context(), c)
		},
	}
	flags := cmd.Flags()
	p.addFlags(flags)
	log.addFlags(flags)
	flags.StringVar(&c.ServerDataDir, "server-data-dir", "", "data directory of the server whose cluster the node joins")
	addNodeFlags(flags, &c.Node)
	return cmd
}
