package runs

import (
	"bufio"
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/org/agent-sandbox/runner/event"
)

// A log that failed on the way is marked in the result, and the recorder has the error.
func TestFinishWithABrokenLog(t *testing.T) {
	s := openStore(t)
	r := create(t, s, idA)
	rec := record(t, r)
	if err := r.chain.Handle(event.Envelope{Run: "other"}); err == nil { // it fails for good, as for a full disk
		t.Fatal("no error")
	}
	sum := rec.Finish(event.RunFinished{Outcome: event.Success})
	if rec.Err() == nil {
		t.Error("the recorder does not tell that an event is missing in the log")
	}
	if err := r.Finish(sum); err != nil {
		t.Fatal(err)
	}
	got, err := r.Summary()
	if err != nil || got.Log.Head.Count != 1 || got.Log.State != event.LogDamaged || got.Log.Detail == "" {
		t.Errorf("%+v, %v", got.Log, err)
	}
}

func TestRecover(t *testing.T) {
	s := openStore(t)
	r := die(t, s, idA)
	wantState(t, r, Interrupted)
	before, err := r.Summary()
	if err != nil || before.Outcome != event.Interrupted {
		t.Errorf("Summary before Recover: %+v, %v", before, err)
	}
	if err := os.WriteFile(r.Path(tempPrefix+"x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := r.Recover()
	if err != nil {
		t.Fatal(err)
	}
	if got.Outcome != event.Interrupted || !got.Partial || got.ExitCode != 125 || got.Start == nil || got.Log.State != event.LogComplete || got.Log.Head.Count != 1 {
		t.Errorf("Recover = %+v", got)
	}
	if exists(t, r.Path(tempPrefix+"x")) {
		t.Error("a dead writer's file is still there")
	}
	wantState(t, r, Finished)
	for name, read := range map[string]func() (event.Summary, error){"Recover": r.Recover, "Summary": r.Summary} {
		again, err := read()
		if diff := cmp.Diff(got, again); diff != "" || err != nil {
			t.Errorf("%s after Recover: %v\n%s", name, err, diff)
		}
	}
}

// A runner that died between its last event and the result leaves the outcome that it had.
func TestRecoverKeepsKnownOutcome(t *testing.T) {
	s := openStore(t)
	r := create(t, s, idA)
	rec := record(t, r)
	want := rec.Finish(event.RunFinished{Outcome: event.Timeout, ExitCode: 124})
	if err := errors.Join(r.chain.Close(), r.Close()); err != nil {
		t.Fatal(err)
	}
	got, err := r.Recover()
	if err != nil {
		t.Fatal(err)
	}
	got.Log = nil
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("recovered (-want +got):\n%s", diff)
	}
}

func TestRecoverWithoutEvents(t *testing.T) {
	s := openStore(t)
	if err := os.Mkdir(filepath.Join(s.Path(), string(idA)), 0o700); err != nil { // died before its lock
		t.Fatal(err)
	}
	r, err := s.Resolve("last")
	if err != nil {
		t.Fatal(err)
	}
	wantState(t, r, Interrupted)
	got, err := r.Recover()
	if err != nil || got.Outcome != event.Interrupted || !got.Started.Equal(idA.Time()) || got.Log != nil {
		t.Errorf("Recover = %+v, %v", got, err)
	}
}

func TestRecoverDamagedLogs(t *testing.T) {
	for name, tt := range map[string]struct {
		damage func([]byte) []byte
		want   event.LogState
		lines  uint64
	}{
		"torn":    {func(b []byte) []byte { return append(b, `{"data":`...) }, event.LogTorn, 1},
		"edited":  {func(b []byte) []byte { return bytes.Replace(b, []byte(`"/p"`), []byte(`"/q"`), 1) }, event.LogComplete, 1}, // only a kept head tells
		"garbage": {func(b []byte) []byte { return append(b, "garbage\n"...) }, event.LogDamaged, 1},
		"emptied": {func([]byte) []byte { return nil }, event.LogComplete, 0},
	} {
		s := openStore(t)
		r := die(t, s, idA)
		b, err := os.ReadFile(r.Path(EventsFile))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(r.Path(EventsFile), tt.damage(b), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := r.Recover()
		if err != nil || got.Log.State != tt.want || got.Log.Head.Count != tt.lines || got.Outcome != event.Interrupted {
			t.Errorf("%s: %+v, %v", name, got.Log, err)
		}
	}
}

// Claim: whatever is in the log, a dead run has a summary, and never a better outcome than the log proves.
func FuzzDeadRun(f *testing.F) {
	s := openStore(f)
	r := die(f, s, idA)
	good, err := os.ReadFile(r.Path(EventsFile))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte("{}\n"))
	f.Add([]byte(`{"data":{"outcome":"success"},"kind":"run.finished","prev":"","run":"","seq":1,"time":"2026-01-01T00:00:00Z"}` + "\n"))
	f.Fuzz(func(t *testing.T, log []byte) {
		if err := os.WriteFile(r.Path(EventsFile), log, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := r.Summary()
		if err != nil {
			t.Fatal(err)
		}
		if got.Run != string(idA) || got.Outcome != event.Interrupted && got.Log.Head.Count == 0 {
			t.Fatalf("summary %+v", got)
		}
	})
}

const childEnv = "RUNS_TEST_CHILD_STORE"

// TestChild is the runner that TestKilledRunner kills.
func TestChild(t *testing.T) {
	path := os.Getenv(childEnv)
	if path == "" {
		t.Skip("only as a child of TestKilledRunner")
	}
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	rec := record(t, create(t, s, idA))
	for {
		rec.Emit(event.ProtectedTouched{Path: ".envrc", Tier: "warn"})
		os.Stdout.WriteString("x\n")
	}
}

// A real process is killed with events on the way: its run is alive until then, and afterwards
// dead at once, with a log that is good but for its last line.
func TestKilledRunner(t *testing.T) {
	for _, events := range []int{1, 7, 50, 400} {
		s := openStore(t)
		child := exec.Command(os.Args[0], "-test.run=^TestChild$")
		child.Env = append(os.Environ(), childEnv+"="+s.Path())
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for range events {
			if !lines.Scan() {
				t.Fatal("the child ended")
			}
		}
		r, err := s.Resolve("last")
		if err != nil {
			t.Fatal(err)
		}
		wantState(t, r, Running)
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = child.Wait()
		wantState(t, r, Interrupted)
		got, err := r.Recover()
		if err != nil || got.Log.State == event.LogDamaged || got.Log.Head.Count < uint64(events) {
			t.Errorf("after %d events: %+v, %v", events, got.Log, err)
		}
	}
}
