package runs

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/org/agent-sandbox/runner/event"
)

func testTime() time.Time { return time.Date(2026, 11, 23, 15, 22, 40, 500_000_000, time.UTC) }

func openStore(tb testing.TB) *Store {
	tb.Helper()
	s, err := Open(filepath.Join(tb.TempDir(), "state", "runs"))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = s.Close() })
	return s
}

func create(tb testing.TB, s *Store, id ID) *Run {
	tb.Helper()
	r, err := s.Create(id)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = r.Close() })
	return r
}

// record starts the log of a run and returns its recorder.
func record(tb testing.TB, r *Run) *event.Recorder {
	tb.Helper()
	chain, err := r.Events()
	if err != nil {
		tb.Fatal(err)
	}
	rec, err := event.NewRecorder(event.Config{Run: string(r.ID), Handlers: []event.Handler{chain}})
	if err != nil {
		tb.Fatal(err)
	}
	rec.Emit(event.RunStarted{Argv: []string{"true"}, Project: "/p"})
	return rec
}

// finish makes a run that ended.
func finish(tb testing.TB, s *Store, id ID) *Run {
	tb.Helper()
	r := create(tb, s, id)
	rec := record(tb, r)
	if err := errors.Join(r.Finish(rec.Finish(event.RunFinished{Outcome: event.Success})), r.Close()); err != nil {
		tb.Fatal(err)
	}
	return r
}

// die makes a run whose runner died after a few events.
func die(tb testing.TB, s *Store, id ID) *Run {
	tb.Helper()
	r := create(tb, s, id)
	record(tb, r)
	if err := errors.Join(r.chain.Close(), r.Close()); err != nil {
		tb.Fatal(err)
	}
	return r
}

func wantState(tb testing.TB, r *Run, want State) {
	tb.Helper()
	if got, err := r.State(); got != want || err != nil {
		tb.Errorf("State(%s) = %q, %v; want %q", r.ID, got, err, want)
	}
}

func exists(tb testing.TB, path string) bool {
	tb.Helper()
	_, err := os.Lstat(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		tb.Fatal(err)
	}
	return err == nil
}
