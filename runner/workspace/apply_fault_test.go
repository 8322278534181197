package workspace

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/org/agent-sandbox/policy"
)

// faultTrees has one change of each sort.
func faultTrees() (before, after treeState) {
	before = treeState{
		"edit": fileEntry("1\n", 0o644), "mode": fileEntry("m\n", 0o644), "del": fileEntry("d\n", 0o644), "dir": dirEntry(0o755), "dir/sub": dirEntry(0o755),
		"dir/sub/f": fileEntry("f\n", 0o644), "mv": fileEntry("content\n", 0o644), "link": linkEntry("edit"), "todir": fileEntry("x\n", 0o644), "tofile": dirEntry(0o755),
		"tofile/a": fileEntry("a\n", 0o644), "closed": dirEntry(0o555), "untouched": fileEntry("u\n", 0o644),
	}
	after = treeState{
		"edit": fileEntry("one\n", 0o644), "mode": fileEntry("m\n", 0o755), "new": dirEntry(0o750), "new/deep": dirEntry(0o755), "new/deep/f": fileEntry("n\n", 0o600),
		"moved": fileEntry("content\n", 0o644), "link": linkEntry("new"), "todir": dirEntry(0o755), "todir/in": fileEntry("i\n", 0o644), "tofile": fileEntry("t\n", 0o644),
		"closed": dirEntry(0o755), "closed/g": fileEntry("g\n", 0o644), "untouched": fileEntry("u\n", 0o644), "empty": dirEntry(0o755), "shut": dirEntry(0o555), "shut/h": fileEntry("h\n", 0o644),
	}
	return before, after
}

// stamps are the times and identities of the files of a tree: putting back means the very same files.
func stamps(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			out[p] = fmt.Sprint(idOf(info))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// faultPoints counts the steps of an apply.
func faultPoints(t testing.TB) []string {
	t.Helper()
	var points []string
	before, after := faultTrees()
	c := newApplyCase(t, before, after)
	c.fault = func(step string) error {
		points = append(points, step)
		return nil
	}
	c.mustApply(t)
	c.wantTree(t, after)
	return points
}

// An error at any step puts everything back: content, modes, and the very same files.
func TestApplyRollsBackOnError(t *testing.T) {
	for n, point := range faultPoints(t) {
		if point == "committed" {
			continue
		}
		before, after := faultTrees()
		c := newApplyCase(t, before, after)
		want, i, boom := stamps(t, c.Target), 0, errors.New("boom")
		c.fault = func(string) error {
			if i++; i == n+1 {
				return boom
			}
			return nil
		}
		if res, err := c.apply(t); !errors.Is(err, boom) || len(res.Applied) != 0 {
			t.Fatalf("at %q: err %v, result %+v", point, err, res)
		}
		c.wantUntouched(t, want)
		c.fault = nil
		c.mustApply(t)
		c.wantTree(t, after)
		if t.Failed() {
			t.Fatalf("after an error at %q", point)
		}
	}
}

func (c *applyCase) wantUntouched(t testing.TB, stampsBefore map[string]string) {
	t.Helper()
	c.wantTree(t, c.before)
	if d := cmp.Diff(stamps(t, c.Target), stampsBefore); d != "" {
		t.Errorf("other files than before (-got +want)\n%s", d)
	}
	if _, err := os.Lstat(journalPath(c.RunDir)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the journal is still there (%v)", err)
	}
}

const (
	killAtEnv  = "WORKSPACE_TEST_KILL_AT"
	killDirEnv = "WORKSPACE_TEST_KILL_DIR"
)

// TestApplyChild is the process that the next test kills.
func TestApplyChild(t *testing.T) {
	at, err := strconv.Atoi(os.Getenv(killAtEnv))
	if err != nil {
		t.Skip("runs in a child of TestApplySurvivesKill alone")
	}
	dir := os.Getenv(killDirEnv)
	cfg := ApplyConfig{RunDir: filepath.Join(dir, "run"), Target: filepath.Join(dir, "project"), Protected: policy.Workspace{}.Protector().Tier}
	i := 0
	cfg.fault = func(string) error {
		if i++; i != at {
			return nil
		}
		self, err := os.FindProcess(os.Getpid())
		return errors.Join(err, self.Kill())
	}
	_, err = Apply(t.Context(), cfg)
	t.Errorf("survived: %v", err)
}

// A process killed (SIGKILL) at any step leaves what Recover puts back, or tidies up once all was done.
func TestApplySurvivesKill(t *testing.T) {
	points := faultPoints(t)
	for n, point := range points {
		before, after := faultTrees()
		dir := t.TempDir()
		removable(t, dir)
		c := &applyCase{before: before, after: after}
		c.RunDir, c.Target, c.Protected = filepath.Join(dir, "run"), filepath.Join(dir, "project"), policy.Workspace{}.Protector().Tier
		if err := errors.Join(os.Mkdir(c.RunDir, 0o700), os.Mkdir(c.Target, 0o755)); err != nil {
			t.Fatal(err)
		}
		copyTree(t, before, c.Target)
		c.cs = changesBetween(t, c.RunDir, before, after)
		c.save(t)
		want := stamps(t, c.Target)
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestApplyChild$")
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", killAtEnv, n+1), killDirEnv+"="+dir)
		if out, err := cmd.CombinedOutput(); err == nil || strings.Contains(string(out), "survived") {
			t.Fatalf("at %q: the child was not killed: %v\n%s", point, err, out)
		}
		if err := Discard(c.RunDir); err == nil {
			t.Fatalf("at %q: discard took the blobs of an interrupted apply", point)
		}
		r, err := Recover(c.RunDir)
		if err != nil || r == nil || r.RolledBack == (point == "committed") {
			t.Fatalf("at %q: recovered %+v, %v", point, r, err)
		}
		if r.RolledBack {
			c.wantUntouched(t, want)
		} else {
			c.wantTree(t, after)
		}
		if r, err := Recover(c.RunDir); r != nil || err != nil {
			t.Errorf("at %q: recovered twice: %+v, %v", point, r, err)
		}
		if t.Failed() {
			t.Fatalf("after a kill at %q", point)
		}
	}
}

// The same with the death simulated, on random trees, and with the next Apply instead of Recover.
func TestApplyGoesOnAfterDeath(t *testing.T) {
	for seed := range uint64(12) {
		for n := 1; ; n += 7 {
			c, i := randomCase(t, 100+seed, 15), 0
			c.fault = func(string) error {
				if i++; i == n {
					return errDied
				}
				return nil
			}
			_, err := c.apply(t)
			if err == nil {
				break
			}
			if !errors.Is(err, errDied) {
				t.Fatal(err)
			}
			c.fault = nil
			res, err := c.apply(t)
			if err != nil || res.Recovered == nil {
				t.Fatalf("seed %d, step %d: %v, %+v", seed, n, err, res)
			}
			c.wantTree(t, c.after)
			if t.Failed() {
				t.Fatalf("seed %d, step %d", seed, n)
			}
		}
	}
}

// A rollback may be interrupted as well.
func TestRollBackTwice(t *testing.T) {
	before, after := faultTrees()
	points := faultPoints(t)
	for undo := range len(points) {
		c := newApplyCase(t, before, after)
		want := stamps(t, c.Target)
		c.fault = func(step string) error {
			if step == "all done" {
				return errDied
			}
			return nil
		}
		if _, err := c.apply(t); !errors.Is(err, errDied) {
			t.Fatal(err)
		}
		undoSome(t, c, undo)
		if _, err := Recover(c.RunDir); err != nil {
			t.Fatalf("after %d undone steps: %v", undo, err)
		}
		c.wantUntouched(t, want)
		if t.Failed() {
			t.Fatalf("after %d undone steps", undo)
		}
	}
}

func undoSome(t *testing.T, c *applyCase, n int) {
	t.Helper()
	j, err := loadJournal(c.RunDir)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := openTree(c.Target)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	u := &undoer{tree: tree, journal: j, runDir: c.RunDir}
	for i := range slices.Backward(j.Steps) {
		if len(j.Steps)-i > n {
			return
		}
		if _, err := u.undo(&j.Steps[i]); err != nil {
			t.Fatal(err)
		}
	}
}

// What the user does between the death and the recovery is not undone, and what it replaced is kept.
func TestRecoverLeavesWhatChangedSince(t *testing.T) {
	c := newApplyCase(t, treeState{"f": fileEntry("original", 0o644), "g": fileEntry("g", 0o644)}, treeState{"f": fileEntry("agent", 0o644), "g": fileEntry("G", 0o644)})
	c.fault = func(step string) error {
		if step == "all done" {
			return errDied
		}
		return nil
	}
	if _, err := c.apply(t); !errors.Is(err, errDied) {
		t.Fatal(err)
	}
	write(t, c.path("f"), "the user's newer text")
	_, err := Recover(c.RunDir)
	if err == nil || !strings.Contains(err.Error(), "f: changed since") {
		t.Fatalf("err %v", err)
	}
	got := readTree(t, c.Target)
	if got["f"].Content != "the user's newer text" || got["g"].Content != "g" {
		t.Errorf("host: %+v", got)
	}
	kept := false
	for p, e := range got {
		kept = kept || (strings.HasPrefix(p, stagePrefix) && e.Content == "original")
	}
	if !kept {
		t.Errorf("the original is gone: %q", got.paths())
	}
}

// Without a swap (other systems, some file systems) every step must be safe too.
func TestApplyWithoutSwap(t *testing.T) {
	before, after := faultTrees()
	for n := 0; ; n++ {
		c := newApplyCase(t, before, after)
		want, i := stamps(t, c.Target), 0
		c.noSwap = true
		c.fault = func(string) error {
			if i++; i == n+1 {
				return errDied
			}
			return nil
		}
		if _, err := c.apply(t); err == nil {
			c.wantTree(t, after)
			return
		}
		r, err := Recover(c.RunDir)
		if err != nil {
			t.Fatalf("step %d: %v", n, err)
		}
		if r.RolledBack {
			c.wantUntouched(t, want)
		}
		if t.Failed() {
			t.Fatalf("step %d", n)
		}
	}
}

// Where the journal could not even be written (a full disk), there is nothing to put back and nothing to say about it.
func TestRollBackWithoutAJournal(t *testing.T) {
	c := newApplyCase(t, treeState{}, treeState{})
	tree, err := openTree(c.Target)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	u := &undoer{tree: tree, journal: &journal{Stage: newStageName()}, runDir: c.RunDir}
	if n, err := u.rollBack(); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}
