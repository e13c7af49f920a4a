// Command simpleservice stands in for the microservice quay.io/openshiftlabs/simpleservice of many Kubernetes tutorials:
// it tells on port 9876 how it was reached, its environment and its health.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

func main() {
	version := "0.5.0"
	for _, name := range []string{"VERSION", "SIMPLE_SERVICE_VERSION"} {
		if v := os.Getenv(name); v != "" {
			version = v
		}
	}
	port := "9876"
	if p := os.Getenv("PORT0"); p != "" {
		port = p
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-signals
		os.Exit(0)
	}()
	log.Printf("simpleservice %s listens on port %s", version, port)
	log.Fatal(http.ListenAndServe(":"+port, routes(version)))
}

func routes(version string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /info", func(w http.ResponseWriter, r *http.Request) {
		from, _, _ := net.SplitHostPort(r.RemoteAddr)
		reply(w, "host", r.Host, "version", version, "from", from)
	})
	mux.HandleFunc("GET /endpoint0", func(w http.ResponseWriter, r *http.Request) {
		reply(w, "host", r.Host, "version", version, "result", "all is well")
	})
	mux.HandleFunc("GET /env", func(w http.ResponseWriter, r *http.Request) {
		reply(w, "version", version, "env", strings.Join(os.Environ(), " "))
	})
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"healthy": true}`)
	})
	return mux
}

// reply writes a JSON object of strings, spaced as Python does.
func reply(w http.ResponseWriter, pairs ...string) {
	var b strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		value, err := json.Marshal(pairs[i+1])
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		sep := ", "
		if i == 0 {
			sep = ""
		}
		fmt.Fprintf(&b, "%s%q: %s", sep, pairs[i], value)
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, "{%s}", b.String())
}
