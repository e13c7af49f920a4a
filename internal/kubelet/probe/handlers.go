package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/proa-k8s/proa/internal/kubelet/criconfig"
)

// maxBody is how much of an answer is read, in bytes.
const maxBody = 10 << 10

// Port finds the number of a container's port that is given by number or by name.
func Port(c *corev1.Container, port intstr.IntOrString) (int, error) {
	n := port.IntValue()
	if port.Type == intstr.String {
		found := false
		for i := range c.Ports {
			if c.Ports[i].Name == port.StrVal {
				n, found = int(c.Ports[i].ContainerPort), true
			}
		}
		if !found {
			var err error
			if n, err = strconv.Atoi(port.StrVal); err != nil {
				return 0, fmt.Errorf("couldn't find port: %v in container %s", port.String(), c.Name)
			}
		}
	}
	if n <= 0 || n > 65535 {
		return 0, fmt.Errorf("invalid port number: %v", n)
	}
	return n, nil
}

func (p *Prober) exec(ctx context.Context, t *Target, command []string, timeout time.Duration) (Result, string, error) {
	values := map[string]string{}
	for _, e := range t.Container.Env {
		values[e.Name] = e.Value
	}
	expanded := make([]string, len(command))
	for i, s := range command {
		expanded[i] = criconfig.Expand(s, values)
	}
	output, code, err := p.Exec(ctx, t.ContainerID, expanded, timeout)
	if status.Code(err) == codes.DeadlineExceeded {
		return Failure, fmt.Sprintf("command timed out: %q timed out after %s", strings.Join(expanded, " "), timeout), nil
	}
	if err != nil {
		return Unknown, "", err
	}
	text := string(output[:min(len(output), maxBody)])
	if code != 0 {
		return Failure, text, nil
	}
	return Success, text, nil
}

// URL gives the address that an HTTP action goes to.
func URL(c *corev1.Container, get *corev1.HTTPGetAction, podIP string) (*url.URL, error) {
	port, err := Port(c, get.Port)
	if err != nil {
		return nil, err
	}
	host := get.Host
	if host == "" {
		host = podIP
	}
	scheme := strings.ToLower(string(get.Scheme))
	if scheme == "" {
		scheme = "http"
	}
	u, err := url.Parse(get.Path)
	if err != nil {
		u = &url.URL{Path: get.Path}
	}
	u.Scheme, u.Host = scheme, net.JoinHostPort(host, strconv.Itoa(port))
	return u, nil
}

// Request makes the request of an HTTP action.
func Request(ctx context.Context, u *url.URL, headers []corev1.HTTPHeader, agent string) (*http.Request, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("User-Agent", agent)
	request.Header.Set("Accept", "*/*")
	set := map[string]bool{}
	for _, h := range headers {
		name := http.CanonicalHeaderKey(h.Name)
		switch {
		case name == "Host":
			request.Host = h.Value
		case name == "Accept" && h.Value == "":
			request.Header.Del(name)
		case (name == "Accept" || name == "User-Agent") && !set[name]:
			request.Header.Set(name, h.Value)
			set[name] = true
		default:
			request.Header.Add(name, h.Value)
		}
	}
	return request, nil
}

// Client makes a client for one request: connections are not kept, certificates of containers are not checked.
func Client(timeout time.Duration) *http.Client {
	return &http.Client{Timeout: timeout, Transport: &http.Transport{
		TLSClientConfig:    &tls.Config{InsecureSkipVerify: true},
		DisableKeepAlives:  true,
		DisableCompression: true,
		Proxy:              nil,
	}}
}

func httpGet(ctx context.Context, t *Target, get *corev1.HTTPGetAction, timeout time.Duration) (Result, string, bool, error) {
	u, err := URL(t.Container, get, t.PodIP)
	if err != nil {
		return Unknown, "", false, err
	}
	request, err := Request(ctx, u, get.HTTPHeaders, "kube-probe/1.37")
	if err != nil {
		return Failure, err.Error(), false, nil
	}
	client := Client(timeout)
	client.CheckRedirect = func(r *http.Request, via []*http.Request) error {
		if r.URL.Hostname() != via[0].URL.Hostname() {
			return http.ErrUseLastResponse
		}
		if len(via) >= 10 {
			return errors.New("stopped after 10 redirects")
		}
		return nil
	}
	answer, err := client.Do(request)
	if err != nil {
		return Failure, err.Error(), false, nil
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxBody))
	if err != nil && len(body) == 0 {
		return Failure, err.Error(), false, nil
	}
	switch code := answer.StatusCode; {
	case code >= 300 && code < 400:
		return Success, fmt.Sprintf("Probe terminated redirects, Response body: %v", string(body)), true, nil
	case code >= 200 && code < 300:
		return Success, string(body), false, nil
	default:
		return Failure, fmt.Sprintf("HTTP probe failed with statuscode: %d", code), false, nil
	}
}

func tcpSocket(ctx context.Context, t *Target, action *corev1.TCPSocketAction, timeout time.Duration) (Result, string, error) {
	port, err := Port(t.Container, action.Port)
	if err != nil {
		return Unknown, "", err
	}
	host := action.Host
	if host == "" {
		host = t.PodIP
	}
	conn, err := (&net.Dialer{Timeout: timeout}).DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return Failure, err.Error(), nil
	}
	_ = conn.Close()
	return Success, "", nil
}

// grpcCheck asks the gRPC health service (KEP-2727).
func grpcCheck(ctx context.Context, t *Target, action *corev1.GRPCAction, timeout time.Duration) (Result, string) {
	address := net.JoinHostPort(t.PodIP, strconv.Itoa(int(action.Port)))
	service := ""
	if action.Service != nil {
		service = *action.Service
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithUserAgent("kube-probe/1.37"),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return Failure, fmt.Sprintf("error: failed to connect service at %q: %v", address, err)
	}
	defer conn.Close()
	answer, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: service}, grpc.WaitForReady(true))
	switch status.Code(err) {
	case codes.OK:
		if answer.Status != healthpb.HealthCheckResponse_SERVING {
			return Failure, fmt.Sprintf("service unhealthy (responded with %q)", answer.Status)
		}
		return Success, "service healthy"
	case codes.Unimplemented:
		return Failure, fmt.Sprintf("error: this server does not implement the grpc health protocol (grpc.health.v1.Health): %s", status.Convert(err).Message())
	case codes.DeadlineExceeded:
		return Failure, fmt.Sprintf("timeout: failed to connect service %q within %v: %s", address, timeout, status.Convert(err).Message())
	}
	return Failure, fmt.Sprintf("error: health rpc probe failed: %s", err)
}
