package runner

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/link"
	"github.com/org/agent-sandbox/runner/runs"
)

// wantClosed reads a stream that the runner has no answer for.
func wantClosed(t *testing.T, what string, st *link.Stream) {
	t.Helper()
	if n, err := io.Copy(io.Discard, st); n != 0 || err != nil {
		t.Errorf("%s: %d bytes came, and %v", what, n, err)
	}
}

// noticed keeps what is written, and closes first when something is.
type noticed struct {
	strings.Builder
	first chan struct{}
}

func (n *noticed) Write(p []byte) (int, error) {
	if n.Len() == 0 && len(p) > 0 {
		defer close(n.first)
	}
	return n.Builder.Write(p)
}

// TestServeHostileGuest: there is one stream of a kind, the first, and what else is opened is closed.
func TestServeHostileGuest(t *testing.T) {
	out := noticed{first: make(chan struct{})}
	r, _ := newRun(t, Config{Stdout: &out})
	box, guest := newBox(t, r)
	wantClosed(t, "a second control stream", guest.open(link.Control, ""))
	stdout := guest.open(link.Stdout, "the first")
	<-out.first // streams are served at once, not in their order
	wantClosed(t, "a second stdout", guest.open(link.Stdout, "the second"))
	for i := range 200 {
		wantClosed(t, "a purpose that there isn't", guest.open(link.Purpose(fmt.Sprintf("nonsense-%d", i)), ""))
	}
	box.link.mu.Lock()
	if n := len(box.link.seen); n > 4 {
		t.Errorf("the runner remembers %d purposes", n)
	}
	box.link.mu.Unlock()
	go guest.send(link.Frame{Started: &link.Started{PID: 1}})
	if f := <-box.frames; f.Started == nil {
		t.Error("the first control stream does not work any more")
	}
	_ = stdout.Close()
	_ = guest.open(link.Stderr, "").Close()
	if err := box.link.drain(t.Context(), false); err != nil {
		t.Error(err)
	}
	if out.String() != "the first" || logOf(t, r, runs.StdoutFile) != "the first" {
		t.Errorf("out came %q, into the log %q", out.String(), logOf(t, r, runs.StdoutFile))
	}
}

func TestServeTerminalHasNoStderr(t *testing.T) {
	r, _ := newRun(t, Config{TTY: true})
	box, guest := newBox(t, r)
	wantClosed(t, "stderr on a terminal", guest.open(link.Stderr, "text"))
	_ = guest.open(link.Stdout, "").Close()
	if err := box.link.drain(t.Context(), false); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(r.dir.Path(runs.StderrFile)); err == nil {
		t.Error("there is a log of the error output")
	}
}

// TestServeRefuses: without a policy nothing is let out, and every attempt is on record.
func TestServeRefuses(t *testing.T) {
	r, log := newRun(t, Config{})
	box, guest := newBox(t, r)
	for _, h := range []link.Header{
		{Purpose: link.Connect, Addr: netip.MustParseAddrPort("203.0.113.1:443")},
		{Purpose: link.Connect, Addr: netip.MustParseAddrPort("[::ffff:203.0.113.1]:443")},
		{Purpose: link.Connect}, // no address at all
		{Purpose: link.Resolve, Name: "example.org", Type: "A"},
		{Purpose: link.Resolve, Name: strings.Repeat("long", 500) + "\x1b[2J", Type: "\x00"},
		{Purpose: link.Resolve},
	} {
		st, err := guest.session.Open(h)
		if err != nil {
			t.Fatal(err)
		}
		if a, err := st.ReadAnswer(); err != nil || a.Allowed || a.Addr.IsValid() {
			t.Errorf("%+v was answered with %+v (%v)", h, a, err)
		}
		wantClosed(t, "a refused stream", st)
	}
	finish(t, r, box)
	if n := len(log.of(event.ConnectionRefused{}.Kind())); n < 2 {
		t.Errorf("%d connections are on record", n)
	}
	if n := len(log.of(event.NameRefused{}.Kind())); n < 2 {
		t.Errorf("%d names are on record", n)
	}
}

// TestDrainWithoutOutputs: a guest that goes without ever opening them.
func TestDrainWithoutOutputs(t *testing.T) {
	r, _ := newRun(t, Config{})
	box, guest := newBox(t, r)
	if err := guest.session.Close(); err != nil {
		t.Fatal(err)
	}
	if err := box.link.drain(t.Context(), false); err != nil {
		t.Error(err)
	}
	box.link.wait()
}

// broken is a caller that takes so many bytes.
type broken struct {
	left int
	err  error
}

func (b *broken) Write(p []byte) (int, error) {
	n := min(len(p), b.left)
	b.left -= n
	if n < len(p) {
		return n, b.err
	}
	return n, nil
}

func TestOutputTheCallerDoesNotTake(t *testing.T) {
	for _, tt := range []struct {
		err  error
		lost bool
	}{
		{&os.PathError{Op: "write", Path: "/dev/stdout", Err: syscall.EPIPE}, false}, // as in a pipeline
		{io.ErrClosedPipe, false},
		{&os.PathError{Op: "write", Path: "/dev/stdout", Err: syscall.ENOSPC}, true},
	} {
		r, _ := newRun(t, Config{Stdout: &broken{left: 3, err: tt.err}})
		box, guest := newBox(t, r)
		st := guest.open(link.Stdout, "abcdef")
		wantClosed(t, "the output that nobody takes", st) // this is how the agent learns it
		_ = st.Close()
		_ = guest.open(link.Stderr, "").Close()
		err := box.link.drain(t.Context(), false)
		if lost := errors.Is(err, syscall.ENOSPC); lost != tt.lost || !tt.lost && err != nil {
			t.Errorf("%v: drained with %v", tt.err, err)
		}
		if got := logOf(t, r, runs.StdoutFile); got != "abcdef" {
			t.Errorf("%v: the log holds %q", tt.err, got)
		}
	}
}

// stuck never takes anything, until the test ends.
type stuck struct{ end <-chan struct{} }

func (s stuck) Write([]byte) (int, error) {
	<-s.end
	return 0, io.ErrClosedPipe
}

// TestOutputStuck: a run that is stopped does not wait for a caller that takes nothing.
func TestOutputStuck(t *testing.T) {
	t.Parallel()
	r, log := newRun(t, Config{Stdout: stuck{t.Context().Done()}})
	box, guest := newBox(t, r)
	_ = guest.open(link.Stdout, "text").Close()
	_ = guest.open(link.Stderr, "").Close()
	if err := box.link.drain(t.Context(), true); err != nil {
		t.Error(err)
	}
	if n := len(log.of(event.Warning{}.Kind())); n != 1 {
		t.Errorf("there are %d warnings", n)
	}
	_ = box.session.Close()
	box.link.wait()
}

// TestOutputWithoutEnd: a guest that goes on with the output when the agent has ended, or never begins it, holds the run no longer than its
// rest may take; one that sends it slowly and ends it loses nothing, whatever the caller takes.
func TestOutputWithoutEnd(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		act  func(*fakeGuest)
		fine bool
	}{
		{"silence", func(g *fakeGuest) { g.open(link.Stdout, "text"); _ = g.open(link.Stderr, "").Close() }, false},
		{"no stream", func(g *fakeGuest) { _ = g.open(link.Stdout, "text").Close() }, false},
		{"a flood", func(g *fakeGuest) {
			_ = g.open(link.Stderr, "").Close()
			st := g.open(link.Stdout, "")
			go func() {
				for err := error(nil); err == nil; {
					_, err = st.Write(make([]byte, 32<<10))
				}
			}()
		}, false},
		{"an end", func(g *fakeGuest) { _ = g.open(link.Stderr, "").Close(); _ = g.open(link.Stdout, "text").Close() }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r, _ := newRun(t, Config{})
			box, guest := newBox(t, r)
			box.link.rest = rest{bytes: 1 << 20, time: 100 * time.Millisecond}
			if tt.fine {
				box.link.rest.time = time.Hour
			}
			tt.act(guest)
			if err := box.link.drain(t.Context(), false); errors.Is(err, errRest) == tt.fine || tt.fine && err != nil {
				t.Errorf("drained with %v", err)
			}
			_ = box.session.Close()
			box.link.wait()
		})
	}
}

// TestOutputLogs: both share one limit; what is over it is counted, and passed on all the same.
func TestOutputLogs(t *testing.T) {
	var out, errs strings.Builder
	r, log := newRun(t, Config{Stdout: &out, Stderr: &errs})
	r.plan.Output = 10
	box, guest := newBox(t, r)
	box.link.logs.left = r.plan.Output
	_ = guest.open(link.Stdout, "1234567").Close()
	_ = guest.open(link.Stderr, "abcdefg").Close()
	if err := box.link.drain(t.Context(), false); err != nil {
		t.Error(err)
	}
	if out.String() != "1234567" || errs.String() != "abcdefg" {
		t.Errorf("out came %q and %q", out.String(), errs.String())
	}
	kept := logOf(t, r, runs.StdoutFile) + logOf(t, r, runs.StderrFile)
	if len(kept) != 10 {
		t.Errorf("the logs keep %q", kept)
	}
	for _, e := range log.of(event.OutputTruncated{}.Kind()) {
		if e := e.(event.OutputTruncated); e.Limit != 10 || e.Bytes != 7 {
			t.Errorf("recorded as %+v", e)
		}
	}
}

func TestTail(t *testing.T) {
	d := &tail{limit: 5}
	for range 3 {
		if n, err := d.Write([]byte("abc")); n != 3 || err != nil {
			t.Errorf("Write = %d, %v", n, err)
		}
	}
	if d.String() != "abcab" {
		t.Errorf("kept %q", d)
	}
}
