package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/runs"
)

// What is cached and not used for so long is stale.
const (
	staleDays = "30"
	staleTime = 30 * 24 * time.Hour
)

// orphanTime is the age from which a volume without a container has no run any more, whoever's it was: a run's volume is
// made with its container, and the engine removes none that is in use.
const orphanTime = 10 * time.Minute

// guestVolumes is the beginning of the names of the volumes that hold our guest program. All runs share them.
const guestVolumes = "agent-sandbox-guest-"

// applyJournal is the file in which package workspace keeps an apply under way.
const applyJournal = "apply.journal"

// leftover is something that a dead run left, and how to remove it.
type leftover struct {
	What   string `json:"what"`
	Run    string `json:"run,omitempty"`
	remove func(context.Context) error
	unread bool // it is work of an agent's, and remove reads it instead
}

// cleaned is `doctor --clean --json`: a contract, to which fields are only added.
type cleaned struct {
	Removed []leftover `json:"removed"`
	// Recovered are the changes of dead runs, which "diff" and "apply" know now.
	Recovered []leftover `json:"recovered"`
	Left      []leftover `json:"left"` // what is not ours to remove
	Failed    []string   `json:"failed"`
}

// cleaner finds what dead runs left. engine is nil when none answers.
type cleaner struct {
	app    *app
	store  *runs.Store
	engine *engine.Engine
	left   []leftover
}

func (a *app) clean(ctx context.Context, asJSON bool) error {
	store, err := a.store()
	if err != nil {
		return err
	}
	defer store.Close()
	w := &cleaner{app: a, store: store}
	engineErr := w.connect(ctx)
	if engineErr == nil {
		defer w.engine.Close()
	}
	report := cleaned{Removed: []leftover{}, Recovered: []leftover{}, Left: []leftover{}, Failed: []string{}}
	found, err := w.find(ctx)
	for _, err := range []error{engineErr, err} {
		if err != nil {
			report.Failed = append(report.Failed, err.Error())
		}
	}
	for _, l := range found {
		err := l.remove(ctx)
		switch {
		case err != nil:
			report.Failed = append(report.Failed, l.What+": "+err.Error())
		case l.unread:
			report.Recovered = append(report.Recovered, l)
		default:
			report.Removed = append(report.Removed, l)
		}
	}
	report.Left = append(report.Left, w.left...)
	return a.reportClean(report, asJSON)
}

func (a *app) reportClean(report cleaned, asJSON bool) error {
	if asJSON {
		err := a.answerJSON(report)
		if err == nil && len(report.Failed) > 0 {
			err = &statusError{code: exitError}
		}
		return err
	}
	err := a.answer(func(w io.Writer) error {
		for _, l := range report.Removed {
			fmt.Fprintf(w, "removed %s\n", printableLine(l.What))
		}
		for _, l := range report.Recovered {
			fmt.Fprintf(w, "read    %s: agent-sandbox show %s\n", printableLine(l.What), l.Run)
		}
		printLeft(w, report.Left)
		if len(report.Removed)+len(report.Recovered)+len(report.Left)+len(report.Failed) == 0 {
			fmt.Fprintln(w, "nothing to remove")
		}
		return nil
	})
	if err != nil || len(report.Failed) == 0 {
		return err
	}
	return errors.New("not everything could be cleaned up:\n  " + strings.Join(report.Failed, "\n  "))
}

// printLeft has a line for each run that is not ours.
func printLeft(w io.Writer, left []leftover) {
	what := map[string][]string{}
	for _, l := range left {
		what[l.Run] = append(what[l.Run], l.What)
	}
	for _, run := range slices.Sorted(maps.Keys(what)) {
		fmt.Fprintf(w, "left    run %s, which is not in this state directory and may live: %s\n", printableLine(run), printableLine(strings.Join(what[run], ", ")))
	}
}

// connect leaves the engine nil when there is none: the state of runs can be cleaned without.
func (w *cleaner) connect(ctx context.Context) error {
	cfg, err := w.app.engineConfig()
	if err != nil {
		return err
	}
	w.engine, err = engine.Connect(ctx, cfg)
	return err
}

// find lists what can be removed, in the order in which it must be: what uses a run's state goes before it.
func (w *cleaner) find(ctx context.Context) ([]leftover, error) {
	objects, err := w.engineObjects(ctx)
	if err != nil {
		return nil, err
	}
	tokens, tokenErr := w.tokens()
	state, err := w.runStates()
	return slices.Concat(objects, tokens, state, w.caches()), errors.Join(tokenErr, err)
}

// engineObjects are the containers and volumes of dead runs.
func (w *cleaner) engineObjects(ctx context.Context) ([]leftover, error) {
	if w.engine == nil {
		return nil, nil
	}
	// Listed before the runs are looked at: a run that starts now has its lock before it has a container.
	objects, err := w.engine.Leftovers(ctx)
	if err != nil {
		return nil, err
	}
	containers := map[string]bool{} // runs that have one
	for _, o := range objects {
		containers[o.Run] = containers[o.Run] || o.Kind == "container"
	}
	var found []leftover
	for _, o := range objects {
		l := leftover{
			What: o.Kind + " " + shortID(o.ID), Run: o.Run,
			remove: func(ctx context.Context) error { return w.engine.RemoveLeftover(ctx, o) },
		}
		if o.Kind == "volume" && strings.HasPrefix(o.ID, guestVolumes) {
			if time.Since(runs.ID(o.Run).Time()) > staleTime {
				l.What = "guest volume " + o.ID
				found = append(found, l)
			}
			continue
		}
		switch dead, known := w.dead(o.Run); {
		case !known && !containers[o.Run] && time.Since(runs.ID(o.Run).Time()) > orphanTime:
			l.What += " of run " + o.Run + ", which has no container"
			found = append(found, l)
		case !known:
			w.left = append(w.left, l)
		case dead:
			l.What += " of run " + o.Run
			found = append(found, l)
		}
	}
	return found, nil
}

// dead reports whether a run is over, and whether we know it at all: another user's are not in our state.
func (w *cleaner) dead(id string) (dead, known bool) {
	if _, err := runs.ParseID(id); err != nil {
		return false, false
	}
	r, err := w.store.Resolve(id)
	if err != nil {
		return false, false
	}
	state, err := r.State()
	return err == nil && state != runs.Running, err == nil
}

// caches are the files of package engine that nobody has written for long. Every one can be made anew.
func (w *cleaner) caches() []leftover {
	cfg, err := w.app.engineConfig()
	if err != nil {
		return nil // there is no place for one either
	}
	var found []leftover
	for _, kind := range []string{"engines", "images"} {
		_ = filepath.WalkDir(filepath.Join(cfg.CacheDir, kind), func(name string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return nil // what can't be seen can't be stale
			}
			if info, err := d.Info(); err == nil && time.Since(info.ModTime()) > staleTime {
				found = append(found, leftover{What: "cache " + name, remove: func(context.Context) error { return os.Remove(name) }})
			}
			return nil
		})
	}
	return found
}
