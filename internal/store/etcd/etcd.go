// Package etcd runs etcd inside the process, or connects to one outside.
//
// What flows in is a data directory, or the endpoints of an existing etcd; what flows out is a client.
package etcd

import (
	"context"
	"log/slog"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Config says which etcd to use. With Endpoints it is an existing one; otherwise one is started on Dir.
type Config struct {
	Dir    string // the data directory of the embedded etcd
	Name   string // of the member; empty: "default"
	Logger *slog.Logger

	// Endpoints of an existing etcd, and the files to authenticate with.
	Endpoints                 []string
	CAFile, CertFile, KeyFile string

	// UnsafeNoFsync acknowledges what is not on disk yet. For throw-away tests only.
	UnsafeNoFsync bool
}

// Server is an etcd in use.
type Server struct{}

// Start starts an embedded etcd, or connects to the endpoints, and returns when it serves.
func Start(ctx context.Context, cfg Config) (*Server, error) { panic("soon") }

// Client is the client of this etcd. It lives as long as the Server.
func (s *Server) Client() *clientv3.Client { panic("soon") }

// Rev returns the present revision, linearizably: what store.Options.Rev wants.
func (s *Server) Rev(ctx context.Context) (int64, error) { panic("soon") }

// Close stops the server or disconnects, and returns when all is written.
func (s *Server) Close() error { panic("soon") }
