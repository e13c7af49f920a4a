package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/proa-k8s/proa/internal/kubelet/server/logs"
)

// logRequest is what a query to /containerLogs asks for.
type logRequest struct {
	options          logs.Options
	follow, previous bool
}

// parseLogQuery reads the query of /containerLogs: the fields of PodLogOptions.
func parseLogQuery(query url.Values, now time.Time) (logRequest, error) {
	l := logRequest{options: logs.Options{TailLines: -1, LimitBytes: -1}}
	var errs []error
	flag := func(name string) bool {
		value := query.Get(name)
		if value == "" {
			// As for any query of the API, a parameter without a value is a switch that is on.
			return query.Has(name)
		}
		on, err := strconv.ParseBool(value)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: Invalid value: %q: must be a boolean", name, value))
		}
		return on
	}
	number := func(name string, least int64) (int64, bool) {
		value := query.Get(name)
		if value == "" {
			return 0, false
		}
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: Invalid value: %q: must be an integer", name, value))
		} else if n < least {
			errs = append(errs, fmt.Errorf("%s: Invalid value: %d: must be greater than or equal to %d", name, n, least))
		}
		return n, true
	}
	l.follow, l.previous, l.options.Timestamps = flag("follow"), flag("previous"), flag("timestamps")
	if n, ok := number("tailLines", 0); ok {
		l.options.TailLines = n
	}
	if n, ok := number("limitBytes", 1); ok {
		l.options.LimitBytes = n
	}
	since, hasSince := number("sinceSeconds", 1)
	if hasSince {
		l.options.Since = now.Add(-time.Duration(since) * time.Second)
	}
	if value := query.Get("sinceTime"); value != "" {
		var err error
		switch l.options.Since, err = time.Parse(time.RFC3339, value); {
		case err != nil:
			errs = append(errs, fmt.Errorf("sinceTime: Invalid value: %q: must be a time in the format of RFC 3339", value))
		case hasSince:
			errs = append(errs, errors.New("at most one of `sinceTime` or `sinceSeconds` may be specified"))
		}
	}
	switch value := query.Get("stream"); value {
	case "", corev1.LogStreamAll:
	case corev1.LogStreamStdout, corev1.LogStreamStderr:
		l.options.Stream = strings.ToLower(value)
		if l.options.TailLines >= 0 {
			errs = append(errs, errors.New("`tailLines` and specific `stream` are mutually exclusive for now"))
		}
	default:
		errs = append(errs, fmt.Errorf(`stream: Unsupported value: %q: supported values: "All", "Stderr", "Stdout"`, value))
	}
	return l, errors.Join(errs...)
}

func (s *Server) containerLogs(w http.ResponseWriter, r *http.Request) {
	want, err := parseLogQuery(r.URL.Query(), time.Now())
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	pod, ok := s.pod(w, r)
	if !ok {
		return
	}
	container := r.PathValue("container")
	if !hasContainer(pod, container) {
		http.Error(w, fmt.Sprintf("container %q not found in pod %q", container, pod.Name), http.StatusNotFound)
		return
	}
	id, path, err := s.logFile(r.Context(), pod, container, want.previous)
	if err != nil {
		writeError(w, err)
		return
	}
	if want.follow {
		want.options.Running = func(ctx context.Context) (bool, error) { return s.isRunning(ctx, id) }
	}
	out := &logResponse{ResponseWriter: w}
	if err := logs.Read(r.Context(), path, want.options, out); err != nil && r.Context().Err() == nil {
		if !out.begun {
			writeError(w, &httpError{http.StatusBadRequest, err.Error()})
			return
		}
		s.cfg.Log.Warn("reading the log of a container", "pod", pod.Namespace+"/"+pod.Name, "container", container, "err", err)
	}
}

// logFile returns the container whose log is wanted and the path of its log.
func (s *Server) logFile(ctx context.Context, pod *corev1.Pod, container string, previous bool) (id, path string, err error) {
	attempts, err := s.attempts(ctx, pod, container)
	if err != nil {
		return "", "", err
	}
	attempt := chooseAttempt(attempts, containerStatus(pod, container), previous)
	if attempt == nil {
		return "", "", noLog(pod, container, previous)
	}
	id = attempt.Id
	response, err := s.cfg.Runtime.ContainerStatus(ctx, &criapi.ContainerStatusRequest{ContainerId: id})
	if err != nil {
		return "", "", err
	}
	// A container that could not be started has no log file.
	if _, err := os.Stat(response.Status.LogPath); errors.Is(err, os.ErrNotExist) {
		if response.Status.State == criapi.ContainerState_CONTAINER_CREATED {
			return "", "", noLog(pod, container, previous)
		}
	}
	return id, response.Status.LogPath, nil
}

// chooseAttempt returns the newest of the attempts, or the terminated one before it, or nil. While a container waits to be
// started again, what has just ended is both the newest and the previous one: only its status tells.
func chooseAttempt(attempts []*criapi.Container, status *corev1.ContainerStatus, previous bool) *criapi.Container {
	if len(attempts) == 0 {
		return nil
	}
	if !previous {
		return attempts[0]
	}
	if status != nil && status.LastTerminationState.Terminated != nil {
		_, id, _ := strings.Cut(status.LastTerminationState.Terminated.ContainerID, "://")
		for i, c := range attempts {
			// The status may not know yet that the newest has replaced what it calls current.
			if c.Id == id && (i > 0 || c.State == criapi.ContainerState_CONTAINER_EXITED) {
				return c
			}
		}
	}
	if len(attempts) > 1 && attempts[0].State == criapi.ContainerState_CONTAINER_RUNNING {
		return attempts[1]
	}
	return nil
}

// noLog says why there is no log.
func noLog(pod *corev1.Pod, container string, previous bool) error {
	text := fmt.Sprintf("container %q in pod %q is not available", container, pod.Name)
	current := containerStatus(pod, container)
	switch {
	case previous:
		text = fmt.Sprintf("previous terminated container %q in pod %q not found", container, pod.Name)
	case current == nil:
	case current.State.Waiting != nil:
		why := current.State.Waiting.Reason
		switch why {
		case "ErrImagePull":
			why = "trying and failing to pull image"
		case "ImagePullBackOff":
			why = "image can't be pulled"
		}
		text = fmt.Sprintf("container %q in pod %q is waiting to start: %s", container, pod.Name, why)
	case current.State.Terminated != nil:
		text = fmt.Sprintf("container %q in pod %q is terminated", container, pod.Name)
	}
	return &httpError{http.StatusBadRequest, text}
}

// isRunning says whether the container still may write to its log.
func (s *Server) isRunning(ctx context.Context, id string) (bool, error) {
	response, err := s.cfg.Runtime.ContainerStatus(ctx, &criapi.ContainerStatusRequest{ContainerId: id})
	if isNotFound(err) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	state := response.Status.State
	return state == criapi.ContainerState_CONTAINER_RUNNING || state == criapi.ContainerState_CONTAINER_CREATED, nil
}

// logResponse notes whether something was sent, after which no other status can be.
type logResponse struct {
	http.ResponseWriter
	begun bool
}

var _ io.Writer = (*logResponse)(nil)

func (l *logResponse) Write(p []byte) (int, error) {
	l.begun = true
	return l.ResponseWriter.Write(p)
}

// Flush sends what was written, and the header if nothing was yet.
func (l *logResponse) Flush() {
	l.begun = true
	_ = http.NewResponseController(l.ResponseWriter).Flush()
}
