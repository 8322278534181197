package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/event"
)

// The colours of ANSI X3.64. They carry no meaning alone: the text beside them says it too.
const (
	bold   = "1"
	dim    = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
	cyan   = "36"
)

// painter colours text, or leaves it as it is.
type painter bool

func (p painter) paint(color, text string) string {
	if !p || color == "" {
		return text
	}
	return "\x1b[" + color + "m" + text + "\x1b[0m"
}

// clip makes text safe and short enough for a column.
func clip(text string, limit int) string {
	runes := []rune(event.Printable(text))
	if len(runes) <= limit {
		return string(runes)
	}
	return string(runes[:limit-3]) + "..."
}

// plural is "1 change", "2 changes".
func plural[N int | uint64](n N, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}

// durationFlag takes a duration as policies write it, and as Go does: 1d, 300ms.
type durationFlag struct{ to *time.Duration }

func (f durationFlag) Set(s string) (err error) {
	if *f.to, err = time.ParseDuration(s); err != nil {
		*f.to, err = policy.ParseDuration(s)
	}
	return err
}

func (durationFlag) Type() string { return "duration" }

func (durationFlag) String() string { return "" } // there is no default to show

// printableLine is event.Printable for a line of a file, whose tabs do no harm.
func printableLine(line string) string {
	if !strings.Contains(line, "\t") {
		return event.Printable(line)
	}
	parts := strings.Split(line, "\t")
	for i, part := range parts {
		parts[i] = event.Printable(part)
	}
	return strings.Join(parts, "\t")
}

// printableText is printableLine for several lines.
func printableText(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = printableLine(lines[i])
	}
	return strings.Join(lines, "\n")
}

// maxShownLine bounds what is kept of a line before it is shown in pieces, in bytes.
const maxShownLine = 64 << 10

// safeWriter shows the output of an agent on a terminal: colours are taken off, a carriage return starts a new line,
// and everything else that would act on the terminal is shown instead. Close writes the rest.
type safeWriter struct {
	w    io.Writer
	rest []byte
}

// Write never keeps more than maxShownLine.
func (s *safeWriter) Write(p []byte) (int, error) {
	s.rest = append(s.rest, p...)
	for {
		line, more, found := bytes.Cut(s.rest, []byte("\n"))
		switch {
		case found:
			if err := s.show(line, "\n"); err != nil {
				return 0, err
			}
			s.rest = more
		case len(s.rest) > maxShownLine:
			cut := wholeRunes(s.rest[:maxShownLine])
			if err := s.show(s.rest[:cut], ""); err != nil {
				return 0, err
			}
			s.rest = s.rest[cut:]
		default:
			s.rest = bytes.Clone(s.rest)
			return len(p), nil
		}
	}
}

// Close writes what had no newline.
func (s *safeWriter) Close() error {
	if len(s.rest) == 0 {
		return nil
	}
	return s.show(s.rest, "")
}

func (s *safeWriter) show(line []byte, end string) error {
	_, err := io.WriteString(s.w, safeText(string(line))+end)
	return err
}

// safeText is one line of an agent's output.
func safeText(line string) string {
	line = strings.TrimRight(line, "\r")
	parts := strings.Split(withoutColours(line), "\r")
	for i, part := range parts {
		parts[i] = printableLine(part)
	}
	return strings.Join(parts, "\n")
}

// withoutColours takes off what ECMA-48 calls SGR: colours and other renditions, which could also hide text.
func withoutColours(line string) string {
	const introducer = "\x1b["
	var b strings.Builder
	for {
		before, after, found := strings.Cut(line, introducer)
		b.WriteString(before)
		if !found {
			return b.String()
		}
		rest := strings.TrimLeft(after, "0123456789;:")
		if !strings.HasPrefix(rest, "m") {
			b.WriteString(introducer)
			line = after
			continue
		}
		line = rest[1:]
	}
}

// wholeRunes is the length of text without the beginning of a character at its end.
func wholeRunes(text []byte) int {
	for back := 1; back <= utf8.UTFMax && back <= len(text); back++ {
		if at := len(text) - back; utf8.RuneStart(text[at]) {
			if !utf8.FullRune(text[at:]) {
				return at
			}
			break
		}
	}
	return len(text)
}
