package link

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// laneTimeout bounds a guest's arrival at the socket that it has connected to, and the runner's welcome.
const laneTimeout = 5 * time.Second

// LaneHost is the runner's side of a lane that is not there yet: a socket to which one guest can connect, once.
type LaneHost struct {
	Nonce []byte // what the guest has to say

	dir      string
	listener *net.UnixListener
	done     chan struct{}
	lane     *Lane // what follows is written before done is closed
	err      error
}

// NewLaneHost makes a directory, which must not exist, and in it another, [LaneHost.Dir], with the socket. Only who reaches that
// directory can connect: on the host this user, in the sandbox the guest.
func NewLaneHost(dir string) (_ *LaneHost, err error) {
	h := &LaneHost{Nonce: make([]byte, laneNonce), dir: dir, done: make(chan struct{})}
	_, _ = rand.Read(h.Nonce) // it never fails
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	if err := errors.Join(os.Mkdir(h.Dir(), 0o755), os.Chmod(h.Dir(), 0o755)); err != nil {
		return nil, err
	}
	socket := filepath.Join(h.Dir(), laneName)
	if h.listener, err = net.ListenUnix("unixpacket", &net.UnixAddr{Name: socket, Net: "unixpacket"}); err != nil {
		return nil, err
	}
	// The guest is another user here, without the right to pass over modes.
	if err := os.Chmod(socket, 0o666); err != nil {
		return nil, errors.Join(err, h.listener.Close())
	}
	go h.serve()
	return h, nil
}

// Dir is the directory with the socket.
func (h *LaneHost) Dir() string { return LaneSource(h.dir) }

// serve welcomes the first who connects, if it is the guest. Before that it sees to it that there is no second.
func (h *LaneHost) serve() {
	defer close(h.done)
	conn, err := h.listener.AcceptUnix()
	h.err = h.remove()
	if err != nil {
		return // nobody came, and none is needed
	}
	if h.err == nil && h.welcome(conn) == nil {
		h.lane = newLane(conn)
		return
	}
	_ = conn.Close()
}

// remove takes the socket and the directory away, also from a sandbox that has it mounted.
func (h *LaneHost) remove() error {
	_ = h.listener.Close()
	if err := os.RemoveAll(h.dir); err != nil {
		return fmt.Errorf("remove the lane's socket: %w", err)
	}
	if _, err := os.Lstat(h.dir); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the lane's directory %s is still there: %v", h.dir, err)
	}
	return nil
}

func (h *LaneHost) welcome(conn *net.UnixConn) error {
	if err := conn.SetDeadline(time.Now().Add(laneTimeout)); err != nil {
		return err
	}
	said := make([]byte, laneNonce+1)
	n, err := conn.Read(said)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(said[:n], h.Nonce) != 1 {
		return errors.New("link: somebody else came to the lane")
	}
	if _, err := conn.Write([]byte{1}); err != nil {
		return err
	}
	return conn.SetDeadline(time.Time{})
}

// Take ends the wait for the guest, and returns the lane if it has come. An error means that the socket may still be there.
func (h *LaneHost) Take() (*Lane, error) {
	_ = h.listener.Close()
	<-h.done
	return h.lane, h.err
}

// DialLane is the guest's way to its lane. When it returns one, the socket is gone.
func DialLane(nonce []byte) (*Lane, error) { return dialLane(LaneSocket, nonce) }

func dialLane(socket string, nonce []byte) (_ *Lane, err error) {
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: socket, Net: "unixpacket"})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = conn.Close()
		}
	}()
	if err := conn.SetDeadline(time.Now().Add(2 * laneTimeout)); err != nil {
		return nil, err
	}
	if _, err := conn.Write(nonce); err != nil {
		return nil, err
	}
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		return nil, err
	}
	return &Lane{conn: conn}, conn.SetDeadline(time.Time{})
}

// Accept waits until the guest asks for a stream. The header has not been read, as with [Session.Accept]. The error is final.
func (l *Lane) Accept() (*Stream, error) {
	for {
		var ask [laneAsk]byte
		// Descriptors that a guest sends along are dropped by the kernel: there is no room for them.
		n, err := l.conn.Read(ask[:])
		if err != nil {
			return nil, err
		}
		if n == laneAsk && ask[0] == laneEnds {
			l.end(binary.BigEndian.Uint32(ask[1:]))
			continue
		}
		c, err := l.hand()
		if err != nil {
			return nil, err
		}
		if c != nil {
			return &Stream{transport: c}, nil
		}
	}
}

// hand makes a stream and gives the guest its end. It has none, and the guest takes the session, if descriptors have run out.
func (l *Lane) hand() (*laneConn, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		_, err := l.conn.Write(make([]byte, 4))
		return nil, err
	}
	defer unix.Close(fds[1])
	conn, err := socketOf(fds[0])
	if err != nil {
		_, err := l.conn.Write(make([]byte, 4))
		return nil, err
	}
	c, err := l.add(conn)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if l.count() <= maxWide {
		// For speed alone: what can't be had is no error.
		_ = conn.SetWriteBuffer(wideBuffer)
		_ = unix.SetsockoptInt(fds[1], unix.SOL_SOCKET, unix.SO_SNDBUF, wideBuffer)
	}
	number := binary.BigEndian.AppendUint32(nil, c.id)
	if _, _, err := l.conn.WriteMsgUnix(number, unix.UnixRights(fds[1]), nil); err != nil {
		c.release()
		return nil, err
	}
	return c, nil
}

const (
	// wideBuffer is what a socket may hold, in bytes; the kernel doubles it, and has a bound of its own (net.core.wmem_max). The ends
	// wake each other a third as often as with the usual 212,992: 1 GiB through both took 2.0 s of processor time instead of 2.4.
	wideBuffer = 500_000
	// maxWide bounds the streams that have so much: what nobody reads is the kernel's memory.
	maxWide = 64
)

// Begin opens a stream, as [Session.Begin] does.
func (l *Lane) Begin() (*Stream, error) {
	l.asking.Lock()
	defer l.asking.Unlock()
	if _, err := l.conn.Write([]byte{laneOpens}); err != nil {
		return nil, err
	}
	var number [4]byte
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := l.conn.ReadMsgUnix(number[:], oob)
	if err != nil || n != len(number) {
		_ = l.conn.Close() // the next answer would be this one
		return nil, errors.Join(err, errNoLane)
	}
	if oobn == 0 {
		return nil, errNoLane
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) != 1 {
		return nil, errors.Join(err, errNoLane)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, errors.Join(err, errNoLane)
	}
	conn, err := socketOf(fds[0])
	if err != nil {
		return nil, err
	}
	return &Stream{transport: &laneConn{UnixConn: conn, id: binary.BigEndian.Uint32(number[:]), lane: l}}, nil
}

// socketOf owns fd from then on.
func socketOf(fd int) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), "lane")
	defer f.Close() // FileConn has one of its own
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}
