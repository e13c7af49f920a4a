package cluster

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes"

	"github.com/proa-k8s/proa/internal/scheduler"
)

// startScheduler starts the scheduler, which ends with ctx.
func (s *server) startScheduler(ctx context.Context, group *errgroup.Group) error {
	client, err := kubernetes.NewForConfig(s.rest(&user.DefaultInfo{Name: user.KubeScheduler, Groups: []string{user.AllAuthenticated}}))
	if err != nil {
		return fmt.Errorf("making the scheduler's client: %w", err)
	}
	sched, err := scheduler.New(scheduler.Config{
		Client: client, Informers: s.informers, Registerer: s.registry, Log: s.Log.With("component", "scheduler"),
	})
	if err != nil {
		return fmt.Errorf("setting up the scheduler: %w", err)
	}
	group.Go(func() error { return sched.Run(ctx) })
	return nil
}
