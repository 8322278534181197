package runs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/org/agent-sandbox/runner/event"
)

func TestLifeOfARun(t *testing.T) {
	s := openStore(t)
	r := create(t, s, idA)
	rec := record(t, r)
	wantState(t, r, Running)
	other, err := s.Resolve("last") // as another command sees it
	if err != nil {
		t.Fatal(err)
	}
	wantState(t, other, Running)
	if sum, err := other.Summary(); err != nil || !sum.Partial || sum.Outcome != "" || sum.Start == nil {
		t.Errorf("summary of a live run: %+v, %v", sum, err)
	}
	if err := other.Lock(); !errors.Is(err, ErrRunning) {
		t.Errorf("Lock of a live run: %v, want ErrRunning", err)
	}
	if _, err := other.Recover(); !errors.Is(err, ErrRunning) {
		t.Errorf("Recover of a live run: %v, want ErrRunning", err)
	}
	if err := other.Remove(); !errors.Is(err, ErrRunning) || !exists(t, r.Dir()) {
		t.Errorf("Remove of a live run: %v, want ErrRunning", err)
	}

	want := rec.Finish(event.RunFinished{Outcome: event.Failure, ExitCode: 3})
	if err := errors.Join(r.Finish(want), r.Close()); err != nil {
		t.Fatal(err)
	}
	wantState(t, other, Finished)
	got, err := other.Summary()
	if err != nil {
		t.Fatal(err)
	}
	log := got.Log
	got.Log = nil
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("result.json (-want +got):\n%s", diff)
	}
	f, err := other.Open(EventsFile)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	head, err := event.ReadChain(f, string(idA), func(event.Envelope) error { return nil })
	if err != nil || head != log.Head || log.State != event.LogComplete {
		t.Errorf("the log does not fit the result %+v: %v", log, err)
	}
}

func TestFinishNeedsTheLock(t *testing.T) {
	s := openStore(t)
	r := die(t, s, idA)
	if err := r.Finish(event.Summary{}); err == nil || exists(t, r.Path(ResultFile)) {
		t.Errorf("Finish without the lock: %v", err)
	}
}

func TestFilesArePrivate(t *testing.T) {
	s := openStore(t)
	r := create(t, s, idA)
	rec := record(t, r)
	for _, file := range []string{StdoutFile, StderrFile} {
		f, err := r.Append(file)
		if err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
		if _, err := r.Append(file); !errors.Is(err, fs.ErrExist) {
			t.Errorf("a second Append(%s): %v, want fs.ErrExist", file, err)
		}
	}
	if err := r.WriteJSON(PlanFile, 1); err != nil {
		t.Fatal(err)
	}
	if err := r.Finish(rec.Finish(event.RunFinished{})); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(r.Dir())
	if err != nil || len(entries) != 6 {
		t.Fatalf("%v, %v", entries, err)
	}
	for _, e := range entries {
		if info, _ := e.Info(); runtime.GOOS != "windows" && info.Mode() != 0o600 {
			t.Errorf("%s has mode %v, want 0600", e.Name(), info.Mode())
		}
	}
}

func TestWriteFileIsAtomic(t *testing.T) {
	s := openStore(t)
	r := create(t, s, idA)
	if err := r.WriteJSON(ChangesFile, "old"); err != nil {
		t.Fatal(err)
	}
	err := r.WriteFile(ChangesFile, func(w io.Writer) error {
		if _, err := io.WriteString(w, strings.Repeat("x", 1<<20)); err != nil {
			return err
		}
		return fmt.Errorf("in the middle: %w", syscall.ENOSPC)
	})
	if err == nil {
		t.Fatal("no error")
	}
	var got string
	if err := r.ReadJSON(ChangesFile, &got); err != nil || got != "old" {
		t.Errorf("after a failed write the file is %q, %v", got, err)
	}
	if rest, _ := filepath.Glob(filepath.Join(r.Dir(), tempPrefix+"*")); len(rest) > 0 {
		t.Errorf("left behind: %v", rest)
	}
	if err := r.WriteJSON(ChangesFile, "new"); err != nil {
		t.Fatal(err)
	}
	if err := r.ReadJSON(ChangesFile, &got); err != nil || got != "new" {
		t.Errorf("after a write the file is %q, %v", got, err)
	}
}

func TestWriteErrorNamesFileAndMend(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("errno values of unix")
	}
	for errno, want := range map[error]string{
		syscall.ENOSPC: "agent-sandbox discard",
		syscall.EDQUOT: "agent-sandbox discard",
		syscall.EROFS:  "XDG_STATE_HOME",
		syscall.EACCES: "XDG_STATE_HOME",
	} {
		err := writeError("/state/plan.json", &fs.PathError{Op: "openat", Path: "plan.json", Err: errno})
		if !strings.HasPrefix(err.Error(), "write /state/plan.json: ") || !strings.Contains(err.Error(), want) || !errors.Is(err, errno) {
			t.Errorf("%v: %q", errno, err)
		}
	}
	if err := writeError("x", nil); err != nil {
		t.Errorf("writeError of nil is %v", err)
	}
}

func TestReadErrors(t *testing.T) {
	s := openStore(t)
	r := create(t, s, idA)
	var v any
	if err := r.ReadJSON(PlanFile, &v); !errors.Is(err, ErrNotFound) {
		t.Errorf("a file that is not there: %v, want ErrNotFound", err)
	}
	if err := os.WriteFile(r.Path(PlanFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.ReadJSON(PlanFile, &v); err == nil || !strings.Contains(err.Error(), r.Path(PlanFile)) {
		t.Errorf("a broken file: %v, want an error that names it", err)
	}
}

func TestLinkOutOfARunIsNotFollowed(t *testing.T) {
	s := openStore(t)
	r := create(t, s, idA)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("1"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, r.Path(PlanFile)); err != nil {
		t.Skip(err)
	}
	var v any
	if err := r.ReadJSON(PlanFile, &v); err == nil {
		t.Error("ReadJSON followed a link out of the store")
	}
	if err := r.WriteJSON(PlanFile, 2); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(secret); string(b) != "1" {
		t.Errorf("the file outside is now %q", b)
	}
}
