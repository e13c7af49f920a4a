package apiserver_test

import (
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkFreshStacks creates pods on a goroutine for each, as an HTTP server does.
func BenchmarkFreshStacks(b *testing.B) {
	e := newEnv(b, nil)
	e.namespace("ns")
	var before, after unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &before)
	for i := range b.N {
		done := make(chan struct{})
		go func() {
			defer close(done)
			e.call("POST", "/api/v1/namespaces/ns/pods", podJSON("p"+strconv.Itoa(i)), "", newDiscard())
		}()
		<-done
	}
	_ = unix.Getrusage(unix.RUSAGE_SELF, &after)
	b.ReportMetric(float64(after.Utime.Nano()+after.Stime.Nano()-before.Utime.Nano()-before.Stime.Nano())/float64(b.N), "cpu-ns/op")
}
