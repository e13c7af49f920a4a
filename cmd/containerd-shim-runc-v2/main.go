// Command containerd-shim-runc-v2 is containerd's shim for runc, tuned to be small: every pod has one for as long as it
// lives, and the shim does next to nothing in that time. It is one of the helper executables that proa embeds.
package main

import (
	"context"
	"runtime"

	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/manager"
	_ "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/task/plugin"
	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
	"github.com/sirupsen/logrus"
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
	shim.RunShim(context.Background(), manager.NewShimManager("io.containerd.runc.v2"))
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
