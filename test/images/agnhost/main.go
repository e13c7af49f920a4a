// Command agnhost stands in for the image of that name that Kubernetes' own tests run: servers and clients whose answers
// tell who was reached, by whom, and over what. Each subcommand is one of them.
package main

import (
	"context"
	"fmt"
	"log"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

var commands = map[string]func(ctx context.Context, args []string) error{
	"ask":                  ask,
	"dig":                  dig,
	"grpc-health-checking": grpcHealth,
	"guestbook":            guestbook,
	"issuer":               issuer,
	"logs-generator":       logs,
	"netexec":              netexec,
	"pause":                pause,
	"porter":               porter,
}

func main() {
	log.SetFlags(0)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	args := os.Args[1:]
	if len(args) == 0 {
		args = []string{"pause"}
	}
	run, ok := commands[args[0]]
	if !ok {
		log.Fatalf("agnhost: unknown command %q; there are %s", args[0], strings.Join(slices.Sorted(maps.Keys(commands)), ", "))
	}
	if err := run(ctx, args[1:]); err != nil && ctx.Err() == nil {
		log.Fatal(fmt.Errorf("agnhost %s: %w", args[0], err))
	}
}

// pause does nothing until it is told to end.
func pause(ctx context.Context, _ []string) error {
	<-ctx.Done()
	return nil
}
