// Package link is the protocol between the runner and the guest in the container: one yamux session over one
// byte stream (the container's attached standard input and output).
//
// The guest opens every stream and says in its first frame what it is for; the runner answers. Whatever the
// guest sends is untrusted: it is bounded here, decoded strictly, and never decides anything.
package link

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/hashicorp/yamux"
)

// Purpose says what a stream carries after its header.
type Purpose string

// The purposes of streams.
const (
	Control Purpose = "control" // Frames in both directions; the first stream
	Stdin   Purpose = "stdin"   // the agent's input, runner to guest
	Stdout  Purpose = "stdout"  // the agent's output (everything, on a terminal), guest to runner
	Stderr  Purpose = "stderr"  // the agent's error output, guest to runner
	Connect Purpose = "connect" // one outgoing TCP connection: the runner sends an Answer, then bytes both ways
	Resolve Purpose = "resolve" // one name look-up: the runner sends an Answer and closes
)

// Header is the first frame of every stream.
type Header struct {
	Purpose Purpose        `json:"purpose"`
	Addr    netip.AddrPort `json:"addr,omitzero"`  // connect: the address that was dialled
	Name    string         `json:"name,omitempty"` // resolve: the name, lower case, without the trailing dot
	Type    string         `json:"type,omitempty"` // resolve: the record type, such as "A"
}

// Answer is the runner's reply to connect and resolve. The zero value refuses.
type Answer struct {
	Allowed bool   `json:"allowed"`
	Reason  string `json:"reason,omitempty"`
	// Addr is the synthetic address of an allowed name.
	Addr netip.Addr `json:"addr,omitzero"`
	// Ports are those on which connections to Addr are relayed, where not all are: see Start.Loopback.
	Ports []uint16 `json:"ports,omitempty"`
}

// Arguments that tell the guest program to be something else than process 1.
const (
	ArgExec   = "exec"   // the process that becomes the agent
	ArgXattrs = "xattrs" // a helper that prints the overlay attributes below a directory (package ovl)
	ArgEmpty  = "empty"  // a helper that removes what the kernel left in an overlay's own directory (package ovl)
)

// GuestThreads is how many threads the guest has ready before the agent starts. They are processes of the container,
// and come on top of the agent's own.
const GuestThreads = 16

const (
	// keepAlive plus peerTimeout bounds how long a guest outlives a dead engine whose shim keeps its input open.
	keepAlive   = 5 * time.Second
	peerTimeout = 20 * time.Second
	// headerTimeout bounds how long a stream may stay nameless.
	headerTimeout = 10 * time.Second
	// backlog is how many streams may wait to be accepted.
	backlog = 256
	// MaxPorts bounds the ports of one name in an Answer.
	MaxPorts = 32
	// MaxStreams is how many streams a guest has a use for at once. Each may hold what the multiplexer lets a peer send
	// before it is read, 256 KiB, but all together no more than maxUnread.
	MaxStreams = 5000
	// maxHeader bounds a stream's header in bytes: a name and an address.
	maxHeader = 4 << 10
)

// Session is one end of the link.
type Session struct {
	mux    *yamux.Session
	guard  *guard // the runner's; nil at the guest, which trusts its peer
	bounds bounds
}

// bounds are what a guest may send. They are fields because the escape suite leaves them out one by one, to show what each is
// for; see [NewWeakened].
type bounds struct {
	window  uint32 // bytes of one stream that nobody has read
	unread  int64  // of all streams together
	streams int    // open at once
	pings   int    // at once
}

func allBounds() bounds {
	return bounds{window: yamux.DefaultConfig().MaxStreamWindowSize, unread: maxUnread, streams: MaxStreams, pings: pingsAtOnce}
}

// NewRunner makes the runner's end over conn and owns conn from then on.
func NewRunner(conn io.ReadWriteCloser) (*Session, error) { return newRunner(conn, allBounds()) }

func newRunner(conn io.ReadWriteCloser, b bounds) (*Session, error) {
	g := newGuard(conn, b)
	return wrap(g, newWriter(g), b, yamux.Server)
}

// NewGuest makes the guest's end over conn and owns conn from then on.
func NewGuest(conn io.ReadWriteCloser) (*Session, error) {
	return wrap(nil, newWriter(conn), allBounds(), yamux.Client)
}

func wrap(g *guard, conn io.ReadWriteCloser, b bounds, end func(io.ReadWriteCloser, *yamux.Config) (*yamux.Session, error)) (*Session, error) {
	c := config()
	c.MaxStreamWindowSize = b.window
	mux, err := end(conn, c)
	if err != nil {
		return nil, fmt.Errorf("link: %w", err)
	}
	return &Session{mux: mux, guard: g, bounds: b}, nil
}

func config() *yamux.Config {
	c := yamux.DefaultConfig()
	c.AcceptBacklog = backlog
	c.KeepAliveInterval = keepAlive
	c.ConnectionWriteTimeout = peerTimeout
	// The guest's half of a refused or slow connection must not end the whole session.
	c.StreamOpenTimeout = 0
	// One direction of a connection may go on for hours after the other has ended. What a peer never ends counts
	// towards MaxStreams.
	c.StreamCloseTimeout = 0
	c.LogOutput = io.Discard
	return c
}

// Stream is one stream of a session, or of a lane. Close ends the own direction, the peer can go on sending.
type Stream struct {
	transport
	session *Session // nil: it is a lane's
}

type transport interface {
	net.Conn
	StreamID() uint32
}

// OnLane tells whether it is a stream of a lane.
func (s *Stream) OnLane() bool { return s.session == nil }

// Socket is the socket of a lane's stream: what is sent on it is what Write would have written. It is nil for a stream of the session.
func (s *Stream) Socket() syscall.RawConn {
	c, ok := s.transport.(*laneConn)
	if !ok {
		return nil
	}
	raw, err := c.UnixConn.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// Read reads what the peer sent. The end of the session is not an orderly end of the stream: what was on its way is lost.
func (s *Stream) Read(b []byte) (int, error) {
	n, err := s.transport.Read(b)
	if s.session == nil {
		return n, err
	}
	if g := s.session.guard; g != nil {
		g.unread.read(s.StreamID(), n)
	}
	if errors.Is(err, io.EOF) && s.session.mux.IsClosed() {
		err = yamux.ErrSessionShutdown
	}
	return n, err
}

// readOn makes reads fail as soon as they have had what is here already.
func (s *Stream) readOn() {
	if c, ok := s.transport.(*laneConn); ok {
		if c.ended != nil {
			c.once.Do(func() { close(c.ended) }) // the end that reads see now is ours
		}
		_ = c.CloseRead() // its reads look at a deadline first
		return
	}
	_ = s.SetReadDeadline(past)
}

// release gives back what the stream holds. Nobody reads or writes any more.
func (s *Stream) release() {
	if c, ok := s.transport.(*laneConn); ok {
		c.release()
	}
}

// GiveUp closes a stream that nobody reads any more. What the peer sends on it all the same counts as unread until it ends it too:
// a guest with too much of that loses its session.
func (s *Stream) GiveUp() error {
	err := s.Close()
	s.release()
	if s.session != nil && s.session.guard != nil {
		s.session.guard.unread.give(s.StreamID())
	}
	return err
}

// Open opens a stream and sends its header.
func (s *Session) Open(h Header) (*Stream, error) {
	st, err := s.Begin()
	if err != nil {
		return nil, err
	}
	if err := st.WriteHeader(h); err != nil {
		_ = st.Close()
		return nil, err
	}
	return st, nil
}

// Begin opens a stream, of which the peer can't say anything before WriteHeader has sent its header.
func (s *Session) Begin() (*Stream, error) {
	st, err := s.mux.OpenStream()
	if err != nil {
		return nil, fmt.Errorf("link: open: %w", err)
	}
	return &Stream{st, s}, nil
}

// WriteHeader sends the stream's header.
func (s *Stream) WriteHeader(h Header) error {
	if err := writeJSON(s, h); err != nil {
		return fmt.Errorf("link: open %s: %w", h.Purpose, err)
	}
	return nil
}

// Accept waits for the next stream. Its header has not been read: see ReadHeader. The error is final: a peer that has
// more than MaxStreams open, those included that we closed and it did not, loses its session.
func (s *Session) Accept() (*Stream, error) {
	st, err := s.mux.AcceptStream()
	if err != nil {
		return nil, err
	}
	if n := s.mux.NumStreams(); n > s.bounds.streams {
		return nil, errors.Join(fmt.Errorf("%w: %d streams", errFlood, n), s.Close())
	}
	return &Stream{st, s}, nil
}

// ReadHeader reads the stream's header, for no longer than ten seconds.
func (s *Stream) ReadHeader() (Header, error) { return s.readHeader(headerTimeout) }

func (s *Stream) readHeader(limit time.Duration) (Header, error) {
	if err := s.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return Header{}, err
	}
	var h Header
	if err := readJSON(s, &h, maxHeader); err != nil {
		return Header{}, err
	}
	return h, s.SetReadDeadline(time.Time{})
}

// WriteAnswer sends the runner's answer.
func (s *Stream) WriteAnswer(a Answer) error { return writeJSON(s, a) }

// ReadAnswer reads the runner's answer.
func (s *Stream) ReadAnswer() (Answer, error) {
	var a Answer
	err := readJSON(s, &a, maxHeader)
	return a, err
}

// Done is closed when the session has ended, whoever ended it.
func (s *Session) Done() <-chan struct{} { return s.mux.CloseChan() }

// Close ends the session, all its streams and the connection below.
func (s *Session) Close() error { return s.mux.Close() }
