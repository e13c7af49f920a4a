package sandbox

import (
	"context"
	"fmt"

	api "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"google.golang.org/protobuf/types/known/emptypb"
)

// A sandbox is one process that waits. CRI never asks for more than that; who does (ctr) is told so.

func errNoExec(id string) error {
	return errgrpc.ToGRPC(fmt.Errorf("process %s of a sandbox: %w", id, errdefs.ErrNotFound))
}

// unsupported forwards a request unless it is about the sandbox.
func unsupported[R interface{ GetID() string }](s *Service, ctx context.Context, r R,
	containers func(context.Context, R) (*emptypb.Empty, error)) (*emptypb.Empty, error) {
	if _, ok := s.find(r.GetID()); ok {
		return nil, errgrpc.ToGRPC(fmt.Errorf("the sandbox of a pod only waits: %w", errdefs.ErrNotImplemented))
	}
	return containers(ctx, r)
}

// Pause freezes a container.
func (s *Service) Pause(ctx context.Context, r *api.PauseRequest) (*emptypb.Empty, error) {
	return unsupported(s, ctx, r, s.TTRPCTaskService.Pause)
}

// Resume thaws a container.
func (s *Service) Resume(ctx context.Context, r *api.ResumeRequest) (*emptypb.Empty, error) {
	return unsupported(s, ctx, r, s.TTRPCTaskService.Resume)
}

// Checkpoint writes a container to files.
func (s *Service) Checkpoint(ctx context.Context, r *api.CheckpointTaskRequest) (*emptypb.Empty, error) {
	return unsupported(s, ctx, r, s.TTRPCTaskService.Checkpoint)
}

// Exec adds a process to a container.
func (s *Service) Exec(ctx context.Context, r *api.ExecProcessRequest) (*emptypb.Empty, error) {
	return unsupported(s, ctx, r, s.TTRPCTaskService.Exec)
}

// ResizePty resizes the terminal of a process.
func (s *Service) ResizePty(ctx context.Context, r *api.ResizePtyRequest) (*emptypb.Empty, error) {
	return unsupported(s, ctx, r, s.TTRPCTaskService.ResizePty)
}

// CloseIO closes the standard input of a process.
func (s *Service) CloseIO(ctx context.Context, r *api.CloseIORequest) (*emptypb.Empty, error) {
	return unsupported(s, ctx, r, s.TTRPCTaskService.CloseIO)
}

// Update changes the resources of a container.
func (s *Service) Update(ctx context.Context, r *api.UpdateTaskRequest) (*emptypb.Empty, error) {
	return unsupported(s, ctx, r, s.TTRPCTaskService.Update)
}
