package containerd

import (
	"log/slog"
	"path/filepath"

	"github.com/containerd/containerd/v2/plugins/snapshots/overlay/overlayutils"
	"golang.org/x/sys/unix"
)

// host is what the configuration has to adapt to.
type host struct {
	// snapshotter is overlayfs, or native (plain copies) where overlayfs cannot be mounted on Root.
	snapshotter string
	// canLowerOOMScore is false where CAP_SYS_RESOURCE is missing; oom_score_adj of containers is then bounded by our
	// own instead of failing their start.
	canLowerOOMScore bool
}

func detectHost(root string, log *slog.Logger) host {
	h := host{snapshotter: "overlayfs", canLowerOOMScore: hasCapability(unix.CAP_SYS_RESOURCE)}
	if err := overlayutils.Supported(filepath.Join(root, "io.containerd.snapshotter.v1.overlayfs")); err != nil {
		log.Warn("overlayfs cannot be used, images are copied for each container", "root", root, "err", err)
		h.snapshotter = "native"
	}
	return h
}

// hasCapability says whether the process has the capability (capabilities(7)) in its effective set.
func hasCapability(capability uint) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false
	}
	return data[capability/32].Effective&(1<<(capability%32)) != 0
}
