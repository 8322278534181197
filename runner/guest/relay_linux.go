package guest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/org/agent-sandbox/runner/link"
)

// maxConnections bounds the connections that are relayed at once; more wait in the kernel's accept queue.
const maxConnections = link.MaxStreams / 2

const (
	// lastWords bounds how long an agent may take to read what came before a reset.
	lastWords = time.Second
	// endTime bounds the wait for a runner to end its side of a connection.
	endTime = 10 * time.Second
)

// relay takes the agent's TCP connections and asks the runner about each.
type relay struct {
	streams opener
	send    func(link.Frame) error
	dialled whereTo
	resets  link.Resets
	slots   chan struct{}
	open    sync.WaitGroup
	asking  sync.WaitGroup // connections that the runner has not answered

	ender
	listening sync.WaitGroup // Add only with starting held and finished false

	starting  sync.Mutex // guards what follows
	finished  bool
	listeners []*net.TCPListener
}

// opener opens streams to the runner.
type opener interface{ Begin() (*link.Stream, error) }

// ways are the lane, where there is one, and the session.
type ways struct {
	lane    *link.Lane // nil: there is none
	session *link.Session
}

// Begin implements opener.
func (w ways) Begin() (*link.Stream, error) {
	if w.lane != nil {
		if st, err := w.lane.Begin(); err == nil {
			return st, nil
		}
	}
	return w.session.Begin()
}

// whereTo tells where the agent dialled with a connection that arrived at the relay.
type whereTo func(*net.TCPConn) (netip.AddrPort, error)

func newRelay(s opener, send func(link.Frame) error) *relay {
	return &relay{streams: s, send: send, dialled: originalDestination, slots: make(chan struct{}, maxConnections)}
}

// start serves a listener of TCP until it is closed, or finish has been called.
func (r *relay) start(l net.Listener) {
	tcp := l.(*net.TCPListener)
	r.starting.Lock()
	defer r.starting.Unlock()
	if r.finished {
		_ = tcp.Close() // nobody is left to dial
		return
	}
	r.listeners = append(r.listeners, tcp)
	r.listening.Go(func() { r.serve(tcp) })
}

// finish asks the runner about the connections that are still to be accepted, and then accepts no more.
func (r *relay) finish() {
	r.starting.Lock()
	r.finished = true
	for _, l := range r.listeners {
		r.end(l.SetDeadline)
	}
	r.starting.Unlock()
	r.listening.Wait()
	waitFor(&r.asking)
}

// serve accepts until l is closed.
func (r *relay) serve(l *net.TCPListener) {
	for {
		r.deadline(l.SetDeadline, time.Time{})
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		if err != nil {
			// Out of descriptors or memory: the agent's doing. Give it time to end some connections.
			time.Sleep(50 * time.Millisecond)
			continue
		}
		r.slots <- struct{}{}
		r.open.Add(1)
		r.asking.Add(1)
		go func() {
			defer func() { <-r.slots; r.open.Done() }()
			r.handle(conn.(*net.TCPConn))
		}()
	}
}

// handle ends every connection that the runner does not allow with a reset, which programs report at once,
// where a plain close would look like a server that hung up.
func (r *relay) handle(conn *net.TCPConn) {
	defer conn.Close()
	c, err := r.ask(conn)
	if err != nil {
		r.asking.Done()
		_ = conn.SetLinger(0)
		return
	}
	c.splice(r.asking.Done)
	c.stream.Finish(endTime)
}

// ask opens a stream for conn, on which the runner then answers.
func (r *relay) ask(conn *net.TCPConn) (*relayed, error) {
	addr, err := r.dialled(conn)
	if err != nil {
		return nil, err
	}
	stream, err := r.streams.Begin()
	if err != nil {
		return nil, err
	}
	c := &relayed{conn: conn}
	c.stream = link.NewConn(stream, &r.resets, r.send, c.resetByHost)
	if err := stream.WriteHeader(link.Header{Purpose: link.Connect, Addr: addr}); err != nil {
		c.stream.Finish(0)
		return nil, err
	}
	return c, nil
}

// relayed is one connection of the agent.
type relayed struct {
	conn   *net.TCPConn
	stream *link.Conn
	broken sync.Once

	mu         sync.Mutex // guards what follows
	downEnded  bool
	resetAfter bool
}

// splice copies both ways until both ends have closed, passing half-closes and resets on. answered is called when the runner has decided;
// a connection that it does not allow is reset.
func (c *relayed) splice(answered func()) {
	decided := make(chan struct{})
	up := make(chan struct{})
	allowed := false // until decided is closed
	go func() {
		defer close(up)
		if err := relayBytes(c.stream, &early{conn: c.conn, decided: decided}); err == nil {
			_ = c.stream.Close()
			return
		}
		if <-decided; allowed { // the runner may not know yet what a reset would be for
			c.breakOff()
		}
	}()
	answer, err := c.stream.ReadAnswer()
	allowed = err == nil && answer.Allowed
	close(decided)
	answered()
	switch {
	case !allowed:
		_ = c.conn.SetLinger(0)
		_ = c.conn.Close()
	case relayBytes(c.conn, c.stream) != nil:
		c.breakOff()
	default:
		c.endDown()
	}
	<-up
}

// early lets the first bytes of an agent go to the runner together with the question about its connection, which saves a round trip:
// the runner passes none of them on before it has said yes. The rest waits for the answer.
type early struct {
	conn    net.Conn
	decided <-chan struct{}
	begun   bool
}

func (e *early) Read(b []byte) (int, error) {
	if e.begun {
		<-e.decided
	}
	e.begun = true
	return e.conn.Read(b)
}

// breakOff resets both sides.
func (c *relayed) breakOff() {
	c.broken.Do(func() {
		_ = c.conn.SetLinger(0)
		_ = c.conn.Close()
		_ = c.stream.Reset()
	})
}

// endDown passes the host's end on.
func (c *relayed) endDown() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.downEnded = true
	if c.resetAfter {
		c.breakOff()
		return
	}
	_ = c.conn.CloseWrite()
}

// resetByHost lets the agent have what the host sent before it broke off, as the kernel would, and then breaks off.
func (c *relayed) resetByHost() {
	_ = c.conn.SetWriteDeadline(time.Now().Add(lastWords))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.resetAfter = true
	if c.downEnded {
		c.breakOff()
	}
}

const (
	// smallRelayBuffer is what a quiet direction holds: thousands of connections must fit into the agent's memory.
	smallRelayBuffer = 4 << 10
	largeRelayBuffer = 64 << 10
)

// relayBytes copies until from ends. An error is one of either side.
func relayBytes(to io.Writer, from io.Reader) error {
	buf := make([]byte, smallRelayBuffer)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case n == len(buf) && n < largeRelayBuffer:
			buf = make([]byte, largeRelayBuffer)
		}
	}
}

// originalDestination is where the agent dialled before netfilter redirected the connection here
// (SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST, linux/netfilter_ipv4.h).
func originalDestination(conn *net.TCPConn) (netip.AddrPort, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return netip.AddrPort{}, err
	}
	is6 := conn.LocalAddr().(*net.TCPAddr).IP.To4() == nil
	var (
		dst    netip.AddrPort
		optErr error
	)
	err = raw.Control(func(fd uintptr) {
		const originalDst = 80
		if is6 {
			var sa *unix.IPv6MTUInfo // the first field is a struct sockaddr_in6
			if sa, optErr = unix.GetsockoptIPv6MTUInfo(int(fd), unix.IPPROTO_IPV6, originalDst); optErr == nil {
				dst = netip.AddrPortFrom(netip.AddrFrom16(sa.Addr.Addr), networkOrder(sa.Addr.Port))
			}
			return
		}
		// IPv6Mreq is 20 bytes; the kernel fills the 16 of a struct sockaddr_in.
		var sa *unix.IPv6Mreq
		if sa, optErr = unix.GetsockoptIPv6Mreq(int(fd), unix.IPPROTO_IP, originalDst); optErr == nil {
			b := sa.Multiaddr
			dst = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), uint16(b[2])<<8|uint16(b[3]))
		}
	})
	if err := errors.Join(err, optErr); err != nil {
		return netip.AddrPort{}, fmt.Errorf("original destination: %w", err)
	}
	return dst, nil
}

// networkOrder converts a port as it lies in a struct sockaddr on a little-endian machine, which all our targets are.
func networkOrder(port uint16) uint16 { return port<<8 | port>>8 }
