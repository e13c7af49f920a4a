// Package cri is the view of the container runtime that the kubelet works with.
//
// What flows in are CRI v1 answers (gRPC); what flows out are Pod values: the sandboxes and containers that exist of one
// pod, with what the kubelet once recorded on them. The package keeps no state beside the connection.
package cri

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubelettypes "k8s.io/kubelet/pkg/types"
)

// maxMessageSize is the size that answers of a runtime may have, in bytes; a list of containers can be long.
const maxMessageSize = 16 << 20

// State is where a container or sandbox is in its life.
type State int

// The states of a container. A sandbox is Running or Exited.
const (
	Unknown State = iota
	Created
	Running
	Exited
)

// Container is one container that exists in the runtime, dead or alive.
type Container struct {
	ID        string
	Name      string
	SandboxID string
	Attempt   uint32
	State     State

	CreatedAt, StartedAt, FinishedAt time.Time

	ExitCode int32
	Reason   string
	Message  string

	Image    string // as the pod names it
	ImageRef string // repository digest, or the ID
	ImageID  string
	LogPath  string

	Annotations map[string]string
	Mounts      []*runtimeapi.Mount
	User        *runtimeapi.LinuxContainerUser
	Resources   *runtimeapi.LinuxContainerResources
	StopSignal  runtimeapi.Signal

	namedState State // by a list, for Differs only
}

// Sandbox is one sandbox of a pod.
type Sandbox struct {
	ID             string
	Attempt        uint32
	State          State
	CreatedAt      time.Time
	IPs            []string
	HostNetwork    bool
	RuntimeHandler string

	namedState State // by a list, for Differs only
}

// Pod is what exists of a pod in the runtime, the newest first.
type Pod struct {
	UID             types.UID
	Namespace, Name string
	Sandboxes       []Sandbox
	Containers      []Container
}

// Newest returns the newest container of that name, or nil.
func (p *Pod) Newest(name string) *Container {
	for i := range p.Containers {
		if p.Containers[i].Name == name {
			return &p.Containers[i]
		}
	}
	return nil
}

// All returns the containers of that name, the newest first.
func (p *Pod) All(name string) []*Container {
	var all []*Container
	for i := range p.Containers {
		if p.Containers[i].Name == name {
			all = append(all, &p.Containers[i])
		}
	}
	return all
}

// Container returns the container with that ID, or nil.
func (p *Pod) Container(id string) *Container {
	for i := range p.Containers {
		if p.Containers[i].ID == id {
			return &p.Containers[i]
		}
	}
	return nil
}

// ReadySandbox returns the newest sandbox if it is running, else nil.
func (p *Pod) ReadySandbox() *Sandbox {
	if len(p.Sandboxes) > 0 && p.Sandboxes[0].State == Running {
		return &p.Sandboxes[0]
	}
	return nil
}

// Alive reports whether a container or sandbox of the pod is running or of unknown state.
func (p *Pod) Alive() bool {
	return slices.ContainsFunc(p.Sandboxes, func(s Sandbox) bool { return s.State != Exited }) ||
		slices.ContainsFunc(p.Containers, func(c Container) bool { return c.State == Running || c.State == Unknown })
}

func (p *Pod) sort() {
	slices.SortStableFunc(p.Sandboxes, func(a, b Sandbox) int { return b.CreatedAt.Compare(a.CreatedAt) })
	slices.SortStableFunc(p.Containers, func(a, b Container) int {
		if c := b.CreatedAt.Compare(a.CreatedAt); c != 0 {
			return c
		}
		return int(b.Attempt) - int(a.Attempt)
	})
}

// Client talks to a runtime and its image service.
type Client struct {
	Runtime runtimeapi.RuntimeServiceClient
	Images  runtimeapi.ImageServiceClient
	conns   []*grpc.ClientConn
}

// Dial prepares connections to the endpoints (unix:///path); they are made at the first call and again when lost.
func Dial(runtimeEndpoint, imageEndpoint string) (*Client, error) {
	c := &Client{}
	conn, err := dial(runtimeEndpoint)
	if err != nil {
		return nil, err
	}
	c.conns = append(c.conns, conn)
	c.Runtime = runtimeapi.NewRuntimeServiceClient(conn)
	if imageEndpoint != "" && imageEndpoint != runtimeEndpoint {
		if conn, err = dial(imageEndpoint); err != nil {
			return nil, errors.Join(err, c.Close())
		}
		c.conns = append(c.conns, conn)
	}
	c.Images = runtimeapi.NewImageServiceClient(conn)
	return c, nil
}

func dial(endpoint string) (*grpc.ClientConn, error) {
	path, ok := strings.CutPrefix(endpoint, "unix://")
	if !ok {
		if strings.Contains(endpoint, "://") {
			return nil, fmt.Errorf("runtime endpoint %q: protocol is not supported: supported values: unix", endpoint)
		}
		path = endpoint
	}
	conn, err := grpc.NewClient("passthrough:///"+path,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", addr)
		}),
		grpc.WithAuthority("localhost"),
		grpc.WithConnectParams(fastReconnect()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageSize)))
	if err != nil {
		return nil, fmt.Errorf("connecting to the runtime at %q: %w", endpoint, err)
	}
	return conn, nil
}

// Close ends the connections.
func (c *Client) Close() error {
	var errs []error
	for _, conn := range c.conns {
		errs = append(errs, conn.Close())
	}
	return errors.Join(errs...)
}

// fastReconnect makes a lost runtime be found again quickly: it is on the same machine.
func fastReconnect() grpc.ConnectParams {
	return grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 3 * time.Second},
		MinConnectTimeout: 5 * time.Second,
	}
}

// IsNotFound reports whether the runtime does not know what was asked for.
func IsNotFound(err error) bool { return status.Code(err) == codes.NotFound }

// ErrorText is the description of a gRPC error without its code, for messages that a user reads.
func ErrorText(err error) string {
	if s, ok := status.FromError(err); ok {
		return s.Message()
	}
	return err.Error()
}

// List returns all pods of which the runtime has anything, with the status of every container.
func (c *Client) List(ctx context.Context) (map[types.UID]*Pod, error) {
	pods, err := c.Names(ctx, "")
	if err != nil {
		return nil, err
	}
	for uid, p := range pods {
		fresh, err := c.Refresh(ctx, p)
		if err != nil {
			return nil, err
		}
		pods[uid] = fresh
	}
	return pods, nil
}

// ListPod returns what the runtime has of one pod.
func (c *Client) ListPod(ctx context.Context, uid types.UID) (*Pod, error) {
	pods, err := c.Names(ctx, uid)
	if err != nil {
		return nil, err
	}
	if pods[uid] == nil {
		return &Pod{UID: uid}, nil
	}
	return c.Refresh(ctx, pods[uid])
}

// Names returns the IDs of what exists of all pods, or of one if uid is not empty, with states but without any detail:
// two cheap calls.
func (c *Client) Names(ctx context.Context, uid types.UID) (map[types.UID]*Pod, error) {
	var labels map[string]string
	if uid != "" {
		labels = map[string]string{kubelettypes.KubernetesPodUIDLabel: string(uid)}
	}
	sandboxes, err := c.Runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{LabelSelector: labels}})
	if err != nil {
		return nil, fmt.Errorf("listing sandboxes: %w", err)
	}
	containers, err := c.Runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{LabelSelector: labels}})
	if err != nil {
		return nil, fmt.Errorf("listing containers: %w", err)
	}
	pods := map[types.UID]*Pod{}
	get := func(labels map[string]string) *Pod {
		uid := types.UID(labels[kubelettypes.KubernetesPodUIDLabel])
		if pods[uid] == nil {
			pods[uid] = &Pod{
				UID:       uid,
				Namespace: labels[kubelettypes.KubernetesPodNamespaceLabel],
				Name:      labels[kubelettypes.KubernetesPodNameLabel],
			}
		}
		return pods[uid]
	}
	for _, s := range sandboxes.Items {
		if s.Labels[kubelettypes.KubernetesPodUIDLabel] == "" {
			continue // not made by a kubelet
		}
		p := get(s.Labels)
		p.Sandboxes = append(p.Sandboxes, Sandbox{ID: s.Id, CreatedAt: time.Unix(0, s.CreatedAt), namedState: sandboxState(s.State)})
	}
	for _, ct := range containers.Containers {
		if ct.Labels[kubelettypes.KubernetesPodUIDLabel] == "" {
			continue
		}
		p := get(ct.Labels)
		p.Containers = append(p.Containers, Container{ID: ct.Id, SandboxID: ct.PodSandboxId, namedState: containerState(ct.State)})
	}
	return pods, nil
}

// Differs reports whether what exists is not what p shows: something came, went, or changed its state. names is the
// answer of Names, nil when nothing exists.
func (p *Pod) Differs(names *Pod) bool {
	if names == nil {
		return len(p.Sandboxes) > 0 || len(p.Containers) > 0
	}
	if len(p.Sandboxes) != len(names.Sandboxes) || len(p.Containers) != len(names.Containers) {
		return true
	}
	for _, s := range names.Sandboxes {
		if !slices.ContainsFunc(p.Sandboxes, func(o Sandbox) bool { return o.ID == s.ID && o.State == s.namedState }) {
			return true
		}
	}
	for _, ct := range names.Containers {
		if known := p.Container(ct.ID); known == nil || known.State != ct.namedState {
			return true
		}
	}
	return false
}

// Refresh asks the runtime for the state of everything that p names and returns it as a new value. What the runtime no
// longer knows is left out; what has exited cannot change and is not asked for again.
func (c *Client) Refresh(ctx context.Context, p *Pod) (*Pod, error) {
	fresh := &Pod{UID: p.UID, Namespace: p.Namespace, Name: p.Name}
	for _, s := range p.Sandboxes {
		if s.State == Exited {
			fresh.Sandboxes = append(fresh.Sandboxes, s)
			continue
		}
		answer, err := c.Runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: s.ID})
		if IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("asking for sandbox %s: %w", s.ID, err)
		}
		fresh.Sandboxes = append(fresh.Sandboxes, SandboxFrom(answer.Status))
	}
	for _, ct := range p.Containers {
		if ct.State == Exited {
			fresh.Containers = append(fresh.Containers, ct)
			continue
		}
		answer, err := c.Runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: ct.ID})
		if IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("asking for container %s: %w", ct.ID, err)
		}
		fresh.Containers = append(fresh.Containers, ContainerFrom(answer.Status, ct.SandboxID))
	}
	fresh.sort()
	return fresh, nil
}

// SandboxFrom translates a sandbox's status.
func SandboxFrom(s *runtimeapi.PodSandboxStatus) Sandbox {
	sandbox := Sandbox{
		ID:             s.Id,
		Attempt:        s.GetMetadata().GetAttempt(),
		State:          sandboxState(s.State),
		CreatedAt:      time.Unix(0, s.CreatedAt),
		RuntimeHandler: s.RuntimeHandler,
		HostNetwork:    s.GetLinux().GetNamespaces().GetOptions().GetNetwork() == runtimeapi.NamespaceMode_NODE,
	}
	if ip := s.GetNetwork().GetIp(); ip != "" {
		sandbox.IPs = append(sandbox.IPs, ip)
		for _, more := range s.Network.AdditionalIps {
			sandbox.IPs = append(sandbox.IPs, more.Ip)
		}
	}
	return sandbox
}

// ContainerFrom translates a container's status. The status does not say to which sandbox it belongs.
func ContainerFrom(s *runtimeapi.ContainerStatus, sandboxID string) Container {
	c := Container{
		ID:          s.Id,
		Name:        s.GetMetadata().GetName(),
		Attempt:     s.GetMetadata().GetAttempt(),
		SandboxID:   sandboxID,
		CreatedAt:   time.Unix(0, s.CreatedAt),
		State:       containerState(s.State),
		ExitCode:    s.ExitCode,
		Reason:      s.Reason,
		Message:     s.Message,
		Image:       s.GetImage().GetImage(),
		ImageRef:    s.ImageRef,
		ImageID:     s.ImageId,
		LogPath:     s.LogPath,
		Annotations: s.Annotations,
		Mounts:      s.Mounts,
		User:        s.GetUser().GetLinux(),
		Resources:   s.GetResources().GetLinux(),
		StopSignal:  s.StopSignal,
	}
	if name := s.GetImage().GetUserSpecifiedImage(); name != "" {
		c.Image = name
	}
	if s.StartedAt != 0 {
		c.StartedAt = time.Unix(0, s.StartedAt)
	}
	if s.FinishedAt != 0 {
		c.FinishedAt = time.Unix(0, s.FinishedAt)
	}
	return c
}

func sandboxState(s runtimeapi.PodSandboxState) State {
	if s == runtimeapi.PodSandboxState_SANDBOX_READY {
		return Running
	}
	return Exited
}

func containerState(s runtimeapi.ContainerState) State {
	switch s {
	case runtimeapi.ContainerState_CONTAINER_CREATED:
		return Created
	case runtimeapi.ContainerState_CONTAINER_RUNNING:
		return Running
	case runtimeapi.ContainerState_CONTAINER_EXITED:
		return Exited
	}
	return Unknown
}

// Events calls handle with the UID of a pod each time the runtime says that something of it has changed, until ctx is
// done or the stream breaks; the error says why. A runtime without events answers codes.Unimplemented.
func (c *Client) Events(ctx context.Context, handle func(types.UID)) error {
	stream, err := c.Runtime.GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
	if err != nil {
		return fmt.Errorf("subscribing to container events: %w", err)
	}
	for {
		event, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("receiving container events: %w", err)
		}
		if uid := event.GetPodSandboxStatus().GetMetadata().GetUid(); uid != "" {
			handle(types.UID(uid))
		}
	}
}

// Exec runs a command in a container and returns its output and exit code. A timeout of 0 is none.
func (c *Client) Exec(ctx context.Context, id string, command []string, timeout time.Duration) (output []byte, exitCode int32, err error) {
	answer, err := c.Runtime.ExecSync(ctx, &runtimeapi.ExecSyncRequest{
		ContainerId: id,
		Cmd:         command,
		Timeout:     int64((timeout + time.Second - 1) / time.Second),
	})
	if err != nil {
		return nil, 0, err
	}
	return append(answer.Stdout, answer.Stderr...), answer.ExitCode, nil
}

// Wait returns when the runtime has answered a first request.
func (c *Client) Wait(ctx context.Context) error {
	_, err := c.Runtime.Version(ctx, &runtimeapi.VersionRequest{}, grpc.WaitForReady(true))
	return err
}
