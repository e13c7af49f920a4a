package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// phasePrefix marks a notification that a phase of the start is done; "X_" is the space that sd_notify(3) leaves to
// programs of their own.
const phasePrefix = "X_PROA_PHASE="

// A Phase is a step of a cluster's start that is done.
type Phase struct {
	Name         string `json:"name"`
	Milliseconds int64  `json:"milliseconds"` // since the process began
}

// notifier tells the process that started this one how far it is, by the protocol of sd_notify(3): systemd understands it,
// and so does proa up.
type notifier struct {
	start  time.Time
	socket string
}

func newNotifier() *notifier {
	return &notifier{start: time.Now(), socket: os.Getenv("NOTIFY_SOCKET")}
}

// phase says that a phase is done. Nobody may listen: then it does nothing.
func (n *notifier) phase(name string) time.Duration {
	took := time.Since(n.start)
	n.send(fmt.Sprintf("STATUS=%s\n%s%s %d", name, phasePrefix, name, took.Milliseconds()))
	return took
}

// ready says that all phases are done.
func (n *notifier) ready() { n.send("READY=1\nSTATUS=ready") }

func (n *notifier) send(message string) {
	if n.socket == "" {
		return
	}
	name := n.socket
	if strings.HasPrefix(name, "@") {
		name = "\x00" + name[1:]
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return // who started us has gone: no reason to stop
	}
	defer conn.Close()
	_, _ = conn.Write([]byte(message))
}

// A Listener receives what a notifier sends.
type Listener struct {
	conn *net.UnixConn
	dir  string
}

// Listen makes a socket for the notifications of a process that is about to be started.
func Listen() (*Listener, error) {
	dir, err := os.MkdirTemp("", "proa-up-")
	if err != nil {
		return nil, err
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return &Listener{conn: conn, dir: dir}, nil
}

// Env is the variable that tells the process where to send to.
func (l *Listener) Env() string { return "NOTIFY_SOCKET=" + filepath.Join(l.dir, "notify") }

// Close ends a Wait and removes the socket.
func (l *Listener) Close() error {
	err := l.conn.Close()
	return errors.Join(err, os.RemoveAll(l.dir))
}

// Wait calls phase for each phase that is done, and returns when the process says that it is ready, or ctx ends.
func (l *Listener) Wait(ctx context.Context, phase func(Phase)) error {
	stop := context.AfterFunc(ctx, func() { _ = l.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, 4096)
	for {
		n, err := l.conn.Read(buf)
		if err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return err
		}
		for line := range strings.SplitSeq(string(buf[:n]), "\n") {
			if line == "READY=1" {
				return nil
			}
			if p, ok := parsePhase(line); ok {
				phase(p)
			}
		}
	}
}

func parsePhase(line string) (Phase, bool) {
	rest, ok := strings.CutPrefix(line, phasePrefix)
	if !ok {
		return Phase{}, false
	}
	i := strings.LastIndexByte(rest, ' ')
	if i < 0 {
		return Phase{}, false
	}
	ms, err := strconv.ParseInt(rest[i+1:], 10, 64)
	if err != nil {
		return Phase{}, false
	}
	return Phase{Name: rest[:i], Milliseconds: ms}, true
}
