package containerd

import (
	"context"
	"io"
	"log/slog"
	"runtime"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/sirupsen/logrus"
)

// redirectLogs sends what containerd logs to log. Its informational records tell of every single request, so they become
// debugging records here. A fatal record ends the goroutine that logs it, not the process, and is passed to fail.
func redirectLogs(log *slog.Logger, fail func(reason string)) {
	std := logrus.StandardLogger()
	std.SetOutput(io.Discard)
	std.SetFormatter(noFormat{})
	std.SetLevel(logrus.WarnLevel)
	if log.Enabled(context.Background(), slog.LevelDebug) {
		std.SetLevel(logrus.InfoLevel)
	}
	std.ReplaceHooks(logrus.LevelHooks{})
	std.AddHook(&logHook{log: log, fail: fail})
	std.ExitFunc = func(int) { runtime.Goexit() }
}

// expected are the beginnings of warnings and errors about what is normal here: the network is configured after the start,
// few file systems know fs-verity, connections to shims and to the kubelet end when their process does, and a command that runs in a
// container ends with it. What the kubelet asked for and did not get it says itself, and not at each attempt.
var expected = []string{
	"failed to load cni during init, please check CRI plugin status before setting up network for pods",
	"failed check for fsverity support",
	"ttrpc: received message on inactive stream",
	"failed sending message on channel",
	"GetContainerEvents failed",
	"GetContainerEvents for",
	"RunPodSandbox for",
	"CreateContainer within sandbox",
	"StartContainer for",
	"PullImage",
}

// isExpected tells whether a record is about what is normal.
func isExpected(e *logrus.Entry) bool {
	if slices.ContainsFunc(expected, func(prefix string) bool { return strings.HasPrefix(e.Message, prefix) }) {
		return true
	}
	err, _ := e.Data[logrus.ErrorKey].(error)
	return err != nil && strings.HasPrefix(e.Message, "ExecSync for") && (errdefs.IsNotFound(err) || errdefs.IsCanceled(err) || strings.Contains(err.Error(), "failed to exec in container"))
}

// noFormat spares the formatting of records that go nowhere.
type noFormat struct{}

func (noFormat) Format(*logrus.Entry) ([]byte, error) { return nil, nil }

// logHook passes logrus entries on to slog.
type logHook struct {
	log  *slog.Logger
	fail func(reason string)
}

func (h *logHook) Levels() []logrus.Level { return logrus.AllLevels }

func (h *logHook) Fire(e *logrus.Entry) error {
	attrs := make([]slog.Attr, 0, len(e.Data))
	for key, value := range e.Data {
		if key == logrus.ErrorKey {
			key = "err"
		}
		attrs = append(attrs, slog.Any(key, value))
	}
	slices.SortFunc(attrs, func(a, b slog.Attr) int {
		if a.Key < b.Key {
			return -1
		}
		return 1
	})
	level := slogLevel(e.Level)
	if isExpected(e) {
		level = slog.LevelDebug
	}
	h.log.LogAttrs(context.Background(), level, e.Message, attrs...)
	if e.Level <= logrus.FatalLevel {
		reason := e.Message
		if err, ok := e.Data[logrus.ErrorKey].(error); ok {
			reason += ": " + err.Error()
		}
		h.fail(reason)
	}
	return nil
}

func slogLevel(level logrus.Level) slog.Level {
	switch level {
	case logrus.PanicLevel, logrus.FatalLevel, logrus.ErrorLevel:
		return slog.LevelError
	case logrus.WarnLevel:
		return slog.LevelWarn
	default:
		return slog.LevelDebug
	}
}
