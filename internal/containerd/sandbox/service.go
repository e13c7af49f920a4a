package sandbox

import (
	"context"
	"errors"
	"os"
	"sync"

	"github.com/containerd/containerd/api/events"
	api "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/runc"
	"github.com/containerd/containerd/v2/core/runtime"
	"github.com/containerd/containerd/v2/pkg/protobuf"
	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/log"
	"github.com/containerd/ttrpc"
	"github.com/containerd/typeurl/v2"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/emptypb"
)

// Service is the task service of a shim. One of its tasks may be a sandbox; all others are those of the service it embeds.
type Service struct {
	api.TTRPCTaskService
	publisher  shim.Publisher
	executable string

	mu sync.Mutex
	// tried says that there was a first task, and id is its id if it is a sandbox that is not deleted.
	tried   bool
	id      string
	sandbox *sandbox
	// events are those of the sandbox, of which there are four. sent is closed after the last one, if there is a sandbox.
	events chan any
	sent   chan struct{}
}

// NewService returns a service that starts the given executable for sandboxes and leaves all else to containers.
func NewService(containers api.TTRPCTaskService, publisher shim.Publisher, executable string) *Service {
	return &Service{TTRPCTaskService: containers, publisher: publisher, executable: executable}
}

// RegisterTTRPC has server serve it.
func (s *Service) RegisterTTRPC(server *ttrpc.Server) error {
	api.RegisterTTRPCTaskService(server, s)
	return nil
}

// find returns the sandbox if it has the id.
func (s *Service) find(id string) (*sandbox, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sandbox, s.sandbox != nil && s.id == id
}

// Create starts the sandbox, or creates a container.
func (s *Service) Create(ctx context.Context, r *api.CreateTaskRequest) (*api.CreateTaskResponse, error) {
	sb, err := s.tryCreate(ctx, r)
	if err != nil {
		if !errors.Is(err, errNotServed) {
			log.G(ctx).WithError(err).Warn("sandbox cannot be started without a runtime, using one")
		}
		return s.TTRPCTaskService.Create(ctx, r)
	}
	pid := uint32(sb.proc.pid)
	s.events <- &events.TaskCreate{ContainerID: r.ID, Bundle: r.Bundle, Rootfs: r.Rootfs, IO: &events.TaskIO{}, Pid: pid}
	go s.reportExit(r.ID, sb)
	return &api.CreateTaskResponse{Pid: pid}, nil
}

// tryCreate makes the sandbox if this is the first task and one.
func (s *Service) tryCreate(ctx context.Context, r *api.CreateTaskRequest) (*sandbox, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tried {
		return nil, errNotServed
	}
	s.tried = true
	if r.Terminal || r.Stdin != "" || r.Stdout != "" || r.Stderr != "" || r.Checkpoint != "" {
		return nil, errNotServed
	}
	var opts options.Options
	if r.Options != nil {
		if err := typeurl.UnmarshalTo(r.Options, &opts); err != nil {
			return nil, errNotServed // the options of something else
		}
	}
	if opts.SystemdCgroup || opts.NoPivotRoot {
		return nil, errNotServed
	}
	sb, err := create(r.Bundle, s.executable)
	if err != nil {
		return nil, err
	}
	s.id, s.sandbox = r.ID, sb
	s.events, s.sent = make(chan any, 4), make(chan struct{})
	go s.forward(context.WithoutCancel(ctx))
	return sb, nil
}

// forward publishes the events of the sandbox in their order. It ends after the last.
func (s *Service) forward(ctx context.Context) {
	defer close(s.sent)
	for event := range s.events {
		if err := s.publisher.Publish(ctx, runtime.GetTopic(event), event); err != nil {
			log.G(ctx).WithError(err).Error("publishing an event of the sandbox")
		}
	}
}

// reportExit notes when the sandbox ends, for those who ask later too.
func (s *Service) reportExit(id string, sb *sandbox) {
	<-sb.ended
	if err := runc.WriteExitStatus(sb.bundle, sb.exit); err != nil {
		log.L.WithError(err).Error("noting the exit of the sandbox")
	}
	s.events <- &events.TaskExit{ContainerID: id, ID: id, Pid: uint32(sb.proc.pid),
		ExitStatus: sb.exitStatus(), ExitedAt: protobuf.ToTimestamp(sb.exitedAt())}
	close(sb.reported)
}

// Start marks the sandbox as started.
func (s *Service) Start(ctx context.Context, r *api.StartRequest) (*api.StartResponse, error) {
	sb, ok := s.find(r.ID)
	if !ok {
		return s.TTRPCTaskService.Start(ctx, r)
	}
	if r.ExecID != "" {
		return nil, errNoExec(r.ExecID)
	}
	// Not while it is deleted, which is the end of its events.
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := sb.start(); err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	s.events <- &events.TaskStart{ContainerID: r.ID, Pid: uint32(sb.proc.pid)}
	return &api.StartResponse{Pid: uint32(sb.proc.pid)}, nil
}

// Delete removes a sandbox that has ended.
func (s *Service) Delete(ctx context.Context, r *api.DeleteRequest) (*api.DeleteResponse, error) {
	sb, ok := s.find(r.ID)
	if !ok {
		return s.TTRPCTaskService.Delete(ctx, r)
	}
	if r.ExecID != "" {
		return nil, errNoExec(r.ExecID)
	}
	if err := s.delete(r.ID, sb); err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	return &api.DeleteResponse{Pid: uint32(sb.proc.pid), ExitStatus: sb.exitStatus(), ExitedAt: protobuf.ToTimestamp(sb.exitedAt())}, nil
}

func (s *Service) delete(id string, sb *sandbox) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sandbox != sb {
		return errdefs.ErrNotFound // another has deleted it
	}
	if err := sb.delete(); err != nil {
		return err
	}
	<-sb.reported
	s.sandbox = nil
	s.events <- &events.TaskDelete{ContainerID: id, Pid: uint32(sb.proc.pid),
		ExitStatus: sb.exitStatus(), ExitedAt: protobuf.ToTimestamp(sb.exitedAt())}
	close(s.events)
	return nil
}

// State says how a task is.
func (s *Service) State(ctx context.Context, r *api.StateRequest) (*api.StateResponse, error) {
	sb, ok := s.find(r.ID)
	if !ok {
		return s.TTRPCTaskService.State(ctx, r)
	}
	if r.ExecID != "" {
		return nil, errNoExec(r.ExecID)
	}
	return &api.StateResponse{ID: r.ID, Bundle: sb.bundle, Pid: uint32(sb.proc.pid), Status: sb.status(),
		ExitStatus: sb.exitStatus(), ExitedAt: protobuf.ToTimestamp(sb.exitedAt())}, nil
}

// Pids lists the processes of a task.
func (s *Service) Pids(ctx context.Context, r *api.PidsRequest) (*api.PidsResponse, error) {
	sb, ok := s.find(r.ID)
	if !ok {
		return s.TTRPCTaskService.Pids(ctx, r)
	}
	if sb.hasEnded() {
		return &api.PidsResponse{}, nil
	}
	return &api.PidsResponse{Processes: []*task.ProcessInfo{{Pid: uint32(sb.proc.pid)}}}, nil
}

// Kill sends a signal. A sandbox is one process, so it does not matter whether all are meant.
func (s *Service) Kill(ctx context.Context, r *api.KillRequest) (*emptypb.Empty, error) {
	sb, ok := s.find(r.ID)
	if !ok {
		return s.TTRPCTaskService.Kill(ctx, r)
	}
	if r.ExecID != "" {
		return nil, errNoExec(r.ExecID)
	}
	if err := sb.kill(unix.Signal(r.Signal)); err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	return &emptypb.Empty{}, nil
}

// Wait returns when the task has ended.
func (s *Service) Wait(ctx context.Context, r *api.WaitRequest) (*api.WaitResponse, error) {
	sb, ok := s.find(r.ID)
	if !ok {
		return s.TTRPCTaskService.Wait(ctx, r)
	}
	if r.ExecID != "" {
		return nil, errNoExec(r.ExecID)
	}
	select {
	case <-sb.ended:
		return &api.WaitResponse{ExitStatus: sb.exitStatus(), ExitedAt: protobuf.ToTimestamp(sb.exitedAt())}, nil
	case <-ctx.Done():
		return nil, errgrpc.ToGRPC(ctx.Err())
	}
}

// Stats returns the metrics of the task's cgroup.
func (s *Service) Stats(ctx context.Context, r *api.StatsRequest) (*api.StatsResponse, error) {
	sb, ok := s.find(r.ID)
	if !ok {
		return s.TTRPCTaskService.Stats(ctx, r)
	}
	stats, err := sb.cgroup.stat()
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	data, err := typeurl.MarshalAnyToProto(stats)
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	return &api.StatsResponse{Stats: data}, nil
}

// Connect names the processes of the shim and of the task.
func (s *Service) Connect(ctx context.Context, r *api.ConnectRequest) (*api.ConnectResponse, error) {
	sb, ok := s.find(r.ID)
	if !ok {
		return s.TTRPCTaskService.Connect(ctx, r)
	}
	return &api.ConnectResponse{ShimPid: uint32(os.Getpid()), TaskPid: uint32(sb.proc.pid)}, nil
}

// Shutdown ends the shim if it has no task, and no event to publish.
func (s *Service) Shutdown(ctx context.Context, r *api.ShutdownRequest) (*emptypb.Empty, error) {
	s.mu.Lock()
	running, sent := s.sandbox != nil, s.sent
	s.mu.Unlock()
	if running {
		return &emptypb.Empty{}, nil
	}
	if sent != nil {
		select {
		case <-sent:
		case <-ctx.Done():
			return nil, errgrpc.ToGRPC(ctx.Err())
		}
	}
	return s.TTRPCTaskService.Shutdown(ctx, r)
}
