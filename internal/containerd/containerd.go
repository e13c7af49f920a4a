// Package containerd runs containerd inside the process of the node agent.
//
// In flow a Config (directories, socket, registries) and the helper executables (runc, the shim, the CNI plugins); out
// flows a CRI v1 endpoint on a unix socket that serves the runtime and the image service, with the sandbox image in
// place, so that pods can run without a registry.
//
// Every container's parent is a shim, a process of its own. Shims outlive the agent: Stop, a crash and kill -9 leave
// containers running, and the next Start with the same directories connects to them again. Purge is what ends them.
//
// containerd registers its plugins by package initialisation and logs to one global logger, so there can be only one
// Instance at a time in a process.
package containerd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/cmd/containerd/server"
	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"

	"github.com/proa-k8s/proa/internal/containerd/helpers"
)

// DefaultSandboxImage is the name under which the sandbox ("pause") image that Start makes is stored.
const DefaultSandboxImage = "proa.local/pause:1"

// ttrpcSuffix makes the event socket's path from the path of the CRI socket.
const ttrpcSuffix = ".ttrpc"

// maxSocketPath is the longest path of a unix socket in bytes (sockaddr_un without the final zero).
const maxSocketPath = 107

// Config says where an Instance keeps its things. Nothing global on the machine is used beyond what is named here, so
// several clusters can live on one machine.
type Config struct {
	// Root holds what must outlive a reboot: images, snapshots, metadata. Required, absolute.
	Root string
	// State holds what belongs to running containers: bundles, sockets, network namespaces. Required, absolute, and not
	// Root. Best a short path (such as /run/proa/<name>/containerd). Where it is not on a tmpfs, it gets one that Purge
	// unmounts.
	State string
	// Address is the path of the unix socket to serve CRI and the containerd API on; State/containerd.sock by default.
	// The event socket for shims is beside it with the suffix ".ttrpc".
	Address string
	// BinDir holds runc and containerd-shim-runc-v2. If it is empty, the embedded ones are unpacked into Root/bin.
	BinDir string
	// CNIBinDirs are searched for CNI plugins; BinDir alone by default.
	CNIBinDirs []string
	// CNIConfDir is watched for the CNI network configuration; the first file in order counts. State/cni by default.
	CNIConfDir string
	// SandboxImage names the image that holds a pod's namespaces. With DefaultSandboxImage (the default) it is made
	// from the embedded pause executable; any other is pulled when the first pod needs it.
	SandboxImage string
	// RegistryConfigDir holds <host>/hosts.toml files (mirrors, certificates; containerd's hosts.md). Root/certs.d by
	// default.
	RegistryConfigDir string
	// SystemdCgroup has runc create cgroups through systemd. The kubelet learns it by CRI's RuntimeConfig.
	SystemdCgroup bool
	// MaxConcurrentDownloads limits the layers of one image that are pulled at a time; 3 by default.
	MaxConcurrentDownloads int
	// Log receives what containerd has to say: its warnings and errors, and at Debug its informational records too.
	Log *slog.Logger
}

// Instance is a running containerd.
type Instance struct {
	cfg    Config
	server *server.Server
	cancel context.CancelFunc
	lock   *os.File
	// snapshotter is the one in use.
	snapshotter string
	stop        sync.Once
	failed      chan struct{}
	reason      atomic.Pointer[string]
}

// running guards the one global containerd of a process.
var running atomic.Bool

// Start starts containerd and returns when CRI answers and the sandbox image is in place. ctx bounds the start only; use
// Stop to end what runs. It fails with an error that wraps unix.EWOULDBLOCK if another process uses Root.
func Start(ctx context.Context, cfg Config) (_ *Instance, err error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	if !running.CompareAndSwap(false, true) {
		return nil, errors.New("containerd is already running in this process")
	}
	in := &Instance{cfg: cfg, failed: make(chan struct{})}
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	in.cancel = cancel
	defer func() {
		if err != nil {
			in.Stop()
		}
	}()

	began := time.Now()
	if in.cfg.BinDir == "" {
		if in.cfg.BinDir, err = helpers.Unpack(filepath.Join(cfg.Root, "bin")); err != nil {
			return nil, err
		}
	}
	for _, name := range []string{helpers.Runc, helpers.Shim} {
		if _, err := os.Stat(filepath.Join(in.cfg.BinDir, name)); err != nil {
			return nil, fmt.Errorf("looking for the helper executables of containerd: %w", err)
		}
	}
	if len(in.cfg.CNIBinDirs) == 0 {
		in.cfg.CNIBinDirs = []string{in.cfg.BinDir}
	}
	if in.lock, err = lockDir(cfg.Root); err != nil {
		return nil, err
	}
	// containerd looks for the shim in PATH when it connects to one that an earlier process started, and the shim looks
	// for runc there when it is asked what it supports.
	if err := prependPath(in.cfg.BinDir); err != nil {
		return nil, err
	}
	if err := mountState(cfg.State); err != nil {
		return nil, err
	}
	redirectLogs(cfg.Log, in.fail)
	if err := in.serve(ctx, life); err != nil {
		return nil, err
	}
	if err := in.ensureSandboxImage(ctx); err != nil {
		return nil, err
	}
	if err := in.writeSandboxSeccomp(); err != nil {
		return nil, err
	}
	// Shims that died while containerd was away have been cleaned up with the executables they ran from by now.
	if err := helpers.Prune(in.cfg.BinDir, hasProcess); err != nil {
		cfg.Log.Warn("removing the helper executables of other versions", "err", err)
	}
	cfg.Log.Debug("containerd is ready", "address", in.cfg.Address, "took", time.Since(began))
	return in, nil
}

// complete fills in defaults and refuses what cannot work.
func (cfg *Config) complete() error {
	if !filepath.IsAbs(cfg.Root) || !filepath.IsAbs(cfg.State) || filepath.Clean(cfg.Root) == filepath.Clean(cfg.State) {
		return fmt.Errorf("containerd: root %q and state %q must be absolute and different paths", cfg.Root, cfg.State)
	}
	setDefault(&cfg.Address, filepath.Join(cfg.State, "containerd.sock"))
	setDefault(&cfg.CNIConfDir, filepath.Join(cfg.State, "cni"))
	setDefault(&cfg.RegistryConfigDir, filepath.Join(cfg.Root, "certs.d"))
	setDefault(&cfg.SandboxImage, DefaultSandboxImage)
	if cfg.MaxConcurrentDownloads <= 0 {
		cfg.MaxConcurrentDownloads = 3
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if n := len(cfg.Address + ttrpcSuffix); n > maxSocketPath {
		return fmt.Errorf("containerd: socket path %q is %d bytes too long", cfg.Address+ttrpcSuffix, n-maxSocketPath)
	}
	return nil
}

func setDefault(field *string, value string) {
	if *field == "" {
		*field = value
	}
}

// serve starts the plugins and waits until all that registered for readiness (CRI) are ready, or ctx ends.
func (in *Instance) serve(ctx, life context.Context) error {
	host := detectHost(in.cfg.Root, in.cfg.Log)
	in.snapshotter = host.snapshotter
	cfg := serverConfig(in.cfg, host)
	if err := server.CreateTopLevelDirectories(cfg); err != nil {
		return fmt.Errorf("creating containerd's directories: %w", err)
	}
	if err := cleanTempMounts(in.cfg.Root); err != nil {
		in.cfg.Log.Warn("removing mounts that containerd left behind", "err", err)
	}
	var err error
	if in.server, err = server.New(life, cfg); err != nil {
		return fmt.Errorf("loading containerd's plugins: %w", err)
	}
	if err := in.server.Start(life); err != nil {
		return fmt.Errorf("starting containerd: %w", err)
	}
	ready := make(chan struct{})
	go func() {
		in.server.Wait()
		close(ready)
	}()
	select {
	case <-ready:
		return nil
	case <-in.failed:
		return in.Err()
	case <-ctx.Done():
		return fmt.Errorf("starting containerd: %w", context.Cause(ctx))
	}
}

// cleanTempMounts chooses where containerd mounts snapshots while it works on them, and unmounts what an earlier run
// that was interrupted left there.
func cleanTempMounts(root string) error {
	if err := mount.SetTempMountLocation(filepath.Join(root, "tmpmounts")); err != nil {
		return err
	}
	warnings, err := mount.CleanupTempMounts(0)
	return errors.Join(append(warnings, err)...)
}

// prependPath puts dir first in the PATH of the process, which shims inherit.
func prependPath(dir string) error {
	old := os.Getenv("PATH")
	if first, _, _ := strings.Cut(old, string(os.PathListSeparator)); first == dir {
		return nil
	}
	if err := os.Setenv("PATH", dir+string(os.PathListSeparator)+old); err != nil {
		return fmt.Errorf("putting %s into PATH: %w", dir, err)
	}
	return nil
}

// lockDir keeps a second process out of root: the database in it would block it for ever without a word.
func lockDir(root string) (*os.File, error) {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, fmt.Errorf("locking containerd's root: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(root, "lock"), os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking containerd's root: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("containerd's root %s is in use by another process: %w", root, err)
	}
	return f, nil
}

// Endpoint returns the URL of the CRI endpoint, as crictl and the kubelet take it: unix:///...
func (in *Instance) Endpoint() string { return "unix://" + in.cfg.Address }

// Address returns the path of the socket.
func (in *Instance) Address() string { return in.cfg.Address }

// BinDir returns the directory of the helper executables.
func (in *Instance) BinDir() string { return in.cfg.BinDir }

// Failed is closed if containerd ends by itself; Err says why then.
func (in *Instance) Failed() <-chan struct{} { return in.failed }

// Err returns why containerd ended by itself, or nil.
func (in *Instance) Err() error {
	if reason := in.reason.Load(); reason != nil {
		return fmt.Errorf("containerd: %s", *reason)
	}
	return nil
}

func (in *Instance) fail(reason string) {
	if in.reason.CompareAndSwap(nil, &reason) {
		close(in.failed)
	}
}

// Stop ends containerd, but neither shims nor containers. It may be called more than once.
func (in *Instance) Stop() {
	in.stop.Do(func() {
		if in.server != nil {
			in.server.Stop()
		}
		in.cancel()
		if in.lock != nil {
			in.lock.Close()
		}
		running.Store(false)
	})
}
