package cluster

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/proa-k8s/proa/internal/cluster/pki"
	"github.com/proa-k8s/proa/internal/containerd"
	"github.com/proa-k8s/proa/internal/containerd/helpers"
	"github.com/proa-k8s/proa/internal/kubelet"
	"github.com/proa-k8s/proa/internal/kubelet/cri"
	kubeletserver "github.com/proa-k8s/proa/internal/kubelet/server"
	"github.com/proa-k8s/proa/internal/network/cni"
	"github.com/proa-k8s/proa/internal/network/proxy"
)

// clusterFacts are what a node must know of its cluster. The server writes them to its data directory for agents on the same
// machine.
type clusterFacts struct {
	Server        string       `json:"server"` // URL of the API
	ClusterCIDR   netip.Prefix `json:"clusterCIDR"`
	ServiceCIDR   netip.Prefix `json:"serviceCIDR"`
	ClusterDNS    netip.Addr   `json:"clusterDNS"`
	ClusterDomain string       `json:"clusterDomain"`
}

// factsFile is where the facts are, below the server's data directory.
func factsFile(dataDir string) string { return filepath.Join(dataDir, "cluster.json") }

func (s *server) facts() clusterFacts {
	return clusterFacts{Server: s.apiURL(), ClusterCIDR: s.net.clusterCIDR, ServiceCIDR: s.net.serviceCIDR, ClusterDNS: s.net.dnsIP, ClusterDomain: s.ClusterDomain}
}

func (f clusterFacts) write(dataDir string) error {
	data, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(factsFile(dataDir), append(data, '\n'))
}

func readFacts(dataDir string) (clusterFacts, error) {
	var f clusterFacts
	data, err := os.ReadFile(factsFile(dataDir))
	if err == nil {
		err = json.Unmarshal(data, &f)
	}
	if err != nil {
		return f, fmt.Errorf("reading what is known of the cluster: %w", err)
	}
	return f, nil
}

// agent is a running node agent.
type agent struct {
	NodeConfig
	layout Layout
	log    *slog.Logger
	notify *notifier
	ip     netip.Addr

	runtime *containerd.Instance // nil with a runtime of somebody else's
	pki     *pki.PKI
	facts   clusterFacts
}

// runNode runs the server's own node. The container runtime starts at once, the rest as soon as the API serves: they meet
// nowhere else.
func (s *server) runNode(ctx context.Context) error {
	n := &agent{NodeConfig: s.Node, layout: s.Layout, log: s.Log, notify: s.notify, ip: s.net.nodeIP}
	defer n.close()
	if err := n.startRuntime(ctx); err != nil {
		return err
	}
	select {
	case <-s.serves:
	case <-ctx.Done():
		return ctx.Err()
	}
	n.pki, n.facts = s.pki, s.facts()
	return n.run(ctx)
}

// RunAgent runs a node of a cluster whose server is on the same machine, until ctx ends or a part of it fails.
func RunAgent(ctx context.Context, c AgentConfig) error {
	notify := newNotifier()
	lock, err := claim(c.Layout)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := c.complete(); err != nil {
		return err
	}
	restoreLogs := routeLogs(c.Log)
	defer restoreLogs()

	n := &agent{NodeConfig: c.Node, layout: c.Layout, log: c.Log, notify: notify}
	if n.ip, err = netip.ParseAddr(c.Node.IP); err != nil {
		return err
	}
	if n.facts, err = readFacts(c.ServerDataDir); err != nil {
		return fmt.Errorf("%w (has the server been started?)", err)
	}
	if err := n.facts.write(c.Layout.DataDir); err != nil { // proa down reads them
		return err
	}
	if n.pki, err = pki.Load(filepath.Join(c.ServerDataDir, "pki"), pki.Options{ClusterDomain: n.facts.ClusterDomain}); err != nil {
		return fmt.Errorf("loading the cluster's keys: %w", err)
	}
	defer n.close()
	if err := n.startRuntime(ctx); err != nil {
		return err
	}
	err = n.run(ctx)
	if ctx.Err() != nil {
		return nil // it was asked to end: what that interrupted is no error
	}
	return err
}

func (c *AgentConfig) complete() error {
	setDefault(&c.Log, slog.Default())
	if c.Node.KubeletPort == 0 {
		slot, err := takeSlot(c.Layout)
		if err != nil {
			return err
		}
		c.Node.KubeletPort = slot.KubeletPort()
	}
	return c.Node.complete()
}

// startRuntime starts the embedded containerd, unless there is another runtime.
func (n *agent) startRuntime(ctx context.Context) error {
	if n.RuntimeEndpoint != "" {
		return nil
	}
	bin, err := helpers.Unpack(n.layout.BinDir())
	if err != nil {
		return fmt.Errorf("unpacking helper executables: %w", err)
	}
	n.runtime, err = containerd.Start(ctx, containerd.Config{
		Root:              n.layout.ContainerdRoot(),
		State:             n.layout.ContainerdState(),
		Address:           n.layout.ContainerdSocket(),
		BinDir:            bin,
		CNIConfDir:        n.layout.CNIConfDir(),
		RegistryConfigDir: n.layout.RegistryConfigDir(),
		Log:               n.log.With("component", "containerd"),
	})
	if err != nil {
		return fmt.Errorf("starting containerd: %w", err)
	}
	n.RuntimeEndpoint = n.runtime.Endpoint()
	n.notify.phase("container runtime serves")
	return nil
}

func (n *agent) close() {
	if n.runtime != nil {
		n.runtime.Stop()
	}
}

// run runs what makes a machine a node: kubelet and network.
func (n *agent) run(ctx context.Context) error {
	client, err := n.client()
	if err != nil {
		return err
	}
	proxyClient, err := n.proxyClient()
	if err != nil {
		return err
	}
	labels, err := parseLabels(n.Labels)
	if err != nil {
		return err
	}
	taints, err := parseTaints(n.Taints)
	if err != nil {
		return err
	}
	var sandboxSeccompProfile string
	if n.runtime != nil {
		sandboxSeccompProfile = n.runtime.SandboxSeccompProfile()
	}
	thresholds, err := parseThresholds(n.EvictionHard)
	if err != nil {
		return err
	}
	k, err := kubelet.New(kubelet.Config{
		NodeName:        n.Name,
		Version:         Version().GitVersion,
		NodeIPs:         []netip.Addr{n.ip},
		Client:          client,
		RuntimeEndpoint: n.RuntimeEndpoint,

		SandboxSeccompProfile: sandboxSeccompProfile,

		ImageGCHighThreshold: n.ImageGCHighThreshold,
		ImageGCLowThreshold:  n.ImageGCLowThreshold,

		RootDir:       n.layout.KubeletDir(),
		LogDir:        n.layout.PodLogDir(),
		StaticPodDir:  n.layout.StaticPodDir(),
		CgroupRoot:    n.layout.CgroupRoot(),
		ClusterDNS:    []string{n.facts.ClusterDNS.String()},
		ClusterDomain: n.facts.ClusterDomain,
		ResolvConf:    n.ResolvConf,
		MaxPods:       n.MaxPods,
		EvictionHard:  thresholds,
		Port:          int32(n.KubeletPort),
		Labels:        labels,
		Taints:        taints,
		PodPidsLimit:  n.PodMaxPids,

		AllowedUnsafeSysctls: n.AllowedUnsafeSysctls,

		Log: n.log.With("component", "kubelet"),
	})
	if err != nil {
		return fmt.Errorf("setting up the kubelet: %w", err)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return k.Run(ctx) })
	group.Go(func() error { return n.serve(ctx, k, client) })
	group.Go(func() error {
		return cni.Run(ctx, cni.Config{
			NodeName:     n.Name,
			Client:       client,
			Bridge:       n.layout.Bridge(),
			Table:        n.layout.NodeTable(),
			ConfDir:      n.layout.CNIConfDir(),
			StateDir:     n.layout.CNIStateDir(),
			ClusterCIDRs: []netip.Prefix{n.facts.ClusterCIDR},
			ServiceCIDRs: []netip.Prefix{n.facts.ServiceCIDR},
			Log:          n.log.With("component", "cni"),
		})
	})
	group.Go(func() error {
		return proxy.Run(ctx, proxy.Config{
			NodeName:     n.Name,
			NodeIPs:      []netip.Addr{n.ip},
			Client:       proxyClient,
			NodeClient:   client,
			Table:        n.layout.NftTable(),
			Bridge:       n.layout.Bridge(),
			ClusterCIDRs: []netip.Prefix{n.facts.ClusterCIDR},
			ServiceCIDRs: []netip.Prefix{n.facts.ServiceCIDR},
			Log:          n.log.With("component", "proxy"),
		})
	})
	group.Go(func() error { return n.watchRuntime(ctx) })
	group.Go(func() error {
		select {
		case <-k.Ready():
			n.log.Info("the node is ready", "node", n.Name, "after", n.notify.phase("node ready").Round(time.Millisecond))
			n.notify.ready()
		case <-ctx.Done():
		}
		return nil
	})
	return group.Wait()
}

// watchRuntime ends the node when its runtime fails: the next start is the recovery.
func (n *agent) watchRuntime(ctx context.Context) error {
	if n.runtime == nil {
		return nil
	}
	select {
	case <-n.runtime.Failed():
		return fmt.Errorf("containerd ended: %w", n.runtime.Err())
	case <-ctx.Done():
		return nil
	}
}

// client reaches the API with the node's identity.
func (n *agent) client() (kubernetes.Interface, error) {
	cert, err := n.pki.NodeClientCert(n.Name)
	if err != nil {
		return nil, fmt.Errorf("issuing the node's certificate: %w", err)
	}
	return n.clientWith(cert, "proa-kubelet")
}

// proxyClient reaches the API with the identity of the service proxy.
func (n *agent) proxyClient() (kubernetes.Interface, error) {
	cert, err := n.pki.ClientCert(user.KubeProxy, nil)
	if err != nil {
		return nil, fmt.Errorf("issuing the certificate of the service proxy: %w", err)
	}
	return n.clientWith(cert, "proa-proxy")
}

// clientWith reaches the API over TLS.
func (n *agent) clientWith(cert *pki.Certificate, agent string) (kubernetes.Interface, error) {
	return kubernetes.NewForConfig(&rest.Config{
		Host:            n.facts.Server,
		QPS:             -1,
		UserAgent:       agent + "/" + Release,
		ContentConfig:   rest.ContentConfig{ContentType: "application/vnd.kubernetes.protobuf", AcceptContentTypes: "application/vnd.kubernetes.protobuf,application/json"},
		TLSClientConfig: rest.TLSClientConfig{CAData: n.pki.CAPEM(), CertData: cert.CertPEM, KeyData: cert.KeyPEM},
	})
}

// serve runs the node's own API, behind logs, exec and port-forward.
func (n *agent) serve(ctx context.Context, k *kubelet.Kubelet, client kubernetes.Interface) error {
	cert, err := n.pki.NodeServingCert(n.Name, []net.IP{n.ip.AsSlice(), net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return fmt.Errorf("issuing the node's serving certificate: %w", err)
	}
	serving := cert.TLS()
	runtime, err := cri.Dial(n.RuntimeEndpoint, "")
	if err != nil {
		return err
	}
	defer runtime.Close()
	s, err := kubeletserver.New(kubeletserver.Config{
		NodeName:    n.Name,
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &serving, nil },
		ClientCA:    n.pki.CAPEM(),
		Client:      client,
		Runtime:     runtime.Runtime,
		Images:      runtime.Images,
		Pods:        k.Pods,
		Pod:         k.Pod,
		RootDir:     n.layout.KubeletDir(),
		PodLogDir:   n.layout.PodLogDir(),
		Log:         n.log.With("component", "kubelet"),
	})
	if err != nil {
		return fmt.Errorf("setting up the node's API: %w", err)
	}
	listener, err := net.Listen("tcp", ":"+strconv.Itoa(n.KubeletPort))
	if err != nil {
		return fmt.Errorf("listening for the node's API: %w (choose another port with --kubelet-port)", err)
	}
	return s.Serve(ctx, listener)
}
