package event

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func newRecorder(t *testing.T, handlers ...Handler) *Recorder {
	t.Helper()
	r, err := NewRecorder(Config{Run: testRun, Handlers: handlers, Clock: stepClock()})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestNewRecorderRefuses(t *testing.T) {
	for name, cfg := range map[string]Config{
		"no run":      {},
		"giant run":   {Run: strings.Repeat("x", 129)},
		"nil handler": {Run: "r", Handlers: []Handler{nil}},
	} {
		if _, err := NewRecorder(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestEmitIsOrdered(t *testing.T) {
	first, second := &sink{}, &sink{}
	r := newRecorder(t, first, second)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				r.Emit(Warning{Message: "x"})
			}
		})
	}
	wg.Wait()
	if len(first.got) != 800 {
		t.Fatalf("%d envelopes, want 800", len(first.got))
	}
	for i, env := range first.got {
		if env.Seq != uint64(i+1) || env.Run != testRun || env.Kind != "warning" || env.Time.Location() != time.UTC {
			t.Fatalf("envelope %d is %+v", i, env)
		}
	}
	if diff := cmp.Diff(first.got, second.got); diff != "" {
		t.Errorf("handlers saw different streams:\n%s", diff)
	}
}

func TestHandlerErrorIsVisible(t *testing.T) {
	broken, good := &sink{failAt: 2}, &sink{}
	r := newRecorder(t, broken, good)
	r.Emit(AgentStarted{})
	select {
	case <-r.Failed():
		t.Fatal("Failed before any failure")
	default:
	}
	if err := r.Err(); err != nil {
		t.Fatalf("Err() = %v before any failure", err)
	}
	for range 3 {
		r.Emit(Warning{})
	}
	<-r.Failed()
	if err := r.Err(); !errors.Is(err, errSink) || strings.Count(err.Error(), "\n") != 0 {
		t.Errorf("Err() = %v, want the first error, once", err)
	}
	if len(good.got) != 4 {
		t.Errorf("the handler after the broken one got %d of 4 events", len(good.got))
	}
}

func TestFinish(t *testing.T) {
	got := &sink{}
	r := newRecorder(t, got)
	r.Emit(RunStarted{})
	done := r.Phase(Create)
	done()
	done()
	r.Emit(Lowered{What: "x"})
	s := r.Finish(RunFinished{Outcome: Failure, ExitCode: 3})
	r.Emit(Warning{Message: "too late"})
	again := r.Finish(RunFinished{Outcome: Success})

	if diff := cmp.Diff(s, again); diff != "" {
		t.Errorf("a second Finish changed the summary:\n%s", diff)
	}
	last := got.got[len(got.got)-1].Data.(RunFinished)
	if s.Outcome != Failure || s.ExitCode != 3 || s.Partial || s.Duration != last.Duration || last.Duration <= 0 {
		t.Errorf("summary %+v does not follow %+v", s, last)
	}
	// The clock steps one second per look: start, event and end of the phase are three looks apart.
	if want := map[Phase]time.Duration{Create: 2 * time.Second}; cmp.Diff(want, last.Phases) != "" {
		t.Errorf("phases %v, want %v", last.Phases, want)
	}
	if want := (Counts{Lowered: 1}); last.Counts != want || s.Counts != want {
		t.Errorf("counts %+v, want %+v", last.Counts, want)
	}
	if len(got.got) != 5 {
		t.Errorf("%d events, want 5", len(got.got))
	}
}

func TestEventsPerKindAreBounded(t *testing.T) {
	got := &sink{}
	r := newRecorder(t, got)
	for range MaxPerKind + 7 {
		r.Emit(Warning{Message: "flood"})
	}
	r.Emit(AgentExited{Reason: Exited})
	s := r.Finish(RunFinished{Outcome: Success})
	if n := len(got.got); n != MaxPerKind+3 {
		t.Errorf("%d events, want %d", n, MaxPerKind+3)
	}
	if want := []EventsDropped{{Dropped: "warning", Count: 7}}; cmp.Diff(want, s.Dropped) != "" {
		t.Errorf("dropped %v, want %v", s.Dropped, want)
	}
}
