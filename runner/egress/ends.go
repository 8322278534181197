package egress

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// hostEnd is one connection to the host; what is sent on it counts as going up.
type hostEnd struct {
	net.Conn
	in *inspection
}

func (h *hostEnd) Write(p []byte) (int, error) {
	n, err := h.in.c.up.writeTo(h.Conn, p)
	return n, h.in.c.note(err)
}

func (h *hostEnd) Close() error {
	h.in.mu.Lock()
	delete(h.in.hosts, h)
	h.in.mu.Unlock()
	return h.Conn.Close()
}

// note ends the whole connection when a limit was met, and returns the error.
func (c *connection) note(err error) error {
	var e *end
	if errors.As(err, &e) {
		c.end(e)
	}
	return err
}

// agentEnd is the agent's connection as net/http gets it.
type agentEnd struct {
	c    *connection
	in   *inspection
	rest io.Reader

	mu      sync.Mutex // guards what follows
	aborted bool
	once    sync.Once
	closed  chan struct{}
}

// Read makes one kind of all timeouts: TLS gives a connection up after one that does not call itself temporary, and net/http ends
// the reading ahead after each request with a deadline.
func (a *agentEnd) Read(p []byte) (int, error) {
	n, err := a.rest.Read(p)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		err = os.ErrDeadlineExceeded
	}
	return n, err
}

func (a *agentEnd) Write(p []byte) (int, error) {
	n, err := a.c.down.Write(p)
	return n, a.c.note(err)
}

// Close ends both directions for whoever serves the connection; the agent's socket is the gateway's to close.
func (a *agentEnd) Close() error {
	a.once.Do(func() { close(a.closed) })
	a.abort()
	return nil
}

// abort ends every read and write, and no later deadline lifts that.
func (a *agentEnd) abort() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.aborted = true
	_ = a.c.client.SetDeadline(past)
}

func (a *agentEnd) deadline(set func(time.Time) error, t time.Time) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.aborted {
		t = past
	}
	return set(t)
}

func (a *agentEnd) SetDeadline(t time.Time) error { return a.deadline(a.c.client.SetDeadline, t) }

func (a *agentEnd) SetReadDeadline(t time.Time) error {
	return a.deadline(a.c.client.SetReadDeadline, t)
}

func (a *agentEnd) SetWriteDeadline(t time.Time) error {
	return a.deadline(a.c.client.SetWriteDeadline, t)
}

func (a *agentEnd) LocalAddr() net.Addr  { return a.c.client.LocalAddr() }
func (a *agentEnd) RemoteAddr() net.Addr { return a.c.client.RemoteAddr() }
