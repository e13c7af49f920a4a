package cluster

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

func TestQuietHandler(t *testing.T) {
	for _, tc := range []struct {
		level   slog.Level
		log     func(*slog.Logger)
		visible bool
	}{
		{slog.LevelInfo, func(l *slog.Logger) { l.Info("x") }, false},
		{slog.LevelInfo, func(l *slog.Logger) { l.Warn("x") }, true},
		{slog.LevelInfo, func(l *slog.Logger) { l.Error("x") }, true},
		{slog.LevelInfo, func(l *slog.Logger) { l.Error("Error on socket receive") }, false},
		{slog.LevelDebug, func(l *slog.Logger) { l.Error("Error on socket receive") }, true},
		{slog.LevelDebug, func(l *slog.Logger) { l.Info("x") }, true},
		{slog.LevelError, func(l *slog.Logger) { l.With("a", "b").WithGroup("g").Warn("x") }, false},
	} {
		var buf bytes.Buffer
		tc.log(slog.New(quietHandler{slog.NewTextHandler(&buf, &slog.HandlerOptions{Level: tc.level})}))
		if got := buf.Len() > 0; got != tc.visible {
			t.Errorf("at level %s: %q", tc.level, buf.String())
		}
	}
}

func TestHandshakeErrors(t *testing.T) {
	for message, want := range map[string]string{
		"http: TLS handshake error from 127.0.0.1:1: EOF": "",
		"http: Accept error: too many open files":         "level=WARN",
	} {
		var buf bytes.Buffer
		slog.NewLogLogger(handshakeErrors{slog.NewTextHandler(&buf, nil)}, slog.LevelDebug).Print(message)
		if got := buf.String(); (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("%s: logged %q", message, got)
		}
	}
}
