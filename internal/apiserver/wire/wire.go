// Package wire makes the connections of the API server cheap to write to.
//
// What flows in are connections, as a listener accepts them; what flows out are the same connections, which gather what
// is written. TLS writes each of its records by itself, and HTTP/2 has one or more of them for each frame of 16 KB: the
// headers, the body and the end of an answer are three. A system call for each of them, and waking the reader as
// often, costs more than to encrypt them. A Listener belongs below TLS.
package wire

import (
	"errors"
	"net"
	"os"
	"runtime"
	"sync"
	"time"
)

const (
	// maxPending is how many bytes may wait before writers wait, too: some records of TLS, and less than the system takes
	// without waiting for the reader.
	maxPending = 64 << 10
	// lastWords is how long a connection has to get rid of what was written before it is closed: as long as TLS gives its
	// farewell.
	lastWords = 5 * time.Second
)

// Listener makes connections of this package of those that the embedded listener accepts.
type Listener struct{ net.Listener }

// Accept waits for the next connection.
func (l Listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return newConn(c), nil
}

// conn is a connection whose writes return before the bytes are sent. What is written while the system is still busy with
// earlier bytes is sent together. An error in sending is returned by the writes after it, and the order of everything
// is kept: closing the connection sends what was written, and a deadline that cuts off writes does not cut off those that
// came before it.
type conn struct {
	net.Conn

	mu      sync.Mutex
	changed sync.Cond // sending, pending or err
	pending *[]byte   // of buffers; nil when empty
	sending bool      // a goroutine sends, until nothing is pending
	waiting int       // writers that wait for room
	err     error     // of sending, or net.ErrClosed
}

// buffers are shared by all connections: most are idle most of the time.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

func newConn(c net.Conn) *conn {
	w := &conn{Conn: c}
	w.changed.L = &w.mu
	return w
}

// Write takes p over to be sent. It waits only while too much is waiting already.
func (c *conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.err == nil && c.pending != nil && len(*c.pending) >= maxPending {
		c.waiting++
		c.changed.Wait()
		c.waiting--
	}
	if c.err != nil {
		return 0, c.err
	}
	if c.pending == nil {
		c.pending = buffers.Get().(*[]byte)
	}
	*c.pending = append(*c.pending, p...)
	if !c.sending {
		c.sending = true
		go c.send()
	}
	return len(p), nil
}

// send sends until nothing is pending. Close waits for it.
func (c *conn) send() {
	runtime.Gosched() // whoever wrote has often more to write
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.pending != nil {
		out := c.pending
		c.pending = nil
		c.changed.Broadcast()
		c.mu.Unlock()
		_, err := c.Conn.Write(*out) // fails at once after a failure
		c.mu.Lock()
		if err != nil && c.err == nil {
			c.err = err
		}
		*out = (*out)[:0]
		buffers.Put(out)
	}
	c.sending = false
	c.changed.Broadcast()
}

// end makes later writes fail, and waits until earlier ones are sent. It doesn't wait long, and not at all when somebody is
// in the middle of writing: that is cut off.
func (c *conn) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
	c.changed.Broadcast()
	if !c.sending || c.waiting > 0 {
		return
	}
	_ = c.Conn.SetWriteDeadline(time.Now().Add(lastWords)) // fails where the connection is gone
	for c.sending {
		c.changed.Wait()
	}
}

// Close sends what was written, as far as the reader takes it, and closes the connection.
func (c *conn) Close() error {
	c.end(net.ErrClosed)
	err := c.Conn.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.sending {
		c.changed.Wait()
	}
	return err
}

// SetDeadline is SetReadDeadline and SetWriteDeadline.
func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.Conn.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetWriteDeadline sets when writes fail. A time that has come already ends the writing for good, as it does with TLS, which sets
// such a deadline when it has written its farewell: that is still sent.
func (c *conn) SetWriteDeadline(t time.Time) error {
	if !t.IsZero() && time.Until(t) <= 0 {
		c.end(os.ErrDeadlineExceeded)
	}
	return c.Conn.SetWriteDeadline(t)
}
