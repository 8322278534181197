package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/org/agent-sandbox/runner"
	"github.com/org/agent-sandbox/runner/runs"
	"github.com/org/agent-sandbox/runner/workspace"
)

// runStates are what dead runs left in the state directory.
func (w *cleaner) runStates() ([]leftover, error) {
	list, err := w.store.List(0)
	if err != nil {
		return nil, err
	}
	var found []leftover
	for _, r := range list {
		state, err := r.State()
		if err != nil || state == runs.Running {
			continue // somebody is at work there
		}
		if runner.Unread(r) {
			found = append(found, w.unread(r))
			found = append(found, w.halfApplied(r)...)
			continue // its layers are what is read
		}
		if state == runs.Interrupted {
			found = append(found, leftover{
				What: "the unfinished record of run " + string(r.ID) + ": it has the outcome interrupted now", Run: string(r.ID),
				remove: func(ctx context.Context) error {
					w.app.sealer().Seal(ctx, r)
					_, err := r.Recover()
					return err
				},
			})
		}
		found = append(found, w.halfApplied(r)...)
		if unreadable(r) {
			found = append(found, leftover{
				What: "the changes of run " + string(r.ID), Run: string(r.ID), unread: true,
				remove: func(context.Context) error {
					return fmt.Errorf("another version of agent-sandbox ran it, and left nothing to read them by\n"+
						"hint: the files that the agent wrote stay in %s; `agent-sandbox discard %s` removes them", r.Path("upper"), r.ID)
				},
			})
			continue
		}
		if hasLayers(r) {
			found = append(found, leftover{
				What: "the layers of run " + string(r.ID), Run: string(r.ID),
				remove: func(context.Context) error { return locked(r, func() error { _, err := removeLayers(r); return err }) },
			})
		}
	}
	if rest, err := filepath.Glob(filepath.Join(w.store.Path(), ".gone-*")); err == nil && len(rest) > 0 {
		found = append(found, leftover{
			What:   "the rest of " + plural(len(rest), "removed run"),
			remove: func(context.Context) error { _, err := w.store.Sweep(); return err },
		})
	}
	return found, nil
}

// unread are the changes of a run that died, or had no room for them. Its containers have been removed by then; what is left of them is.
func (w *cleaner) unread(r *runs.Run) leftover {
	return leftover{
		What: "the changes of run " + string(r.ID), Run: string(r.ID), unread: true,
		remove: func(ctx context.Context) error {
			_, err := runner.Recover(ctx, runner.RecoverConfig{Version: version, Dir: r, Engine: w.engine, Sealer: w.app.sealer()})
			return err
		},
	}
}

// halfApplied is an apply that stopped half-way: it is taken back.
func (w *cleaner) halfApplied(r *runs.Run) []leftover {
	if !exists(filepath.Join(r.Dir(), applyJournal)) {
		return nil
	}
	return []leftover{{
		What: "the interrupted apply of run " + string(r.ID) + ": it was taken back", Run: string(r.ID),
		remove: func(context.Context) error {
			return locked(r, func() error { _, err := workspace.Recover(r.Dir()); return err })
		},
	}}
}

// locked calls f while no other command can work on the run.
func locked(r *runs.Run, f func() error) error {
	if err := r.Lock(); err != nil {
		return err
	}
	return errors.Join(f(), r.Close())
}

// unreadable tells whether an agent wrote into layers that nobody has read, or can.
func unreadable(r *runs.Run) bool {
	s, err := r.Summary()
	return (err != nil || s.Measured != nil) && exists(r.Path("upper")) && !exists(r.Path(runs.ChangesFile))
}

func hasLayers(r *runs.Run) bool {
	entries, err := os.ReadDir(r.Dir())
	if err != nil {
		return false
	}
	for _, e := range entries {
		if isLayer(e.Name()) {
			return true
		}
	}
	return false
}
