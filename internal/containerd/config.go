package containerd

import (
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"

	srvconfig "github.com/containerd/containerd/v2/cmd/containerd/server/config"
	"github.com/containerd/containerd/v2/version"

	"github.com/proa-k8s/proa/internal/containerd/helpers"
)

// maxShimSocketDir is the longest directory in bytes that containerd accepts for the sockets of shims.
const maxShimSocketDir = 42

// shimEnv is added to the environment of shims. They pass it on to runc, which lives too briefly to need a garbage
// collector; a shim itself sets its own limits.
var shimEnv = []string{"GOGC=off", "GOMEMLIMIT=64MiB"}

// serverConfig translates cfg to containerd's configuration (version 4, see docs/cri/config.md of containerd). Plugins
// are configured by tables as they would be in config.toml, since their types are internal to containerd.
func serverConfig(cfg Config, host host) *srvconfig.Config {
	type table = map[string]any
	return &srvconfig.Config{
		Version: version.ConfigVersion,
		Root:    cfg.Root,
		State:   cfg.State,
		// Metrics of each kind of request: thousands of series that nobody reads, registered once for the process.
		DisabledPlugins: []string{
			"io.containerd.metrics.v1.grpc-prometheus",
			"io.containerd.metrics.v1.grpc-otel",
		},
		RequiredPlugins: []string{
			"io.containerd.grpc.v1.cri",
			"io.containerd.snapshotter.v1." + host.snapshotter,
		},
		Plugins: table{
			"io.containerd.server.v1.grpc":  table{"address": cfg.Address},
			"io.containerd.server.v1.ttrpc": table{"address": cfg.Address + ttrpcSuffix},
			"io.containerd.nri.v1.nri":      table{"disable": true},
			"io.containerd.shim.v1.manager": table{
				"env":        shimEnv,
				"socket_dir": shimSocketDir(cfg.State),
			},
			"io.containerd.cri.v1.images": table{
				"snapshotter":              host.snapshotter,
				"discard_unpacked_layers":  true,
				"use_local_image_pull":     true,
				"max_concurrent_downloads": cfg.MaxConcurrentDownloads,
				"pinned_images":            table{"sandbox": cfg.SandboxImage},
				"registry":                 table{"config_path": cfg.RegistryConfigDir},
				// Seconds between walks over all snapshots that measure their use of the disk.
				"stats_collect_period": 120,
			},
			"io.containerd.cri.v1.runtime": table{
				"restrict_oom_score_adj":       !host.canLowerOOMScore,
				"enable_unprivileged_ports":    true,
				"enable_unprivileged_icmp":     true,
				"netns_mounts_under_state_dir": true,
				// Nobody waits for rates of CPU use that are computed between samples; the node's server computes them
				// from the totals when it is asked. So there is no reason to sample every second.
				"stats_collect_period":   "24h",
				"stats_retention_period": "48h",
				"cni": table{
					"bin_dirs":     cfg.CNIBinDirs,
					"conf_dir":     cfg.CNIConfDir,
					"max_conf_num": 1,
					// The loopback device is set up without a plugin: one process less for each pod.
					"use_internal_loopback": true,
				},
				"containerd": table{
					"default_runtime_name": "runc",
					"runtimes": table{"runc": table{
						"runtime_type": "io.containerd.runc.v2",
						"runtime_path": filepath.Join(cfg.BinDir, helpers.Shim),
						"sandboxer":    "podsandbox",
						"options": table{
							"BinaryName":    filepath.Join(cfg.BinDir, helpers.Runc),
							"Root":          filepath.Join(cfg.State, "runc"),
							"SystemdCgroup": cfg.SystemdCgroup,
						},
					}},
				},
			},
		},
	}
}

// shimSocketDir returns the directory for the sockets of shims. It is below state unless that makes paths that are too
// long for sockets; then it is in /run under a name derived from state.
func shimSocketDir(state string) string {
	if dir := filepath.Join(state, "s"); len(dir) <= maxShimSocketDir {
		return dir
	}
	sum := sha256.Sum256([]byte(filepath.Clean(state)))
	return filepath.Join("/run/proa-shims", hex.EncodeToString(sum[:8]))
}
