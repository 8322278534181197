package runner

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/engine"
	"github.com/org/agent-sandbox/runner/event"
	"github.com/org/agent-sandbox/runner/runs"
	"github.com/org/agent-sandbox/runner/workspace"
	"github.com/org/agent-sandbox/runner/workspace/ovl"
)

// noXattrs stands for the attributes that only root could have set.
type noXattrs struct{}

func (noXattrs) Xattrs(context.Context, string) (map[string]ovl.Attrs, error) { return nil, nil }

// dying is a run whose agent has worked, and whose runner may die at any time.
func dying(t *testing.T) *run {
	t.Helper()
	project := t.TempDir()
	layOut(t, filepath.Join(project, "a"), "old")
	p := policy.Default()
	p.Credentials = []policy.Credential{{Name: "it"}}
	watched, err := policy.ParsePattern("special")
	if err != nil {
		t.Fatal(err)
	}
	p.Workspace.Protect.Reject = []policy.Pattern{watched}
	r, _ := newRun(t, Config{Project: project, Policy: p})
	r.view, err = workspace.Prepare(t.Context(), workspace.Config{
		Project: project, StateDir: r.dir.Dir(), Mode: policy.ModeOverlay, UID: os.Geteuid(), GID: os.Getegid(), Hide: policy.NewPatternSet(nil),
		Engine: workspace.Engine{Local: true, SharesPIDs: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.view.Hide(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.engine = connectFake(t, &fakeEngine{})
	if err := r.saveRecovery(); err != nil {
		t.Fatal(err)
	}
	r.began, r.attrs = true, noXattrs{}
	for name, content := range map[string]string{"a": "new", "b": "made", "special": "s", ".git/hooks/pre-commit": "evil"} {
		layOut(t, filepath.Join(r.view.Upper(), name), content)
	}
	return r
}

func layOut(t *testing.T, name, content string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(content), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func connectFake(t *testing.T, f *fakeEngine) *engine.Engine {
	t.Helper()
	e, err := engine.Connect(t.Context(), serveEngine(t, f))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return e
}

// recoverDead is what another process does with it.
func recoverDead(t *testing.T, r *run, e *engine.Engine) (event.Summary, error) {
	t.Helper()
	if err := r.dir.Close(); err != nil {
		t.Fatal(err)
	}
	dir, err := r.cfg.Store.Resolve(r.id)
	if err != nil {
		t.Fatal(err)
	}
	return Recover(t.Context(), RecoverConfig{Version: "test", Dir: dir, Engine: e, attrs: noXattrs{}})
}

// wantRecovered fails unless the run has all of its changes, marked as they have to be, and nothing else any more.
func wantRecovered(t *testing.T, r *run, s event.Summary, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if s.Outcome != event.Interrupted || s.Recovered == nil || s.Recovered.Version != "test" || s.Manifest == nil {
		t.Errorf("recorded as %s, recovered %+v, manifest %+v", s.Outcome, s.Recovered, s.Manifest)
	}
	if c := s.Changes; c == nil || c.Added != 2 || c.Modified != 1 || c.Git == 0 || c.Digest == "" || c.Patch == "" || s.Counts.Protected < 2 {
		t.Errorf("changes %+v, %d protected", c, s.Counts.Protected)
	}
	if len(s.Warnings) != 1 || !strings.Contains(s.Warnings[0].Message, "credentials") {
		t.Errorf("warnings %+v", s.Warnings)
	}
	cs, err := workspace.Load(r.dir.Dir())
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]workspace.Tier{"a": workspace.NoTier, "special": workspace.Reject, ".git/hooks/pre-commit": workspace.Reject} {
		if c := cs.Find(path); c == nil || c.Tier != want {
			t.Errorf("%s: %+v, want the tier %q", path, c, want)
		}
	}
	for _, name := range []string{"upper", "work", runs.RecoveryFile} {
		if _, err := os.Lstat(r.dir.Path(name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v, want it gone", name, err)
		}
	}
}

// TestRecover: what the agent of a dead runner made is read as the runner would have, after the sandbox has gone.
func TestRecover(t *testing.T) {
	r := dying(t)
	f := &fakeEngine{containers: map[string]string{"box": r.id, "other": watchedRun}}
	s, err := recoverDead(t, r, connectFake(t, f))
	wantRecovered(t, r, s, err)
	if len(f.removed) != 1 || f.removed[0] != "box" {
		t.Errorf("removed %q from the engine, want the run's container", f.removed)
	}
}

// TestRecoverOnTheWay: the runner died after it had taken the files, or after it had saved the list of the changes.
func TestRecoverOnTheWay(t *testing.T) {
	for name, until := range map[string]func(*run, *workspace.ChangeSet) error{
		"extracted": func(*run, *workspace.ChangeSet) error { return nil },
		"saved": func(r *run, cs *workspace.ChangeSet) error {
			return errors.Join(workspace.Gate{Protected: r.tier, Project: r.cfg.Project}.Classify(cs), cs.Save(r.dir.Dir()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := dying(t)
			cs, err := r.view.Extract(t.Context(), workspace.Sources{Xattrs: noXattrs{}, Keep: true})
			if err != nil {
				t.Fatal(err)
			}
			if err := until(r, cs); err != nil {
				t.Fatal(err)
			}
			s, err := recoverDead(t, r, r.engine)
			wantRecovered(t, r, s, err)
		})
	}
}

// TestRecoverRefuses: where nobody can tell that the agent has ended, or there is nothing to compare with, all stays.
func TestRecoverRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		engine     func(*run) *engine.Engine
		spoil      func(*run) error
	}{
		{"no engine", "start the engine", func(*run) *engine.Engine { return nil }, nil},
		{"another engine", "DOCKER_HOST", nil, func(r *run) error {
			k, err := readRecovery(r.dir)
			k.Engine = "another"
			return errors.Join(err, r.dir.WriteJSON(runs.RecoveryFile, k))
		}},
		{"the project is gone", "the files that the agent wrote stay in", nil, func(r *run) error { return os.RemoveAll(r.cfg.Project) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := dying(t)
			e := r.engine
			if tt.engine != nil {
				e = tt.engine(r)
			}
			if tt.spoil != nil {
				if err := tt.spoil(r); err != nil {
					t.Fatal(err)
				}
			}
			s, err := recoverDead(t, r, e)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q in it", err, tt.want)
			}
			if s.Outcome != event.Interrupted || s.Recovered != nil || s.Changes != nil {
				t.Errorf("recorded as %s, recovered %+v", s.Outcome, s.Recovered)
			}
			if b, err := os.ReadFile(r.dir.Path("upper/b")); string(b) != "made" || !Unread(r.dir) {
				t.Errorf("the agent's file: %q, %v", b, err)
			}
		})
	}
}

// TestRecoverCopy: what went with the container is said to have.
func TestRecoverCopy(t *testing.T) {
	r := dying(t)
	k, err := readRecovery(r.dir)
	k.View.Mode = policy.ModeCopy
	if err := errors.Join(err, r.dir.WriteJSON(runs.RecoveryFile, k)); err != nil {
		t.Fatal(err)
	}
	s, err := recoverDead(t, r, r.engine)
	if err != nil || s.Changes != nil || len(s.Warnings) != 1 || !strings.Contains(s.Warnings[0].Message, "a copy in its container") || Unread(r.dir) {
		t.Errorf("%v, changes %+v, warnings %+v", err, s.Changes, s.Warnings)
	}
}

// TestNoRoomForChanges: what can't be saved is given back and told of, and read by the same command as a dead run's.
func TestNoRoomForChanges(t *testing.T) {
	r := dying(t)
	inTheWay := r.dir.Path(workspace.ChangesFile)
	layOut(t, filepath.Join(inTheWay, "x"), "") // the list can't be put in its place
	cs, err := r.view.Extract(t.Context(), workspace.Sources{Xattrs: noXattrs{}, Keep: true})
	if err := r.keep(t.Context(), cs, err); err == nil {
		t.Fatal("it was saved")
	}
	if err := r.discardView(t.Context()); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(r.dir.Path("upper/b")); string(b) != "made" || !Unread(r.dir) {
		t.Fatalf("the agent's file: %q, %v", b, err)
	}
	if w := r.rec.Summary().Warnings; len(w) != 1 || !strings.Contains(w[0].Mend, "doctor --clean") {
		t.Errorf("warnings %+v", w)
	}
	text := r.full(t.Context(), &os.PathError{Op: "write", Path: inTheWay, Err: syscall.ENOSPC}, cs).Error()
	for _, must := range []string{r.dir.Dir(), "KiB are free there", "free some space", "doctor --clean", "XDG_STATE_HOME", r.view.Upper()} {
		if !strings.Contains(text, must) {
			t.Errorf("the error has no %q: %s", must, text)
		}
	}
	if err := os.RemoveAll(inTheWay); err != nil {
		t.Fatal(err)
	}
	s, err := recoverDead(t, r, r.engine)
	wantRecovered(t, r, s, err)
}

// TestRecoveryEnds: an end of its own leaves nothing to recover.
func TestRecoveryEnds(t *testing.T) {
	r := dying(t)
	cs, err := r.view.Extract(t.Context(), workspace.Sources{Xattrs: noXattrs{}, Keep: true})
	if err := errors.Join(r.keep(t.Context(), cs, err), r.discardView(t.Context())); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(r.dir.Path("upper")); !errors.Is(err, fs.ErrNotExist) || Unread(r.dir) {
		t.Errorf("upper: %v, unread %v", err, Unread(r.dir))
	}
}
