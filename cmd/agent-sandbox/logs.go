package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/runs"
)

// logFlags are the flags of logs.
type logFlags struct{ stdout, stderr, events, follow bool }

func (a *app) logsCommand() *cobra.Command {
	var f logFlags
	c := &cobra.Command{
		Use:   "logs RUN",
		Short: "Print the output of a run, or its event log",
		Long: `logs prints what the command of a run wrote, to standard output and standard error as it
did. On a terminal the text is made safe to show; in a pipe it is what was written, byte
for byte.

--events prints the event log instead, one JSON object per line, after its hash chain was
verified line by line. An altered log is an error.`,
		Example: `  agent-sandbox logs last
  agent-sandbox logs last --stderr | less
  agent-sandbox logs last --events | jq -r 'select(.kind=="connection.refused").data.address'`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeRuns(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withRun(args[0], func(r *runs.Run) error { return a.showLogs(cmd.Context(), r, f) })
		},
	}
	flags := c.Flags()
	flags.BoolVar(&f.stdout, "stdout", false, "only what went to standard output")
	flags.BoolVar(&f.stderr, "stderr", false, "only what went to standard error; it is printed to standard output")
	flags.BoolVar(&f.events, "events", false, "the event log")
	flags.BoolVarP(&f.follow, "follow", "f", false, "go on until the run ends")
	c.MarkFlagsMutuallyExclusive("stdout", "stderr", "events")
	c.MarkFlagsMutuallyExclusive("follow", "events")
	return c
}

func (a *app) showLogs(ctx context.Context, r *runs.Run, f logFlags) error {
	if f.events {
		return a.answer(func(w io.Writer) error { return a.printEvents(w, r) })
	}
	var streams []*logStream
	if !f.stderr {
		streams = append(streams, a.logStream(r, runs.StdoutFile, a.stdout))
	}
	if f.stderr {
		streams = append(streams, a.logStream(r, runs.StderrFile, a.stdout))
	} else if !f.stdout {
		streams = append(streams, a.logStream(r, runs.StderrFile, a.stderr))
	}
	err := follow(ctx, r, streams, f.follow)
	for _, s := range streams {
		err = errors.Join(err, s.close())
	}
	return unlessGone(err)
}

// logStream is one log on its way out.
type logStream struct {
	run  *runs.Run
	name string
	file *os.File // nil until the run has made it
	to   io.Writer
	safe *safeWriter // nil: raw bytes
}

func (a *app) logStream(r *runs.Run, name string, to *os.File) *logStream {
	s := &logStream{run: r, name: name, to: to}
	if a.onScreen(to) {
		s.safe = &safeWriter{w: to}
		s.to = s.safe
	}
	return s
}

// copy prints what has come since the last time.
func (s *logStream) copy() error {
	if s.file == nil {
		f, err := s.run.Open(s.name)
		if errors.Is(err, runs.ErrNotFound) {
			return nil // nothing was written, or not yet
		}
		if err != nil {
			return err
		}
		s.file = f
	}
	_, err := io.Copy(s.to, s.file)
	return err
}

func (s *logStream) close() error {
	var err error
	if s.safe != nil {
		err = s.safe.Close()
	}
	if s.file != nil {
		err = errors.Join(err, s.file.Close())
	}
	return err
}

// followPeriod is how often a growing log is looked at.
const followPeriod = 200 * time.Millisecond

// follow copies the streams, until the run has ended if it shall go on.
func follow(ctx context.Context, r *runs.Run, streams []*logStream, goOn bool) error {
	tick := time.NewTicker(followPeriod)
	defer tick.Stop()
	for {
		state, err := r.State() // before the copy, so that nothing is missed
		if err != nil {
			return err
		}
		for _, s := range streams {
			if err := s.copy(); err != nil {
				return err
			}
		}
		if !goOn || state != runs.Running {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// printEvents prints the event log and verifies it: up to the first line that is not as it was written.
func (a *app) printEvents(w io.Writer, r *runs.Run) error {
	state, err := r.State() // before the log is read: what is written meanwhile is no damage
	if err != nil {
		return err
	}
	s, err := r.Summary()
	if err != nil {
		return err
	}
	f, err := r.Open(runs.EventsFile)
	if err != nil {
		return err
	}
	defer f.Close()
	if a.onScreen(a.stdout) {
		safe := &safeWriter{w: w}
		defer safe.Close()
		w = safe
	}
	head, err := event.ReadChain(io.TeeReader(f, w), string(r.ID), func(event.Envelope) error { return nil })
	var bad *event.ChainError
	switch {
	case err != nil && !errors.As(err, &bad):
		return err
	case state == runs.Running:
		return nil
	case s.Log != nil && head == s.Log.Head && s.Log.State != event.LogComplete:
		fmt.Fprintf(a.stderr, "agent-sandbox: the log ends here: %s\n", printableLine(s.Log.Detail)) // and the record says so
		return nil
	case err != nil:
		return fmt.Errorf("%s: %w", r.Path(runs.EventsFile), err)
	case s.Log == nil:
		return nil
	}
	if err := head.Compare(s.Log.Head); err != nil {
		return fmt.Errorf("%s: the log is not the one that the run ended with: %w", r.Path(runs.EventsFile), err)
	}
	return nil
}
