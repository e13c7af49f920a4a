// Command hello is the web server of examples/hello: it answers with the name of its pod, and ends without failing a
// request: when asked to stop it first reports that it is not ready and closes idle connections, goes on answering until
// nobody has asked for a while, since word of its end has to reach those who send requests, and stops listening then.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	address := flag.String("listen", ":8080", "address to listen on")
	version := flag.String("version", os.Getenv("VERSION"), "version to answer with; $VERSION by default")
	quiet := flag.Duration("quiet", duration("QUIET", 80*time.Millisecond),
		"how long nobody must have asked before it stops listening after SIGTERM; $QUIET by default")
	flag.Parse()
	host, err := os.Hostname()
	if err != nil {
		log.Fatal(err)
	}
	h := &hello{host: host, version: *version}
	server := &http.Server{Addr: *address, Handler: h.routes(), ReadHeaderTimeout: 10 * time.Second}

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- server.ListenAndServe() }()
	log.Printf("hello %s listens on %s", *version, *address)
	select {
	case err := <-ended:
		log.Fatal(err)
	case <-ctx.Done():
	}
	h.stopping.Store(true)
	server.SetKeepAlivesEnabled(false)
	h.waitQuiet(*quiet, 10*time.Second)
	last, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := server.Shutdown(last); err != nil && !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
	log.Print("hello has stopped")
}

// duration returns the duration in the environment variable name, or other.
func duration(name string, other time.Duration) time.Duration {
	if d, err := time.ParseDuration(os.Getenv(name)); err == nil {
		return d
	}
	return other
}

type hello struct {
	host, version string
	stopping      atomic.Bool
	// asked counts requests to the page itself; probes are none of them.
	asked atomic.Int64
}

// waitQuiet waits until nobody has asked for the given time, or for limit at most.
func (h *hello) waitQuiet(quiet, limit time.Duration) {
	end := time.Now().Add(limit)
	for seen := int64(-1); seen != h.asked.Load() && time.Now().Before(end); time.Sleep(quiet) {
		seen = h.asked.Load()
	}
}

func (h *hello) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		h.asked.Add(1)
		fmt.Fprintf(w, "Hello from %s, version %s\n", h.host, h.version)
	})
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "ok") })
	ready := func(w http.ResponseWriter, r *http.Request) {
		if h.stopping.Load() {
			http.Error(w, "stopping", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	}
	mux.HandleFunc("GET /readyz", ready)
	mux.HandleFunc("GET /healthz", ready)
	return mux
}
