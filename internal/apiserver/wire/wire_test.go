package wire

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"testing"
	"time"
)

// pair is a connection of this package, and its other end.
func pair(t testing.TB) (*conn, net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	other, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c, err := Listener{l}.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		other.Close()
		c.Close()
	})
	return c.(*conn), other
}

// TestAllArrives writes in pieces of all sizes, more than fits anywhere, and closes at once.
func TestAllArrives(t *testing.T) {
	c, other := pair(t)
	want := make([]byte, 0, 8<<20)
	for n := 1; len(want) < 7<<20; n = n%40000 + 97 {
		want = append(want, bytes.Repeat([]byte{byte(n)}, n)...)
	}
	failed := make(chan error, 1)
	go func() {
		rest := want
		for n := 1; len(rest) > 0; n = n*3%70001 + 1 {
			n = min(n, len(rest))
			piece := bytes.Clone(rest[:n])
			if _, err := c.Write(piece); err != nil {
				failed <- err
				break
			}
			clear(piece) // it belongs to the writer again
			rest = rest[n:]
		}
		failed <- c.Close()
	}()
	if got, err := io.ReadAll(other); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d of %d bytes arrived, or others: %v", len(got), len(want), err)
	}
	if err := <-failed; err != nil {
		t.Error(err)
	}
}

// TestGathers wants what is written while the system is busy to be sent by one call.
func TestGathers(t *testing.T) {
	slow := &gate{started: make(chan struct{}, 1), open: make(chan struct{})}
	c := newConn(slow)
	if _, err := c.Write([]byte("a")); err != nil {
		t.Fatal(err)
	}
	<-slow.started
	for range 1000 {
		if _, err := c.Write([]byte("b")); err != nil {
			t.Fatal(err)
		}
	}
	close(slow.open)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if len(slow.sizes) != 2 || slow.sizes[0] != 1 || slow.sizes[1] != 1000 {
		t.Errorf("sent in pieces of %v", slow.sizes)
	}
}

// TestWritersWait wants writers to wait for a reader who doesn't keep up, until the connection is closed.
func TestWritersWait(t *testing.T) {
	slow := &gate{started: make(chan struct{}, 1), open: make(chan struct{}), closed: func(g *gate) { close(g.open) }}
	c := newConn(slow)
	if _, err := c.Write(make([]byte, maxPending)); err != nil {
		t.Fatal(err)
	}
	<-slow.started
	if _, err := c.Write(make([]byte, maxPending)); err != nil {
		t.Fatal(err)
	}
	failed := make(chan error)
	go func() {
		_, err := c.Write([]byte("too much"))
		failed <- err
	}()
	c.mu.Lock()
	for c.waiting == 0 {
		c.mu.Unlock()
		select {
		case err := <-failed:
			t.Fatalf("the writer did not wait: %v", err)
		default:
			runtime.Gosched()
		}
		c.mu.Lock()
	}
	c.mu.Unlock()
	// A writer is cut off: closing must not wait for the reader.
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; !errors.Is(err, net.ErrClosed) {
		t.Errorf("the writer got %v", err)
	}
}

// TestErrors wants a failure in sending to be told to a later writer, and closing not to hang.
func TestErrors(t *testing.T) {
	c := newConn(&gate{err: io.ErrUnexpectedEOF, open: closedChannel()})
	var err error
	for err == nil {
		_, err = c.Write([]byte("x"))
	}
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// TestDeadline wants a deadline that has passed to end writing, but not to take back what was written, as at the end of a
// connection of TLS.
func TestDeadline(t *testing.T) {
	c, other := pair(t)
	if _, err := c.Write([]byte("farewell")); err != nil {
		t.Fatal(err)
	}
	if err := c.SetWriteDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("too late")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a write after the deadline: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(other); err != nil || string(got) != "farewell" {
		t.Errorf("got %q, %v", got, err)
	}
}

// gate is a connection whose writes wait until it is open.
type gate struct {
	net.Conn
	open    chan struct{}
	started chan struct{} // gets a token with each write
	closed  func(*gate)
	err     error
	sizes   []int
}

func (g *gate) Write(p []byte) (int, error) {
	select {
	case g.started <- struct{}{}:
	default:
	}
	<-g.open
	g.sizes = append(g.sizes, len(p))
	return len(p), g.err
}

func (g *gate) SetWriteDeadline(time.Time) error { return nil }

func (g *gate) Close() error {
	if g.closed != nil {
		g.closed(g)
	}
	return nil
}

func closedChannel() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}
