package guest

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/org/agent-sandbox/runner/link"
)

// relayedPair is a connection of an agent in the hands of the relay, and the runner's end of its stream. ended is closed when the relay
// is done with it.
func relayedPair(t *testing.T) (agent *net.TCPConn, runner *link.Conn, ended chan struct{}) {
	t.Helper()
	rs, gs := sessions(t)
	control, err := gs.Open(link.Header{Purpose: link.Control})
	if err != nil {
		t.Fatal(err)
	}
	r := newRelay(gs, func(f link.Frame) error { return link.WriteFrame(control, f) })
	st, err := gs.Begin()
	if err != nil {
		t.Fatal(err)
	}
	agent, inside := tcpPair(t)
	c := &relayed{conn: inside}
	c.stream = link.NewConn(st, &r.resets, r.send, c.resetByHost)
	if err := st.WriteHeader(link.Header{Purpose: link.Connect, Addr: netip.MustParseAddrPort("192.0.2.1:443")}); err != nil {
		t.Fatal(err)
	}
	told, stream := accept(t, rs), accept(t, rs)
	if err := stream.WriteAnswer(link.Answer{Allowed: true}); err != nil {
		t.Fatal(err)
	}
	var resets link.Resets
	runner = link.NewConn(stream, &resets, func(f link.Frame) error { return link.WriteFrame(told, f) }, func() {})
	go obeyResets(control, &r.resets)
	go obeyResets(told, &resets)
	ended = make(chan struct{})
	go func() {
		defer close(ended)
		c.splice(func() {})
		c.stream.Finish(endTime)
		_ = inside.Close()
	}()
	t.Cleanup(func() { _ = rs.Close(); _ = gs.Close(); _ = agent.Close(); <-ended })
	return agent, runner, ended
}

func obeyResets(control *link.Stream, resets *link.Resets) {
	for {
		f, err := link.ReadFrame(control)
		if err != nil {
			return
		}
		if f.Reset != nil {
			resets.Reset(*f.Reset)
		}
	}
}

func accept(t *testing.T, s *link.Session) *link.Stream {
	t.Helper()
	st, err := s.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.ReadHeader(); err != nil {
		t.Fatal(err)
	}
	return st
}

// sessions are both ends of a link. Whoever uses them closes them.
func sessions(t *testing.T) (runner, guest *link.Session) {
	t.Helper()
	a, b := net.Pipe()
	runner, err := link.NewRunner(a)
	if err != nil {
		t.Fatal(err)
	}
	guest, err = link.NewGuest(b)
	if err != nil {
		t.Fatal(err)
	}
	return runner, guest
}

// tcpPair are both ends of a connection on loopback.
func tcpPair(t *testing.T) (*net.TCPConn, *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialled, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return dialled.(*net.TCPConn), accepted.(*net.TCPConn)
}

// TestRelayHostResets: the agent reads what came before, then a reset; also when it has been told that the host's direction is over.
func TestRelayHostResets(t *testing.T) {
	for _, endedBefore := range []bool{false, true} {
		agent, runner, ended := relayedPair(t)
		if _, err := io.WriteString(runner, "half"); err != nil {
			t.Fatal(err)
		}
		if endedBefore {
			_ = runner.Close()
			if b, err := io.ReadAll(agent); string(b) != "half" || err != nil {
				t.Fatalf("the agent read %q, %v", b, err)
			}
		}
		if err := runner.Reset(); err != nil {
			t.Fatal(err)
		}
		go runner.Finish(time.Minute)
		<-ended
		if endedBefore {
			if _, err := agent.Write([]byte("more")); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
				t.Errorf("the agent could write: %v", err)
			}
		} else if b, err := io.ReadAll(agent); string(b) != "half" || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the agent read %q, %v", b, err)
		}
	}
}

// TestRelayAgentResets: what the agent broke off does not end in order.
func TestRelayAgentResets(t *testing.T) {
	agent, runner, ended := relayedPair(t)
	if _, err := io.WriteString(agent, "half"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(runner, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(agent.SetLinger(0), agent.Close()); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(runner); err == nil {
		t.Errorf("the runner read %q and an end", b)
	}
	runner.Finish(time.Minute)
	<-ended
}

// TestRelayHalfClosed: the other direction goes on.
func TestRelayHalfClosed(t *testing.T) {
	agent, runner, ended := relayedPair(t)
	if err := agent.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(runner); len(b) != 0 || err != nil {
		t.Fatalf("the runner read %q, %v", b, err)
	}
	large := make([]byte, 1<<20)
	go func() {
		_, _ = runner.Write(large)
		runner.Finish(time.Minute)
	}()
	if b, err := io.ReadAll(agent); len(b) != len(large) || err != nil {
		t.Errorf("the agent read %d bytes, %v", len(b), err)
	}
	<-ended
}

// asked is a connection that the relay asks about: the agent's end, the runner's stream before its answer, and when it is over.
func asked(t *testing.T) (agent *net.TCPConn, stream *link.Stream, ended chan struct{}) {
	t.Helper()
	rs, gs := sessions(t)
	st, err := gs.Open(link.Header{Purpose: link.Connect, Addr: netip.MustParseAddrPort("192.0.2.1:443")})
	if err != nil {
		t.Fatal(err)
	}
	stream = accept(t, rs)
	agent, inside := tcpPair(t)
	r := newRelay(gs, func(link.Frame) error { return nil })
	c := &relayed{conn: inside}
	c.stream = link.NewConn(st, &r.resets, r.send, c.resetByHost)
	ended = make(chan struct{})
	go func() {
		defer close(ended)
		c.splice(func() {})
		c.stream.Finish(endTime)
		_ = inside.Close()
	}()
	t.Cleanup(func() { _ = rs.Close(); _ = gs.Close(); _ = agent.Close(); <-ended })
	return agent, stream, ended
}

// TestRelayEarly: the first bytes come with the question, and no more than one buffer of them.
func TestRelayEarly(t *testing.T) {
	agent, stream, _ := asked(t)
	sent := make([]byte, 1<<20)
	go func() { _, _ = agent.Write(sent) }()
	if _, err := io.ReadFull(stream, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := stream.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, _ := io.Copy(io.Discard, stream); n >= smallRelayBuffer {
		t.Errorf("%d bytes came before the answer", n+1)
	}
	if err := stream.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if err := stream.WriteAnswer(link.Answer{Allowed: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(stream, make([]byte, len(sent)-smallRelayBuffer)); err != nil {
		t.Errorf("after the answer: %v", err)
	}
}

// TestRelayRefused: the agent sees a reset, whatever it is doing, and the runner an end.
func TestRelayRefused(t *testing.T) {
	for _, first := range []string{"", "hello"} {
		agent, stream, ended := asked(t)
		if _, err := io.WriteString(agent, first); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(stream, make([]byte, len(first))); err != nil {
			t.Fatal(err)
		}
		if err := stream.WriteAnswer(link.Answer{Reason: "no"}); err != nil {
			t.Fatal(err)
		}
		if err := stream.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := agent.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the agent saw %v", err)
		}
		if b, err := io.ReadAll(stream); len(b) > 0 || err != nil {
			t.Errorf("the runner read %q, %v", b, err)
		}
		<-ended
	}
}
