// Command containerd-shim-runc-v2 is containerd's shim for runc, tuned to be small: every pod has one for as long as it
// lives, and the shim does next to nothing in that time. It starts the sandboxes of pods itself, containers by runc. It
// is one of the helper executables that proa embeds.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/manager"
	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/task"
	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/containerd/v2/pkg/shutdown"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
	"github.com/sirupsen/logrus"

	"github.com/proa-k8s/proa/internal/containerd/sandbox"
)

func main() {
	// One processor has one allocation cache, and few threads.
	runtime.GOMAXPROCS(1)
	// A plugin is initialised after the shim has set up its logger.
	registry.Register(&plugin.Registration{
		Type: plugins.InternalPlugin,
		ID:   "quiet",
		InitFn: func(*plugin.InitContext) (any, error) {
			std := logrus.StandardLogger()
			std.SetFormatter(quiet{std.Formatter})
			return quiet{}, nil
		},
	})
	registry.Register(&plugin.Registration{
		Type:     plugins.TTRPCPlugin,
		ID:       "task",
		Requires: []plugin.Type{plugins.EventPlugin, plugins.InternalPlugin},
		InitFn:   newTaskService,
	})
	shim.RunShim(context.Background(), sandbox.Manager{Shim: manager.NewShimManager("io.containerd.runc.v2")})
}

// newTaskService returns the service that containerd calls: sandboxes are our own, containers are runc's.
func newTaskService(ic *plugin.InitContext) (any, error) {
	publisher, err := ic.GetByID(plugins.EventPlugin, "publisher")
	if err != nil {
		return nil, err
	}
	end, err := ic.GetByID(plugins.InternalPlugin, "shutdown")
	if err != nil {
		return nil, err
	}
	containers, err := task.NewTaskService(ic.Context, publisher.(shim.Publisher), end.(shutdown.Service))
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("looking for the executable of sandboxes: %w", err)
	}
	return sandbox.NewService(containers, publisher.(shim.Publisher), filepath.Join(filepath.Dir(self), "pause")), nil
}

// quiet keeps one record from the log: on cgroup v1 a shim that ends closes the descriptor on which it waits for
// out-of-memory events, and then says dozens of times that waiting fails.
type quiet struct{ logrus.Formatter }

func (q quiet) Format(e *logrus.Entry) ([]byte, error) {
	if e.Message == "cgroups: epoll wait" {
		return nil, nil
	}
	return q.Formatter.Format(e)
}
