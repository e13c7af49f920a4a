package sandbox

import (
	"context"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/log"
)

// Manager is the manager of a shim that also ends sandboxes whose shim is gone.
type Manager struct{ shim.Shim }

// Stop ends a task that has lost its shim. It runs in the bundle of a task.
func (m Manager) Stop(ctx context.Context, id string) (shim.StopStatus, error) {
	dir, err := os.Getwd()
	if err != nil {
		return shim.StopStatus{}, err
	}
	if err := Reclaim(filepath.Join(filepath.Dir(dir), id)); err != nil {
		log.G(ctx).WithError(err).Warn("ending the sandbox of a lost shim")
	}
	return m.Shim.Stop(ctx, id)
}
