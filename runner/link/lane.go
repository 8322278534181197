package link

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync"
)

const (
	// LaneDir is where a guest finds the socket of its lane. As soon as it has connected, before there is an agent, that is an empty
	// directory which exists nowhere else any more, so that nobody can put anything there.
	LaneDir = "/.sandbox-lane"
	// LaneSocket is the socket.
	LaneSocket = LaneDir + "/" + laneName
	laneName   = "socket"
	// laneNonce is how many bytes a guest proves itself with. It has them from the session.
	laneNonce = 32
)

// LaneSource is what is mounted at LaneDir, read-only, for a lane in dir.
func LaneSource(dir string) string { return filepath.Join(dir, "lane") }

// errNoLane is the guest's when the runner is gone, or has no descriptors left.
var errNoLane = errors.New("link: no stream on the lane")

// Lane carries streams beside a session, where runner and guest share a kernel: each is a socket pair, of which the runner keeps one end and
// hands the other to the guest. So bytes are spared the way through the engine, which copies them four times, and the kernel bounds
// what is under way. Everything that the end of a run depends on stays in the session.
type Lane struct {
	conn   *net.UnixConn // of packets: the guest asks with one, and the runner answers with the stream's number and socket
	asking sync.Mutex    // the guest's: one question at a time

	over chan struct{} // the runner's, as is what follows; nil at the guest
	mu   sync.Mutex    // guards what follows
	open map[uint32]*laneConn
	last uint32
}

func newLane(conn *net.UnixConn) *Lane {
	return &Lane{conn: conn, over: make(chan struct{}), open: map[uint32]*laneConn{}}
}

// The guest's packets: it wants a stream, or it has ended its direction of the one whose number follows. The kernel ends a stream in the
// same way when the guest dies, and what was then still to be sent must not be missing unseen.
const (
	laneOpens = 1
	laneEnds  = 2
	laneAsk   = 1 + 4 // bytes
)

// Close ends the lane and, at the runner, all its streams.
func (l *Lane) Close() error {
	err := l.conn.Close()
	if l.over == nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open != nil {
		close(l.over)
	}
	for _, c := range l.open {
		_ = c.UnixConn.Close()
	}
	l.open = nil
	return err
}

// add numbers a stream. The session's are odd, since the guest opens them (yamux), so these are even.
func (l *Lane) add(conn *net.UnixConn) (*laneConn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open == nil {
		return nil, net.ErrClosed
	}
	if l.last += 2; l.last == 0 { // after two thousand million
		l.last = 2
	}
	c := &laneConn{UnixConn: conn, id: l.last, lane: l, ended: make(chan struct{})}
	l.open[c.id] = c
	return c, nil
}

// count is how many streams are open.
func (l *Lane) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.open)
}

// end notes that the guest has ended its direction of a stream. One that has gone, or never was, is ignored.
func (l *Lane) end(id uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.open[id]; c != nil {
		c.once.Do(func() { close(c.ended) })
	}
}

// laneConn is one end of a stream on a lane.
type laneConn struct {
	*net.UnixConn
	id   uint32
	lane *Lane

	once  sync.Once
	ended chan struct{} // the runner's: the guest has said so
}

// StreamID is the stream's number.
func (c *laneConn) StreamID() uint32 { return c.id }

// Read reads what the peer sent. That the guest has died is no end.
func (c *laneConn) Read(b []byte) (int, error) {
	n, err := c.UnixConn.Read(b)
	if c.ended == nil || !errors.Is(err, io.EOF) {
		return n, err
	}
	select {
	case <-c.ended:
		return n, err
	case <-c.lane.over:
		return n, net.ErrClosed
	}
}

// Close ends the own direction.
func (c *laneConn) Close() error {
	if c.ended == nil {
		c.once.Do(func() { _, _ = c.lane.conn.Write(binary.BigEndian.AppendUint32([]byte{laneEnds}, c.id)) })
	}
	return c.CloseWrite()
}

// release gives the socket back.
func (c *laneConn) release() {
	_ = c.UnixConn.Close()
	c.lane.mu.Lock()
	defer c.lane.mu.Unlock()
	delete(c.lane.open, c.id)
}
