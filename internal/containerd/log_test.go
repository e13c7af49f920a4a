package containerd

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"
)

// TestLogHook looks at what becomes of containerd's records.
func TestLogHook(t *testing.T) {
	for _, test := range []struct{ message, err, want string }{
		{"something broke", "no space left on device", `level=ERROR msg="something broke" err="no space left on device"`},
		{`RunPodSandbox for name:"p" failed, error`, "no runtime for \"x\" is configured", "level=DEBUG"},
		{`CreateContainer within sandbox "a" for name:"c" failed`, "cannot load seccomp profile", "level=DEBUG"},
		{`ExecSync for "a" failed`, "failed to exec in container: no such file", "level=DEBUG"},
		{`ExecSync for "a" failed`, "the shim does not answer", "level=ERROR"},
	} {
		var out bytes.Buffer
		hook := &logHook{log: slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})), fail: func(string) { t.Error("failed") }}
		entry := logrus.NewEntry(logrus.New()).WithError(errors.New(test.err))
		entry.Level, entry.Message = logrus.ErrorLevel, test.message
		if err := hook.Fire(entry); err != nil || !strings.Contains(out.String(), test.want) {
			t.Errorf("%s: got %q, %v, want %s", test.message, out.String(), err, test.want)
		}
	}
}
