package main

import (
	"fmt"
	"io"
	"strings"
)

// buildProgress shows the output of a build: all of it if asked for, on a terminal its last line, else nothing unless the
// build fails.
type buildProgress struct {
	w                 io.Writer
	terminal, verbose bool
	last              []string
}

// tailLines are shown of a build that failed.
const tailLines = 40

// progressWidth is what fits on a line of most terminals.
const progressWidth = 78

func (p *buildProgress) line(text string) {
	if i := strings.LastIndexByte(strings.TrimRight(text, "\r"), '\r'); i >= 0 {
		text = text[i+1:] // a progress bar's last state
	}
	text = printableLine(strings.TrimRight(text, " \t\r"))
	if text == "" {
		return
	}
	if p.last = append(p.last, text); len(p.last) > tailLines {
		p.last = p.last[1:]
	}
	switch {
	case p.verbose:
		fmt.Fprintln(p.w, text)
	case p.terminal:
		if r := []rune(text); len(r) > progressWidth {
			text = string(r[:progressWidth])
		}
		fmt.Fprintf(p.w, "\r\x1b[K%s", text)
	}
}

// end clears the line, and shows what led to err.
func (p *buildProgress) end(err error) {
	if p.verbose {
		return
	}
	if p.terminal {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
	if err != nil {
		for _, line := range p.last {
			fmt.Fprintln(p.w, line)
		}
	}
	p.last = nil
}
