package cluster

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestNotifyReachesListener(t *testing.T) {
	l, err := Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	n := &notifier{start: time.Now(), socket: strings.TrimPrefix(l.Env(), "NOTIFY_SOCKET=")}
	n.phase("API serves")
	n.phase("node ready")
	n.ready()

	var got []string
	if err := l.Wait(t.Context(), func(p Phase) { got = append(got, p.Name) }); err != nil {
		t.Fatal(err)
	}
	if want := []string{"API serves", "node ready"}; !slices.Equal(got, want) {
		t.Errorf("phases %q, want %q", got, want)
	}
}

func TestListenerWaitEndsWithContext(t *testing.T) {
	l, err := Listen()
	if err != nil {
		t.Fatal(err)
	}
	died := errors.New("the process died")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(died)
	if err := l.Wait(ctx, func(Phase) {}); !errors.Is(err, died) {
		t.Errorf("Wait: %v, want %v", err, died)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(l.dir); !os.IsNotExist(err) {
		t.Errorf("the listener left %s behind", l.dir)
	}
}

func TestParsePhase(t *testing.T) {
	for line, want := range map[string]Phase{
		"X_PROA_PHASE=node ready 812": {"node ready", 812},
		"X_PROA_PHASE=x":              {},
		"X_PROA_PHASE=x y":            {},
		"STATUS=node ready 812":       {},
	} {
		got, ok := parsePhase(line)
		if got != want || ok != (want != Phase{}) {
			t.Errorf("parsePhase(%q) = %v, %v", line, got, ok)
		}
	}
}
