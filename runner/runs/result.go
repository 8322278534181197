package runs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/org/agent-sandbox/runner/event"
)

// Finish closes the audit log and writes result.json with its head. An error means
// that the run is not completely recorded; without result.json it counts as interrupted.
// What failed in the log before is for [event.Recorder.Err] to return; the result says so, too.
func (r *Run) Finish(s event.Summary) error {
	if r.lock == nil {
		return fmt.Errorf("finish run %s: it is not locked by this process", r.ID)
	}
	if r.chain == nil {
		return r.conclude(s)
	}
	// The log is complete unless it can't be brought to the disk, which is waited for while the rest is.
	s.Log = &event.Log{Head: r.chain.Head(), State: event.LogComplete}
	closed := make(chan error, 1)
	go func() { closed <- r.chain.Close() }()
	err := r.conclude(s)
	closeErr := <-closed
	if logErr := r.chain.Err(); logErr != nil {
		s.Log.State, s.Log.Detail = event.LogDamaged, logErr.Error()
		err = errors.Join(err, r.conclude(s))
	}
	return errors.Join(closeErr, err)
}

// conclude writes the manifest and then the result, so that a run that counts as ended has its manifest. A manifest that can't
// be made does not keep the result away.
func (r *Run) conclude(s event.Summary) error {
	if r.Seal == nil {
		return r.putResult(s)
	}
	file, ref, sealErr := r.Seal(s)
	if len(file) == 0 {
		return errors.Join(sealErr, r.putResult(s))
	}
	s.Manifest, r.sealed = &ref, &ref
	// Both are brought to the disk at once, and the directory after them.
	staged := make(chan stagedFile, 1)
	go func() {
		staged <- r.stage(ManifestFile, func(w io.Writer) error { _, err := w.Write(file); return err })
	}()
	result := r.stage(ResultFile, asJSON(s))
	return errors.Join(sealErr, r.commit(<-staged, result))
}

// Sealed names the manifest that Finish, or Recover, has written; nil if there is none.
func (r *Run) Sealed() *event.Manifest { return r.sealed }

func (r *Run) putResult(s event.Summary) error { return r.put(ResultFile, asJSON(s), true) }

// Summary is the result of a run that ended, and what the log says so far of one
// that did not; that one is Partial.
func (r *Run) Summary() (event.Summary, error) {
	state, err := r.State()
	if err != nil {
		return event.Summary{}, err
	}
	if state == Finished {
		return r.result()
	}
	s, err := r.replay()
	if err == nil && state == Interrupted {
		interrupted(&s)
	}
	return s, err
}

// Recover writes the result of a run whose runner died, from its log as far as that
// goes, and returns it. A run that has a result keeps it; one that lives gives ErrRunning.
func (r *Run) Recover() (event.Summary, error) {
	if err := r.Lock(); err != nil {
		return event.Summary{}, err
	}
	defer r.Close()
	if r.finished() {
		return r.result()
	}
	s, err := r.found()
	if err != nil {
		return event.Summary{}, err
	}
	if _, err := r.store.root.Lstat(r.name(ManifestFile)); err == nil {
		return s, r.putResult(s) // the runner died between the two
	}
	return s, r.conclude(s)
}

// Amend is Recover for who finds out more of a run that is over than its runner could: add puts that into the summary, and manifest and
// result are made anew. If add fails, a run that has a result keeps it, and another one gets what Recover would give it.
func (r *Run) Amend(add func(*event.Summary) error) (event.Summary, error) {
	if err := r.Lock(); err != nil {
		return event.Summary{}, err
	}
	defer r.Close()
	read, ended := r.found, r.finished()
	if ended {
		read = r.result
	}
	s, err := read()
	if err != nil {
		return event.Summary{}, err
	}
	if err = add(&s); err != nil && ended {
		return s, err
	}
	return s, errors.Join(err, r.conclude(s))
}

// found is the summary of a run whose runner died.
func (r *Run) found() (event.Summary, error) {
	s, err := r.replay()
	if err == nil {
		interrupted(&s)
		r.removeTemps()
	}
	return s, err
}

func (r *Run) result() (event.Summary, error) {
	var s event.Summary
	err := r.ReadJSON(ResultFile, &s)
	return s, err
}

// replay folds the log. A log that is torn or damaged counts as far as it verifies, and the summary says so.
func (r *Run) replay() (event.Summary, error) {
	fold := event.NewFold(string(r.ID))
	f, err := r.Open(EventsFile)
	if errors.Is(err, ErrNotFound) {
		return r.dated(fold.Summary()), nil
	}
	if err != nil {
		return event.Summary{}, err
	}
	defer f.Close()
	head, err := event.ReadChain(f, string(r.ID), fold.Handle)
	log := &event.Log{Head: head, State: event.LogComplete}
	if bad, ok := errors.AsType[*event.ChainError](err); ok {
		log.State, log.Detail = event.LogDamaged, bad.Error()
		if bad.Problem == event.Torn {
			log.State = event.LogTorn
		}
	} else if err != nil {
		return event.Summary{}, fmt.Errorf("run %s: %w", r.ID, err)
	}
	s := r.dated(fold.Summary())
	s.Log = log
	return s, nil
}

// dated gives a run without events the time that its id tells.
func (r *Run) dated(s event.Summary) event.Summary {
	if s.Started.IsZero() {
		s.Started, s.Finished = r.ID.Time(), r.ID.Time()
	}
	return s
}

// interrupted settles the outcome, unless the runner died between its last event and the result.
func interrupted(s *event.Summary) {
	if s.Outcome == "" {
		s.Outcome, s.ExitCode, s.Reason = event.Interrupted, exitInterrupted, "the runner died"
	}
}

// exitInterrupted is the exit status of `run` for a failure of ours.
const exitInterrupted = 125

// removeTemps removes what a dead writer left. Failing is no harm: it goes with the run.
func (r *Run) removeTemps() {
	entries, err := fs.ReadDir(r.store.root.FS(), string(r.ID))
	if err != nil {
		return
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempPrefix) {
			_ = r.store.root.Remove(r.name(e.Name()))
		}
	}
}
