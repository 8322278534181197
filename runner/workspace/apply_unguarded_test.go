package workspace

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// The attacks of apply_attack_test.go once more, on an apply that lacks what stops them: if they failed there as well, their refusal would prove nothing.

// into is a way into a directory of the project.
type into func(at *os.Root, name string) (*os.Root, error)

// inside goes where os.Root does: through symlinks that stay in the project.
func inside(at *os.Root, name string) (*os.Root, error) { return at.OpenRoot(name) }

// anywhere goes where a path of the project leads.
func (c *applyCase) anywhere(_ *os.Root, name string) (*os.Root, error) {
	return os.OpenRoot(c.path(name))
}

// applyBy is Apply by another way into directories, and of a change set that nobody has checked.
func (c *applyCase) applyBy(t *testing.T, way into) error {
	t.Helper()
	tree, err := openTree(c.Target)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	tree.into = way
	a := &applier{cfg: c.ApplyConfig, cs: c.cs, tree: tree, blobs: c.cs.Blobs(c.RunDir), res: &ApplyResult{}, seen: map[string]fs.FileInfo{}}
	return a.run(t.Context())
}

// A directory that is swapped while it is applied to: without stepInto the file is written through a link that stays in the project, without
// os.Root either also through one that leaves it.
func TestApplyUnguardedFollowsASwap(t *testing.T) {
	for name, tt := range map[string]struct {
		way             func(*applyCase) into
		inside, outside bool // it is written there
	}{
		"both":          {func(*applyCase) into { return stepInto }, false, false},
		"os.Root alone": {func(*applyCase) into { return inside }, true, false},
		"neither":       {func(c *applyCase) into { return c.anywhere }, true, true},
	} {
		for _, stays := range []bool{true, false} {
			written := false
			for n := 0; ; n++ {
				through, more := swappedAt(t, n, stays, tt.way)
				written = written || through
				if !more {
					break
				}
			}
			if want := stays && tt.inside || !stays && tt.outside; written != want {
				t.Errorf("%s, a link that stays in the project %v: written through it %v, want %v", name, stays, written, want)
			}
		}
	}
}

// swappedAt swaps the directory of a new file at the n-th step, and tells whether the file came through the link, and whether there are more steps.
func swappedAt(t *testing.T, n int, stays bool, way func(*applyCase) into) (through, more bool) {
	t.Helper()
	before := treeState{"d": dirEntry(0o755), "decoy": dirEntry(0o755)}
	c := newApplyCase(t, before, treeState{"d": dirEntry(0o755), "decoy": dirEntry(0o755), "d/new": fileEntry("new", 0o644)})
	decoy := c.path("decoy")
	if !stays {
		decoy = t.TempDir()
	}
	target, err := filepath.Rel(c.Target, decoy)
	if err != nil {
		t.Fatal(err)
	}
	i := 0
	c.fault = func(string) error {
		if i++; i != n+1 {
			return nil
		}
		return errors.Join(os.Rename(c.path("d"), c.path("moved-away")), os.Symlink(target, c.path("d")))
	}
	_ = c.applyBy(t, way(c)) // whether it says so is the other tests' matter
	_, err = os.Lstat(filepath.Join(decoy, "new"))
	return err == nil, i > n
}

// Names that lead out of the project: a change set that nobody has checked is stopped by os.Root, whatever the way into directories. A plain
// path is not.
func TestApplyUnguardedTraverses(t *testing.T) {
	c := newApplyCase(t, treeState{}, treeState{"evil": fileEntry("x", 0o644)})
	c.Target = c.path("project")
	if err := os.Mkdir(c.Target, 0o755); err != nil {
		t.Fatal(err)
	}
	c.cs.Changes[0].Path = "../evil"
	if err := c.cs.check(); err == nil {
		t.Error("the name passes the check of a change set")
	}
	outside := filepath.Join(filepath.Dir(c.Target), "evil")
	for name, way := range map[string]into{"stepInto": stepInto, "os.Root alone": inside, "neither": c.anywhere} {
		err := c.applyBy(t, way)
		if _, there := os.Lstat(outside); err == nil || there == nil {
			t.Errorf("not checked, by %s: %v; written outside %v", name, err, there == nil)
		}
	}
	write(t, c.path(c.cs.Changes[0].Path), "x")
	if _, err := os.Lstat(outside); err != nil {
		t.Errorf("a path with that name: %v: the test proves nothing", err)
	}
}

// What is no file: whoever chose it all the same can't make it, as a change set has no number of a device.
func TestApplyUnguardedMakesNoDevice(t *testing.T) {
	c := newApplyCase(t, treeState{}, treeState{"node": {Node: Node{Type: Other, Mode: 0o666}}})
	tree, err := openTree(c.Target)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	a := &applier{cfg: c.ApplyConfig, cs: c.cs, tree: tree, blobs: c.cs.Blobs(c.RunDir), res: &ApplyResult{}, seen: map[string]fs.FileInfo{}}
	a.todo = []*Change{&c.cs.Changes[0]}
	if err := a.carryOut(t.Context()); err == nil || !strings.Contains(err.Error(), "never applied") {
		t.Errorf("chosen all the same: %v", err)
	}
	c.wantTree(t, treeState{})
}

// Special bits are in the change set, for people to see; a program that set the modes as they are there would hand out a setuid program.
func TestApplyUnguardedSetsSpecialBits(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no modes")
	}
	c := newApplyCase(t, treeState{}, treeState{"su": fileEntry("x", 0o755|fs.ModeSetuid)})
	c.AllowProtected = patterns(t, "su")
	c.mustApply(t)
	for _, asIs := range []bool{false, true} {
		if asIs {
			if err := os.Chmod(c.path("su"), c.cs.Find("su").New.Mode); err != nil {
				t.Fatal(err)
			}
		}
		info, err := os.Lstat(c.path("su"))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode()&fs.ModeSetuid != 0; got != asIs {
			t.Errorf("with the mode as it is in the change set %v: mode %v", asIs, info.Mode())
		}
	}
}
