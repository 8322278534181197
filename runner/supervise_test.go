package runner

import (
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/link"
)

// ended is what supervise returned.
type endedWith struct {
	ending
	err error
}

// supervised runs supervise beside the test, whose guest has been told to go.
func supervised(t *testing.T, ctx context.Context, r *run) (*fakeGuest, <-chan endedWith) {
	t.Helper()
	box, guest := newBox(t, r)
	done := make(chan endedWith, 1)
	go func() {
		end, err := box.supervise(ctx)
		done <- endedWith{end, err}
	}()
	if f := guest.receive(); f.Go == nil {
		t.Errorf("the runner's first word was %+v", f)
	}
	return guest, done
}

func exit(code, signal int) link.Frame {
	return link.Frame{Exit: &link.Exit{Code: code, Signal: signal}}
}

func TestSuperviseExit(t *testing.T) {
	r, log := newRun(t, Config{})
	guest, done := supervised(t, t.Context(), r)
	guest.send(link.Frame{Started: &link.Started{PID: 7}})
	guest.send(exit(3, 0))
	if end := <-done; end.err != nil || end.reason != event.Exited || end.exit.Code != 3 || end.stopped() {
		t.Errorf("ended with %+v", end)
	}
	if started := log.of(event.AgentStarted{}.Kind()); len(started) != 1 || started[0].(event.AgentStarted).PID != 7 {
		t.Errorf("recorded as %+v", started)
	}
}

// TestSuperviseTimeout: first the agent is asked, then killed.
func TestSuperviseTimeout(t *testing.T) {
	r, _ := newRun(t, Config{})
	r.plan.Timeout, r.plan.Grace = Duration(time.Millisecond), Duration(time.Millisecond)
	guest, done := supervised(t, t.Context(), r)
	guest.wantSignal(sigTERM)
	guest.wantSignal(sigKILL)
	guest.send(exit(137, 9))
	if end := <-done; end.err != nil || end.reason != event.TimedOut || end.exit.Signal != 9 || !end.stopped() {
		t.Errorf("ended with %+v", end)
	}
}

// TestSuperviseCancel passes the signal on. A time limit that comes later changes nothing.
func TestSuperviseCancel(t *testing.T) {
	for _, tt := range []struct {
		cause error
		want  int
	}{
		{&SignalError{os.Interrupt}, sigINT},
		{&SignalError{syscall.SIGTERM}, sigTERM},
		{&SignalError{syscall.SIGHUP}, 1},
		{errors.New("something else"), sigTERM},
	} {
		r, _ := newRun(t, Config{})
		r.plan.Grace = Duration(time.Millisecond)
		ctx, cancel := cancelled(t)
		guest, done := supervised(t, ctx, r)
		cancel(tt.cause)
		guest.wantSignal(tt.want)
		guest.wantSignal(sigKILL)
		guest.send(exit(0, 0))
		if end := <-done; end.err != nil || end.reason != event.CancelledBy || end.signal != tt.want {
			t.Errorf("%v: ended with %+v", tt.cause, end)
		}
	}
}

// TestSuperviseRecordFails: what can't be recorded must not go on.
func TestSuperviseRecordFails(t *testing.T) {
	r, log := newRun(t, Config{})
	guest, done := supervised(t, t.Context(), r)
	log.breakWith(syscall.ENOSPC)
	guest.send(link.Frame{Started: &link.Started{PID: 7}}) // an event
	guest.wantSignal(sigKILL)
	guest.send(exit(137, 9))
	if end := <-done; end.reason != event.Killed || !errors.Is(r.rec.Err(), syscall.ENOSPC) {
		t.Errorf("ended with %+v, the record with %v", end, r.rec.Err())
	}
}

func TestSuperviseResize(t *testing.T) {
	sizes := make(chan link.Size)
	r, _ := newRun(t, Config{TTY: true, Resize: sizes})
	guest, done := supervised(t, t.Context(), r)
	sizes <- link.Size{Rows: 5, Cols: 6}
	if f := guest.receive(); f.Resize == nil || *f.Resize != (link.Size{Rows: 5, Cols: 6}) {
		t.Errorf("the guest got %+v", f)
	}
	guest.send(exit(0, 0))
	<-done
}

// TestSuperviseHostileGuest: whatever it sends, the run ends, and not with success.
func TestSuperviseHostileGuest(t *testing.T) {
	for _, tt := range []struct {
		name string
		act  func(*fakeGuest)
	}{
		{"hangs up", func(g *fakeGuest) { _ = g.session.Close() }},
		{"closes control", func(g *fakeGuest) { _ = g.control.Close() }},
		{"no frame", func(g *fakeGuest) { g.raw("hello") }},
		{"an unknown field", func(g *fakeGuest) { g.raw(`{"exit":{"code":0},"also":1}`) }},
		{"two messages", func(g *fakeGuest) { g.raw(`{"exit":{"code":0},"started":{"pid":1}}`) }},
		{"success beyond a byte", func(g *fakeGuest) { g.raw(`{"exit":{"code":256}}`) }},
		{"a giant", func(g *fakeGuest) { _, _ = g.control.Write([]byte{0x7f, 0xff, 0xff, 0xff}) }},
		{"nonsense after much", func(g *fakeGuest) {
			for range 1000 {
				g.raw(`{"refused":{"proto":"udp","addr":"192.0.2.1:1"}}`)
			}
			g.raw(`{}`)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, _ := newRun(t, Config{})
			guest, done := supervised(t, t.Context(), r)
			tt.act(guest)
			if end := <-done; end.err == nil || end.exit.Code != exitFailure {
				t.Errorf("ended with %+v", end)
			}
		})
	}
}

// TestSuperviseIgnoresMore: messages of the wrong time, before and after the end, change nothing.
func TestSuperviseIgnoresMore(t *testing.T) {
	r, _ := newRun(t, Config{})
	guest, done := supervised(t, t.Context(), r)
	for _, text := range []string{`{"measured":{}}`, `{"go":{}}`, `{"signal":{"number":9}}`, `{"failure":{"step":"late"}}`, `{"start":{}}`} {
		guest.raw(text)
	}
	guest.send(exit(5, 0))
	_ = link.WriteFrame(guest.control, exit(0, 0)) // nobody reads it
	if end := <-done; end.err != nil || end.exit.Code != 5 || end.reason != event.Exited {
		t.Errorf("ended with %+v", end)
	}
}

// TestMeasurement is the time before the agent: only a measurement lets a run go on.
func TestMeasurement(t *testing.T) {
	for _, tt := range []struct {
		name    string
		frames  []string
		want    string // in the error; empty for none
		refused bool
	}{
		{"as it should be", []string{`{"measured":{"kernel":"6.1"}}`}, "", false},
		{"a refused packet before", []string{`{"refused":{"proto":"17","addr":"192.0.2.1:53"}}`, `{"measured":{}}`}, "", false},
		{"a failure", []string{`{"failure":{"step":"net\u001bwork","reason":"no"}}`}, `net\x1bwork: no`, true},
		{"the end comes first", []string{`{"exit":{"code":0}}`}, "something else", false},
		{"the agent started by itself", []string{`{"started":{"pid":1}}`}, "something else", false},
		{"nonsense", []string{`{"measured":{},"go":{}}`}, "ended while it set the sandbox up", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, _ := newRun(t, Config{})
			box, guest := newBox(t, r)
			go func() {
				for _, text := range tt.frames {
					guest.raw(text)
				}
			}()
			m, err := box.measurement(t.Context())
			_, refused := errors.AsType[*RefusedError](err)
			switch {
			case tt.want == "" && (err != nil || m == nil):
				t.Errorf("%+v, %v", m, err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || refused != tt.refused):
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestMeasurementNeverComes(t *testing.T) {
	r, _ := newRun(t, Config{})
	box, _ := newBox(t, r)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := box.measurement(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}

// TestStopperEnd: our doing comes before what the exit looks like.
func TestStopperEnd(t *testing.T) {
	for _, tt := range []struct {
		exit   link.Exit
		reason event.ExitReason // of the stopper
		want   event.ExitReason
	}{
		{link.Exit{}, "", event.Exited},
		{link.Exit{Code: 1}, "", event.Exited},
		{link.Exit{Code: 143, Signal: 15}, "", event.Signalled},
		{link.Exit{Code: 127, Error: "no such file"}, "", event.NotStarted},
		{link.Exit{Code: 137, Signal: 9, OOMKills: 1}, "", event.OOMKilled},
		{link.Exit{Code: 1, OOMKills: 1}, "", event.OOMKilled},
		{link.Exit{Code: 0, OOMKills: 3}, "", event.Exited}, // it got over it
		{link.Exit{Code: 137, Signal: 9, OOMKills: -1}, "", event.Signalled},
		{link.Exit{Code: 143, Signal: 15}, event.TimedOut, event.TimedOut},
		{link.Exit{Code: 0}, event.CancelledBy, event.CancelledBy},
	} {
		s := stopper{reason: tt.reason}
		if got := s.end(tt.exit); got.reason != tt.want || got.exit != tt.exit {
			t.Errorf("end(%+v) after %q = %+v, want %s", tt.exit, tt.reason, got, tt.want)
		}
	}
}

func TestSignalName(t *testing.T) {
	for n, want := range map[int]string{1: "SIGHUP", 2: "SIGINT", 9: "SIGKILL", 15: "SIGTERM", 31: "SIGSYS", 0: "signal 0", 16: "signal 16", 64: "signal 64", -1: "signal -1"} {
		if got := signalName(n); got != want {
			t.Errorf("signalName(%d) = %q, want %q", n, got, want)
		}
	}
}
