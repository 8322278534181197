package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/org/agent-sandbox/runner"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/runs"
	"github.com/org/agent-sandbox/runner/workspace"
)

// withRun calls f with the run that name means: an id, a unique prefix of one, or "last" (findRun). The record of a dead runner's is
// finished first.
func (a *app) withRun(name string, f func(*runs.Run) error) error {
	return a.withUnsettled(name, func(r *runs.Run) error {
		if _, err := a.settle(r); err != nil {
			return err
		}
		return f(r)
	})
}

// withUnsettled is withRun for who has to make room first, in which a record can be finished.
func (a *app) withUnsettled(name string, f func(*runs.Run) error) error {
	store, err := a.store()
	if err != nil {
		return err
	}
	defer store.Close()
	r, err := a.findRun(store, name)
	if err != nil {
		return err
	}
	return f(r)
}

// settle writes the result of a run whose runner died, and reports whether it was such a one: the first command that
// meets it does.
func (a *app) settle(r *runs.Run) (bool, error) {
	state, err := r.State()
	if err != nil || state != runs.Interrupted {
		return false, err
	}
	a.sealer().Seal(context.Background(), r)
	if _, err := r.Recover(); errors.Is(err, runs.ErrRunning) {
		return false, nil // another command is at it
	} else if err != nil {
		return false, err
	}
	more := ""
	if runner.Unread(r) {
		more = "; `agent-sandbox doctor --clean` reads what its agent changed"
	}
	fmt.Fprintf(a.stderr, "agent-sandbox: run %s was interrupted; its record now says so%s\n", r.ID, more)
	return true, nil
}

// changeSet is what a run changed.
func changeSet(r *runs.Run) (*workspace.ChangeSet, error) {
	cs, err := workspace.Load(r.Dir())
	if !errors.Is(err, fs.ErrNotExist) {
		return cs, err
	}
	state, err := r.State()
	switch {
	case err != nil:
		return nil, err
	case state == runs.Running:
		return nil, fmt.Errorf("run %s has no change set yet: it is still running", r.ID)
	case runner.Unread(r):
		return nil, fmt.Errorf("run %s has no change set: its runner died before the changes were read, or had no room for them\n"+
			"hint: `agent-sandbox doctor --clean` reads them, and `agent-sandbox discard %s` throws them away", r.ID, r.ID)
	case exists(r.Path("upper")):
		return nil, fmt.Errorf("run %s has no change set: its runner died before the changes were read\n"+
			"hint: the files that the agent wrote lie in %s, unchecked, until `agent-sandbox discard %s`", r.ID, r.Path("upper"), r.ID)
	}
	return nil, fmt.Errorf("run %s has no change set: it was discarded, or the run ended before there was one\nhint: `agent-sandbox show %s` tells how it ended", r.ID, r.ID)
}

// answer writes to standard output, buffered. A reader that went away, such as head(1), has had what it wanted:
// nothing is said then.
func (a *app) answer(f func(w io.Writer) error) error {
	b := bufio.NewWriterSize(a.stdout, 64<<10)
	err := f(b)
	if flushErr := b.Flush(); err == nil {
		err = flushErr
	}
	return unlessGone(err)
}

// unlessGone takes the message from the error of a reader that went away.
func unlessGone(err error) error {
	if errors.Is(err, syscall.EPIPE) {
		return &statusError{code: exitError}
	}
	return err
}

// answerJSON is answer for machines. JSON escapes what is below U+0020, but not all that acts on a terminal.
func (a *app) answerJSON(v any) error {
	return a.answer(func(w io.Writer) error {
		if !a.onScreen(a.stdout) {
			return writeJSON(w, v)
		}
		safe := &safeWriter{w: w}
		return errors.Join(writeJSON(safe, v), safe.Close())
	})
}

// completeRuns offers the ids of runs, the newest first, each with its command.
func (a *app) completeRuns(limit int) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if limit > 0 && len(args) >= limit {
			return nil, cobra.ShellCompDirectiveDefault // paths follow
		}
		store, err := a.store()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		defer store.Close()
		list, err := store.List(50)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		offers := []cobra.Completion{cobra.CompletionWithDesc(newest, "the newest run")}
		for _, r := range list {
			s, err := r.Summary()
			if err != nil {
				continue // it can be named all the same
			}
			offers = append(offers, cobra.CompletionWithDesc(string(r.ID), string(outcomeOf(s))+"  "+clip(commandOf(s), 60)))
		}
		return offers, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
	}
}

// outcomeOf is a run's outcome, "running" while it has none.
func outcomeOf(s event.Summary) event.Outcome {
	if s.Outcome == "" {
		return "running"
	}
	return s.Outcome
}
