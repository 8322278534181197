package event

import (
	"cmp"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	spinnerDelay  = 200 * time.Millisecond // a start that is fast shows nothing
	spinnerPeriod = 100 * time.Millisecond
	eraseTimeout  = time.Second
	maxPending    = 256 // lines waiting for a slow terminal
	eraseLine     = "\r\x1b[K"
)

// TerminalConfig describes a Terminal.
type TerminalConfig struct {
	W        io.Writer // standard error
	Terminal bool      // W is a terminal that knows carriage return and ESC [ K: show a spinner
	Color    bool      // the caller has looked at NO_COLOR and TERM
	Verbose  bool      // also phases and refusals, as they happen; not for a run with a TTY of its own
}

// Terminal shows a run to a person: a spinner until the agent starts, then nothing,
// and at Close the summary. Without a terminal there is the summary alone.
//
// Handle never fails and, but for the moment in which the spinner is wiped off before
// the agent's output may come, never waits for the writer: a terminal stopped with
// Ctrl-S must not stop the audit log. Lines that it can't take are counted.
type Terminal struct {
	cfg  TerminalConfig
	wake chan struct{} // 1 deep
	done chan struct{} // closed when the painter has ended
	bare chan struct{} // closed when the spinner is wiped off for good

	mu      sync.Mutex // guards what follows
	fold    *Fold
	began   time.Time // of the first event, on our clock
	open    []Phase
	phase   Phase // to show: the last that was opened and, when none is open, the last of all
	pending []string
	dropped int
	quiet   bool // the agent's output may come at any time
	closing bool
	err     error
}

// NewTerminal starts the goroutine that writes; Close ends it. An empty run stands for that of the first event.
func NewTerminal(cfg TerminalConfig, run string) *Terminal {
	t := &Terminal{
		cfg: cfg, fold: NewFold(run),
		wake: make(chan struct{}, 1), done: make(chan struct{}), bare: make(chan struct{}),
	}
	go t.paint()
	return t
}

// Handle takes note of an event. It returns nil.
func (t *Terminal) Handle(env Envelope) error {
	if t.note(env) {
		t.waitBare()
	}
	return nil
}

// Close writes the summary, if there was any event, and returns the first error of the writer. It waits as
// long as the writer does: call it last, when everything is cleaned up.
func (t *Terminal) Close() error {
	t.mu.Lock()
	t.closing, t.quiet = true, true
	t.mu.Unlock()
	t.nudge()
	<-t.done
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// note updates what the painter looks at, and reports whether the agent is about to write.
func (t *Terminal) note(env Envelope) (agentStarts bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.began.IsZero() {
		t.began = time.Now()
	}
	t.fold.add(env)
	switch e := env.Data.(type) {
	case PhaseStarted:
		t.open = append(without(t.open, e.Name), e.Name)
		t.phase = e.Name
		agentStarts = e.Name == Agent
	case PhaseFinished:
		t.open = without(t.open, e.Name)
		if n := len(t.open); n > 0 {
			t.phase = t.open[n-1]
		}
	case AgentStarted:
		agentStarts = true
	}
	t.say(env.Data)
	agentStarts = agentStarts && !t.quiet
	t.quiet = t.quiet || agentStarts
	t.nudge()
	return agentStarts
}

// say queues the line for an event, if there is one. t.mu is held.
func (t *Terminal) say(e Event) {
	early := t.cfg.Terminal && !t.quiet
	line, detail := liveLine(e)
	if line == "" || !t.cfg.Verbose && (detail || !early) {
		return
	}
	if len(t.pending) >= maxPending {
		t.dropped++
		return
	}
	t.pending = append(t.pending, line)
}

func liveLine(e Event) (line string, detail bool) {
	switch e := e.(type) {
	case Lowered:
		return "lowered: " + loweredText(e), false
	case Warning:
		return "warning: " + warningText(e), false
	case PhaseFinished:
		return fmt.Sprintf("phase %s: %s", Printable(string(e.Name)), Span(e.Duration)), true
	case ConnectionRefused:
		return "refused: " + refusalText(connectionRefusal(e)), true
	case Connection:
		return connectionText(e), true
	case Request:
		return requestLine(e), true
	case NameRefused:
		return "refused: " + refusalText(nameRefusal(e)), true
	}
	return "", false
}

// connectionText is empty for a refusal, which has an event of its own.
func connectionText(c Connection) string {
	host := clip(net.JoinHostPort(cmp.Or(c.Name, c.Address), strconv.Itoa(int(c.Port))), reportWidth/2)
	switch {
	case c.Outcome == ConnectionWasRefused:
		return ""
	case c.Outcome == ConnectionFailed:
		return fmt.Sprintf("failed: %s (%s)", host, clip(c.Reason, reportWidth/2))
	case c.Open:
		return fmt.Sprintf("allowed: %s (%s)", host, clip(c.Rule, reportWidth/2))
	case c.Count > 1:
		return fmt.Sprintf("ended: %s, %d times, %s up, %s down", host, c.Count, size(c.Up), size(c.Down))
	}
	return fmt.Sprintf("ended: %s, %s up, %s down, after %s", host, size(c.Up), size(c.Down), Span(c.Duration))
}

func without(phases []Phase, name Phase) []Phase {
	var rest []Phase
	for _, p := range phases {
		if p != name {
			rest = append(rest, p)
		}
	}
	return rest
}

func (t *Terminal) nudge() {
	select {
	case t.wake <- struct{}{}:
	default: // the painter looks at everything when it comes round
	}
}

func (t *Terminal) waitBare() {
	timer := time.NewTimer(eraseTimeout)
	defer timer.Stop()
	select {
	case <-t.bare:
	case <-timer.C:
	}
}

// paint is the only writer. Each round is one Write.
func (t *Terminal) paint() {
	defer close(t.done)
	ticker := time.NewTicker(spinnerPeriod)
	defer ticker.Stop()
	drawn, bare := false, false
	for frame := 0; ; frame++ {
		select {
		case <-t.wake:
		case <-ticker.C:
		}
		text, spinner, quiet, closing := t.next(frame)
		if drawn && (text != "" || spinner == "") {
			text = eraseLine + text
		}
		drawn = spinner != ""
		t.write(text + spinner)
		if quiet && !bare {
			bare = true
			close(t.bare)
			ticker.Stop()
		}
		if closing {
			return
		}
	}
}

// next is what to write now: whole lines, and the spinner after them.
func (t *Terminal) next(frame int) (text, spinner string, quiet, closing bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var b strings.Builder
	for _, line := range t.pending {
		b.WriteString(line + "\n")
	}
	if t.dropped > 0 {
		fmt.Fprintf(&b, "(%d more lines are in the log)\n", t.dropped)
	}
	t.pending, t.dropped = nil, 0
	if t.closing && !t.began.IsZero() {
		b.WriteString(t.fold.Summary().Report(t.cfg.Color))
	}
	return b.String(), t.spinner(frame), t.quiet, t.closing
}

func (t *Terminal) spinner(frame int) string {
	if !t.cfg.Terminal || t.quiet || t.phase == "" || time.Since(t.began) < spinnerDelay {
		return ""
	}
	return fmt.Sprintf("\r%c %s %.1fs\x1b[K", `|/-\`[frame%4], clip(string(t.phase), 20), time.Since(t.began).Seconds())
}

func (t *Terminal) write(text string) {
	if text == "" {
		return
	}
	if t.cfg.Terminal { // it may be in raw mode, where a line feed does not return the carriage
		text = strings.ReplaceAll(text, "\n", "\r\n")
	}
	if _, err := io.WriteString(t.cfg.W, text); err != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.err == nil {
			t.err = fmt.Errorf("write summary: %w", err)
		}
	}
}
