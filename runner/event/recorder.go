package event

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// MaxPerKind bounds the events of one kind in a run: whatever a hostile guest makes
// us report, the log stays small. [Refusals] stays below it by construction.
const MaxPerKind = 1 << 16

// Config describes a Recorder.
type Config struct {
	Run      string           // the run's id; required
	Handlers []Handler        // called in this order for every event
	Clock    func() time.Time // nil: time.Now
	// Redact takes secrets out of every text of every event, before anybody gets it. Nil for none. It is called with the recorder's lock
	// held, and emits nothing.
	Redact func(string) string
}

// Recorder numbers, dates and fans out the events of one run.
//
// Handlers are called synchronously: when Emit returns, the audit log has the
// line. A handler that may block, like a terminal, hands over to its own goroutine.
type Recorder struct {
	run    string
	clock  func() time.Time
	failed chan struct{}
	redact func(string) string

	mu       sync.Mutex // guards what follows, and keeps handlers from running at once
	handlers []Handler
	errs     []error // first error of each handler
	seq      uint64
	started  time.Time
	perKind  map[string]uint64
	fold     *Fold
	finished bool
}

// NewRecorder checks cfg and returns a Recorder for one run.
func NewRecorder(cfg Config) (*Recorder, error) {
	if cfg.Run == "" || len(cfg.Run) > 128 {
		return nil, fmt.Errorf("event recorder: run id %q: want 1 to 128 bytes", cfg.Run)
	}
	if slices.Contains(cfg.Handlers, nil) {
		return nil, errors.New("event recorder: nil handler")
	}
	clock := cfg.Clock
	if clock == nil {
		clock = time.Now
	}
	return &Recorder{
		run: cfg.Run, clock: clock, failed: make(chan struct{}), redact: cfg.Redact,
		handlers: slices.Clone(cfg.Handlers), errs: make([]error, len(cfg.Handlers)),
		perKind: map[string]uint64{}, fold: NewFold(cfg.Run),
	}, nil
}

// Emit records e. It is safe for concurrent use; order of return is order of the
// stream. Events after Finish are ignored: the log's last word is run.finished.
func (r *Recorder) Emit(e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.finished {
		return
	}
	r.perKind[e.Kind()]++
	if r.perKind[e.Kind()] > MaxPerKind {
		return
	}
	r.send(e)
}

// Phase emits phase.started and returns the function that emits phase.finished.
// Calling it again does nothing, so it can also be deferred.
func (r *Recorder) Phase(name Phase) (finished func()) {
	start := r.clock()
	r.Emit(PhaseStarted{Name: name})
	return sync.OnceFunc(func() {
		r.Emit(PhaseFinished{Name: name, Duration: r.clock().Sub(start)})
	})
}

// Finish emits run.finished, with Duration, Phases and Counts filled in, and returns
// the summary of the run. A second call changes nothing and returns the same.
func (r *Recorder) Finish(f RunFinished) Summary {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.finished {
		return r.fold.Summary()
	}
	for _, kind := range slices.Sorted(maps.Keys(r.perKind)) {
		if n := r.perKind[kind]; n > MaxPerKind {
			r.send(EventsDropped{Dropped: kind, Count: n - MaxPerKind})
		}
	}
	s := r.fold.Summary()
	f.Phases, f.Counts = s.phaseMap(), s.Counts
	if !r.started.IsZero() {
		f.Duration = r.clock().Sub(r.started)
	}
	r.send(f)
	r.finished = true
	return r.fold.Summary()
}

// Summary folds the events so far.
func (r *Recorder) Summary() Summary {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fold.Summary()
}

// Err joins the first error of every handler that failed. After an error the
// audit trail is incomplete, and the run must not count as recorded.
func (r *Recorder) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return errors.Join(r.errs...)
}

// Failed is closed when a handler fails for the first time, so that a run can stop at once.
func (r *Recorder) Failed() <-chan struct{} { return r.failed }

// send hands e to every handler, also after one of them failed. r.mu is held.
func (r *Recorder) send(e Event) {
	now := r.clock()
	if r.started.IsZero() {
		r.started = now
	}
	r.seq++
	if r.redact != nil {
		e = redactEvent(e, r.redact)
	}
	env := Envelope{Seq: r.seq, Time: now.Round(0).UTC(), Kind: e.Kind(), Run: r.run, Data: e}
	r.fold.add(env)
	for i, h := range r.handlers {
		if err := h.Handle(env); err != nil {
			r.fail(i, fmt.Errorf("record %s: %w", env.Kind, err))
		}
	}
}

func (r *Recorder) fail(handler int, err error) {
	if errors.Join(r.errs...) == nil {
		close(r.failed)
	}
	if r.errs[handler] == nil {
		r.errs[handler] = err
	}
}
