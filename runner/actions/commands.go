package actions

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"strings"
	"sync"

	githubactions "github.com/sethvargo/go-githubactions"

	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/secret"
)

// Log is a step's log, which the runner reads for commands. What the agent writes goes through Agent, between a stop-commands
// with a random word and that word: no line of it is a command, and none can end that. Whatever else is written
// here is a line of ours, or a command, whose text is escaped. It is for concurrent use.
type Log struct {
	mu      sync.Mutex // guards what follows
	w       io.Writer
	token   string // the agent is speaking, until this word; empty: it isn't
	midLine bool   // its last line has no end yet
	held    []byte // of what it wrote: the next bytes tell what that is
	group   bool   // one of ours is open
	err     error
}

// NewLog writes to w, which is the step's standard output.
func NewLog(w io.Writer) *Log { return &Log{w: w} }

// Err is the first error of the writer.
func (l *Log) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// own lets f write as ourselves.
func (l *Log) own(f func(a *githubactions.Action)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.resume()
	var b bytes.Buffer
	f(githubactions.New(githubactions.WithWriter(&b)))
	l.write(b.Bytes())
}

func (l *Log) write(b []byte) {
	if l.err == nil {
		_, l.err = l.w.Write(b)
	}
}

// resume ends the agent's part of the log.
func (l *Log) resume() {
	if l.token == "" {
		return
	}
	l.show(l.held)
	l.held = nil
	end := "::" + l.token + "::\n"
	if l.midLine {
		end = "\n" + end
	}
	l.write([]byte(end))
	l.token, l.midLine = "", false
}

// Resume ends the agent's part of the log, if it is the last that was written.
func (l *Log) Resume() { l.own(func(*githubactions.Action) {}) }

// Printf writes a line. What is in it from outside is made printable.
func (l *Log) Printf(format string, args ...any) {
	line := event.Printable(fmt.Sprintf(format, args...))
	// The runner takes "::" at the start of a line for a command, and "##[" anywhere in it.
	line = strings.ReplaceAll(line, "##[", "## [")
	if strings.HasPrefix(strings.TrimSpace(line), "::") {
		line = ". " + line
	}
	l.own(func(a *githubactions.Action) { a.Infof("%s", line) })
}

// Group opens a group of lines, and ends the one before.
func (l *Log) Group(title string) {
	l.EndGroup()
	l.own(func(a *githubactions.Action) { a.Group(event.Printable(title)) })
	l.mu.Lock()
	defer l.mu.Unlock()
	l.group = true
}

// EndGroup ends the group, if there is one.
func (l *Log) EndGroup() {
	l.mu.Lock()
	open := l.group
	l.group = false
	l.mu.Unlock()
	if open {
		l.own(func(a *githubactions.Action) { a.EndGroup() })
	}
}

// Mask has the runner replace a secret in all logs of the job. Its lines are masked one by one too, since a log has lines.
func (l *Log) Mask(v secret.Value) {
	text := v.Reveal()
	if text == "" {
		return
	}
	parts := []string{text}
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); len(line) >= minMasked && line != text {
			parts = append(parts, line)
		}
	}
	l.own(func(a *githubactions.Action) {
		for _, p := range parts {
			a.AddMask(p)
		}
	})
}

// minMasked is the length from which a line is a secret: masking "}" would blacken the log.
const minMasked = 8

// Level is that of an annotation.
type Level string

// The levels.
const (
	Notice  Level = "notice"
	Warning Level = "warning"
	Error   Level = "error"
)

// Annotation is shown on the run's page, and beside a file if it names one.
type Annotation struct {
	Level Level
	Title string
	Text  string
	File  string // relative to the repository
	Line  int
}

// Annotate shows an annotation.
func (l *Log) Annotate(n Annotation) {
	fields := map[string]string{}
	if n.Title != "" {
		fields["title"] = event.Printable(n.Title)
	}
	if n.File != "" {
		fields["file"] = event.Printable(n.File)
	}
	if n.Line > 0 {
		fields["line"] = fmt.Sprint(n.Line)
	}
	text := printableLines(n.Text)
	l.own(func(a *githubactions.Action) {
		a = a.WithFieldsMap(fields)
		switch n.Level {
		case Error:
			a.Errorf("%s", text)
		case Warning:
			a.Warningf("%s", text)
		default:
			a.Noticef("%s", text)
		}
	})
}

func printableLines(s string) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	for i, line := range lines {
		lines[i] = event.Printable(line)
	}
	return strings.Join(lines, "\n")
}

// Agent is where the agent's output goes, both streams of it: only in one stream is it certain what comes first.
func (l *Log) Agent() io.Writer { return (*agentWriter)(l) }

type agentWriter Log

// Write never fails: a log that can't be written does not end the run.
func (w *agentWriter) Write(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	l := (*Log)(w)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.token == "" {
		l.token = rand.Text()
		l.write([]byte("::stop-commands::" + l.token + "\n"))
	}
	all := append(l.held, b...)
	n := len(all) - unfinished(all)
	l.show(all[:n])
	l.held = bytes.Clone(all[n:])
	return len(b), nil
}

// show writes what the agent has written.
func (l *Log) show(b []byte) {
	if len(b) == 0 {
		return
	}
	l.write(showable(b))
	l.midLine = b[len(b)-1] != '\n'
}
