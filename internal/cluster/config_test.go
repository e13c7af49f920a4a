package cluster

import (
	"strings"
	"testing"
)

func TestServerConfigValidate(t *testing.T) {
	for _, tc := range []struct {
		name   string
		config ServerConfig
		want   string // part of the error; empty for none
	}{
		{"defaults", ServerConfig{}, ""},
		{"all good", ServerConfig{BindAddress: "::", ClusterCIDR: "10.1.0.0/16", ServiceCIDR: "10.2.0.0/16", TLSSANs: []string{"a.example", "192.0.2.1", "*.x"}, EtcdEndpoints: []string{"https://127.0.0.1:2379"}, Node: NodeConfig{Labels: []string{"a/b=c"}, Taints: []string{"k=v:NoSchedule", "k:NoExecute"}}}, ""},
		{"bind address", ServerConfig{BindAddress: "host"}, `--bind-address "host": must be an IP address`},
		{"port", ServerConfig{SecurePort: 65536}, `--secure-port "65536"`},
		{"range that is none", ServerConfig{ClusterCIDR: "10.1.0.0"}, `--cluster-cidr "10.1.0.0": must be a range`},
		{"range from its middle", ServerConfig{ServiceCIDR: "10.1.2.3/16"}, "10.1.0.0/16"},
		{"range too small", ServerConfig{ClusterCIDR: "10.1.0.0/25"}, "too small"},
		{"ranges overlap", ServerConfig{ClusterCIDR: "10.0.0.0/8", ServiceCIDR: "10.2.0.0/16"}, "overlaps --service-cidr"},
		{"node ports", ServerConfig{ServiceNodePortRange: "5-"}, "--service-node-port-range"},
		{"domain", ServerConfig{ClusterDomain: "Cluster_local"}, "--cluster-domain"},
		{"name in certificate", ServerConfig{TLSSANs: []string{"a b"}}, "--tls-san"},
		{"etcd", ServerConfig{EtcdEndpoints: []string{"127.0.0.1:2379"}}, "--etcd-endpoints"},
		{"etcd key alone", ServerConfig{EtcdKeyFile: "config_test.go"}, "--etcd-certfile"},
		{"etcd file missing", ServerConfig{EtcdCAFile: "/nonexistent/ca"}, "--etcd-cafile"},
		{"node name", ServerConfig{Node: NodeConfig{Name: "Node_1"}}, "--node-name"},
		{"label", ServerConfig{Node: NodeConfig{Labels: []string{"a"}}}, `--node-label "a": must be key=value`},
		{"taint", ServerConfig{Node: NodeConfig{Taints: []string{"a=b:Never"}}}, `--node-taint "a=b:Never": must be key=value:effect`},
		{"runtime", ServerConfig{Node: NodeConfig{RuntimeEndpoint: "tcp://x"}}, "--container-runtime-endpoint"},
		{"pods", ServerConfig{Node: NodeConfig{MaxPods: -1}}, "--max-pods"},
		{"threshold", ServerConfig{Node: NodeConfig{EvictionHard: []string{"memory.available<100Mi", "imagefs.available<1%"}}}, ""},
		{"no threshold", ServerConfig{Node: NodeConfig{EvictionHard: []string{"memory.available=1"}}}, `--eviction-hard "memory.available=1": "memory.available=1" must be signal<quantity`},
		{"signal", ServerConfig{Node: NodeConfig{EvictionHard: []string{"mem<1"}}}, `unknown signal "mem"`},
		{"images", ServerConfig{Node: NodeConfig{ImageGCHighThreshold: 101}}, "--image-gc-high-threshold"},
		{"images", ServerConfig{Node: NodeConfig{ImageGCHighThreshold: 80, ImageGCLowThreshold: 80}}, "--image-gc-low-threshold"},
	} {
		err := tc.config.Validate()
		if tc.want == "" {
			if err != nil {
				t.Errorf("%s: %v", tc.name, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want an error with %q", tc.name, err, tc.want)
		}
	}
}

func TestAgentConfigValidate(t *testing.T) {
	own := Layout{DataDir: "/a"}
	for dir, want := range map[string]string{"": "must name", "/a": "must not be the agent's own", "/b": ""} {
		err := (&AgentConfig{Layout: own, ServerDataDir: dir}).Validate()
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("server data directory %q: got %v, want %q", dir, err, want)
		}
	}
}
