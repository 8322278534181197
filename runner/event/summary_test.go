package event

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func foldAll(events ...Event) Summary {
	f := NewFold(testRun)
	for _, env := range envelopes(events...) {
		f.add(env)
	}
	return f.Summary()
}

func TestSummaryContract(t *testing.T) {
	b, err := json.MarshalIndent(foldAll(everyEvent()...), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "summary.json", append(b, '\n'))
	var back Summary
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(foldAll(everyEvent()...), back); diff != "" {
		t.Errorf("the summary changed on the way:\n%s", diff)
	}
}

// What is recovered from the log is what the live run would have said.
func TestSummaryFromLog(t *testing.T) {
	log, _ := writeLog(t)
	f := NewFold(testRun)
	if _, err := ReadChain(bytes.NewReader(log), testRun, f.Handle); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(foldAll(everyEvent()...), f.Summary()); diff != "" {
		t.Errorf("live and recovered summary differ:\n%s", diff)
	}
}

func TestSummaryOfNothing(t *testing.T) {
	s := foldAll()
	if !s.Partial || s.Outcome != "" || s.Refused == nil || s.Lowered == nil {
		t.Errorf("empty summary is %+v", s)
	}
}

func TestSummaryIsPartialUntilFinished(t *testing.T) {
	s := foldAll(RunStarted{}, PhaseStarted{Name: Agent}, AgentStarted{})
	if !s.Partial || s.Duration != 2*time.Second || len(s.Phases) != 1 || !s.Phases[0].Open {
		t.Errorf("summary %+v", s)
	}
}

func TestSummaryIsACopy(t *testing.T) {
	f := NewFold(testRun)
	f.add(envelopes(Lowered{What: "a"})[0])
	s := f.Summary()
	s.Lowered[0].What = "changed"
	if got := f.Summary().Lowered[0].What; got != "a" {
		t.Errorf("the caller changed the fold: %q", got)
	}
}

func TestSummaryPhases(t *testing.T) {
	s := foldAll(
		PhaseStarted{Name: Workspace}, PhaseStarted{Name: Create},
		PhaseFinished{Name: Workspace, Duration: 2}, PhaseFinished{Name: Create, Duration: 3},
		PhaseStarted{Name: Create}, PhaseFinished{Name: Create, Duration: 4}, PhaseFinished{Name: Clean, Duration: 1},
	)
	want := []PhaseTime{{Name: Workspace, Duration: 2}, {Name: Create, Duration: 7}, {Name: Clean, Duration: 1}}
	if diff := cmp.Diff(want, s.Phases); diff != "" {
		t.Error(diff)
	}
	if got := s.PhaseDuration(Create); got != 7 {
		t.Errorf("PhaseDuration = %d, want 7", got)
	}
}

func TestSummaryListsAreBounded(t *testing.T) {
	f := NewFold(testRun)
	const n = 5000
	for i := range n {
		text := fmt.Sprint(i)
		f.add(envelopes(ProtectedTouched{Path: text, Tier: "warn"})[0])
		f.add(envelopes(Warning{Message: text})[0])
		f.add(envelopes(PhaseStarted{Name: Phase(text)})[0])
		f.add(envelopes(ConnectionRefused{Address: text, Count: 1})[0]) // a log not written by Refusals
	}
	f.add(envelopes(ProtectedTouched{Path: "hook", Tier: "reject"})[0])
	s := f.Summary()
	if len(s.Protected) != maxListed || len(s.Warnings) != maxListed || len(s.Refused) != maxRefused || len(s.Phases) != maxListed {
		t.Errorf("lists of %d, %d, %d, %d", len(s.Protected), len(s.Warnings), len(s.Refused), len(s.Phases))
	}
	if s.Counts.Protected != n+1 || s.Counts.Warnings != n {
		t.Errorf("counts %+v", s.Counts)
	}
	if last := s.Protected[maxListed-1]; last.Path != "hook" {
		t.Errorf("a flood of warnings hid the rejected path: last is %+v", last)
	}
}

func TestSummaryRefusals(t *testing.T) {
	s := foldAll(
		ConnectionRefused{Proto: "tcp", Address: "1.1.1.1", Port: 80, Count: 1},
		NameRefused{Name: "x.example", Type: "A", Count: 1},
		ConnectionRefused{Proto: "tcp", Address: "1.1.1.1", Port: 80, Count: 2},
		NameRefused{Name: "x.example", Type: "A", Count: 4},
	)
	want := []Refusal{
		{Proto: "dns", Name: "x.example", Type: "A", Count: 4},
		{Proto: "tcp", Address: "1.1.1.1", Port: 80, Count: 2},
	}
	if diff := cmp.Diff(want, s.Refused); diff != "" {
		t.Error(diff)
	}
	if want := (Counts{RefusedConnections: 2, RefusedNames: 4}); s.Counts != want {
		t.Errorf("counts %+v, want %+v", s.Counts, want)
	}
}
