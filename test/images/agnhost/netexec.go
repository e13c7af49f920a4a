package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// netexec answers over HTTP and UDP with its name, an echo, or the address of the client, and dials others when asked.
func netexec(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("netexec", flag.ContinueOnError)
	httpPort := flags.Int("http-port", 8080, "TCP port to serve HTTP on")
	udpPort := flags.Int("udp-port", 8081, "UDP port to serve on; none when negative")
	if err := flags.Parse(args); err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	ended := make(chan error, 2)
	if *udpPort >= 0 {
		conn, err := net.ListenPacket("udp", net.JoinHostPort("", strconv.Itoa(*udpPort)))
		if err != nil {
			return err
		}
		defer conn.Close()
		go func() { ended <- serveUDP(conn, host) }()
	}
	listener, err := net.Listen("tcp", net.JoinHostPort("", strconv.Itoa(*httpPort)))
	if err != nil {
		return err
	}
	defer listener.Close()
	go func() { ended <- http.Serve(listener, netexecRoutes(host)) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return nil
	}
}

func netexecRoutes(host string) http.Handler {
	mux := http.NewServeMux()
	name := func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, host) }
	mux.HandleFunc("/hostname", name)
	mux.HandleFunc("/hostName", name)
	mux.HandleFunc("/clientip", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.RemoteAddr) })
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.FormValue("msg")) })
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) {})
	mux.HandleFunc("/dial", dial)
	mux.HandleFunc("/dig", digHTTP)
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "NOW: %s", time.Now().Format(time.RFC3339Nano))
	})
	return mux
}

// serveUDP answers the datagrams "hostname", "clientip" and "echo TEXT".
func serveUDP(conn net.PacketConn, host string) error {
	buf := make([]byte, 2048)
	for {
		n, from, err := conn.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := conn.WriteTo([]byte(answerUDP(strings.TrimSpace(string(buf[:n])), host, from)), from); err != nil {
			return err
		}
	}
}

func answerUDP(request, host string, from net.Addr) string {
	verb, rest, _ := strings.Cut(request, " ")
	switch strings.ToLower(verb) {
	case "hostname":
		return host
	case "clientip":
		return from.String()
	case "echo":
		return rest
	}
	return ""
}

// dial asks host:port, as often as tries says, and gives what was answered and what failed.
func dial(w http.ResponseWriter, r *http.Request) {
	var result struct {
		Responses []string `json:"responses"`
		Errors    []string `json:"errors,omitempty"`
	}
	tries := 1
	if text := r.FormValue("tries"); text != "" {
		var err error
		if tries, err = strconv.Atoi(text); err != nil || tries < 1 {
			http.Error(w, fmt.Sprintf("bad tries %q", text), http.StatusBadRequest)
			return
		}
	}
	address := net.JoinHostPort(r.FormValue("host"), r.FormValue("port"))
	send, ok := protocols[cmp.Or(r.FormValue("protocol"), "http")]
	if !ok {
		http.Error(w, fmt.Sprintf("unsupported protocol %q", r.FormValue("protocol")), http.StatusBadRequest)
		return
	}
	for range tries {
		if answer, err := send(r.Context(), address, r.FormValue("request")); err != nil {
			result.Errors = append(result.Errors, err.Error())
		} else {
			result.Responses = append(result.Responses, answer)
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(result)
}

// ask sends one request, and prints the answer: ask http|udp HOST:PORT REQUEST.
func ask(ctx context.Context, args []string) error {
	if len(args) != 3 {
		return errors.New("want http|udp HOST:PORT REQUEST")
	}
	send, ok := protocols[args[0]]
	if !ok {
		return fmt.Errorf("unsupported protocol %q", args[0])
	}
	answer, err := send(ctx, args[1], args[2])
	if err == nil {
		fmt.Print(answer)
	}
	return err
}

var protocols = map[string]func(ctx context.Context, address, request string) (string, error){"http": askHTTP, "udp": askUDP}

const timeout = 5 * time.Second

// once makes a connection for each request, so that each is distributed anew.
var once = &http.Client{Timeout: timeout, Transport: &http.Transport{DisableKeepAlives: true}}

func askHTTP(ctx context.Context, address, request string) (string, error) {
	return fetch(ctx, once, "http://"+address+"/"+request)
}

func fetch(ctx context.Context, client *http.Client, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", url, resp.Status, body)
	}
	return string(body), err
}

func askUDP(ctx context.Context, address, request string) (string, error) {
	request, err := url.QueryUnescape(request)
	if err != nil {
		return "", err
	}
	conn, err := new(net.Dialer).DialContext(ctx, "udp", address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return "", err
	}
	if _, err := conn.Write([]byte(request)); err != nil {
		return "", err
	}
	buf := make([]byte, 2048)
	n, err := conn.Read(buf)
	return string(buf[:n]), err
}
