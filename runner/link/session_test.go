package link

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/yamux"
)

// sessions are both ends of a link over a pipe.
func sessions(t *testing.T) (runner, guest *Session) {
	t.Helper()
	a, b := net.Pipe()
	runner, err := NewRunner(a)
	if err != nil {
		t.Fatal(err)
	}
	guest, err = NewGuest(b)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = runner.Close(); _ = guest.Close() })
	return runner, guest
}

// hostile is a guest that speaks the multiplexer's protocol and then whatever it likes.
func hostile(t *testing.T) (*Session, *yamux.Session) {
	t.Helper()
	a, b := net.Pipe()
	runner, err := NewRunner(a)
	if err != nil {
		t.Fatal(err)
	}
	guest, err := yamux.Client(b, config())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = runner.Close(); _ = guest.Close() })
	return runner, guest
}

func TestSession(t *testing.T) {
	runner, guest := sessions(t)
	want := Header{Purpose: Connect, Addr: netip.MustParseAddrPort("192.0.2.1:443")}
	opened := make(chan error, 1)
	go func() {
		st, err := guest.Open(want)
		if err == nil {
			var a Answer
			if a, err = st.ReadAnswer(); err == nil && a.Reason != "no" {
				err = errors.New("another answer: " + a.Reason)
			}
		}
		opened <- err
	}()
	st, err := runner.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if h, err := st.ReadHeader(); err != nil || h != want {
		t.Errorf("the header is %+v (%v), want %+v", h, err, want)
	}
	if err := st.WriteAnswer(Answer{Reason: "no"}); err != nil {
		t.Error(err)
	}
	if err := <-opened; err != nil {
		t.Error(err)
	}
}

func TestSessionEndsWithItsPeer(t *testing.T) {
	runner, guest := sessions(t)
	if err := runner.Close(); err != nil {
		t.Fatal(err)
	}
	<-guest.Done()
	if _, err := guest.Open(Header{Purpose: Control}); !isClosed(err) {
		t.Errorf("opening a stream: %v", err)
	}
	if _, err := runner.Accept(); !isClosed(err) {
		t.Errorf("accepting a stream: %v", err)
	}
}

// isClosed tells whether err means that the session, rather than one stream, has ended.
func isClosed(err error) bool {
	return errors.Is(err, yamux.ErrSessionShutdown) || errors.Is(err, io.EOF)
}

// TestSilentPeer: an end whose peer is there and says nothing gives up.
func TestSilentPeer(t *testing.T) {
	c := config()
	if c.KeepAliveInterval+c.ConnectionWriteTimeout > 25*time.Second || !c.EnableKeepAlive {
		t.Errorf("a sandbox outlives its engine by %s and %s", c.KeepAliveInterval, c.ConnectionWriteTimeout)
	}
	c.KeepAliveInterval, c.ConnectionWriteTimeout = 10*time.Millisecond, 20*time.Millisecond
	a, b := net.Pipe()
	defer b.Close()
	go func() { _, _ = io.Copy(io.Discard, b) }() // takes everything, answers nothing
	guest, err := yamux.Client(a, c)
	if err != nil {
		t.Fatal(err)
	}
	<-guest.CloseChan()
}

func TestHeaderNeverSent(t *testing.T) {
	runner, guest := hostile(t)
	st, err := guest.Open()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.Write([]byte{0, 0, 0}); err != nil { // the start of a length
		t.Fatal(err)
	}
	got, err := runner.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if h, err := got.readHeader(10 * time.Millisecond); !errors.Is(err, yamux.ErrTimeout) {
		t.Errorf("read %+v, %v", h, err)
	}
}

func TestHeaderRefused(t *testing.T) {
	for _, tt := range []struct{ name, bytes string }{
		{"giant", string(binary.BigEndian.AppendUint32(nil, maxHeader+1)) + strings.Repeat(" ", maxHeader)},
		{"unknown field", string(framed(`{"purpose":"control","more":1}`))},
		{"not JSON", string(framed(`control`))},
		{"a wrong address", string(framed(`{"purpose":"connect","addr":"host:1"}`))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			runner, guest := hostile(t)
			st, err := guest.Open()
			if err != nil {
				t.Fatal(err)
			}
			go func() { _, _ = st.Write([]byte(tt.bytes)) }() // may not be taken
			got, err := runner.Accept()
			if err != nil {
				t.Fatal(err)
			}
			if h, err := got.ReadHeader(); !errors.Is(err, ErrFrame) {
				t.Errorf("read %+v, %v", h, err)
			}
		})
	}
}

// TestTooManyStreams: a guest that opens streams without end, and keeps those that we closed, loses the session.
func TestTooManyStreams(t *testing.T) {
	runner, guest := hostile(t)
	go func() {
		for {
			if _, err := guest.Open(); err != nil {
				return
			}
		}
	}()
	for n := 0; ; n++ {
		st, err := runner.Accept()
		if err != nil {
			if !errors.Is(err, errFlood) || n > MaxStreams {
				t.Errorf("after %d streams: %v", n, err)
			}
			break
		}
		_ = st.Close()
	}
	<-runner.Done()
}

// TestPingFlood: pings are answered, each at its cost, and so there is an end to them.
func TestPingFlood(t *testing.T) {
	a, b := net.Pipe()
	runner, err := NewRunner(a)
	if err != nil {
		t.Fatal(err)
	}
	defer runner.Close()
	go func() { _, _ = io.Copy(io.Discard, b) }() // takes the answers
	ping := make([]byte, muxHeader)
	ping[1], ping[3] = muxPing, muxSYN
	sent := 0
	for ; sent < 10*pingsAtOnce; sent++ {
		if _, err := b.Write(ping); err != nil {
			break
		}
	}
	if sent > 2*pingsAtOnce {
		t.Errorf("%d pings were taken", sent)
	}
	<-runner.Done()
}

// TestGuardPassesPayload: what looks like pings in a payload is none, however it is cut.
func TestGuardPassesPayload(t *testing.T) {
	ping := make([]byte, muxHeader)
	ping[1], ping[3] = muxPing, muxSYN
	payload := bytes.Repeat(ping, 5*pingsAtOnce)
	data := make([]byte, muxHeader)
	binary.BigEndian.PutUint32(data[8:], uint32(len(payload)))
	stream := append(data, payload...)
	for _, size := range []int{1, 5, 12, 13, 1 << 20} {
		g := newGuard(nil, allBounds())
		for rest := stream; len(rest) > 0; {
			n := min(size, len(rest))
			if err := g.look(rest[:n]); err != nil {
				t.Fatalf("in pieces of %d: %v", size, err)
			}
			rest = rest[n:]
		}
		if g.have != 0 || g.skip != 0 || g.pings != 0 {
			t.Errorf("in pieces of %d: after it, the guard is %+v", size, g)
		}
	}
}
