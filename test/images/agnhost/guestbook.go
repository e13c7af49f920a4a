package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// guestbook is one of the three parts of the application of that name. With --backend it is the front end, which writes to the
// service "primary" and reads from the service "replica"; with --replicaof it registers with a primary, which passes on what it
// is told; else it is the primary.
func guestbook(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("guestbook", flag.ContinueOnError)
	port := flags.String("http-port", "6379", "port to serve on")
	backend := flags.String("backend-port", "", "port of the services agnhost-primary and agnhost-replica")
	primary := flags.String("replicaof", "", "host of the primary to register with")
	if err := flags.Parse(args); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", ":"+*port)
	if err != nil {
		return err
	}
	defer listener.Close()
	b := &book{entries: map[string]string{}}
	ended := make(chan error, 1)
	if *backend != "" {
		go func() { ended <- http.Serve(listener, frontEnd(*backend)) }()
	} else {
		go func() { ended <- http.Serve(listener, b.routes(*port)) }()
	}
	if *primary != "" {
		if err := register(ctx, *primary, *port); err != nil {
			return err
		}
	}
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return nil
	}
}

// register tells the primary of this replica, as soon as there is a primary.
func register(ctx context.Context, primary, port string) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := fetch(ctx, once, "http://"+net.JoinHostPort(primary, port)+"/register")
		if err == nil {
			log.Printf("registered with %s", primary)
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-tick.C:
		}
	}
}

// book holds the entries, and on a primary the addresses of the replicas.
type book struct {
	mu       sync.Mutex
	entries  map[string]string
	replicas []string
}

func (b *book) routes(port string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/get", func(w http.ResponseWriter, r *http.Request) {
		b.mu.Lock()
		defer b.mu.Unlock()
		fmt.Fprint(w, b.entries[r.FormValue("key")])
	})
	mux.HandleFunc("/set", func(w http.ResponseWriter, r *http.Request) {
		b.mu.Lock()
		b.entries[r.FormValue("key")] = r.FormValue("value")
		replicas := slices.Clone(b.replicas)
		b.mu.Unlock()
		for _, replica := range replicas {
			if _, err := fetch(r.Context(), once, "http://"+replica+"/set?"+r.URL.RawQuery); err != nil {
				http.Error(w, err.Error(), http.StatusBadGateway)
				return
			}
		}
	})
	mux.HandleFunc("/register", func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		b.mu.Lock()
		defer b.mu.Unlock()
		b.replicas = append(b.replicas, net.JoinHostPort(host, port))
	})
	return mux
}

// frontEnd answers /guestbook?cmd=set&key=K&value=V and /guestbook?cmd=get&key=K.
func frontEnd(port string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/guestbook", func(w http.ResponseWriter, r *http.Request) {
		host, command := "agnhost-replica", r.FormValue("cmd")
		if command == "set" {
			host = "agnhost-primary"
		}
		query := url.Values{"key": {r.FormValue("key")}, "value": {r.FormValue("value")}}
		answer, err := fetch(r.Context(), once, "http://"+net.JoinHostPort(host, port)+"/"+command+"?"+query.Encode())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		fmt.Fprintf(w, `{"data": %q}`, strings.TrimSpace(answer))
	})
	return mux
}
