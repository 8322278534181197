package event

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// screen is a terminal's other side.
type screen struct {
	mu   sync.Mutex // guards buf
	buf  bytes.Buffer
	gate chan struct{} // nil: open; otherwise each write waits for it
	fail error
}

func (s *screen) Write(p []byte) (int, error) {
	if s.gate != nil {
		<-s.gate
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return 0, s.fail
	}
	return s.buf.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

// play sends events at moments that are never those of the spinner's ticks.
func play(t *testing.T, term *Terminal, events ...Event) {
	t.Helper()
	for _, env := range envelopes(events...) {
		if err := term.Handle(env); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		advance(137 * time.Millisecond)
	}
}

// advance moves the bubble's clock.
func advance(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func visibleEscapes(s string) []byte {
	r := strings.NewReplacer("\r", "<CR>", "\x1b[K", "<EL>", "\x1b", "<ESC>")
	return []byte(r.Replace(s))
}

func TestTerminal(t *testing.T) {
	for name, cfg := range map[string]TerminalConfig{
		"terminal.txt":      {Terminal: true, Color: true},
		"terminal-pipe.txt": {},
		"verbose.txt":       {Verbose: true},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &screen{}
			cfg.W = s
			term := NewTerminal(cfg, testRun)
			play(t, term, everyEvent()...)
			if err := term.Close(); err != nil {
				t.Fatal(err)
			}
			golden(t, name, visibleEscapes(s.String()))
		})
	}
}

func TestTerminalWithoutEvents(t *testing.T) {
	s := &screen{}
	if err := NewTerminal(TerminalConfig{W: s, Terminal: true}, "").Close(); err != nil || s.String() != "" {
		t.Errorf("wrote %q, %v about a run that never began", s.String(), err)
	}
}

func TestTerminalLearnsTheRun(t *testing.T) {
	s := &screen{}
	term := NewTerminal(TerminalConfig{W: s}, "")
	_ = term.Handle(envelopes(finished(Errored, 125, "x"))[0])
	if err := term.Close(); err != nil || !strings.Contains(s.String(), "agent-sandbox show "+testRun) {
		t.Errorf("wrote %q, %v", s.String(), err)
	}
}

func TestFastStartShowsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &screen{}
		term := NewTerminal(TerminalConfig{W: s, Terminal: true}, testRun)
		list := envelopes(RunStarted{}, PhaseStarted{Name: Create}, AgentStarted{})
		for _, env := range list[:2] {
			_ = term.Handle(env)
		}
		advance(spinnerDelay - time.Millisecond)
		_ = term.Handle(list[2])
		if got := s.String(); got != "" {
			t.Errorf("a fast start wrote %q", got)
		}
		_ = term.Close()
	})
}

// When Handle(agent.started) returns the line is clean, and stays so.
func TestSpinnerIsGoneBeforeTheAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &screen{}
		term := NewTerminal(TerminalConfig{W: s, Terminal: true}, testRun)
		list := envelopes(RunStarted{}, PhaseStarted{Name: Start}, AgentStarted{},
			PhaseStarted{Name: Extract}, Warning{Message: "late"}, ConnectionRefused{Address: "1.1.1.1", Count: 1})
		_ = term.Handle(list[0])
		_ = term.Handle(list[1])
		advance(5 * time.Second)
		if !strings.Contains(s.String(), "start 5.0s") {
			t.Fatalf("no spinner: %q", s.String())
		}
		_ = term.Handle(list[2])
		before := s.String()
		if !strings.HasSuffix(before, eraseLine) {
			t.Errorf("the spinner was left on the line: %q", before)
		}
		for _, env := range list[3:] {
			_ = term.Handle(env)
			advance(10 * time.Second)
		}
		if after := s.String(); after != before {
			t.Errorf("wrote %q while the agent's output may come", after[len(before):])
		}
		_ = term.Close()
	})
}

// A terminal that is stopped holds up neither the audit log nor the run.
func TestBlockedTerminal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, audit := &screen{gate: make(chan struct{})}, &sink{}
		term := NewTerminal(TerminalConfig{W: s, Terminal: true, Verbose: true}, testRun)
		rec, err := NewRecorder(Config{Run: testRun, Handlers: []Handler{audit, term}})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		rec.Emit(Lowered{What: "a", Why: "b"}) // the painter blocks on this line
		synctest.Wait()
		for range 1000 {
			rec.Emit(ConnectionRefused{Proto: "tcp", Address: "1.1.1.1", Port: 1, Count: 1})
		}
		rec.Emit(AgentStarted{})
		rec.Emit(AgentExited{})
		if waited := time.Since(start); waited != eraseTimeout {
			t.Errorf("events were held up for %v, want %v once", waited, eraseTimeout)
		}
		if len(audit.got) != 1003 {
			t.Errorf("the audit log has %d of 1003 events", len(audit.got))
		}
		close(s.gate)
		if err := term.Close(); err != nil {
			t.Fatal(err)
		}
		if got := s.String(); !strings.Contains(got, "(744 more lines are in the log)") || !strings.Contains(got, "agent-sandbox: running") {
			t.Errorf("after the block: %q", got)
		}
	})
}

func TestBrokenTerminal(t *testing.T) {
	s := &screen{fail: errSink}
	term := NewTerminal(TerminalConfig{W: s}, testRun)
	if err := term.Handle(envelopes(RunStarted{})[0]); err != nil {
		t.Errorf("Handle() = %v: a broken terminal must not look like a broken audit log", err)
	}
	if err := term.Close(); !errors.Is(err, errSink) {
		t.Errorf("Close() = %v, want the writer's error", err)
	}
}
