package link

import (
	"errors"
	"io"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/yamux"
)

// side is one end of a link with its control stream.
type side struct {
	control *Stream
	resets  Resets
	conn    *Conn
	reset   atomic.Int32
}

func (s *side) send(f Frame) error { return WriteFrame(s.control, f) }

// obey gives the peer's resets to their connections until the link ends.
func (s *side) obey() {
	for {
		f, err := ReadFrame(s.control)
		if err != nil {
			return
		}
		if f.Reset != nil {
			s.resets.Reset(*f.Reset)
		}
	}
}

// conns are both ends of one connection.
func conns(t *testing.T) (runner, guest *side) {
	t.Helper()
	r, g := sessions(t)
	runner, guest = &side{}, &side{}
	accept := func(purpose Purpose) *Stream {
		st, err := r.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if h, err := st.ReadHeader(); err != nil || h.Purpose != purpose {
			t.Fatalf("the header is %+v (%v)", h, err)
		}
		return st
	}
	var err error
	if guest.control, err = g.Open(Header{Purpose: Control}); err != nil {
		t.Fatal(err)
	}
	runner.control = accept(Control)
	st, err := g.Begin()
	if err != nil {
		t.Fatal(err)
	}
	guest.conn = NewConn(st, &guest.resets, guest.send, func() { guest.reset.Add(1) })
	if err := st.WriteHeader(Header{Purpose: Connect, Addr: netip.MustParseAddrPort("192.0.2.1:443")}); err != nil {
		t.Fatal(err)
	}
	runner.conn = NewConn(accept(Connect), &runner.resets, runner.send, func() { runner.reset.Add(1) })
	go runner.obey()
	go guest.obey()
	return runner, guest
}

// TestConnReset: what was sent before comes, then an error and never an end; whichever side breaks off.
func TestConnReset(t *testing.T) {
	for _, which := range []string{"runner", "guest"} {
		t.Run(which, func(t *testing.T) {
			from, to := conns(t)
			if which == "guest" {
				from, to = to, from
			}
			const sent = "half of a file"
			if _, err := io.WriteString(from.conn, sent); err != nil {
				t.Fatal(err)
			}
			if err := from.conn.Reset(); err != nil {
				t.Fatal(err)
			}
			finished := make(chan struct{})
			go func() {
				defer close(finished)
				from.conn.Finish(time.Hour)
			}()
			got, err := io.ReadAll(to.conn)
			if string(got) != sent || !errors.Is(err, yamux.ErrTimeout) {
				t.Errorf("read %q, %v", got, err)
			}
			to.conn.Finish(time.Hour)
			<-finished
			if to.reset.Load() != 1 || from.reset.Load() != 0 {
				t.Errorf("told %d and %d times", to.reset.Load(), from.reset.Load())
			}
			if len(to.resets.conns) != 0 || len(from.resets.conns) != 0 {
				t.Errorf("%d and %d connections are remembered", len(to.resets.conns), len(from.resets.conns))
			}
		})
	}
}

// TestConnResetByBoth: a side that waits for the peer to read does not wait for ever, nor do two that break off at once.
func TestConnResetByBoth(t *testing.T) {
	runner, guest := conns(t)
	written := make(chan error, 1)
	go func() {
		_, err := guest.conn.Write(make([]byte, 1<<20)) // more than the multiplexer takes
		written <- err
	}()
	if _, err := io.ReadFull(runner.conn, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(runner.conn.Reset(), guest.conn.Reset()); err != nil {
		t.Fatal(err)
	}
	if err := <-written; !errors.Is(err, yamux.ErrTimeout) {
		t.Errorf("the writer ended with %v", err)
	}
	go runner.conn.Finish(time.Hour)
	guest.conn.Finish(time.Hour)
}

// TestConnHalfClosed: an end of one direction leaves the other as it is, and is told apart from a reset.
func TestConnHalfClosed(t *testing.T) {
	runner, guest := conns(t)
	if err := guest.conn.Close(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(runner.conn); err != nil || len(b) != 0 {
		t.Errorf("read %q, %v", b, err)
	}
	if _, err := io.WriteString(runner.conn, "the rest"); err != nil {
		t.Fatal(err)
	}
	go runner.conn.Finish(time.Hour)
	if b, err := io.ReadAll(guest.conn); err != nil || string(b) != "the rest" {
		t.Errorf("read %q, %v", b, err)
	}
	guest.conn.Finish(time.Hour)
	if runner.reset.Load()+guest.reset.Load() != 0 {
		t.Error("a connection that ended in order counts as reset")
	}
}

// TestConnFinishCutsOff: a peer that goes on sending is broken off, and one that ignores even that is not waited for.
func TestConnFinishCutsOff(t *testing.T) {
	runner, guest := conns(t)
	runner.conn.Finish(time.Millisecond)
	if _, err := io.ReadAll(guest.conn); err != nil && !errors.Is(err, yamux.ErrTimeout) {
		t.Error(err)
	}
	for guest.reset.Load() == 0 {
		if _, err := guest.conn.Write(make([]byte, 1<<10)); err != nil {
			break
		}
	}
}

// TestSessionEndIsNoEndOfStream: what a dead guest had still to send is not passed off as all.
func TestSessionEndIsNoEndOfStream(t *testing.T) {
	runner, guest := conns(t)
	if err := guest.control.session.Close(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(runner.conn); err == nil {
		t.Errorf("read %q and an end", b)
	}
	runner.conn.Finish(time.Hour)
}

// TestResetOfNothing: a hostile guest resets what is not its connection.
func TestResetOfNothing(t *testing.T) {
	var none Resets
	none.Reset(Reset{Stream: 7})
	runner, guest := conns(t)
	if err := guest.send(Frame{Reset: &Reset{Stream: guest.control.StreamID()}}); err != nil {
		t.Fatal(err)
	}
	if err := guest.send(Frame{Reset: &Reset{Stream: guest.conn.StreamID()}}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(runner.conn); !errors.Is(err, yamux.ErrTimeout) {
		t.Errorf("read %v", err)
	}
	if runner.reset.Load() != 1 {
		t.Errorf("reset %d times", runner.reset.Load())
	}
	if err := WriteFrame(runner.control, Frame{Go: &Go{}}); err != nil {
		t.Errorf("the control stream does not work any more: %v", err)
	}
}
