package workspace

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// outsideCase is a change set that adds, edits and deletes in directories, and a directory elsewhere with files of the
// same names, which an attacker wants to be written.
func outsideCase(t *testing.T) (c *applyCase, outside string, want treeState) {
	t.Helper()
	before := treeState{"d": dirEntry(0o755), "d/edit": fileEntry("1", 0o644), "d/del": fileEntry("2", 0o644), "d/sub": dirEntry(0o755), "d/sub/edit": fileEntry("3", 0o644)}
	after := treeState{"d": dirEntry(0o755), "d/edit": fileEntry("one", 0o644), "d/new": fileEntry("n", 0o644), "d/sub": dirEntry(0o700), "d/sub/edit": fileEntry("three", 0o644), "d/sub/new": fileEntry("n", 0o644)}
	outside = t.TempDir()
	want = treeState{"edit": fileEntry("1", 0o644), "del": fileEntry("2", 0o644), "sub": dirEntry(0o755), "sub/edit": fileEntry("3", 0o644)}
	copyTree(t, want, outside)
	return newApplyCase(t, before, after), outside, want
}

// A directory that becomes a symlink at any moment of the apply: nothing is written through it, neither out of the
// project nor, where os.Root alone would follow it, to another place inside.
func TestApplyNeverFollowsASwappedDirectory(t *testing.T) {
	for _, inside := range []bool{false, true} {
		for _, victim := range []string{"d", "d/sub"} {
			for n := 0; swapAt(t, n, victim, inside); n++ {
			}
		}
	}
}

// swapAt swaps the victim at the n-th step. It reports whether the apply has that many.
func swapAt(t *testing.T, n int, victim string, inside bool) bool {
	t.Helper()
	c, decoy, want := outsideCase(t)
	if inside {
		decoy = c.path("decoy")
		if err := os.Mkdir(decoy, 0o755); err != nil {
			t.Fatal(err)
		}
		copyTree(t, want, decoy)
	}
	target, err := filepath.Rel(c.Target, filepath.Join(decoy, strings.TrimPrefix(victim, "d")))
	if err != nil {
		t.Fatal(err)
	}
	target = strings.Repeat("../", strings.Count(victim, "/")) + target
	i := 0
	c.fault = func(string) error {
		if i++; i != n+1 {
			return nil
		}
		return errors.Join(os.Rename(c.path(victim), c.path("moved-away")), os.Symlink(target, c.path(victim)))
	}
	_, err = c.apply(t)
	if d := cmp.Diff(readTree(t, decoy), want); d != "" {
		t.Fatalf("%s swapped at step %d (inside %v): written through the link (-got +want)\n%s", victim, n, inside, d)
	}
	if err == nil && n == 0 {
		t.Errorf("%s swapped before the first step, and no error", victim)
	}
	return i > n
}

// The same as a race: somebody swaps the directory as fast as he can.
func TestApplyRacesASwap(t *testing.T) {
	for round := range 30 {
		c, decoy, want := outsideCase(t)
		target := decoy
		if round%2 == 1 { // inside the project, where os.Root would follow
			decoy, target = c.path("decoy"), "decoy"
			if err := os.Mkdir(decoy, 0o755); err != nil {
				t.Fatal(err)
			}
			copyTree(t, want, decoy)
		}
		var wg sync.WaitGroup
		stop := make(chan struct{})
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_ = os.Rename(c.path("d"), c.path("real"))
					_ = os.Symlink(target, c.path("d"))
					_ = os.Remove(c.path("d"))
					_ = os.Rename(c.path("real"), c.path("d"))
				}
			}
		})
		_, err := c.apply(t)
		close(stop)
		wg.Wait()
		if d := cmp.Diff(readTree(t, decoy), want); d != "" {
			t.Fatalf("apply said %v; written through the link (-got +want)\n%s", err, d)
		}
	}
}

// A symlink inside the project is no way either: os.Root alone would follow it.
func TestApplyFollowsNoSymlinkInsideTheProject(t *testing.T) {
	c, _, _ := outsideCase(t)
	if err := errors.Join(os.Rename(c.path("d"), c.path("other")), os.Symlink("other", c.path("d"))); err != nil {
		t.Fatal(err)
	}
	host := readTree(t, c.Target)
	res, err := c.apply(t)
	if !errors.Is(err, ErrConflict) || len(res.Conflicts) == 0 {
		t.Errorf("err %v, result %+v", err, res)
	}
	c.wantTree(t, host)
}

// An edit on the host between the check and the replacement is found on what was displaced, and comes back.
func TestApplyKeepsAnEditDuringTheApply(t *testing.T) {
	for _, noSwap := range []bool{false, true} {
		for _, victim := range []string{"d/edit", "d/del", "d/new"} {
			c, _, _ := outsideCase(t)
			c.noSwap = noSwap
			c.fault = func(step string) error {
				if step == "staged" {
					return os.WriteFile(c.path(victim), []byte("the user's"), 0o644)
				}
				return nil
			}
			res, err := c.apply(t)
			if !errors.Is(err, ErrConflict) || len(res.Conflicts) != 1 || res.Conflicts[0].Path != victim || len(res.Applied) != 0 {
				t.Errorf("%s: err %v, result %+v", victim, err, res)
			}
			want := treeState{}
			for p, e := range c.before {
				want[p] = e
			}
			want[victim] = fileEntry("the user's", 0o644)
			c.wantTree(t, want)
		}
	}
}

// Names that no validated change set can hold are refused before anything is done.
func TestApplyRefusesTraversal(t *testing.T) {
	for _, evil := range []string{"../evil", "/etc/evil", "a/../../evil", "a//b", "./evil", "a/.", "nul\x00", ""} {
		c := newApplyCase(t, treeState{}, treeState{"evil": fileEntry("x", 0o644)})
		data, err := os.ReadFile(filepath.Join(c.RunDir, ChangesFile))
		if err != nil {
			t.Fatal(err)
		}
		c.cs.Changes[0].Path = evil
		if err := c.cs.Save(c.RunDir); err == nil {
			t.Errorf("saved %q", evil)
		}
		quoted := strings.ReplaceAll(evil, "\x00", `\u0000`)
		write(t, filepath.Join(c.RunDir, ChangesFile), strings.Replace(string(data), `"path":"evil"`, `"path":"`+quoted+`"`, 1))
		if _, err := c.apply(t); err == nil {
			t.Errorf("applied %q", evil)
		}
		c.wantTree(t, treeState{})
	}
}

// A symlink that the agent makes is put there as a link; a file below it, in the same set, is not written through it.
func TestApplyWritesNothingThroughItsOwnSymlink(t *testing.T) {
	outside := t.TempDir()
	c := newApplyCase(t, treeState{}, treeState{"l": linkEntry(outside), "l/evil": fileEntry("x", 0o644)})
	c.AllowProtected = patterns(t, "*")
	if res, err := c.apply(t); err == nil {
		t.Errorf("result %+v", res)
	}
	c.wantTree(t, treeState{})
	if got := readTree(t, outside); len(got) != 0 {
		t.Errorf("outside: %q", got.paths())
	}
}

// Two applies at once: one waits for nobody, it says so.
func TestApplyIsAlone(t *testing.T) {
	c, _, _ := outsideCase(t)
	c.fault = func(step string) error {
		if step != "staged" {
			return nil
		}
		other := c.ApplyConfig
		other.fault = nil
		if _, err := Apply(t.Context(), other); !errors.Is(err, errBusy) {
			t.Errorf("second apply: %v", err)
		}
		return nil
	}
	c.mustApply(t)
	c.wantTree(t, c.after)
}

// A file system that ignores case has one file where the change set has two.
func TestApplyNamesACaseCollision(t *testing.T) {
	c := newApplyCase(t, treeState{}, treeState{"readme": fileEntry("x", 0o644)})
	tree, err := openTree(c.Target)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	a := &applier{cfg: c.ApplyConfig, tree: tree}
	// As on such a file system: "readme" is there, but the directory lists another name.
	write(t, c.path("README"), "")
	err = a.inTheWay(&c.cs.Changes[0], &Node{Type: File})
	if err == nil || !strings.Contains(err.Error(), "collides") {
		t.Errorf("err %v", err)
	}
}
