package egress

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/org/agent-sandbox/policy"
)

// echo is a server that sends back what it gets, and ends when the client does.
func echo(t testing.TB) int {
	t.Helper()
	l := listen(t)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	return portOf(l)
}

func TestUploadLimit(t *testing.T) {
	backend := newSink(t)
	for _, tt := range []struct{ name, network string }{
		{"of the host", "  allow: [{host: a.example, port: %d, tcp: true, private: true, limits: {upload: 100KiB}}]\n"},
		{"of the run", "  allow: [{host: a.example, port: %d, tcp: true, private: true}]\n  limits: {upload: 100KiB}\n"},
	} {
		s := newSandbox(t, mustPolicy(t, tt.network, backend.port), map[string][]string{"a.example": {"127.0.0.1"}}, Limits{})
		if _, err := s.talk("a.example", backend.port, strings.Repeat("x", 60<<10)); err != nil { // positive control
			t.Fatal(err)
		}
		first := s.rec.ended(1)
		_, _ = s.talk("a.example", backend.port, strings.Repeat("x", 60<<10))
		second := s.rec.ended(2)
		if first.Reason != "an allow rule names it" || first.Up != 60<<10 {
			t.Errorf("%s: the first: %+v", tt.name, first)
		}
		if second.Code != CodeByteLimit || second.Up != 40<<10 || !strings.Contains(second.Reason, "100KiB") {
			t.Errorf("%s: the second: %d bytes, %s (%s)", tt.name, second.Up, second.Code, second.Reason)
		}
	}
}

func TestDownloadLimit(t *testing.T) {
	port := echo(t)
	p := mustPolicy(t, "  allow: [{host: a.example, port: %d, tcp: true, private: true, limits: {download: 100KiB}}]\n", port)
	s := newSandbox(t, p, map[string][]string{"a.example": {"127.0.0.1"}}, Limits{})
	got, _ := s.talk("a.example", port, strings.Repeat("x", 150<<10))
	if r := s.rec.ended(1); len(got) != 100<<10 || r.Down != 100<<10 || r.Code != CodeByteLimit {
		t.Errorf("%d bytes arrived, %d recorded, %s", len(got), r.Down, r.Code)
	}
}

func TestHalfClose(t *testing.T) {
	port := echo(t)
	p := mustPolicy(t, "  allow: [{host: a.example, port: %d, tcp: true, private: true}]\n", port)
	s := newSandbox(t, p, map[string][]string{"a.example": {"127.0.0.1"}}, Limits{})
	want := strings.Repeat("0123456789abcdef", 1<<16)
	got, err := s.talk("a.example", port, want)
	if err != nil || got != want {
		t.Errorf("%d bytes back of %d, %v", len(got), len(want), err)
	}
	if r := s.rec.ended(1); r.Up != int64(len(want)) || r.Down != int64(len(want)) || r.Outcome != Allowed {
		t.Errorf("%+v", r)
	}
}

// TestHostEndsFirst: the agent sees the end while its own direction is still open.
func TestHostEndsFirst(t *testing.T) {
	l := listen(t)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "bye")
		_ = conn.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, conn)
	}()
	p := mustPolicy(t, "  allow: [{host: a.example, port: %d, tcp: true, private: true}]\n", portOf(l))
	s := newSandbox(t, p, map[string][]string{"a.example": {"127.0.0.1"}}, Limits{})
	conn := s.mustDial("a.example", portOf(l))
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if got, err := io.ReadAll(conn); err != nil || string(got) != "bye" {
		t.Fatalf("%q, %v", got, err)
	}
	if _, err := io.WriteString(conn, "still here"); err != nil {
		t.Fatal(err)
	}
	_ = conn.CloseWrite()
	if r := s.rec.ended(1); r.Up != 10 || r.Down != 3 || r.Outcome != Allowed {
		t.Errorf("%+v", r)
	}
}

func TestIdleLimit(t *testing.T) {
	port := echo(t)
	p := mustPolicy(t, "  allow: [{host: a.example, port: %d, tcp: true, private: true}]\n", port)
	s := newSandbox(t, p, map[string][]string{"a.example": {"127.0.0.1"}}, Limits{Idle: 50 * time.Millisecond})
	conn := s.mustDial("a.example", port)
	_, _ = io.WriteString(conn, "x") // on a busy machine the limit may come first
	if r := s.rec.ended(1); r.Code != CodeIdle || r.Outcome != Allowed || r.Duration < 50*time.Millisecond {
		t.Errorf("%+v", r)
	}
}

func TestSlowFirstBytes(t *testing.T) {
	backend := newSink(t)
	p := mustPolicy(t, "  allow: [{host: a.example, port: %d, private: true}]\n", backend.port)
	s := newSandbox(t, p, map[string][]string{"a.example": {"127.0.0.1"}}, Limits{Opening: 50 * time.Millisecond})
	for i, first := range []string{"", "GET / HT", string(helloFor(t, "a.example")[:50]), "GET / HTTP/1.1\r\nHost: a.example\r\n\r\nGET /"} {
		conn := s.mustDial("a.example", backend.port)
		_, _ = io.WriteString(conn, first) // on a busy machine the limit may come first
		if r := s.rec.ended(i + 1); r.Code != CodeSlow || r.Outcome != Refused {
			t.Errorf("%q: %+v", first, r)
		}
	}
}

func TestTooManyConnections(t *testing.T) {
	port := echo(t)
	p := mustPolicy(t, "  allow: [{host: a.example, port: %d, tcp: true, private: true}]\n", port)
	s := newSandbox(t, p, map[string][]string{"a.example": {"127.0.0.1"}}, Limits{Connections: 2})
	one := s.mustDial("a.example", port)
	s.mustDial("a.example", port)
	if _, err := s.dial("a.example", port); err == nil || !strings.Contains(err.Error(), "2 connections are open") {
		t.Errorf("the third: %v", err)
	}
	_ = one.Close()
	s.rec.ended(2) // the third, refused, was the first to end
	waitFor(t, func() bool {
		conn, err := s.dial("a.example", port)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
}

// waitFor yields until the condition holds.
func waitFor(t testing.TB, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("the condition did not come true in time")
		}
	}
}

func TestCloseEndsEverything(t *testing.T) {
	port := echo(t)
	p := mustPolicy(t, "  allow: [{host: a.example, port: %d, tcp: true, private: true}]\n", port)
	s := newSandbox(t, p, map[string][]string{"a.example": {"127.0.0.1"}}, Limits{})
	conn := s.mustDial("a.example", port)
	if err := s.g.Close(); err != nil {
		t.Fatal(err)
	}
	if r := s.rec.ended(1); r.Code != CodeEnded {
		t.Errorf("%+v", r)
	}
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("the agent reads %d, %v", n, err)
	}
	if _, err := s.dial("a.example", port); !errors.As(err, new(errRefused)) {
		t.Errorf("after Close: %v", err)
	}
}

// openFiles counts this process's descriptors, where the system tells.
func openFiles() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(entries)
}

// TestNothingIsLeft opens 2,000 connections at once, closes them in every way, and counts what remains.
func TestNothingIsLeft(t *testing.T) {
	const connections = 2000
	port := echo(t)
	p := mustPolicy(t, "  allow: [{host: a.example, port: %d, tcp: true, private: true}]\n", port)
	s := newSandbox(t, p, map[string][]string{"a.example": {"127.0.0.1"}}, Limits{})
	before, files := runtime.NumGoroutine(), openFiles()
	conns := make([]agentConn, connections)
	for i := range conns {
		conns[i] = s.mustDial("a.example", port)
	}
	var all sync.WaitGroup
	for i, conn := range conns {
		all.Go(func() {
			text := fmt.Sprintf("connection %d", i)
			if _, err := io.WriteString(conn, text); err != nil {
				t.Error(err)
			}
			got := make([]byte, len(text))
			if _, err := io.ReadFull(conn, got); err != nil || string(got) != text {
				t.Errorf("%q, %v, want %q", got, err, text)
			}
			_ = conn.Close()
			if i%2 == 0 {
				_, _ = io.Copy(io.Discard, conn)
			}
		})
	}
	all.Wait()
	s.rec.ended(connections)
	waitFor(t, func() bool { return runtime.NumGoroutine() <= before && openFiles() <= files })
	s.g.mu.Lock()
	defer s.g.mu.Unlock()
	if n := len(s.g.carried); n != 0 {
		t.Errorf("%d connections are still counted", n)
	}
}

// TestJournalIsBounded: a million connections make few records, and none is lost from the totals.
func TestJournalIsBounded(t *testing.T) {
	rec := newRecording(t)
	j := newJournal(rec, 100)
	const hosts, each = 1000, 50
	for range each {
		for h := range hosts {
			c := Connection{Name: fmt.Sprintf("h%d.example", h), Outcome: Allowed, Up: 1, Down: 2}
			j.opened(&c)
			j.ended(c)
		}
	}
	j.flush()
	j.flush()
	if n := len(rec.conns); n > 200+(maxTotals+1)*7+20 {
		t.Errorf("%d records", n)
	}
	last := map[string]Connection{}
	for _, c := range rec.conns {
		if c.ID != 0 {
			last[fmt.Sprint("id ", c.ID)] = c
		} else {
			last[fmt.Sprint("total ", c.Name, c.Dialled, c.Outcome)] = c
		}
	}
	var count uint64
	var up, down int64
	for _, c := range last {
		if c.Open {
			t.Errorf("left open: %+v", c)
		}
		count, up, down = count+c.Count, up+c.Up, down+c.Down
	}
	if count != hosts*each || up != hosts*each || down != 2*hosts*each {
		t.Errorf("%d connections, %d up, %d down", count, up, down)
	}
}

func TestRefusalsAreRecordedOneByOne(t *testing.T) {
	rec := newRecording(t)
	j := newJournal(rec, 0)
	for range 1000 {
		j.ended(Connection{Name: "a.example", Dialled: netip.MustParseAddrPort("28.4.0.1:443")})
	}
	if n := len(rec.conns); n != 1000 || rec.conns[0].Outcome != Refused || rec.conns[0].Count != 1 {
		t.Errorf("%d records", n)
	}
}

func TestBudget(t *testing.T) {
	b := newBudget(10, "limit")
	for _, step := range []struct{ ask, want int }{{4, 4}, {0, 0}, {7, 6}, {1, 0}} {
		if got := b.take(step.ask); got != step.want {
			t.Errorf("take(%d) = %d, want %d", step.ask, got, step.want)
		}
	}
	if got := newBudget(0, "").take(1 << 30); got != 1<<30 {
		t.Errorf("no limit: %d", got)
	}
}

func TestDurations(t *testing.T) {
	p := mustPolicy(t, "  allow: [{host: a.example, limits: {idle: 3s}}, b.example]\n  limits: {idle: 4s}\n")
	g, _ := newGateway(t, p)
	for host, want := range map[string]time.Duration{"a.example": 3 * time.Second, "b.example": 4 * time.Second} {
		c := &connection{g: g, verdict: g.policy.Decide(policy.Request{Host: host, Port: 443})}
		if got := c.idleLimit(); got != want {
			t.Errorf("%s: %s, want %s", host, got, want)
		}
	}
}
