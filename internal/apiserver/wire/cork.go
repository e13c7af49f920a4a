package wire

import (
	"net"
	"sync"
)

// cork is what TLS writes to: between hold and release, its records are kept, and then sent by one call.
type cork struct {
	net.Conn

	mu   sync.Mutex
	held *[]byte // of buffers; nil: nothing is held back
}

// Write sends p, or keeps it until release.
func (c *cork) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held != nil {
		*c.held = append(*c.held, p...)
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// hold keeps what is written from here on.
func (c *cork) hold() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = buffers.Get().(*[]byte)
}

// release sends what was kept.
func (c *cork) release() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.held
	c.held = nil
	defer giveBack(out)
	if len(*out) == 0 {
		return nil
	}
	_, err := c.Conn.Write(*out)
	return err
}
