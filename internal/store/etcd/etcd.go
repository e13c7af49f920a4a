// Package etcd runs etcd inside the process, or connects to one outside.
//
// What flows in is a data directory, or the endpoints of an existing etcd; what flows out is a client. A single embedded
// member listens nowhere: its client is wired to it by function calls.
package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"expvar"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
)

// Config says which etcd to use. With Endpoints it is an existing one; otherwise one is started on Dir.
type Config struct {
	Dir    string // the data directory of the embedded etcd
	Name   string // of the member; empty: "proa"
	Logger *slog.Logger

	// Peers makes the embedded etcd a member of a cluster. Nil: it is the only member.
	Peers *Peers

	// Endpoints of an existing etcd, and the PEM files to authenticate with. CAFile empty: the system's authorities.
	Endpoints                 []string
	CAFile, CertFile, KeyFile string

	// UnsafeNoFsync acknowledges what is not on disk yet. For throw-away tests only.
	UnsafeNoFsync bool
}

// Peers is how the members of a cluster find and trust each other. CertFile is used as server and as client.
type Peers struct {
	Listen, Advertise         string // URLs: https://10.0.0.1:2380
	Initial                   string // all members: "a=https://10.0.0.1:2380,b=https://10.0.0.2:2380"
	Join                      bool   // the cluster exists, and this member was added to it
	CAFile, CertFile, KeyFile string
}

// Server is an etcd in use.
type Server struct {
	client   *clientv3.Client
	embedded *embed.Etcd // nil: outside
	alone    bool        // the only member there can be, since it listens nowhere
	acked    recorder    // of the client, if alone
	closing  *atomic.Bool
	close    sync.Once
	closeErr error
}

const (
	// quota is when etcd refuses writes: the most that etcd's documentation suggests.
	quota = 8 << 30
	// snapshotCount is how many entries of the log are read again on a start after a crash. A snapshot costs a few
	// fsyncs.
	snapshotCount = 1000
	// catchUp is how many entries are kept in memory, for members that are slower. One that is alone has to keep all
	// that it reads on its start, and some: raft looks at them when the member stands for election, and panics if they
	// are compacted.
	catchUpAlone   = 2*snapshotCount + 500
	catchUpCluster = 5 * snapshotCount
)

// Start starts an embedded etcd, or connects to the endpoints, and returns when it serves.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if len(cfg.Endpoints) > 0 {
		return connect(ctx, cfg)
	}
	if cfg.Dir == "" {
		return nil, errors.New("starting etcd: no data directory given")
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("starting etcd: %w", err)
	}
	if err := os.Chmod(cfg.Dir, 0o700); err != nil { // it may have been there: secrets are in it
		return nil, fmt.Errorf("starting etcd: %w", err)
	}
	closing := &atomic.Bool{}
	ec, err := embedConfig(cfg, closing)
	if err != nil {
		return nil, fmt.Errorf("starting etcd in %s: %w", cfg.Dir, err)
	}
	e, err := embed.StartEtcd(ec)
	if err != nil {
		return nil, fmt.Errorf("starting etcd in %s: %w", cfg.Dir, err)
	}
	s := &Server{embedded: e, alone: cfg.Peers == nil, closing: closing}
	if err := s.awaitReady(ctx); err != nil {
		e.Close()
		return nil, fmt.Errorf("starting etcd in %s: %w", cfg.Dir, err)
	}
	s.client = v3client.New(e.Server)
	if s.alone {
		s.acked.KV = s.client.KV
		s.acked.rev.Store(e.Server.KV().Rev())
		s.client.KV = &s.acked
	}
	return s, nil
}

func embedConfig(cfg Config, closing *atomic.Bool) (*embed.Config, error) {
	ec := embed.NewConfig()
	ec.Dir = cfg.Dir
	ec.Name = cfg.Name
	if ec.Name == "" {
		ec.Name = "proa"
	}
	ec.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(&core{cfg.Logger.Handler(), closing}))
	ec.UnsafeNoFsync = cfg.UnsafeNoFsync
	ec.QuotaBackendBytes = quota
	ec.SnapshotCount = snapshotCount
	ec.MaxSnapFiles = 2
	ec.MaxWalFiles = 2
	ec.ListenClientUrls = nil
	ec.ListenClientHttpUrls = nil
	ec.EnableGRPCGateway = false
	// A transaction of ours is an object with its companions, and a lease is shared by many events.
	ec.MaxTxnOps = 1024
	ec.BackendFreelistType = "map"
	// The log is synced at every write, the database only now and then: reads and writes wait for it.
	ec.BackendBatchInterval = 500 * time.Millisecond

	if cfg.Peers == nil {
		// Nobody listens to the heartbeats of a single member, and awaitReady calls the election: slow ticks cost
		// nothing but wake-ups saved.
		ec.TickMs = 500
		ec.ElectionMs = 2500
		ec.ListenPeerUrls = nil
		ec.SnapshotCatchUpEntries = catchUpAlone
		ec.InitialCluster = ec.InitialClusterFromName(ec.Name)
		return ec, nil
	}
	p := cfg.Peers
	ec.SnapshotCatchUpEntries = catchUpCluster
	ec.InitialCluster = p.Initial
	if p.Join {
		ec.ClusterState = embed.ClusterStateFlagExisting
	}
	for dst, s := range map[*[]url.URL]string{&ec.ListenPeerUrls: p.Listen, &ec.AdvertisePeerUrls: p.Advertise} {
		u, err := url.Parse(s)
		if err != nil {
			return nil, fmt.Errorf("peer URL: %w", err)
		}
		*dst = []url.URL{*u}
	}
	ec.PeerTLSInfo = transport.TLSInfo{
		TrustedCAFile: p.CAFile, CertFile: p.CertFile, KeyFile: p.KeyFile, ClientCertAuth: p.CAFile != "",
	}
	return ec, nil
}

// raftIsThrough tells that raft has handed over all that it read from its log on a start. Before that, an election makes it
// look at those entries once more, and it panics when etcd has dropped the first of them from memory meanwhile, which it
// does when it has applied a hundred. etcd publishes raft's status as a variable, of the server that started last.
func raftIsThrough() bool {
	v, ok := expvar.Get("raft.status").(expvar.Func)
	if !ok {
		return false
	}
	status, ok := v.Value().(raft.Status)
	return ok && status.Applied > 0 && status.Applied >= status.GetCommit()
}

// awaitReady waits until the member serves. A member that is alone need not wait for an election timeout: it is told to
// stand for election at once.
func (s *Server) awaitReady(ctx context.Context) error {
	srv := s.embedded.Server
	// Until the entry that makes it a member is applied, it refuses to stand; that takes a few milliseconds.
	retry := time.NewTicker(2 * time.Millisecond)
	defer retry.Stop()
	if !s.alone {
		retry.Stop()
	}
	for {
		if elect := s.alone && srv.Leader() == 0; elect && srv.AppliedIndex() > 0 && srv.AppliedIndex() >= srv.CommittedIndex() && raftIsThrough() {
			id := uint64(srv.MemberID())
			msg := &raftpb.Message{Type: raftpb.MsgTimeoutNow.Enum(), From: &id, To: &id}
			if err := srv.Process(ctx, msg); err != nil {
				return err
			}
		} else if !elect {
			retry.Stop()
		}
		select {
		case <-srv.ReadyNotify():
			return nil
		case err := <-s.embedded.Err():
			return err
		case <-srv.StopNotify():
			return errors.New("etcd stopped")
		case <-ctx.Done():
			return ctx.Err()
		case <-retry.C:
		}
	}
}

func connect(ctx context.Context, cfg Config) (*Server, error) {
	var tlsConfig *tls.Config
	if cfg.CAFile != "" || cfg.CertFile != "" {
		info := transport.TLSInfo{TrustedCAFile: cfg.CAFile, CertFile: cfg.CertFile, KeyFile: cfg.KeyFile}
		var err error
		if tlsConfig, err = info.ClientConfig(); err != nil {
			return nil, fmt.Errorf("connecting to etcd: %w", err)
		}
	}
	closing := &atomic.Bool{}
	client, err := clientv3.New(clientv3.Config{
		Endpoints: cfg.Endpoints, TLS: tlsConfig,
		DialKeepAliveTime: 30 * time.Second, DialKeepAliveTimeout: 10 * time.Second,
		Logger: zap.New(&core{cfg.Logger.Handler(), closing}),
	})
	if err != nil {
		return nil, fmt.Errorf("connecting to etcd: %w", err)
	}
	s := &Server{client: client, closing: closing}
	if _, err := s.Rev(ctx); err != nil {
		client.Close()
		return nil, fmt.Errorf("connecting to etcd at %v: %w", cfg.Endpoints, err)
	}
	return s, nil
}

// Client is the client of this etcd. It lives as long as the Server.
func (s *Server) Client() *clientv3.Client { return s.client }

// Rev returns the present revision, linearizably: what store.Options.Rev wants. A member that nobody else can write to
// knows it without asking.
func (s *Server) Rev(ctx context.Context) (int64, error) {
	if s.alone {
		return s.acked.rev.Load(), nil
	}
	resp, err := s.client.Get(ctx, "\x00", clientv3.WithCountOnly())
	if err != nil {
		return 0, fmt.Errorf("reading etcd's revision: %w", err)
	}
	return resp.Header.Revision, nil
}

// Snapshot writes a consistent copy of the embedded etcd's database to path, which etcdutl can restore.
func (s *Server) Snapshot(ctx context.Context, path string) error {
	r, err := s.client.Snapshot(ctx)
	if err != nil {
		return fmt.Errorf("taking a snapshot of etcd: %w", err)
	}
	defer r.Close()
	return writeFile(path, r)
}

// Close stops the server or disconnects, and returns when all is written.
func (s *Server) Close() error {
	s.close.Do(func() {
		s.closing.Store(true)
		s.closeErr = s.client.Close()
		if errors.Is(s.closeErr, context.Canceled) {
			s.closeErr = nil // what a client without a connection says
		}
		if s.embedded != nil {
			s.embedded.Close()
		}
	})
	return s.closeErr
}

// DBFile is where the embedded etcd keeps its database below Config.Dir.
func DBFile(dir string) string { return filepath.Join(dir, "member", "snap", "db") }
