package link

import (
	"errors"
	"io"
	"sync"
	"time"
)

// past is a deadline that ends every read and write that would have to wait.
var past = time.Unix(1, 0)

// Reset says that the connection on a stream was broken off. The multiplexer can end a direction only in order, which would pass half of a
// file for the whole. It goes over the control stream, behind everything that was sent on the stream itself. Whoever sent it
// does not end the stream before the peer has, so that no end overtakes it.
type Reset struct {
	Stream uint32 `json:"stream"` // [Stream.StreamID]
}

// Resets leads the peer's resets to the connections that they are for. The zero Resets has none. It is safe for
// concurrent use.
type Resets struct {
	mu    sync.Mutex // guards conns
	conns map[uint32]*Conn
}

// Reset acts on a frame of the peer. One for a stream that has ended, or that there never was, is ignored.
func (r *Resets) Reset(f Reset) {
	r.mu.Lock()
	c := r.conns[f.Stream]
	r.mu.Unlock()
	if c != nil {
		c.resetByPeer()
	}
}

func (r *Resets) add(c *Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conns == nil {
		r.conns = map[uint32]*Conn{}
	}
	r.conns[c.StreamID()] = c
}

func (r *Resets) remove(c *Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conns[c.StreamID()] == c {
		delete(r.conns, c.StreamID())
	}
}

// Conn is one end of a connection on a stream: it can be broken off.
type Conn struct {
	*Stream
	resets  *Resets
	send    func(Frame) error
	onReset func()

	mu          sync.Mutex // guards what follows, and the read deadline against resetByPeer
	own, theirs bool       // who has broken off
}

// NewConn makes an end of a connection that is broken off by frames of a control stream: send sends them, and what the peer sends is
// to be given to resets. When the peer breaks off, reads go on to what had come before, and then fail; onReset is called, once, and returns quickly.
// Finish must be called.
func NewConn(s *Stream, resets *Resets, send func(Frame) error, onReset func()) *Conn {
	c := &Conn{Stream: s, resets: resets, send: send, onReset: onReset}
	resets.add(c)
	return c
}

func (c *Conn) resetByPeer() {
	c.mu.Lock()
	first := !c.theirs
	c.theirs = true
	c.readOn()
	c.mu.Unlock()
	if first {
		c.onReset()
	}
}

// errReset is what a read ends with after the peer has broken off.
var errReset = errors.New("link: the peer broke off")

// Read reads what the peer sent before it ended its direction, or broke off.
func (c *Conn) Read(b []byte) (int, error) {
	n, err := c.Stream.Read(b)
	if errors.Is(err, io.EOF) && c.OnLane() { // see readOn
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.theirs {
			err = errReset
		}
	}
	return n, err
}

// Reset breaks off, unless the peer has. Reads and writes that wait fail.
func (c *Conn) Reset() error {
	c.mu.Lock()
	tell := !c.own && !c.theirs
	c.own = true
	c.mu.Unlock()
	_ = c.SetDeadline(past)
	if !tell {
		return nil
	}
	return c.send(Frame{Reset: &Reset{Stream: c.StreamID()}})
}

// Finish ends a connection on which nothing is read or written any more. A peer that goes on sending is given so long, and
// is then broken off; one that does not even act on that is left to the limit on streams.
func (c *Conn) Finish(limit time.Duration) {
	defer c.resets.remove(c)
	defer c.release()
	defer c.Close()
	c.mu.Lock()
	own := c.own
	c.mu.Unlock()
	if !own {
		_ = c.Close()
		if c.await(limit) {
			return
		}
		_ = c.Reset()
	}
	c.await(limit)
}

// await reports whether the peer ends its direction in time, or breaks off.
func (c *Conn) await(limit time.Duration) bool {
	c.mu.Lock()
	if c.theirs {
		c.mu.Unlock()
		return true
	}
	_ = c.SetReadDeadline(time.Now().Add(limit))
	c.mu.Unlock()
	_, err := io.Copy(io.Discard, struct{ io.Reader }{c.Stream})
	c.mu.Lock()
	defer c.mu.Unlock()
	return err == nil || c.theirs
}
