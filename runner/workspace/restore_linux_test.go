package workspace

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/org/agent-sandbox/policy"
)

// restored is the view as another process has it, which knows no more than what was saved.
func restored(t *testing.T, v *View) *View {
	t.Helper()
	b, err := json.Marshal(v.Saved())
	if err != nil {
		t.Fatal(err)
	}
	var s Saved
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	again, err := Restore(s, v.cfg.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Reopen(); err != nil {
		t.Fatal(err)
	}
	return again
}

// agentsWork is a view with one change of each kind, whose modes stand in the way of being read twice.
func agentsWork(t *testing.T) *View {
	t.Helper()
	v := overlayOf(t, Config{Hide: matcherOf(t, ".env")}, []string{"a=1", "gone=g", "mode=m", "moved=mm", "open/x=1", ".env=secret"}, []string{
		"a=2", "gone!", "mode=m", "moved!", "renamed=mm", "open/y=2", "closed/z=3", "setuid=4", "unread=5",
	})
	for p, mode := range map[string]os.FileMode{"mode": 0o600, "open": 0o711, "closed": 0o100, "setuid": 0o755 | os.ModeSetuid, "unread": 0} {
		if err := os.Chmod(filepath.Join(v.upper(), p), mode); err != nil {
			t.Fatal(err)
		}
	}
	return v
}

// An extraction whose change set could not be saved, for which there may have been no room, is made once more by another process,
// and finds the same; so does that of a process that died in the middle of its own.
func TestPreserve(t *testing.T) {
	want, err := agentsWork(t).Extract(t.Context(), Sources{Xattrs: fakeXattrs{}})
	if err != nil {
		t.Fatal(err)
	}
	for name, give := range map[string]func(*View) error{
		"taken back": (*View).Preserve,
		"died":       func(v *View) error { v.taken = &taken{modes: v.taken.modes}; return v.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			v := agentsWork(t)
			first, err := v.Extract(t.Context(), Sources{Xattrs: fakeXattrs{}, Keep: true})
			if err != nil {
				t.Fatal(err)
			}
			if err := give(v); err != nil {
				t.Fatal(err)
			}
			if name == "died" && os.Geteuid() != 0 {
				t.Skip("what a runner that isn't root has opened up stays open when it dies")
			}
			again := restored(t, v)
			cs, err := again.Extract(t.Context(), Sources{Xattrs: fakeXattrs{}})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(first.Changes, cs.Changes); diff != "" {
				t.Errorf("the second time (-first +second):\n%s", diff)
			}
			if diff := cmp.Diff(describe(want), describe(cs)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if got := readBlob(t, cs.Blobs(v.cfg.StateDir), cs.Find("closed/z").New.SHA256); got != "3" {
				t.Errorf("closed/z: %q", got)
			}
			if info, err := os.Stat(filepath.Join(v.cfg.StateDir, upperBlobs, "setuid")); err != nil || info.Mode()&os.ModeSetuid != 0 {
				t.Errorf("setuid: %v, %v", info, err)
			}
		})
	}
}

// Until the change set is saved nothing of the agent's is removed; a process that finds it saved disarms what it is about.
func TestSettleOfTheDead(t *testing.T) {
	v := agentsWork(t)
	cs, err := v.Extract(t.Context(), Sources{Xattrs: fakeXattrs{}, Keep: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"mode", "setuid"} {
		if _, err := os.Stat(filepath.Join(v.cfg.StateDir, upperBlobs, p)); err != nil {
			t.Errorf("before the change set is saved: %v", err)
		}
	}
	again, err := Restore(v.Saved(), v.cfg.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Settle(cs); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(v.cfg.StateDir, upperBlobs, "setuid")); err != nil || info.Mode()&os.ModeSetuid != 0 {
		t.Errorf("setuid: %v, %v", info, err)
	}
}

func TestRestoreRefuses(t *testing.T) {
	v := agentsWork(t)
	for name, spoil := range map[string]func(*Saved){
		"no project": func(s *Saved) { s.Project = []byte(filepath.Join(t.TempDir(), "none")) },
		"not sorted": func(s *Saved) { s.Hidden = [][]byte{[]byte("b"), []byte("a")} },
		"a copy":     func(s *Saved) { s.Mode = policy.ModeCopy },
	} {
		s := v.Saved()
		spoil(&s)
		if _, err := Restore(s, v.cfg.StateDir); err == nil || errors.Is(err, ErrNotKept) != (name == "a copy") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
