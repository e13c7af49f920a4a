package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"time"
)

// logs writes numbered lines, evenly over a time, and then waits for its end.
func logs(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("logs-generator", flag.ContinueOnError)
	total := flags.Int("log-lines-total", 0, "how many lines")
	duration := flags.Duration("run-duration", 0, "how long")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *total <= 0 || *duration <= 0 {
		return errors.New("want --log-lines-total and --run-duration")
	}
	tick := time.NewTicker(*duration / time.Duration(*total))
	defer tick.Stop()
	for n := range *total {
		fmt.Printf("%s %d GET /api/v1/namespaces/ns/pods/%d 200\n", time.Now().UTC().Format(time.RFC3339Nano), n, n)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
	<-ctx.Done()
	return nil
}
