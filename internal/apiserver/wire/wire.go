// Package wire makes the connections of the API server cheap to write to.
//
// What flows in is a listener and an HTTP server; the server serves the connections that the listener accepts, with TLS.
// Those that speak HTTP/2 gather what is written, above TLS and below it. HTTP/2 writes each frame by itself: the headers, the
// body and the end of an answer, the same event for each of a hundred watches, 16 KB of a list. A record of TLS for each of
// them, a system call for each record, and waking the reader as often, on both ends, costs more than what the records hold.
//
// net/http knows TLS by the type of a connection, which is another here: it finds HTTP/2 by its preface, as it does
// without TLS, and is told of TLS in the context.
package wire

import (
	"crypto/tls"
	"net"
	"runtime"
	"sync"
	"time"
)

const (
	// maxPending is how many bytes may wait before writers wait, too: some records of TLS, and less than the system takes
	// without waiting for the reader.
	maxPending = 64 << 10
	// maxKept is the size of buffers that are used again.
	maxKept = 4 * maxPending
	// lastWords is how long a connection has to get rid of what was written before it is closed: as long as TLS gives its
	// farewell.
	lastWords = 5 * time.Second
)

// conn is a connection whose writes return before the bytes are sent. What is written while earlier bytes are still being
// encrypted and sent is sent together. An error in sending is returned by the writes after it, and the order of everything
// is kept: closing the connection sends what was written.
type conn struct {
	net.Conn                     // with TLS
	below    *cork               // what TLS writes to
	state    tls.ConnectionState // since the handshake

	mu      sync.Mutex
	changed sync.Cond // sending, pending or err
	pending *[]byte   // of buffers; nil when empty
	sending bool      // a goroutine sends, until nothing is pending
	waiting int       // writers that wait for room
	err     error     // of sending, or net.ErrClosed
}

// buffers are shared by all connections: most are idle most of the time.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// giveBack keeps a buffer for the next who needs one.
func giveBack(buf *[]byte) {
	if cap(*buf) <= maxKept {
		*buf = (*buf)[:0]
		buffers.Put(buf)
	}
}

func newConn(secure net.Conn, below *cork, state tls.ConnectionState) *conn {
	c := &conn{Conn: secure, below: below, state: state}
	c.changed.L = &c.mu
	return c
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
		c.below.hold()
		_, err := c.Conn.Write(*out) // fails at once after a failure
		if sent := c.below.release(); err == nil {
			err = sent
		}
		giveBack(out)
		c.mu.Lock()
		if err != nil && c.err == nil {
			c.err = err
		}
	}
	c.sending = false
	c.changed.Broadcast()
}

// end makes later writes fail, and waits until earlier ones are sent. It doesn't wait long, and not at all when somebody is
// in the middle of writing: then it says that what is being sent is to be cut off.
func (c *conn) end() (cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = net.ErrClosed
	}
	c.changed.Broadcast()
	if c.waiting > 0 {
		return true
	}
	if !c.sending {
		return false
	}
	_ = c.Conn.SetWriteDeadline(time.Now().Add(lastWords)) // fails where the connection is gone
	for c.sending {
		c.changed.Wait()
	}
	return false
}

// Close sends what was written, as far as the reader takes it, and closes the connection.
func (c *conn) Close() error {
	var err error
	if c.end() {
		err = c.below.Close()
	} else {
		err = c.Conn.Close()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.sending {
		c.changed.Wait()
	}
	return err
}
