// Package cni gives a node its part of the pod network: a bridge that pods are attached to by the standard CNI plugins, and the
// rules that keep pod and service addresses inside the cluster.
//
// What flows in are the ranges of pod addresses that the node was given (node.spec.podCIDRs), and those of the cluster; what
// flows out are a bridge, routes, an nftables table and a CNI network configuration (CNI specification 1.0.0, section 1) in a
// directory that the container runtime watches.
package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	toolswatch "k8s.io/client-go/tools/watch"
)

// Config names what is made. Bridge and Table are global on the host and must be the cluster's own.
type Config struct {
	NodeName string
	Client   kubernetes.Interface // may watch the node

	Bridge  string // at most 15 bytes
	Table   string // nftables table of family inet
	ConfDir string // the CNI configuration goes here, as 10-proa.conflist
	// StateDir is where the IPAM plugin notes which addresses are in use; it should outlive a reboot of the agent, not of the
	// machine.
	StateDir string

	// ClusterCIDRs and ServiceCIDRs are the ranges of all pods and of all services: nothing for them leaves the cluster, and
	// nothing from a pod goes elsewhere with its own address.
	ClusterCIDRs, ServiceCIDRs []netip.Prefix

	Log *slog.Logger
}

// confFile is the name of the configuration; runtimes take the first in the order of names.
const confFile = "10-proa.conflist"

// Run waits for the node's ranges and sets the network up, again when they change, until ctx ends.
func Run(ctx context.Context, c Config) error {
	selector := fields.OneTermEqualSelector("metadata.name", c.NodeName).String()
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = selector
			return c.Client.CoreV1().Nodes().List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = selector
			return c.Client.CoreV1().Nodes().Watch(ctx, o)
		},
	}
	var done []netip.Prefix
	_, err := toolswatch.UntilWithSync(ctx, lw, &corev1.Node{}, nil, func(e watch.Event) (bool, error) {
		node, ok := e.Object.(*corev1.Node)
		if !ok || e.Type == watch.Deleted {
			return false, nil
		}
		ranges, err := podRanges(node)
		if err != nil {
			c.Log.Error("the node's pod ranges can't be used", "error", err)
			return false, nil
		}
		if len(ranges) == 0 || equal(ranges, done) {
			return false, nil
		}
		if err := Setup(c, ranges); err != nil {
			return false, fmt.Errorf("setting up the pod network: %w", err)
		}
		c.Log.Debug("the pod network is set up", "ranges", ranges)
		done = ranges
		return false, nil
	})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// Setup makes the node's part of the network, or brings it up to date. It may be interrupted at any point and called again.
func Setup(c Config, podRanges []netip.Prefix) error {
	if err := setupBridge(c, podRanges); err != nil {
		return err
	}
	if err := setupRules(c); err != nil {
		return err
	}
	if err := routeLoopback(c, podRanges); err != nil { // after the rules that make this safe
		return err
	}
	data, err := configuration(c, podRanges)
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(c.ConfDir, confFile), data)
}

// podRanges reads what the node was given; none is not an error.
func podRanges(node *corev1.Node) ([]netip.Prefix, error) {
	texts := node.Spec.PodCIDRs
	if len(texts) == 0 && node.Spec.PodCIDR != "" {
		texts = []string{node.Spec.PodCIDR}
	}
	var ranges []netip.Prefix
	for _, text := range texts {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("spec.podCIDRs of node %s: %w", node.Name, err)
		}
		ranges = append(ranges, p.Masked())
	}
	return ranges, nil
}

func equal(a, b []netip.Prefix) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// gateway is the address of the node in a range: the first, as the bridge plugin has it.
func gateway(p netip.Prefix) netip.Prefix { return netip.PrefixFrom(p.Addr().Next(), p.Bits()) }

// network, bridgePlugin and ipam are the parts of the CNI configuration that are used.
type network struct {
	CNIVersion string `json:"cniVersion"`
	Name       string `json:"name"`
	Plugins    []any  `json:"plugins"`
}

type bridgePlugin struct {
	Type             string `json:"type"`
	Bridge           string `json:"bridge"`
	IsGateway        bool   `json:"isGateway"`
	IsDefaultGateway bool   `json:"isDefaultGateway"`
	ForceAddress     bool   `json:"forceAddress"`
	HairpinMode      bool   `json:"hairpinMode"`
	IPAM             ipam   `json:"ipam"`
}

type ipam struct {
	Type    string      `json:"type"`
	DataDir string      `json:"dataDir"`
	Ranges  [][]ipRange `json:"ranges"`
}

type ipRange struct {
	Subnet string `json:"subnet"`
}

type capablePlugin struct {
	Type         string          `json:"type"`
	Capabilities map[string]bool `json:"capabilities"`
}

// configuration is the CNI network configuration list. Masquerading is not the bridge plugin's: package cni has one rule for all
// pods where the plugin makes several for each. Ports of the node are not the portmap plugin's: the service proxy has them.
func configuration(c Config, podRanges []netip.Prefix) ([]byte, error) {
	addresses := ipam{Type: "host-local", DataDir: c.StateDir}
	for _, p := range podRanges {
		addresses.Ranges = append(addresses.Ranges, []ipRange{{Subnet: p.String()}})
	}
	return json.MarshalIndent(network{
		CNIVersion: "1.0.0",
		Name:       "proa",
		Plugins: []any{
			bridgePlugin{Type: "bridge", Bridge: c.Bridge, IsGateway: true, IsDefaultGateway: true, ForceAddress: true, HairpinMode: true, IPAM: addresses},
			capablePlugin{Type: "bandwidth", Capabilities: map[string]bool{"bandwidth": true}},
		},
	}, "", "  ")
}

// writeFile writes a file that is there as a whole or not at all. Nothing is written when it is there already: the runtime would
// load the network again.
func writeFile(path string, data []byte) error {
	if old, err := os.ReadFile(path); err == nil && string(old) == string(data) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	// Made beside the directory: the runtime watches the directory itself, and complains about what it can't read.
	f, err := os.CreateTemp(filepath.Dir(filepath.Dir(path)), ".cni-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // in vain once it is renamed
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	// containerd ignores files that appear, and looks when one is renamed.
	aside := filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
	return errors.Join(os.Rename(f.Name(), aside), os.Rename(aside, path))
}
