package main

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/term"

	"github.com/org/agent-sandbox/runner"
	"github.com/org/agent-sandbox/runner/link"
)

// rawTerminal hands the caller's terminal to the task: keys go through unchanged, Ctrl-C included, and the task
// follows its size. restore puts it back.
func (a *app) rawTerminal(ctx context.Context, cfg *runner.Config) (restore func(), err error) {
	in, out := int(a.stdin.Fd()), int(a.stdout.Fd())
	if !term.IsTerminal(in) || !term.IsTerminal(out) {
		return nil, usage("-t needs a terminal on standard input and output")
	}
	cfg.TTY = true
	cfg.Term = a.env("TERM")
	cfg.Size = terminalSize(out)
	state, err := term.MakeRaw(in)
	if err != nil {
		return nil, fmt.Errorf("terminal: %w", err)
	}
	cfg.Obtain = inUsualModes(in, state, cfg.Obtain)
	ctx, cancel := context.WithCancel(ctx)
	resize := make(chan link.Size)
	cfg.Resize = resize
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		watchSize(ctx, out, resize)
	}()
	return func() {
		cancel()
		<-watching
		_ = term.Restore(in, state)
	}, nil
}

// inUsualModes gives the build of an image the terminal as it was: its lines end with what the terminal makes of them, and Ctrl-C ends it.
func inUsualModes(fd int, usual *term.State, obtain func(context.Context) error) func(context.Context) error {
	if obtain == nil {
		return nil
	}
	return func(ctx context.Context) error {
		if err := term.Restore(fd, usual); err != nil {
			return fmt.Errorf("terminal: %w", err)
		}
		if err := obtain(ctx); err != nil {
			return err
		}
		if _, err := term.MakeRaw(fd); err != nil {
			return fmt.Errorf("terminal: %w", err)
		}
		return nil
	}
}

// keepTerminal notes the modes of a terminal; restore puts them back, if it is one.
func keepTerminal(f *os.File) (restore func()) {
	fd := int(f.Fd())
	state, err := term.GetState(fd)
	if err != nil {
		return func() {}
	}
	return func() { _ = term.Restore(fd, state) }
}

func terminalSize(fd int) link.Size {
	cols, rows, err := term.GetSize(fd)
	if err != nil {
		return link.Size{}
	}
	return link.Size{Rows: uint16(min(rows, 1<<16-1)), Cols: uint16(min(cols, 1<<16-1))}
}
