package main

import (
	"context"
	"flag"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// grpcHealth answers the health checks of gRPC: it serves as a whole, and as the service "ill" it does not.
func grpcHealth(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("grpc-health-checking", flag.ContinueOnError)
	port := flags.Int("port", 5000, "port to serve on")
	if err := flags.Parse(args); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", fmt.Sprintf(":%d", *port))
	if err != nil {
		return err
	}
	server := healthServer()
	stop := context.AfterFunc(ctx, server.Stop)
	defer stop()
	return server.Serve(listener)
}

func healthServer() *grpc.Server {
	state := health.NewServer()
	state.SetServingStatus("ill", healthpb.HealthCheckResponse_NOT_SERVING)
	server := grpc.NewServer()
	healthpb.RegisterHealthServer(server, state)
	return server
}
