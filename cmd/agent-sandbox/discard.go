package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/runs"
	"github.com/org/agent-sandbox/runner/workspace"
)

// discardFlags are the flags of discard.
type discardFlags struct{ all, record, yes bool }

func (a *app) discardCommand() *cobra.Command {
	var f discardFlags
	c := &cobra.Command{
		Use:   "discard RUN... | --all",
		Short: "Throw away what runs changed",
		Long: `discard removes the change sets of runs, so that they can't be applied any more. The record
stays: what ran, what was refused, the logs. --record removes that too.

--all takes every run that has ended. It asks first; where nobody can be asked it needs --yes.`,
		Example: `  agent-sandbox discard last
  agent-sandbox discard --all --record --yes`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case f.all && len(args) > 0:
				return errors.New("--all takes every run: name none")
			case !f.all && len(args) == 0:
				return errors.New("no run is named")
			}
			return nil
		},
		ValidArgsFunction: a.completeRuns(0),
		RunE: func(_ *cobra.Command, args []string) error {
			if f.all {
				return a.discardAll(f)
			}
			var errs []error
			for _, name := range args {
				errs = append(errs, a.withUnsettled(name, func(r *runs.Run) error { return a.discard(r, f) }))
			}
			return errors.Join(errs...)
		},
	}
	c.Flags().BoolVar(&f.all, "all", false, "every run that has ended")
	c.Flags().BoolVar(&f.record, "record", false, "remove the record of the run too: events, logs, result")
	c.Flags().BoolVarP(&f.yes, "yes", "y", false, "do not ask")
	return c
}

// discard removes a run's changes, or all of it. What a dead runner left in its directory goes in either case, and first: on a full disk that
// makes the room in which the record of such a run can be finished.
func (a *app) discard(r *runs.Run, f discardFlags) error {
	if err := a.removeChanges(r, f); err != nil || f.record {
		return err
	}
	_, err := a.settle(r)
	return err
}

func (a *app) removeChanges(r *runs.Run, f discardFlags) error {
	size := r.Size()
	if err := r.Lock(); err != nil {
		return err
	}
	defer r.Close()
	if err := workspace.Discard(r.Dir()); err != nil {
		return fmt.Errorf("run %s: %w", r.ID, err)
	}
	if _, err := removeLayers(r); err != nil {
		return err
	}
	if err := os.Remove(r.Path(runs.RecoveryFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if f.record {
		if err := r.Remove(); err != nil {
			return err
		}
		_, err := fmt.Fprintf(a.stdout, "%s removed, with its record: %s\n", r.ID, engine.ByteSize(size))
		return err
	}
	_, err := fmt.Fprintf(a.stdout, "%s discarded: %s; the record stays\n", r.ID, engine.ByteSize(size-r.Size()))
	return err
}

// discardAll goes on after a run that can't be discarded.
func (a *app) discardAll(f discardFlags) error {
	store, err := a.store()
	if err != nil {
		return err
	}
	defer store.Close()
	list, err := store.List(0)
	if err != nil {
		return err
	}
	var ended []*runs.Run
	for _, r := range list {
		if state, err := r.State(); err == nil && state != runs.Running {
			ended = append(ended, r)
		}
	}
	if len(ended) == 0 {
		fmt.Fprintln(a.stderr, "agent-sandbox: no run has ended: there is nothing to discard")
		return nil
	}
	what := "the changes"
	if f.record {
		what = "the changes and the records"
	}
	if err := a.confirm(f.yes, fmt.Sprintf("Discard %s of %s?", what, plural(len(ended), "run"))); err != nil {
		return err
	}
	var errs []error
	for _, r := range ended {
		errs = append(errs, a.discard(r, f))
	}
	return errors.Join(errs...)
}

// confirm asks, where somebody can be asked.
func (a *app) confirm(yes bool, question string) error {
	if yes {
		return nil
	}
	if !a.isTerminal(a.stdin) || !a.isTerminal(a.stderr) {
		return usage("there is no terminal to ask for confirmation\nhint: give --yes")
	}
	agreed, err := a.ask(question)
	if err == nil && !agreed {
		err = errors.New("nothing was discarded")
	}
	return err
}

// ask puts a question that is answered with yes or no, and takes anything else for no.
func (a *app) ask(question string) (bool, error) {
	fmt.Fprintf(a.stderr, "%s [y/N] ", question)
	var line []byte
	for b := make([]byte, 1); len(line) < 64; { // byte by byte: what follows is the answer to the next question
		if _, err := a.stdin.Read(b); errors.Is(err, io.EOF) || err == nil && b[0] == '\n' {
			break
		} else if err != nil {
			return false, err
		}
		line = append(line, b[0])
	}
	switch strings.ToLower(strings.TrimSpace(string(line))) {
	case "y", "yes":
		return true, nil
	}
	return false, nil
}

// removeLayers removes what the view of a run keeps in its directory while the run lives: the layers of an overlay. Only
// a run whose runner died still has some. They are the agent's, so their modes may be anything.
func removeLayers(r *runs.Run) (removed bool, err error) {
	root, err := os.OpenRoot(r.Dir())
	if err != nil {
		return false, err
	}
	defer root.Close()
	entries, err := os.ReadDir(r.Dir())
	if err != nil {
		return false, err
	}
	var errs []error
	for _, e := range entries {
		if !isLayer(e.Name()) {
			continue
		}
		removed = true
		errs = append(errs, removeLayer(root, e.Name()))
	}
	return removed, errors.Join(errs...)
}

// isLayer knows the names that package workspace gives its directories.
func isLayer(name string) bool {
	return name == "upper" || name == "work" || strings.HasPrefix(name, "probe-") || strings.HasPrefix(name, ".trash-")
}

func removeLayer(root *os.Root, name string) error {
	if root.RemoveAll(name) == nil {
		return nil
	}
	// The agent took permissions away from its directories. Links are never followed: root keeps inside, and only
	// what is a directory is given to Chmod.
	if err := openUp(root, name); err != nil {
		return err
	}
	return root.RemoveAll(name)
}

func openUp(root *os.Root, dir string) error {
	if err := root.Chmod(dir, 0o700); err != nil {
		return err
	}
	f, err := root.Open(dir)
	if err != nil {
		return err
	}
	entries, err := f.ReadDir(-1)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := openUp(root, dir+"/"+e.Name()); err != nil {
				return err
			}
		}
	}
	return nil
}
