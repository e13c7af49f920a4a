// Package hooks runs what a container declares to be run after its start and before its end.
//
// What flows in are a hook and its container; what flows out is its success.
package hooks

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/proa-k8s/proa/internal/kubelet/probe"
)

// Runner runs hooks. Exec runs a command in a container.
type Runner struct {
	Exec func(ctx context.Context, id string, command []string, timeout time.Duration) (output []byte, exitCode int32, err error)
}

// Run runs a hook to its end or until ctx is done.
func (r *Runner) Run(ctx context.Context, hook *corev1.LifecycleHandler, c *corev1.Container, id, podIP string) error {
	switch {
	case hook.Exec != nil:
		output, code, err := r.Exec(ctx, id, hook.Exec.Command, 0)
		if err != nil {
			//lint:ignore ST1005 users know these words
			return fmt.Errorf("Exec lifecycle hook (%v) for Container %q failed - error: %w", hook.Exec.Command, c.Name, err)
		}
		if code != 0 {
			//lint:ignore ST1005 users know these words
			return fmt.Errorf("Exec lifecycle hook (%v) for Container %q failed - error: command '%s' exited with %d: , message: %q",
				hook.Exec.Command, c.Name, strings.Join(hook.Exec.Command, " "), code, output)
		}
		return nil
	case hook.HTTPGet != nil:
		return get(ctx, hook.HTTPGet, c, podIP)
	case hook.Sleep != nil:
		select {
		case <-time.After(time.Duration(hook.Sleep.Seconds) * time.Second):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return errors.New("invalid handler: must specify one of exec, httpGet and sleep")
}

func get(ctx context.Context, action *corev1.HTTPGetAction, c *corev1.Container, podIP string) error {
	u, err := probe.URL(c, action, podIP)
	if err != nil {
		return err
	}
	send := func() error {
		request, err := probe.Request(ctx, u, action.HTTPHeaders, "kube-lifecycle/1.37")
		if err != nil {
			return err
		}
		answer, err := probe.Client(time.Minute).Do(request)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if answer.StatusCode < 200 || answer.StatusCode >= 400 {
			return fmt.Errorf("HTTP lifecycle hook (%s) for Container %q failed - status code %d", action.Path, c.Name, answer.StatusCode)
		}
		return nil
	}
	if err = send(); err != nil && u.Scheme == "https" && strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") {
		// Hooks were once always sent in plain text, and containers that rely on it still work.
		u.Scheme = "http"
		return send()
	}
	return err
}
