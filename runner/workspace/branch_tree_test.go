package workspace

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// The property: the tree is the one that a branch with the same changes gets, and nothing is written but a scratch that is gone.
func TestResultTree(t *testing.T) {
	for _, format := range []string{"sha1", "sha256"} {
		for seed := range uint64(4) {
			before, after := randomTrees(t, 900+seed)
			r, cfg := branchCase(t, format, before, after)
			cs, err := Load(cfg.RunDir)
			if err != nil {
				t.Fatal(err)
			}
			objects := readTree(t, filepath.Join(r.dir, ".git"))
			got, err := ResultTree(t.Context(), cfg.RunDir, cs)
			if err != nil {
				t.Fatalf("%s, seed %d: %v", format, seed, err)
			}
			if len(readTree(t, filepath.Join(r.dir, ".git"))) != len(objects) {
				t.Errorf("%s, seed %d: the repository was written to", format, seed)
			}
			if left, err := os.ReadDir(cfg.RunDir); err != nil || len(left) != 2 { // the change set and its contents
				t.Errorf("%s, seed %d: left in the run directory: %v, %v", format, seed, left, err)
			}
			cfg.AllowProtected = patterns(t, "*")
			if _, err := CommitToBranch(t.Context(), cfg); err != nil {
				t.Fatalf("%s, seed %d: %v", format, seed, err)
			}
			if want := r.git(t, "rev-parse", cfg.Branch+"^{tree}"); got != want {
				t.Errorf("%s, seed %d: the tree %s, the branch has %s", format, seed, got, want)
			}
			r.wantQuiet(t)
		}
	}
}

func TestResultTreeOfNoCommit(t *testing.T) {
	if id, err := ResultTree(t.Context(), t.TempDir(), &ChangeSet{Base: t.TempDir()}); !errors.Is(err, ErrNoBase) {
		t.Errorf("%q, %v", id, err)
	}
}
