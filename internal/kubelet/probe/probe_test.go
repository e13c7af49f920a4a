package probe

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func TestCounter(t *testing.T) {
	spec := &corev1.Probe{SuccessThreshold: 2, FailureThreshold: 3}
	c := counter{current: Failure}
	for i, step := range []struct {
		answer  Result
		changed bool
	}{{Success, false}, {Failure, false}, {Success, false}, {Success, true}, {Success, false}, {Failure, false}, {Failure, false}, {Success, false},
		{Failure, false}, {Failure, false}, {Failure, true}, {Failure, false}} {
		if got := c.add(step.answer, spec); got != step.changed {
			t.Errorf("step %d: changed %t", i, got)
		}
	}
}

// prober makes one that remembers the messages of its events.
func prober(exec func(context.Context, string, []string, time.Duration) ([]byte, int32, error)) (*Prober, func() string) {
	var mu sync.Mutex
	var messages []string
	p := &Prober{Exec: exec, Event: func(_ *Target, reason, message string) {
		mu.Lock()
		defer mu.Unlock()
		messages = append(messages, reason+": "+message)
	}}
	return p, func() string {
		mu.Lock()
		defer mu.Unlock()
		return strings.Join(messages, "\n")
	}
}

func TestHandlers(t *testing.T) {
	var agent string
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		agent = r.UserAgent()
		switch r.URL.Path {
		case "/bad":
			w.WriteHeader(http.StatusInternalServerError)
		case "/away":
			http.Redirect(w, r, "http://192.0.2.1/", http.StatusFound)
		case "/host":
			if r.Host != "named" {
				w.WriteHeader(http.StatusTeapot)
			}
		}
	}))
	defer web.Close()
	u, _ := url.Parse(web.URL)
	port, _ := strconv.Atoi(u.Port())
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	checks := health.NewServer()
	checks.SetServingStatus("down", healthpb.HealthCheckResponse_NOT_SERVING)
	healthpb.RegisterHealthServer(server, checks)
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(listener) }()
	defer func() { server.Stop(); <-done }()
	grpcPort := int32(listener.Addr().(*net.TCPAddr).Port)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closedPort := closed.Addr().(*net.TCPAddr).Port
	closed.Close()

	exec := func(_ context.Context, _ string, command []string, timeout time.Duration) ([]byte, int32, error) {
		switch command[0] {
		case "fail":
			return []byte("no luck"), 1, nil
		case "slow":
			return nil, 0, status.Error(codes.DeadlineExceeded, "late")
		case "broken":
			return nil, 0, errors.New("no runtime")
		}
		return nil, 0, nil
	}
	get := func(path string, headers ...corev1.HTTPHeader) corev1.ProbeHandler {
		return corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromString("web"), HTTPHeaders: headers}}
	}
	run := func(command string) corev1.ProbeHandler {
		return corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{command}}}
	}
	service := "down"
	for name, test := range map[string]struct {
		handler corev1.ProbeHandler
		answer  Result
		event   string
	}{
		"http":            {get("/"), Success, ""},
		"http fails":      {get("/bad"), Failure, "Unhealthy: Liveness probe failed: HTTP probe failed with statuscode: 500"},
		"http redirected": {get("/away"), Success, "ProbeWarning: Liveness probe warning: Probe terminated redirects, Response body: "},
		"http host":       {get("/host", corev1.HTTPHeader{Name: "Host", Value: "named"}), Success, ""},
		"exec":            {run("ok"), Success, ""},
		"exec fails":      {run("fail"), Failure, "Unhealthy: Liveness probe failed: no luck"},
		"exec is late":    {run("slow"), Failure, `Unhealthy: Liveness probe failed: command timed out: "slow" timed out after 1s`},
		"exec is broken":  {run("broken"), Unknown, "Unhealthy: Liveness probe errored and resulted in unknown state: no runtime"},
		"tcp":             {corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt(port)}}, Success, ""},
		"tcp refused": {corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt(closedPort)}}, Failure,
			"Unhealthy: Liveness probe failed: dial tcp 127.0.0.1:" + strconv.Itoa(closedPort) + ": connect: connection refused"},
		"tcp without port": {corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromString("none")}}, Unknown,
			"Unhealthy: Liveness probe errored and resulted in unknown state: couldn't find port: none in container c"},
		"grpc":      {corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: grpcPort}}, Success, ""},
		"grpc down": {corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: grpcPort, Service: &service}}, Failure, `Unhealthy: Liveness probe failed: service unhealthy (responded with "NOT_SERVING")`},
	} {
		t.Run(name, func(t *testing.T) {
			p, events := prober(exec)
			target := &Target{Pod: &corev1.Pod{}, PodIP: "127.0.0.1", Container: &corev1.Container{Name: "c", Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: int32(port)}}}}
			answer, _ := p.once(t.Context(), target, Liveness, &corev1.Probe{ProbeHandler: test.handler, TimeoutSeconds: 1})
			got := events()
			if answer != test.answer || got != test.event && !(test.event != "" && strings.HasPrefix(got, test.event)) {
				t.Errorf("answer %v, event %q; want %v, %q", answer, got, test.answer, test.event)
			}
		})
	}
	if agent != "kube-probe/1.37" {
		t.Errorf("the user agent is %q", agent)
	}
}

// TestRun lets a probe run until it gives up, and another until it has succeeded.
func TestRun(t *testing.T) {
	for _, test := range []struct {
		kind Kind
		code int32
		want Result
	}{{Liveness, 1, Failure}, {Startup, 0, Success}} {
		p, _ := prober(func(context.Context, string, []string, time.Duration) ([]byte, int32, error) {
			return nil, test.code, nil
		})
		target := &Target{Pod: &corev1.Pod{}, Container: &corev1.Container{}, Started: time.Now()}
		var results []Result
		initial := Unknown
		if test.kind == Liveness {
			initial = Success
		}
		p.Run(t.Context(), target, test.kind, &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"x"}}}, FailureThreshold: 1},
			initial, func(r Result) { results = append(results, r) })
		if len(results) != 1 || results[0] != test.want {
			t.Errorf("%s reported %v", test.kind, results)
		}
	}
}
