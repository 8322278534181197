package link

import (
	"encoding/binary"
	"errors"
	"io"
	"time"
)

// errFlood ends a session whose peer sends more of what costs us than it has a reason to.
var errFlood = errors.New("link: the peer floods the session")

// The header of a yamux frame (https://github.com/hashicorp/yamux/blob/master/spec.md).
const (
	muxHeader   = 12 // bytes: version, type, flags (2), stream (4), length (4)
	muxData     = 0  // the length is that of the payload which follows
	muxWindow   = 1  // the length is what may be sent in addition
	muxPing     = 2
	muxSYN      = 1 // opens a stream; of a ping: asks for an answer
	muxFIN      = 4 // ends the sender's direction
	muxRST      = 8
	pingsAtOnce = 100
)

// guard reads what the guest sends, on its way to the multiplexer, which answers each ping in a goroutine of its own:
// a guest that sends pings and takes no answers would fill the runner's memory. A true one asks every keepAlive.
type guard struct {
	io.ReadWriteCloser
	head   [muxHeader]byte
	have   int   // bytes of head
	skip   int64 // bytes of payload before the next head
	pings  int
	most   int // of them at once
	since  time.Time
	unread unread
}

func newGuard(conn io.ReadWriteCloser, b bounds) *guard {
	return &guard{ReadWriteCloser: conn, most: b.pings, since: time.Now(), unread: unread{limit: b.unread}}
}

// Read implements io.Reader.
func (g *guard) Read(b []byte) (int, error) {
	n, err := g.ReadWriteCloser.Read(b)
	if floodErr := g.look(b[:n]); floodErr != nil {
		return 0, floodErr
	}
	return n, err
}

func (g *guard) look(b []byte) error {
	for len(b) > 0 {
		if g.skip > 0 {
			n := min(g.skip, int64(len(b)))
			g.skip -= n
			b = b[n:]
			continue
		}
		n := copy(g.head[g.have:], b)
		g.have += n
		b = b[n:]
		if g.have == muxHeader {
			g.have = 0
			if err := g.frame(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (g *guard) frame() error {
	switch flags := binary.BigEndian.Uint16(g.head[2:]); {
	case g.head[1] == muxData:
		g.skip = int64(binary.BigEndian.Uint32(g.head[8:]))
		return g.unread.frame(g.stream(), flags, g.skip)
	case g.head[1] == muxWindow:
		return g.unread.frame(g.stream(), flags, 0)
	case g.head[1] == muxPing && flags&muxSYN != 0:
		if g.pings++; g.pings > g.most+int(time.Since(g.since)/keepAlive) {
			return errFlood
		}
	}
	return nil
}

func (g *guard) stream() uint32 { return binary.BigEndian.Uint32(g.head[4:]) }
